"""SCoRe on programs with Qwen2.5-Coder-0.5B-Instruct on one GPU: the paper's second benchmark.

    bash launch/one_gpu.sh OUT \\
        --config=configs/mbpp_qwen25_coder_05b.py --workdir=runs/mbpp_score \\
        --config.model.source=FOLDER --config.problems.path=MBPP \\
        --config.problems.tests.humaneval.path=HUMANEVAL --config.problems.tests.mbpp.path=MBPP

trains, and leaves in OUT what is carried to other machines; on a machine of your own

    python -m score_jax.main --config=configs/mbpp_qwen25_coder_05b.py --workdir=runs/mbpp_score

with the same further arguments does so without the archive. FOLDER is a Hugging Face folder, a
.gguf or a hub id; MBPP holds mbpp.jsonl, HUMANEVAL HumanEval.jsonl.gz; empty: TFDS. Recipes, of 30
updates on 128 episodes each (`--config=configs/mbpp_qwen25_coder_05b.py:RECIPE`):

    score           Stage I (15 steps), Stage II (15)
    multi_turn_rl   both attempts rewarded, no bonus, no Stage I
    single_turn_rl  first attempts alone; evaluated with both
    weights         score, but its test sets are HumanEval and MBPP's test split: for what the
                    loaded weights do, with --mode=evaluate

Trained on the 374 tasks of MBPP's train split. The main test set is its validation split (90 tasks,
ids 511 to 600): choose settings there, by DIR/evaluations/STAGE.json. The other two are for the
result: HumanEval (all 164) and the first 164 of MBPP's test split, of which some later ones have
prompts of up to 3,770 tokens. alpha and both betas are the paper's (table 8); rate, steps, lengths
and LoRA are our own.

Time, by arithmetic, for an H200 with 16 CPU cores (4.8 TB/s; 24 layers of some 15 kernels of 5 us
make a decode step take about 3 ms, whatever its rows; the weights are read in 0.2 ms):

    rollout   2 x 512 tokens and the instruction: at most 1,060 decode steps       3.2 s
    grade     256 programs at 0.2 s of a core, 16 at a time                        3.2 s
    update    128 rows of 1,530 tokens, at most 195,840; 494 million parameters at 2 FLOPs in
              5 passes (policy forward, recomputed and backward; the KL's two): 1e15 FLOPs,
              at a third of 990 TFLOP/s                                            2.9 s
    a step                                                                         9.3 s at most

Attempts are shorter on average, so about 6 s: 30 steps take 180 s. An evaluation of 418 tasks takes
15 s (each of the three sets at once, 3.2 s of decoding; 836 programs in 10 s beside it), three take
45 s. Compiling about 90 s, loading 10 s: 325 s of 360. A run that is stopped by a signal saves, and
the same command resumes. The first checkpoint to carry is that after Stage I.

Memory: weights in bfloat16 1 GB, adapters with Adam's moments 0.03 GB; the cache has 12.3 kB a
token, so 128 rows of 1,849 columns take 2.9 GB and the 256 rows of an evaluation 5.8 GB; a
micro-batch of 16 rows takes about 3 GB. A card of 24 GB holds it. With a fifth of the bandwidth and
of the FLOP/s it needs about 12 s for an update; the rest of a step does not depend on the card.

Carried: adapters of rank 4 on all matrices, 2.2 million parameters, 8.8 MB in float32. A checkpoint
holds them three times, 26.4 MB; the two of a complete run are under 60 MB with all else.

Programs: the sandbox of rewards/ runs them if namespaces or Landlock work there. If nothing
isolates programs, the run is refused. On a machine that holds nothing else and is thrown away, add
--config.rewards.allow_unsandboxed=True: then they run with the rights of the user, and every
evaluation says so ("sandbox": "none").

To install there: Python 3.11 or later with `pip install -e .` and `pip install "jax[cuda12]"` in
the range of requirements.txt, and the `hub` extra if weights are fetched. No compiler is needed.

What the loaded weights do, both attempts, on two CPU cores (RESULTS.md, "Real weights"), and
whether transformers would have written the same:

    python -m score_jax.main --mode=evaluate --config=configs/mbpp_qwen25_coder_05b.py:weights \\
        --workdir=runs/qwen_coder --config.model.source=FILE.gguf --config.model.dtype=float32 \\
        --config.problems.path=MBPP --config.problems.test.path=HUMANEVAL \\
        --config.problems.tests.mbpp.path=MBPP \\
        --config.evaluation.batch=64 --config.rollout.shrink=4
    python -m tests.model.agreement runs/qwen_coder 40 --config=… (and the same settings)

Measured with Q4_K_M weights, in 96 minutes beside other programs: HumanEval 57.3 [49.7, 64.6] →
57.3, MBPP's first 164 test tasks 34.8 [27.9, 42.3] → 33.5; 7 and 17 % of second attempts differ
from the first. In 40 episodes all 17,189 tokens are the likeliest of transformers 5.24. So the
model repeats its answer when it is asked again: that is what Stage I has to break.

Weights: Qwen2.5-Coder by Alibaba Cloud, Apache-2.0. Problems: MBPP, Austin et al. 2021, CC-BY 4.0;
HumanEval, Chen et al. 2021, MIT. Expected result: not measured: needs a GPU. Published greedy
pass@1 of the model: HumanEval 61.6 (Qwen2.5-Coder technical report).
"""

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

