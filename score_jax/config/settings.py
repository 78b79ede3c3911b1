"""All settings, as frozen dataclasses with their defaults, choices and smallest values.

build.py makes them from a config file's tree; checks.py refuses combinations that cannot work.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """Documents for an SFT stage: sampled, graded and filtered before its first step."""

    filter: str = ""  # "star" or "pair" (data/sft/filters.py); empty: the problem set's documents
    steps: int = 0  # rollouts, each with as many episodes as an RL step
    policy: str = ""  # stage whose policy samples; empty: the stage before this one
    both_right: bool = False  # keep episodes with both attempts right too (D+ of the paper)
    learn_first: str = (
        "right"  # which first attempts are trained: "never", "right" ones or "always"
    )


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """One stage of training. SCoRe's stages, its ablations and SFT are values of these settings."""

    steps: int  # number of updates
    learning_rate: float  # peak of the schedule
    objective: str = "rl"  # "rl": trains on sampled, graded episodes; "sft": on documents
    start: str = ""  # stage whose params this one starts from; empty: the stage before it
    reference: str = ""  # stage whose policy is the reference of the KL; empty: the base model
    collect: CollectSettings = CollectSettings()
    # Rewards. Source of the symbols: arXiv 2409.12917.
    reward_attempt1: float = 1.0  # weight of r_1 in attempt 1's reward; 0 in Stage I
    reward_attempt2: float = 1.0  # weight of r_a in the reward of attempt 2 and later
    early_attempts: int = 1  # attempts treated as attempt 1 here and for the KL; Stage I(b): 2
    bonus: float = 0.0  # alpha: adds alpha * (r_a - r_{a-1}) to the reward of attempt a > 1
    kl_attempt1: float = 0.01  # beta of attempt 1; in the paper beta_2 in Stage I, else beta_1
    kl_attempt2: float = 0.01  # beta of attempt 2 and later; beta_1 in the paper
    kl_target: float = 0.0  # nats: kl_attempt1 adapts to keep attempt 1's KL there; 0: fixed
    verdict: float = 0.0  # reward of a true verdict (selective revision), without bonus
    discount: float = 0.0  # gamma: weight of later attempts' rewards for earlier attempts
    attempts: int = 0  # attempts sampled in this stage; 0: rollout.attempts
    offline_share: float = 0.0  # share of problems with first attempts by the reference, untrained
    # Truncated attempts have reward 0. "zero": nothing else; "mask": they are not trained on;
    # "penalty": attempts lose up to 1, linearly over the last overlong_tokens before the limit.
    truncation: str = "zero"
    overlong_tokens: int = 0
    # Estimators.
    baseline: str = "leave_one_out"  # "leave_one_out", "sibling", "batch_mean" or "none"
    standardize: bool = (
        False  # divide advantages by their standard deviation over a problem's samples
    )
    kl_estimator: str = "k1"  # "k1": detached, in the reward; "k2", "k3", "exact": a loss
    importance_cap: float = 0.0  # upper bound of the importance weight learner / sampler; 0: off
    # What divides a sum over tokens: the number of rows ("sequence"), of tokens ("token"), or rows
    # times max_attempt_tokens ("constant").
    normalizer: str = "sequence"
    # Learning rate.
    schedule: str = "constant"  # after warm-up: "constant", "linear" or "cosine"
    warmup_steps: int = 0
    final_fraction: float = 1.0  # learning rate at the end of the schedule / its peak
    documents_per_step: int = 0  # rows of an SFT step; 0: as many as an RL step


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters that are trained instead of the weights. See learner/lora.py."""

    rank: int = 0  # 0: no adapters, all weights are trained
    alpha: float = 32.0  # the adapters' product is multiplied by alpha / rank
    targets: str = "layers/.*"  # regular expression: adapted weights, e.g. "layers/(query|up)"


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The model and its tokenizer."""

    # "preset:NAME" (random weights), a Hugging Face folder or hub id, a .gguf file, or a run of
    # score_jax: its work directory, or DIR/checkpoints/STAGE/STEP in it.
    source: str
    tokenizer: str = ""  # "characters", a folder or a .gguf file; empty: the model's own
    template: str = "auto"  # one of text.templates.NAMES; "auto": the model's own
    thinking: bool = False  # True: models that can think (Qwen3) do so within attempts
    dtype: str = "float32"  # of matmuls and frozen weights; trained weights are float32
    # Attention kernel of the update: "xla"; on GPUs "cudnn" (bfloat16 only), on TPUs "splash".
    attention: str = "xla"
    lora: LoraSettings = LoraSettings()


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One more problem set, for a mixture or for evaluation."""

    name: str = ""  # as ProblemSettings.name; empty (test only): the training set
    path: str = ""
    split: str = ""  # empty: "train", or "test" for evaluation
    prompt: str = ""  # must have the instruction of problems.prompt; empty: problems.prompt
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: float = 1.0  # of this set in a mixture, relative to the other weights


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """The problems and their prompt."""

    name: str  # a key of data.problems.PROBLEM_SETS, or "tfds:NAME" for any TFDS set
    prompt: str  # a key of text.prompts.PROMPTS: first turn and instruction
    path: str = ""  # a folder or file; empty: TFDS, or no files at all
    system: str = ""  # system message for the chat template
    split: str = ""  # training split; empty: "train"
    fields: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # of "tfds:NAME": our name -> theirs
    weight: float = 1.0  # of this set in a mixture
    mixture: Mapping[str, SourceSettings] = dataclasses.field(
        default_factory=dict
    )  # further training sets
    test: SourceSettings = SourceSettings()  # the set for evaluation
    curriculum_steps: int = 0  # RL steps until the hardest level has joined; 0: all at once


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """Sampling of one step's episodes."""

    problems_per_step: int  # Q
    samples_per_problem: int  # G
    max_prompt_tokens: int
    max_attempt_tokens: int  # per attempt, end token included
    prompt_buckets: tuple[int, ...] = ()  # shorter widths that a batch of prompts may be padded to
    attempts: int = 2  # A
    siblings: int = 1  # samples that share one first attempt; see baseline "sibling"
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    slots: int = 0  # samples decoded at a time on a device; 0: all of the step
    turn_rows: int = 0  # slots that start their next attempt or sample together; 0: slots / 16
    # How often the last samples of a step may move into half as many slots; each adds a compile.
    shrink: int = -1  # -1: 4 on CPUs if attempts may have 64 tokens or more, else 0


