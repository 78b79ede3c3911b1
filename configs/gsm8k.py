"""SCoRe on GSM8K with any model; the other gsm8k_*.py use these settings.

    python -m score_jax.main --config=configs/gsm8k.py:SOURCE --workdir=runs/gsm8k

    --config.problems.path=FOLDER    a folder with train.jsonl and test.jsonl; default: TFDS

The coefficients are the paper's for MATH (table 8). Its steps, batch and learning rate are for
Gemini and 3,000 steps; here they are for small models. Rates of 1e-6 to 5e-6 have worked where all
weights of models of 0.5B and more are trained; LoRA (config.model.lora.rank) took 2e-5 to 1e-4.
Attempts may have 512 tokens: Qwen2.5-0.5B-Instruct writes 239 on average, so with 256 many are
truncated, which spoils second attempts. All 1,319 test problems are evaluated: where one answer in
ten flips, the standard error of the gain is 0.9 points, and 1.4 with 500. Instruct models need no
warm start; one on the gold solutions lowers them.

Memory: 22 bytes per parameter (float32 weights, gradients and Adam's two moments, the float32
reference, a bfloat16 copy to decode with), the cache of 64 rows, and a micro-batch's activations.
Problems: Cobbe et al. 2021, MIT. Expected result: not measured: needs an accelerator. Published for
Qwen2.5-0.5B-Instruct: 49.6; 56.7 after PPO on one answer (verl's example, about 111,000 episodes;
this config samples 51,200).
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


def get_config(
    source: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    dtype: str = "bfloat16",
    learning_rate: float = 2e-6,
):
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
                    learning_rate=learning_rate,
                    warmup_steps=10,
                    reward_attempt1=0.0,
                    kl_attempt1=0.1,  # beta_2
                    kl_attempt2=0.01,  # beta_1
                ),
                "stage2": StageSettings(
                    steps=200,
                    learning_rate=learning_rate,
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
                max_attempt_tokens=512,
                slots=64,
            ),
            memory=MemorySettings(micro_batches=8, remat="full"),
            optimizer=OptimizerSettings(beta2=0.98, clip_norm=1.0),
            evaluation=EvaluationSettings(batch=64),
            checkpoint=CheckpointSettings(every=50, keep=2),
        )
    )
