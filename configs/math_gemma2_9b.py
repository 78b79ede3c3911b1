"""SCoRe on MATH with Gemma 2 9B: math_gemma2_2b.py beside this file with a larger model.

    python -m score_jax.main --config=configs/math_gemma2_9b.py --workdir=runs/math_gemma2_9b

    --config.problems.path=FOLDER    published train.jsonl and test.jsonl; empty: TFDS
    --config.model.source=FOLDER     weights on disk in place of the hub (extra `hub`)

Weights: Gemma 2 by Google, under the Gemma Terms of Use, to be accepted on the hub. Problems:
Hendrycks et al. 2021, MIT.

Hardware: planned for a v5p-32 (16 chips), not run.

    python -m score_jax.main --config=configs/math_gemma2_9b.py --mode=plan --topology=v5p:2x2x4

with --config.rollout.slots=16 printed (GiB on each chip, of 95.74): weights 2.15, optimizer 4.31,
reference 2.15, the stage's first weights 2.15, code 0.94; the rollout 17.72 of cache and 64.67 of
other temporaries, 94.11 in all (98 %); the update 23.05 of temporaries, 34.76 in all (36 %). That
rollout has too little to spare, as it copies the cache; 8 slots, as set here, halve cache and
copies, which leaves about 67 GiB (70 %) by arithmetic, not compiled. On each chip an update gathers
192.95 GiB and sends 1,281 GB, most of it as permutations of weights while they are used. A step of
full rows takes at least 78 s with 16 slots: 55.6 s of rollout, 22.8 s of update. Expected result:
not measured.
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "google/gemma-2-9b-it"
    config.rollout.slots = 8
    return config
