"""SCoRe on MATH with Gemma 2 9B: math_gemma2_2b.py with a larger model.

    python -m score_jax.main --config=configs/math_gemma2_9b.py --workdir=runs/math_gemma2_9b

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS
    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)

Weights: Gemma 2 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: Hendrycks et al. 2021, MIT.

Hardware: planned for a v5p-32 (16 chips), not run.

    python -m score_jax.main --config=configs/math_gemma2_9b.py --mode=plan --topology=v5p:2x2x4

printed (GiB on each chip, of 95.74): weights 2.15, optimizer 4.31, reference 2.15, code 1.17; the
rollout 17.21 of decode weights, 8.86 of cache and 8.43 of other temporaries, 47.58 in all (50 %);
the update 15.62 of temporaries, 25.41 in all (27 %). On each chip an update sends 894 GB, most of
it as permutations of weights during their use. A step of full rows takes at least 105.4 s: 82.9 s
of rollout, 22.5 s of update. Expected result: not measured.
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "google/gemma-2-9b-it"
    config.mesh.fsdp, config.mesh.tensor = 16, 1
    config.rollout.slots = 8
    return config
