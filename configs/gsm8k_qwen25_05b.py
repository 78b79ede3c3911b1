"""SCoRe on GSM8K with Qwen2.5-0.5B-Instruct.

    python -m score_jax.main --config=configs/gsm8k_qwen25_05b.py --workdir=runs/gsm8k_qwen25_05b

    --config.model.source=FOLDER     weights on disk in place of the hub (extra `hub`)
    --config.problems.path=FOLDER    published train.jsonl and test.jsonl; empty: TFDS

Weights: Qwen2.5 by Alibaba Cloud, Apache-2.0. Problems: Cobbe et al. 2021, MIT.

Memory, reckoned and not measured: 494 million parameters at 22 bytes each (float32 weights,
gradients and Adam's two moments, the float32 reference, a bfloat16 copy to decode with) are 11 GB;
64 rows of cache add 1 GB and a micro-batch's activations a few more. One accelerator with 24 GB.
config.memory.micro_batches and config.rollout.slots trade memory for time.

The paper's coefficients for MATH (table 8); its steps, batch and learning rate are for Gemini and
3,000 steps, and are scaled down here. Expected result: not measured.
"""

from score_jax.config import (
    CheckpointSettings,
    EvaluationSettings,
    MemorySettings,
    ModelSettings,
    OptimizerSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    StageSettings,
    to_config_dict,
)


def get_config():
    """The experiment."""
    return to_config_dict(
        Settings(
            seed=0,
            model=ModelSettings("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16"),
            problems=ProblemSettings("gsm8k", prompt="gsm8k"),
            recipe=("stage1", "stage2"),
            stages={
                "stage1": StageSettings(
                    steps=200,
                    learning_rate=5e-6,
                    warmup_steps=10,
                    reward_attempt1=0.0,
                    kl_attempt1=0.1,  # beta_2
                    kl_attempt2=0.01,  # beta_1
                ),
                "stage2": StageSettings(
                    steps=200,
                    learning_rate=5e-6,
                    warmup_steps=10,
                    bonus=10.0,  # alpha
                    kl_attempt1=0.01,
                    kl_attempt2=0.01,
                ),
            },
            rollout=RolloutSettings(
                problems_per_step=32,
                samples_per_problem=4,
                max_prompt_tokens=384,
                max_attempt_tokens=256,
                slots=64,
            ),
            memory=MemorySettings(micro_batches=8, remat="full"),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(problems=500, batch=32),
            checkpoint=CheckpointSettings(every=50, keep=2),
        )
    )
