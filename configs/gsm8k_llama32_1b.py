"""SCoRe on GSM8K with Llama 3.2 1B.

    python -m score_jax.main --config=configs/gsm8k_llama32_1b.py --workdir=runs/gsm8k_llama32_1b

    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)
    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS

Weights: Llama 3.2 by Meta, under the Llama 3.2 Community License, which you must accept on the hub.
Problems: Cobbe et al. 2021, MIT.

Memory, estimated, not measured: 1.24 billion parameters at 22 bytes each (float32 weights,
gradients and Adam's two moments, the float32 reference, a bfloat16 copy for decoding) are 27 GB; 64
rows of cache add 3 GB and a micro-batch's activations a few more. One accelerator with 40 GB, or
several: --config.mesh.fsdp=N splits the weights. config.memory.micro_batches and
config.rollout.slots trade memory for time.

All other settings are those of gsm8k.py. Expected result: not measured.
"""

from configs import gsm8k


def get_config():
    """The experiment."""
    return gsm8k.get_config("meta-llama/Llama-3.2-1B-Instruct")
