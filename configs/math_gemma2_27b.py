"""SCoRe on MATH with Gemma 2 27B: math_gemma2_2b.py with a larger model, split over pairs of chips.

    python -m score_jax.main --config=configs/math_gemma2_27b.py --workdir=runs/math_gemma2_27b

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS
    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)

Weights: Gemma 2 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: Hendrycks et al. 2021, MIT.

Hardware: planned by arithmetic for a v5p-64 (32 chips) and a v5p-128, neither compiled nor run.

    python -m score_jax.main --config=configs/math_gemma2_27b.py --mode=plan --device=v5p-64

printed (GiB on each chip, of 95.74): weights 3.17, optimizer 6.35, reference 3.17; the rollout
25.36 of weights to decode with and 9.71 of cache, 54.3 in all (57 %); the update 31.5 (33 %). A
step of full rows takes at least 89 s without communication: 56 s of rollout, 33 s of update. With
mesh.tensor=1 each chip would decode with 50.7 GiB of weights. Expected result: not measured.
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "google/gemma-2-27b-it"
    config.mesh.fsdp = 16
    return config
