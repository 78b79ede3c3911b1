"""SCoRe on programs with Gemma 2 9B: trained on MBPP, tested on HumanEval, as in the paper.

    python -m score_jax.main --config=configs/mbpp_gemma2_9b.py --workdir=runs/mbpp_gemma2_9b

    --config.problems.path=FOLDER               a folder with mbpp.jsonl; default: TFDS
    --config.problems.test.path=FOLDER          a folder with HumanEval.jsonl.gz; default: TFDS
    --config.problems.split=train+validation    464 problems in place of 374
    --config.model.source=FOLDER                a folder with the weights; default: the hub

Learning rate, steps, batch, temperature, alpha and both betas are those of the paper's table 8 for
MBPP, which is for Gemini 1.0 Pro. It leaves some choices open: here 1,500 steps are 750 in each
stage, and a batch of 128 is 32 problems x 4 samples. All other settings are our own. The prompt of
MBPP has three worked examples and the tests; that of HumanEval is its signature and docstring. Both
have the same instruction. Programs run in the sandbox of rewards/.

To evaluate a checkpoint on the repair of wrong programs, a substitute for the paper's MBPP-R
(data/repair/); attempt 1 of this evaluation is the repair:

    python -m score_jax.data.repair.attempts mutated MBPP_FOLDER --split=test --out=repair.jsonl
    python -m score_jax.main --config=configs/mbpp_gemma2_9b.py --workdir=runs/mbpp_gemma2_9b \\
        --mode=evaluate --config.problems.test.name=mbpp_repair \\
        --config.problems.test.path=repair.jsonl --config.problems.test.prompt=mbpp

Weights: Gemma 2 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: MBPP, Austin et al. 2021, CC-BY 4.0; HumanEval, Chen et al. 2021, MIT.

Hardware: planned for a v5p-32 (16 chips), not run.

    python -m score_jax.main --config=configs/mbpp_gemma2_9b.py --mode=plan --topology=v5p:2x2x4

printed (GiB on each chip, of 95.74): weights 2.15, optimizer 4.31, reference 2.15, code 0.97; the
rollout 17.21 of decode weights, 7.43 of cache and 7.32 of other temporaries, 42.70 in all (45 %);
the update 14.71 of temporaries, 24.29 in all (25 %). On each chip an update sends 223 GB, most of
it as permutations of weights during their use. A step of full rows takes at least 14.4 s: 9.8 s of
rollout, 4.6 s of update. Expected result: not measured.
"""

from score_jax.config import (
    CheckpointSettings,
    EvaluationSettings,
    MemorySettings,
    MeshSettings,
    ModelSettings,
    OptimizerSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
    StageSettings,
    to_config_dict,
)

LEARNING_RATE = 1e-5  # table 8


def get_config():
    """The experiment."""
    return to_config_dict(
        Settings(
            seed=0,
            model=ModelSettings("google/gemma-2-9b-it", dtype="bfloat16"),
            problems=ProblemSettings(
                "mbpp", prompt="mbpp", test=SourceSettings("humaneval", prompt="humaneval")
            ),
            recipe=("stage1", "stage2"),
            stages={
                "stage1": StageSettings(
                    steps=750,
                    learning_rate=LEARNING_RATE,
                    warmup_steps=20,
                    reward_attempt1=0.0,
                    kl_attempt1=0.25,  # beta_2, table 8
                    kl_attempt2=0.01,  # beta_1, table 8
                ),
                "stage2": StageSettings(
                    steps=750,
                    learning_rate=LEARNING_RATE,
                    warmup_steps=20,
                    bonus=10.0,  # alpha, table 8
                    kl_attempt1=0.01,
                    kl_attempt2=0.01,
                ),
            },
            rollout=RolloutSettings(
                problems_per_step=32,
                samples_per_problem=4,
                max_prompt_tokens=1792,  # longest: MBPP 1,400, repair set 1,550
                max_attempt_tokens=512,
                temperature=1.0,  # table 8
                shrink=0,  # a decode step reads all weights, with few slots too
            ),
            memory=MemorySettings(micro_batches=4, remat="full", widths=2),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(batch=32),  # greedy, all 164 of HumanEval
            mesh=MeshSettings(data=-1, fsdp=16),
            checkpoint=CheckpointSettings(every=50, keep=2),
        )
    )
