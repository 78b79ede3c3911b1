"""A KL coefficient that follows its KL: up while the policy is too far away, down while too near.

The paper says that beta_2 "can" be adapted and gives no rule. This one is the proportional
controller of Ziegler et al. 2019, arXiv 1909.08593, section 2.2, in log space: the coefficient
changes by at most a fifth of GAIN a step, so that one noisy batch does little.
"""

import math

GAIN = 0.1  # of the relative error, per step
CLIP = 0.2  # on the relative error
LEAST, MOST = 1e-4, 1e2  # a coefficient that has run off comes back in finite time


def next_coefficient(coefficient: float, kl: float, target: float) -> float:
    """The coefficient of the next step, after one in which the KL was `kl` (nats per attempt).

    kl may be negative: it is an estimate from samples.
    """
    error = min(max(kl / target - 1.0, -CLIP), CLIP)
    return min(max(coefficient * math.exp(GAIN * error), LEAST), MOST)
