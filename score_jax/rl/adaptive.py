"""An adaptive KL coefficient: it grows while the KL is above its target, and shrinks below.

The paper says that beta_2 "can" be adapted and gives no rule. This is the proportional controller
of Ziegler et al. 2019, arXiv 1909.08593, section 2.2, in log space: the coefficient changes by at
most a fifth of GAIN per step, so that one noisy batch changes little.
"""

import math

GAIN = 0.1  # of the relative error, per step
CLIP = 0.2  # on the relative error
LEAST, MOST = 1e-4, 1e2  # bounds, so that the coefficient can return after a drift


def next_coefficient(coefficient: float, kl: float, target: float) -> float:
    """The coefficient of the next step, after a step with a KL of `kl` (nats per attempt).

    kl may be negative: it is an estimate from samples.
    """
    error = min(max(kl / target - 1.0, -CLIP), CLIP)
    return min(max(coefficient * math.exp(GAIN * error), LEAST), MOST)