@dataclasses.dataclass(frozen=True)
class MemorySettings:
    """How an update fits into memory. These settings change results by rounding only."""

    # The update splits its rows into this many parts of rows of similar length; 0: one part, or on
    # a CPU as many as are fastest.
    micro_batches: int = 0
    # A part is padded to the width of its longest row, rounded up to one of this many widths. Each
    # width is compiled. 0: four if there are several parts and attempts may have 64 tokens; else 1.
    widths: int = 0
    # What the backward pass recomputes of a layer: "none", "products" (all but its matrix products)
    # or "full".
    remat: str = "products"
    chunk: int = 0  # tokens projected to the vocabulary at once; 0: chosen automatically


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer of all stages; each stage starts with a new state."""

    name: str = "adam"  # AdamW if weight_decay is set; "adafactor": factored second moments
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.0  # decoupled (AdamW), multiplied by the learning rate
    clip_norm: float = 1.0  # largest norm of the gradient; 0: no clipping


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Greedy decoding of held-out problems, before the first stage and after each stage."""

    problems: int = 0  # number of problems; 0: the whole split
    batch: int = 64  # problems decoded together
    every: int = 0  # also every this many steps within a stage; 0: only between stages
    attempts: int = 0  # may be more than in training; 0: rollout.attempts
    # Instruction before the second attempt: "correct" (that of the run) or "self_refine" (first a
    # critique, then a rewrite; text/prompts.py).
    protocol: str = "correct"
    samples: int = 0  # per problem, for averages over samples and pass@k; 0: greedy only
    temperature: float = 0.7  # of these samples


@dataclasses.dataclass(frozen=True)
class ScalingSettings:
    """--mode=scale: compares many first attempts with fewer that are each corrected once."""

    problems: int = 0  # number of problems; 0: as many as an evaluation
    solutions: int = 64  # largest number of attempts per problem; 2, 4, 8, … up to it are compared
    temperature: float = 0.7
    batch: int = 8  # problems decoded together


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Graders and their limits."""

    timeout_sec: float = 3.0  # wall time of one symbolic comparison, or of one call of `function`
    function: str = ""  # "module:function" instead of the problems' graders; rewards/functions.py
    program_timeout_sec: float = 5.0  # wall time of one model-written program with its tests
    sandbox: str = "auto"  # of programs: "auto" (one that works), "namespace", "landlock" or "none"
    allow_unsandboxed: bool = False  # if no sandbox works, run programs with all rights of the user


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Number of devices along each axis; -1: all remaining ones. See runtime/sharding.py."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are saved, and how many are kept."""

    every: int = 100  # steps; checkpoints are also saved at evaluations and at a stage's end
    keep: int = 2  # newest ones kept of a stage, besides that of its best evaluation


@dataclasses.dataclass(frozen=True)
class WatchdogSettings:
    """Seconds after which a phase counts as hung and the watchdog ends the run; 0: never.

    The first rollout, update and evaluation include compiling.
    """

    rollout: float = 7200.0  # of one step
    grade: float = 3600.0  # of one step, including the wait for other processes' grades
    update: float = 7200.0  # of one step
    save: float = 3600.0  # including the wait for the previous save
    evaluation: float = 28800.0


@dataclasses.dataclass(frozen=True)
class CompileSettings:
    """Cache of compiled programs, and recompilations."""

    cache: bool = True  # keep compiled programs in the work directory: the next start is faster
    after_warmup: str = "warn"  # if a program is recompiled after warm-up: "warn" or "fail"


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """Where a run is logged, besides its work directory."""

    wandb: str = ""  # a Weights & Biases project (extra `wandb`); empty: none


