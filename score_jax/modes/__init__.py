"""One file or folder for each --mode but train: evaluate, scale, export, try, plan."""
