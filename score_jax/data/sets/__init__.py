"""One file a problem set: what its rows hold, as Problems."""
