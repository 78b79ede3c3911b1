"""SCoRe on GSM8K with Gemma 3 270M.

    python -m score_jax.main --config=configs/gsm8k_gemma3_270m.py --workdir=runs/gsm8k_gemma3_270m

    --config.model.source=FOLDER     a folder with the weights; default: the hub (extra `hub`)
    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS

Weights: Gemma 3 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: Cobbe et al. 2021, MIT.

Memory, estimated, not measured: 268 million parameters at 22 bytes each (float32 weights, gradients
and Adam's two moments, the float32 reference, a bfloat16 copy for decoding) are 6 GB; 64 rows of
cache add 2 GB and a micro-batch's activations a few more. One accelerator with 16 GB.
config.memory.micro_batches and config.rollout.slots trade memory for time.

The learning rate is the highest of those that gsm8k.py names. All other settings are those of
gsm8k.py. Expected result: not measured.
"""

from configs import gsm8k


def get_config():
    """The experiment."""
    return gsm8k.get_config("google/gemma-3-270m-it", learning_rate=5e-6)
