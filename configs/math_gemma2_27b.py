"""SCoRe on MATH with Gemma 2 27B: math_gemma2_2b.py with a larger model, split over pairs of chips.

    python -m score_jax.main --config=configs/math_gemma2_27b.py --workdir=runs/math_gemma2_27b

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS
    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)

Weights: Gemma 2 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: Hendrycks et al. 2021, MIT.

Hardware: planned for a v5p-64 (32 chips), not run.

    python -m score_jax.main --config=configs/math_gemma2_27b.py --mode=plan --topology=v5p-64

printed (GiB on each chip, of 95.74): weights 3.17, optimizer 6.35, reference 3.17, code 1.25; the
rollout 9.71 of cache and 29.27 of other temporaries, 52.92 in all (55 %); the update 20.63 of
temporaries, 34.58 in all (36 %). On each chip an update sends 1,597 GB, plus more in each iteration
of its loop over the vocabulary. A step of full rows takes at least 88.6 s: 55.8 s of rollout, 32.8
s of update. On a v5p-128 (64 chips) the rollout takes 58 % of a chip, the update 30 %, and a step
at least 44.3 s. With mesh.tensor=1 each chip would decode with 50.7 GiB of weights. Expected
result: not measured.
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "google/gemma-2-27b-it"
    config.mesh.fsdp = 16
    return config
