"""SCoRe on MATH with Gemma 2 9B: math_gemma2_2b.py beside this file with a larger model.

    python -m score_jax.main --config=configs/math_gemma2_9b.py --workdir=runs/math_gemma2_9b

    --config.problems.path=FOLDER    published train.jsonl and test.jsonl; empty: TFDS
    --config.model.source=FOLDER     weights on disk in place of the hub (extra `hub`)

Weights: Gemma 2 by Google, under the Gemma Terms of Use, to be accepted on the hub. Problems:
Hendrycks et al. 2021, MIT.

PLANNED
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "google/gemma-2-9b-it"
    config.rollout.slots = 8
    return config
