"""SCoRe on GSM8K with Qwen3-0.6B.

    python -m score_jax.main --config=configs/gsm8k_qwen3_06b.py --workdir=runs/gsm8k_qwen3_06b

    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)
    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS

Weights: Qwen3 by Alibaba Cloud, Apache-2.0. Problems: Cobbe et al. 2021, MIT.

Memory, estimated, not measured: 596 million parameters at 22 bytes each (float32 weights, gradients
and Adam's two moments, the float32 reference, a bfloat16 copy for decoding) are 13 GB; 64 rows of
cache add 11 GB and a micro-batch's activations a few more. One accelerator with 40 GB.
config.memory.micro_batches and config.rollout.slots trade memory for time.

All other settings are those of gsm8k.py. Expected result: not measured.
"""

from configs import gsm8k


def get_config():
    """The experiment."""
    return gsm8k.get_config("Qwen/Qwen3-0.6B")
