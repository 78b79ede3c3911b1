"""SCoRe on MATH with Llama 3.1 8B: math_gemma2_2b.py with a Llama model.

    python -m score_jax.main --config=configs/math_llama31_8b.py --workdir=runs/math_llama31_8b

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS
    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)

Weights: Llama 3.1 by Meta, under the Llama 3.1 Community License, which you must accept on the hub.
Problems: Hendrycks et al. 2021, MIT.

Hardware: planned for a v5p-32 (16 chips), not run.

    python -m score_jax.main --config=configs/math_llama31_8b.py --mode=plan --topology=v5p:2x2x4

printed (GiB on each chip, of 95.74): weights 1.87, optimizer 3.74, reference 1.87, code 0.87; the
rollout 14.96 of decode weights, 13.50 of cache and 4.15 of other temporaries, 42.22 in all (44 %);
the update 13.74 of temporaries, 22.10 in all (23 %). On each chip an update sends 749 GB, most of
it as permutations of weights during their use. A step of full rows takes at least 41.1 s: 22.6 s of
rollout, 18.5 s of update. Expected result: not measured.
"""

from configs import math_gemma2_2b


def get_config():
    """The experiment."""
    config = math_gemma2_2b.get_config()
    config.model.source = "meta-llama/Llama-3.1-8B-Instruct"
    config.mesh.fsdp, config.mesh.tensor = 16, 1
    config.rollout.slots = 32
    return config
