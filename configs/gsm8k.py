"""SCoRe on GSM8K with any model; the other gsm8k_*.py use these settings.

    python -m score_jax.main --config=configs/gsm8k.py:SOURCE --workdir=runs/gsm8k

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS

The coefficients are the paper's for MATH (table 8). Its steps, batch and learning rate are for
Gemini and 3,000 steps; they are scaled down here. Memory: 22 bytes per parameter (float32 weights,
gradients and Adam's two moments, the float32 reference, a bfloat16 copy to decode with), the cache
of 64 rows, and a micro-batch's activations. Problems: Cobbe et al. 2021, MIT. Expected result: not
measured.
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


def get_config(source: str = "HuggingFaceTB/SmolLM2-135M-Instruct", dtype: str = "bfloat16"):
    """The experiment with a model: a hub id, a folder, a .gguf file, or a run of score_jax."""
    return to_config_dict(
        Settings(
            seed=0,
            model=ModelSettings(source, dtype=dtype),
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
