"""pilot"""

from dataclasses import replace

from score_jax.config import (
    CheckpointSettings,
    EvaluationSettings,
    LoraSettings,
    MemorySettings,
    ModelSettings,
    OptimizerSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
    StageSettings,
    to_config_dict,
)

STAGE1_STEPS, STAGE2_STEPS = 40, 20

BASE = StageSettings(
    objective="sft",
    steps=240,
    learning_rate=2e-3,
    schedule="linear",
    warmup_steps=10,
    final_fraction=0.1,
    documents_per_step=16,
    baseline="none",
    kl_attempt1=0.0,
    kl_attempt2=0.0,
    normalizer="token",
)
STAGE1 = StageSettings(
    steps=STAGE1_STEPS,
    learning_rate=3e-4,
    reward_attempt1=0.0,
    kl_attempt1=0.1,
    kl_attempt2=0.01,
)
STAGE2 = StageSettings(
    steps=STAGE2_STEPS,
    learning_rate=3e-4,
    schedule="linear",
    final_fraction=0.1,
    bonus=10.0,
    kl_attempt1=0.01,
    kl_attempt2=0.01,
)
MULTI_TURN = replace(STAGE2, steps=STAGE1_STEPS + STAGE2_STEPS, bonus=0.0)
RECIPES = {
    "base": {"base": BASE},
    "score": {"base": BASE, "stage1": STAGE1, "stage2": STAGE2},
    "multi_turn_rl": {"base": BASE, "multi_turn_rl": MULTI_TURN},
}


def get_config(recipe: str = "score"):
    """The experiment; `recipe` is the part after the colon of --config=…:RECIPE."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe '{recipe}'; known: {', '.join(RECIPES)}")
    return to_config_dict(
        Settings(
            name=recipe,
            seed=0,
            model=ModelSettings(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                template="plain",
                lora=LoraSettings(rank=16, alpha=32.0),
            ),
            problems=ProblemSettings(
                name="running_total",
                prompt="running_total",
                test=SourceSettings(split="test"),
            ),
            recipe=tuple(RECIPES[recipe]),
            stages=RECIPES[recipe],
            rollout=RolloutSettings(
                problems_per_step=16,
                samples_per_problem=4,
                max_prompt_tokens=8,
                max_attempt_tokens=6,
            ),
            memory=MemorySettings(micro_batches=1, remat="none", widths=2),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(problems=512, batch=128),
            checkpoint=CheckpointSettings(every=20, keep=1),
        )
    )
