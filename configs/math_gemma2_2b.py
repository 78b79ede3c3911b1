"""SCoRe on MATH with Gemma 2 2B: the paper's data, split, prompts and coefficients for MATH.

    python -m score_jax.main --config=configs/math_gemma2_2b.py --workdir=runs/math_gemma2_2b

    --config.problems.path=FOLDER       a folder with train.jsonl and test.jsonl; default: TFDS
    --config.model.source=FOLDER        a folder with the weights; default: the hub (extra `hub`)
    --config.problems.curriculum_steps=500      easy levels first
    --config.problems.prompt=math_boxed         for models that are trained to use \\boxed{}

Learning rate, steps, batch, temperature, alpha and both betas are those of the paper's table 8 for
MATH. That table is for Gemini 1.5 Flash; the paper gives no settings for its Gemma 2 2B runs. Table
8 leaves some choices open: here 3,000 steps are 1,500 in each stage, and a batch of 512 is 128
problems x 4 samples. Adam's beta_2, warm-up, clipping and lengths are our own. Problems: MATH in
the split of Lightman et al., 11,999 to train and 500 to test (data/sets/math_problems.py). Problems
with a prompt longer than `max_prompt_tokens` are left out; the run logs how many.

Weights: Gemma 2 by Google, under the Gemma Terms of Use, which you must accept on the hub.
Problems: Hendrycks et al. 2021, MIT.

Hardware: planned for a v5e-16 (16 chips), not run.

    python -m score_jax.main --config=configs/math_gemma2_2b.py --mode=plan --topology=v5e-16

printed (GiB on each chip, of 15.75): weights 0.61, optimizer 1.22, reference 0.61, code 0.19; the
rollout 2.44 of decode weights, 2.74 of cache and 1.64 of other temporaries, 10.46 in all (66 %);
the update 8.26 of temporaries, 10.90 in all (69 %). On each chip an update sends 275 GB, plus more
in each iteration of its loop over the vocabulary. A step of full rows takes at least 69.6 s: 55.6 s
of rollout, 14.0 s of update. Two chips share a model, so that 16 samples are decoded at a time:
with a model on each chip it was 4, and 134 s of rollout. On two slices (--topology=2xv5e-16, with
mesh.fsdp=16, mesh.tensor=1 and 4 slots) the update gives 8.7 GB a chip to the network between them,
which takes 2.8 s of its 7.0 s.
Expected result: not measured. The paper's gain of +4.4 in the second attempt is for another model,
whose base lost 11 points there. Re-implementations on open models found +2 to +3.
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
    StageSettings,
    to_config_dict,
)

LEARNING_RATE = 5e-6  # table 8


def get_config():
    """The experiment."""
    return to_config_dict(
        Settings(
            seed=0,
            model=ModelSettings("google/gemma-2-2b-it", dtype="bfloat16"),
            problems=ProblemSettings("math", prompt="math"),
            recipe=("stage1", "stage2"),
            stages={
                "stage1": StageSettings(
                    steps=1500,
                    learning_rate=LEARNING_RATE,
                    warmup_steps=20,
                    reward_attempt1=0.0,
                    kl_attempt1=0.1,  # beta_2, table 8
                    kl_attempt2=0.01,  # beta_1, table 8
                ),
                "stage2": StageSettings(
                    steps=1500,
                    learning_rate=LEARNING_RATE,
                    warmup_steps=20,
                    bonus=10.0,  # alpha, table 8
                    kl_attempt1=0.01,
                    kl_attempt2=0.01,
                ),
            },
            rollout=RolloutSettings(
                problems_per_step=128,
                samples_per_problem=4,
                max_prompt_tokens=1280,  # the longest of MATH500 has about 1,000
                max_attempt_tokens=1024,  # truncated answers harm second attempts
                temperature=1.0,  # table 8
                slots=16,  # a pair of chips; 64 samples queue for them
                shrink=0,  # a decode step reads all weights, with few slots too
            ),
            memory=MemorySettings(micro_batches=16, remat="full", widths=2),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(problems=500, batch=64),  # greedy, MATH500
            mesh=MeshSettings(data=-1, fsdp=8, tensor=2),
            checkpoint=CheckpointSettings(every=100, keep=2),
        )
    )
