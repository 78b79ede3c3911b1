"""SCoRe on GSM8K with SmolLM2-135M-Instruct, a small real model on real problems.

    python -m score_jax.main --config=configs/gsm8k_smollm2_135m.py --workdir=runs/gsm8k \\
        --config.model.source=SmolLM2-135M-Instruct.Q4_1.gguf --config.problems.path=data/gsm8k

`model.source` is a GGUF file, a folder with config.json and safetensors, or a hub id (with the
`hub` extra). `problems.path` is a folder with the published train.jsonl and test.jsonl; empty reads
TFDS. Weights: SmolLM2 by Hugging Face, Apache-2.0. Problems: Cobbe et al. 2021, MIT.

The paper's coefficients for MATH (table 8); its steps, batch and learning rate are for Gemini and
3,000 steps, and are scaled down here. One GPU or TPU core with 16 GB holds it. Steps, lengths and
batch for a trial on a CPU:

    --config.rollout.problems_per_step=2 --config.rollout.max_attempt_tokens=32 \\
    --config.stages.stage1.steps=3 --config.stages.stage2.steps=3 --config.evaluation.problems=4

Expected result: not measured at full length yet. A model this small rarely solves a GSM8K problem,
so the reward is sparse; this config shows that the code trains a published model, no more.
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
            model=ModelSettings("HuggingFaceTB/SmolLM2-135M-Instruct"),
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
