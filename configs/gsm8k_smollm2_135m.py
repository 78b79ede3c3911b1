"""SCoRe on GSM8K with SmolLM2-135M-Instruct, a small real model on real problems.

    python -m score_jax.main --config=configs/gsm8k_smollm2_135m.py --workdir=runs/gsm8k \\
        --config.model.source=SmolLM2-135M-Instruct.Q4_1.gguf --config.problems.path=data/gsm8k

`model.source` is a GGUF file, a folder with config.json and safetensors, or a hub id (with the
`hub` extra). `problems.path` is a folder with the published train.jsonl and test.jsonl; empty:
TFDS.

Weights: SmolLM2 by Hugging Face, Apache-2.0. Problems: Cobbe et al. 2021, MIT.

Memory, estimated, not measured: 135 million parameters at 24 bytes each (all in float32) are 3 GB;
64 rows of cache add 5 GB and a micro-batch's activations a few more. One accelerator with 16 GB.
The learning rate is the highest of those that gsm8k.py names, for the smallest model. All other
settings are those of gsm8k.py. Steps, lengths and batch for a test on a CPU:

    --config.rollout.problems_per_step=2 --config.rollout.max_attempt_tokens=32 \\
    --config.stages.stage1.steps=3 --config.stages.stage2.steps=3 --config.evaluation.problems=4

What the loaded weights do, on two CPU cores (RESULTS.md, "Real weights"): the first command with
--mode=evaluate --workdir=runs/smollm2 --config.evaluation.problems=200
--config.evaluation.batch=64 --config.rollout.shrink=4. Measured, with Q4_1 weights in 20 minutes:
0.5 [0.1, 2.8] → 1.0 [0.3, 3.6] per cent right, 23.5 truncated.

Expected result: not measured at full length yet. A model this small rarely solves a GSM8K problem,
so rewards are sparse. This config only shows that the code trains a published model.
"""

from configs import gsm8k


def get_config():
    """The experiment."""
    return gsm8k.get_config("HuggingFaceTB/SmolLM2-135M-Instruct", "float32", learning_rate=5e-6)