STAGE1_STEPS, STAGE2_STEPS = 15, 15
STEPS = STAGE1_STEPS + STAGE2_STEPS

STAGE1 = StageSettings(
    steps=STAGE1_STEPS,
    learning_rate=5e-5,  # of adapters; 2e-5 to 1e-4 has worked for models of 1.5B
    warmup_steps=2,
    reward_attempt1=0.0,
    kl_attempt1=0.25,  # beta_2, table 8
    kl_attempt2=0.01,  # beta_1, table 8
)
STAGE2 = StageSettings(
    steps=STAGE2_STEPS,
    learning_rate=5e-5,
    warmup_steps=2,
    bonus=10.0,  # alpha, table 8
    kl_attempt1=0.01,
    kl_attempt2=0.01,
)
MULTI_TURN = replace(STAGE2, steps=STEPS, bonus=0.0)

RECIPES = {
    "score": {"stage1": STAGE1, "stage2": STAGE2},
    "multi_turn_rl": {"multi_turn_rl": MULTI_TURN},
    "single_turn_rl": {"single_turn_rl": replace(MULTI_TURN, attempts=1)},
    "weights": {"stage1": STAGE1, "stage2": STAGE2},
}
HUMANEVAL = SourceSettings("humaneval", prompt="humaneval_chat")
MBPP_TEST = SourceSettings("mbpp", prompt="mbpp_chat")


def get_config(recipe: str = "score"):
    """The experiment; `recipe` is the part after the colon of --config=…:RECIPE."""
    if recipe not in RECIPES:
        raise ValueError(f"unknown recipe '{recipe}'; known: {', '.join(RECIPES)}")
    return to_config_dict(
        Settings(
            name=recipe,
            seed=0,
            model=ModelSettings(
                "Qwen/Qwen2.5-Coder-0.5B-Instruct",
                dtype="bfloat16",
                lora=LoraSettings(rank=4, alpha=8.0),
            ),
            problems=ProblemSettings(
                "mbpp",
                prompt="mbpp_chat",
                test=HUMANEVAL if recipe == "weights" else SourceSettings(split="validation"),
                tests={"mbpp": MBPP_TEST}
                if recipe == "weights"
                else {"humaneval": HUMANEVAL, "mbpp": MBPP_TEST},
            ),
            recipe=tuple(RECIPES[recipe]),
            stages=RECIPES[recipe],
            rollout=RolloutSettings(
                problems_per_step=32,
                samples_per_problem=4,
                max_prompt_tokens=768,  # longest: train 436, validation 749, HumanEval 458
                max_attempt_tokens=512,  # with 320, a quarter of HumanEval's answers are truncated
                temperature=1.0,  # table 8
                shrink=0,  # a decode step takes as long with few rows
            ),
            memory=MemorySettings(micro_batches=8, remat="full", widths=4),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(problems=164, batch=256),
            checkpoint=CheckpointSettings(every=5, keep=1),
        )
    )
