"""The method's arithmetic, on arrays alone: shaping, advantages, KL, loss, sampling policy."""
