"""SCoRe on last-digit sums: the whole method in minutes on two CPU cores.

    python -m score_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

A two-layer model is first taught a corpus in which second answers are copies of first ones
(stage `base`), and then learns, from its own samples and a checker, to read its own working and
correct itself. `data/arithmetic.py` describes the task and what was built into it.

Other recipes under the same budget of samples and updates:

    --config=configs/quickstart.py:multi_turn_rl    both attempts rewarded, no bonus, no Stage I
    --config=configs/quickstart.py:single_turn_rl   only first attempts sampled and rewarded
"""

from score_jax.config import (
    CheckpointSettings,
    EvaluationSettings,
    ModelSettings,
    OptimizerSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    StageSettings,
    to_config_dict,
)

STAGE1_STEPS, STAGE2_STEPS = 300, 100
LEARNING_RATE = 3e-4

BASE = StageSettings(
    objective="sft",
    steps=1250,
    learning_rate=3e-3,
    schedule="cosine",
    warmup_steps=100,
    final_fraction=0.05,
    documents_per_step=128,
    baseline="none",
    kl_attempt1=0.0,
    kl_attempt2=0.0,
    normalizer="token",
)
STAGE1 = StageSettings(
    steps=STAGE1_STEPS,
    learning_rate=LEARNING_RATE,
    reward_attempt1=0.0,
    kl_attempt1=0.1,  # beta_2: holds the first attempt to the base
    kl_attempt2=0.01,  # beta_1
)
STAGE2 = StageSettings(
    steps=STAGE2_STEPS,
    learning_rate=LEARNING_RATE,
    schedule="linear",
    final_fraction=0.1,
    bonus=10.0,  # alpha
    kl_attempt1=0.01,
    kl_attempt2=0.01,
)
MULTI_TURN = StageSettings(
    steps=STAGE1_STEPS + STAGE2_STEPS,
    learning_rate=LEARNING_RATE,
    schedule="linear",
    final_fraction=0.1,
)
SINGLE_TURN = StageSettings(
    steps=STAGE1_STEPS + STAGE2_STEPS,
    learning_rate=LEARNING_RATE,
    schedule="linear",
    final_fraction=0.1,
    attempts=1,
)

RECIPES = {
    "score": {"base": BASE, "stage1": STAGE1, "stage2": STAGE2},
    "multi_turn_rl": {"base": BASE, "multi_turn_rl": MULTI_TURN},
    "single_turn_rl": {"base": BASE, "single_turn_rl": SINGLE_TURN},
}


def get_config(recipe: str = "score"):
    """The experiment; `recipe` is what follows the colon of --config=…:RECIPE."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe '{recipe}'; known: {', '.join(RECIPES)}")
    return to_config_dict(
        Settings(
            seed=0,
            model=ModelSettings("preset:quickstart", tokenizer="characters", template="plain"),
            problems=ProblemSettings(name="arithmetic", prompt="arithmetic"),
            recipe=tuple(RECIPES[recipe]),
            stages=RECIPES[recipe],
            rollout=RolloutSettings(
                problems_per_step=64,
                samples_per_problem=4,
                max_prompt_tokens=10,
                max_attempt_tokens=7,
                turn_rows=256,  # attempts have one length: all rows turn around together
            ),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(problems=2048, batch=512),
            checkpoint=CheckpointSettings(every=250, keep=2),
        )
    )