@dataclasses.dataclass(frozen=True)
class Settings:
    """One experiment."""

    model: ModelSettings
    problems: ProblemSettings
    rollout: RolloutSettings
    recipe: tuple[str, ...]  # names of the stages in order; a stage "base" trains the reference
    stages: Mapping[str, StageSettings]
    name: str = ""  # of the run in tables; empty: the recipe's stages
    evaluation: EvaluationSettings = EvaluationSettings()
    scaling: ScalingSettings = ScalingSettings()
    memory: MemorySettings = MemorySettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    rewards: RewardSettings = RewardSettings()
    mesh: MeshSettings = MeshSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    compile: CompileSettings = CompileSettings()
    logging: LoggingSettings = LoggingSettings()
    seed: int = 0  # of random weights, samples and the order of problems


CHOICES: dict[tuple[type, str], tuple[str, ...]] = {
    (StageSettings, "objective"): ("rl", "sft"),
    (StageSettings, "baseline"): ("leave_one_out", "sibling", "batch_mean", "none"),
    (StageSettings, "truncation"): ("zero", "mask", "penalty"),
    (CollectSettings, "filter"): ("star", "pair", ""),
    (CollectSettings, "learn_first"): ("never", "right", "always"),
    (StageSettings, "kl_estimator"): ("k1", "k2", "k3", "exact"),
    (StageSettings, "normalizer"): ("sequence", "token", "constant"),
    (StageSettings, "schedule"): ("constant", "linear", "cosine"),
    (OptimizerSettings, "name"): ("adam", "adafactor"),
    (EvaluationSettings, "protocol"): ("correct", "self_refine"),
    (ModelSettings, "dtype"): ("float32", "bfloat16"),
    (ModelSettings, "attention"): ("xla", "cudnn", "splash"),
    (MemorySettings, "remat"): ("none", "products", "full"),
    (CompileSettings, "after_warmup"): ("warn", "fail"),
    (RewardSettings, "sandbox"): ("auto", "namespace", "landlock", "none"),
}

# The smallest valid value of every number that has one.
MINIMA: dict[tuple[type, str], float] = {
    (StageSettings, "steps"): 0,
    (StageSettings, "learning_rate"): 0.0,
    (StageSettings, "kl_attempt1"): 0.0,
    (StageSettings, "kl_attempt2"): 0.0,
    (StageSettings, "discount"): 0.0,
    (StageSettings, "importance_cap"): 0.0,
    (StageSettings, "attempts"): 0,
    (StageSettings, "warmup_steps"): 0,
    (StageSettings, "final_fraction"): 0.0,
    (StageSettings, "documents_per_step"): 0,
    (StageSettings, "early_attempts"): 1,
    (StageSettings, "kl_target"): 0.0,
    (StageSettings, "verdict"): 0.0,
    (StageSettings, "offline_share"): 0.0,
    (StageSettings, "overlong_tokens"): 0,
    (CollectSettings, "steps"): 0,
    (LoraSettings, "rank"): 0,
    (LoraSettings, "alpha"): 1e-6,
    (ProblemSettings, "weight"): 1e-6,
    (ProblemSettings, "curriculum_steps"): 0,
    (SourceSettings, "weight"): 1e-6,
    (RolloutSettings, "problems_per_step"): 1,
    (RolloutSettings, "samples_per_problem"): 1,
    (RolloutSettings, "max_prompt_tokens"): 1,
    (RolloutSettings, "max_attempt_tokens"): 1,
    (RolloutSettings, "attempts"): 1,
    (RolloutSettings, "siblings"): 1,
    (RolloutSettings, "temperature"): 0.0,
    (RolloutSettings, "top_k"): 0,
    (RolloutSettings, "top_p"): 1e-6,
    (RolloutSettings, "slots"): 0,
    (RolloutSettings, "turn_rows"): 0,
    (RolloutSettings, "shrink"): -1,
    (MemorySettings, "micro_batches"): 0,
    (MemorySettings, "widths"): 0,
    (MemorySettings, "chunk"): 0,
    (OptimizerSettings, "clip_norm"): 0.0,
    (OptimizerSettings, "weight_decay"): 0.0,
    (EvaluationSettings, "problems"): 0,
    (EvaluationSettings, "batch"): 1,
    (EvaluationSettings, "every"): 0,
    (EvaluationSettings, "attempts"): 0,
    (EvaluationSettings, "samples"): 0,
    (EvaluationSettings, "temperature"): 1e-3,
    (ScalingSettings, "problems"): 0,
    (ScalingSettings, "solutions"): 2,
    (ScalingSettings, "temperature"): 1e-3,
    (ScalingSettings, "batch"): 1,
    (MeshSettings, "data"): -1,
    (MeshSettings, "fsdp"): -1,
    (MeshSettings, "tensor"): -1,
    (CheckpointSettings, "every"): 1,
    (CheckpointSettings, "keep"): 1,
    **{(WatchdogSettings, field.name): 0.0 for field in dataclasses.fields(WatchdogSettings)},
    (RewardSettings, "timeout_sec"): 1e-3,
    (RewardSettings, "program_timeout_sec"): 1e-3,
}
