"""SCoRe on MATH with Llama 3.1 8B: math_gemma2_2b.py beside this file with a Llama model.

    python -m score_jax.main --config=configs/math_llama31_8b.py --workdir=runs/math_llama31_8b

    --config.problems.path=FOLDER    published train.jsonl and test.jsonl; empty: TFDS
    --config.model.source=FOLDER     weights on disk in place of the hub (extra `hub`)

Weights: Llama 3.1 by Meta, under the Llama 3.1 Community License, to be accepted on the hub.
Problems: Hendrycks et al. 2021, MIT.

PLANNED
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "meta-llama/Llama-3.1-8B-Instruct"
    config.rollout.slots = 32
    return config
