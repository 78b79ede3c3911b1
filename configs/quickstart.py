"""SCoRe on last-digit sums: the whole method in minutes on two CPU cores.

    python -m score_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

Stage `base` trains a two-layer model on a corpus in which second answers copy the first ones. The
RL stages then teach it, with its own samples and a checker, to read its own working and correct
itself. `score_jax/data/sets/arithmetic.py` describes the task and how it was designed.

Other recipes are `--config=configs/quickstart.py:RECIPE`. All but the last three rows have the
budget of `score`: 400 updates on 256 episodes or documents each, 400 x 256 sampled episodes, and
the same base model for each seed. single_turn_rl samples one attempt, the others two.

    score           Stage I (300 steps), Stage II (100)
    multi_turn_rl   400 steps, both attempts rewarded, no bonus, no Stage I
    single_turn_rl  400 steps on first attempts alone; evaluated with both
    no_stage1       Stage II for 400 steps, from the base model
    no_shaping      Stage I, then Stage II without the bonus
    offline_only    Stage I, then Stage II with first attempts by the base model only
    star_stage2     Stage I, then STaR (both_right) instead of Stage II, from Stage I's policy
    star            STaR, three iterations, each from the base model; wrong-to-right episodes
    star_plus       the same with right-to-right episodes too (D+ of the paper)
    pair_sft        Pair-SFT on the base model's attempts: wrong-to-right pairs
    pair_sft_plus   the same with right-to-right pairs too
    interleaved     Stage I and II in two rounds of half the steps (version 1 of the paper)
    base            the base model alone
    selective       as score; second attempts begin with a verdict and may then stop
    three_attempts  Stage I(a), I(b) and II with three attempts: 400 steps, of three attempts
"""

from dataclasses import replace

from score_jax.config import (
    CheckpointSettings,
    CollectSettings,
    EvaluationSettings,
    ModelSettings,
    OptimizerSettings,
    ProblemSettings,
    RolloutSettings,
    ScalingSettings,
    Settings,
    StageSettings,
    to_config_dict,
)

STAGE1_STEPS, STAGE2_STEPS = 300, 100
VERDICT = 0.5  # reward of a true verdict; a right answer's is 1
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
    kl_attempt1=0.1,  # beta_2: keeps the first attempt close to the base model
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
STEPS = STAGE1_STEPS + STAGE2_STEPS
MULTI_TURN = replace(STAGE2, steps=STEPS, bonus=0.0)


def sft(steps: int, filter: str, both_right: bool) -> StageSettings:
    """SFT on documents by the previous stage's policy, with as many rollouts as updates."""
    return replace(
        MULTI_TURN,
        objective="sft",
        steps=steps,
        collect=CollectSettings(filter, steps, both_right=both_right),
        baseline="none",
        kl_attempt1=0.0,
        kl_attempt2=0.0,
        normalizer="token",
    )


def star(both_right: bool) -> dict[str, StageSettings]:
    """Each iteration samples from the previous one's policy and starts from the base model."""
    rounds = {
        f"star{i}": replace(sft(steps, "star", both_right), start="base")
        for i, steps in enumerate((133, 133, 134), start=1)
    }
    return {"base": BASE, **rounds}


def interleaved() -> dict[str, StageSettings]:
    """Two rounds of both stages; the second Stage I starts from the first Stage II."""
    rounds = {}
    for i in (1, 2):
        rounds[f"stage1_{i}"] = replace(STAGE1, steps=STAGE1_STEPS // 2)
        rounds[f"stage2_{i}"] = replace(STAGE2, steps=STAGE2_STEPS // 2)
    return {"base": BASE, **rounds}


RECIPES = {
    "score": {"base": BASE, "stage1": STAGE1, "stage2": STAGE2},
    "multi_turn_rl": {"base": BASE, "multi_turn_rl": MULTI_TURN},
    "single_turn_rl": {"base": BASE, "single_turn_rl": replace(MULTI_TURN, attempts=1)},
    "no_stage1": {"base": BASE, "stage2": replace(STAGE2, steps=STEPS)},
    "no_shaping": {"base": BASE, "stage1": STAGE1, "stage2": replace(STAGE2, bonus=0.0)},
    "offline_only": {
        "base": BASE,
        "stage1": STAGE1,
        "stage2": replace(STAGE2, offline_share=1.0),
    },
    "star_stage2": {
        "base": BASE,
        "stage1": STAGE1,
        "star": sft(STAGE2_STEPS, "star", both_right=True),
    },
    "star": star(both_right=False),
    "star_plus": star(both_right=True),
    "pair_sft": {"base": BASE, "pair_sft": sft(STEPS, "pair", both_right=False)},
    "pair_sft_plus": {"base": BASE, "pair_sft": sft(STEPS, "pair", both_right=True)},
    "interleaved": interleaved(),
    "base": {"base": BASE},
    "selective": {
        "base": BASE,
        "stage1": replace(STAGE1, verdict=VERDICT),
        "stage2": replace(STAGE2, verdict=VERDICT),
    },
    "three_attempts": {
        "base": BASE,
        "stage1a": replace(STAGE1, steps=STAGE1_STEPS // 2, attempts=2),
        "stage1b": replace(STAGE1, steps=STAGE1_STEPS // 2, early_attempts=2, reference="stage1a"),
        "stage2": STAGE2,
    },
}


def get_config(recipe: str = "score"):
    """The experiment; `recipe` is the part after the colon of --config=…:RECIPE."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe '{recipe}'; known: {', '.join(RECIPES)}")
    prompt = "arithmetic_selective" if recipe == "selective" else "arithmetic"
    return to_config_dict(
        Settings(
            name=recipe,
            seed=0,
            model=ModelSettings("preset:quickstart", tokenizer="characters", template="plain"),
            problems=ProblemSettings(name="arithmetic", prompt=prompt),
            recipe=tuple(RECIPES[recipe]),
            stages=RECIPES[recipe],
            rollout=RolloutSettings(
                problems_per_step=64,
                samples_per_problem=4,
                max_prompt_tokens=10,
                max_attempt_tokens=8 if recipe == "selective" else 7,  # a verdict, then 7
                attempts=3 if recipe == "three_attempts" else 2,
                turn_rows=256,  # attempts have one length, so all rows end them together
            ),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(
                # With as many rows at a time as a curve's point has, one program decodes both.
                problems=2048,
                batch=256,
                every=50,
                every_problems=256,
                every_except=("base",),
            ),
            scaling=ScalingSettings(solutions=64, batch=512),
            checkpoint=CheckpointSettings(every=250, keep=2),
        )
    )
