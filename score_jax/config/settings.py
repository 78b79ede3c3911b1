"""All settings, as frozen dataclasses with their defaults, choices and smallest values.

build.py makes them of a config file's tree; checks.py refuses what cannot work together.
"""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """Documents that an SFT stage samples, grades and filters before its first step."""

    filter: str = ""  # "star", "pair" (data/filters.py); empty: the problem set's own documents
    steps: int = 0  # rollouts, each of as many episodes as an RL step has
    policy: str = ""  # stage whose policy samples; empty: the stage before this one
    both_right: bool = False  # D+ of the paper: also where both attempts are right
    learn_first: str = "right"  # first attempts in the loss: "never", "right" ones or "always"


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """One stage of training, as data: SCoRe's stages, its ablations and SFT are values of this."""

    steps: int  # updates
    learning_rate: float  # the peak
    objective: str = "rl"  # "rl": sampled episodes, graded; "sft": documents
    start: str = ""  # stage whose params it starts from; empty: the stage before it
    reference: str = ""  # stage whose policy the KL terms are against; empty: the base model
    collect: CollectSettings = CollectSettings()
    # Rewards. Source of the symbols: arXiv 2409.12917.
    reward_attempt1: float = 1.0  # weight of r_1 in attempt 1's reward; 0 in Stage I
    reward_attempt2: float = 1.0  # weight of r_a in the reward of attempt 2 and later
    early_attempts: int = 1  # attempts that count as "attempt 1" here and for the KL; 2: Stage I(b)
    bonus: float = 0.0  # alpha: attempt a > 1 gets alpha * (r_a - r_{a-1}) on top
    kl_attempt1: float = 0.01  # beta of attempt 1: beta_2 of the paper in Stage I, else beta_1
    kl_attempt2: float = 0.01  # beta of attempt 2 and later: beta_1 of the paper
    kl_target: float = 0.0  # nats: kl_attempt1 adapts to hold attempt 1's KL there; 0: it is fixed
    verdict: float = 0.0  # reward of a true verdict (selective revision); no bonus multiplies it
    discount: float = 0.0  # gamma: how much later attempts' rewards train earlier attempts
    attempts: int = 0  # attempts sampled in this stage; 0: rollout.attempts
    offline_share: float = 0.0  # of problems whose first attempt the reference writes, untrained
    # Attempts that are cut off have reward 0. "zero": nothing else; "mask": they are not learned
    # from; "penalty": attempts lose up to 1 over the last overlong_tokens before the limit.
    truncation: str = "zero"
    overlong_tokens: int = 0
    # Estimators.
    baseline: str = "leave_one_out"  # "leave_one_out", "sibling", "batch_mean" or "none"
    standardize: bool = False  # divide advantages by their deviation over a problem's samples
    kl_estimator: str = "k1"  # "k1": detached, in the reward; "k2", "k3", "exact": as a loss
    importance_cap: float = 0.0  # at most this weight for learner / sampler; 0: no weights
    normalizer: str = "sequence"  # a sum over tokens is divided by: "sequence", "token", "constant"
    # Learning rate.
    schedule: str = "constant"  # after warm-up: "constant", "linear" or "cosine"
    warmup_steps: int = 0
    final_fraction: float = 1.0  # of the peak, at the end of a decaying schedule
    documents_per_step: int = 0  # rows of an SFT step; 0: as many as an RL step has


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters that are trained in place of the weights. See learner/lora.py."""

    rank: int = 0  # 0: off, all weights are trained
    alpha: float = 32.0  # the adapters' product counts alpha / rank
    targets: str = "layers/.*"  # regular expression: weights that get one, e.g. "layers/(query|up)"


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """Which model, and how its text is read."""

    # "preset:NAME" (random weights), a Hugging Face folder or hub id, a .gguf file, or a run of
    # ours: its work directory, or DIR/checkpoints/STAGE/STEP in it.
    source: str
    tokenizer: str = ""  # "characters", a folder or a .gguf file; empty: the source's own
    template: str = "auto"  # a name of text.templates.NAMES; "auto": the model's own
    thinking: bool = False  # models that can think (Qwen3): within attempts, or told not to
    dtype: str = "float32"  # of the matmuls, and of frozen weights; what is trained is float32
    # Whose attention an update has: "xla", on GPUs "cudnn" (in bfloat16), on TPUs "splash".
    attention: str = "xla"
    lora: LoraSettings = LoraSettings()


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One more problem set, of a mixture or to evaluate on."""

    name: str = ""  # as ProblemSettings.name; empty (test only): the set that is trained on
    path: str = ""
    split: str = ""  # empty: "train", or "test" where it is evaluated on
    prompt: str = ""  # as ProblemSettings.prompt, with the same instruction; empty: that one
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weight: float = 1.0  # share of the draws of a mixture, relative to the other weights


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """Which problems, and how they are put to the model."""

    name: str  # a key of data.problems.PROBLEM_SETS, or "tfds:NAME" for any set of TFDS
    prompt: str  # a key of text.prompts.PROMPTS: first turn and instruction
    path: str = ""  # a folder or file; empty: TFDS, or nothing to read
    system: str = ""  # system message of chat templates
    split: str = ""  # trained on; empty: "train"
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)  # "tfds:": ours -> theirs
    weight: float = 1.0  # of this set in a mixture
    mixture: Mapping[str, SourceSettings] = dataclasses.field(
        default_factory=dict
    )  # trained on too
    test: SourceSettings = SourceSettings()  # evaluated on
    curriculum_steps: int = 0  # RL steps over which harder levels join the easiest; 0: all at once


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """What is sampled for one step."""

    problems_per_step: int  # Q
    samples_per_problem: int  # G
    max_prompt_tokens: int
    max_attempt_tokens: int  # per attempt, end token included
    prompt_buckets: tuple[int, ...] = ()  # shorter widths that a batch of prompts may have
    attempts: int = 2  # A
    siblings: int = 1  # of the samples, as many share their first attempt; see baseline "sibling"
    temperature: float = 1.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    slots: int = 0  # samples decoded side by side on a device; 0: all of the step's
    turn_rows: int = 0  # slots served per turn-around; 0: a sixteenth of the slots
    # How often the last samples of a step move into half the slots; each time is one more compile.
    shrink: int = -1  # -1: on CPUs 4 if attempts may have 64 tokens or more; else 0


@dataclasses.dataclass(frozen=True)
class MemorySettings:
    """How an update fits into memory. None of these changes a result beyond rounding."""

    # The rows are learned from in this many parts, rows of like length together; 0: one, or on a
    # CPU as many as are fastest.
    micro_batches: int = 0
    # A part is as wide as its longest row, in so many steps of width; each is compiled, so more
    # take longer. 0: four where there are several parts and attempts may have 64 tokens, else one.
    widths: int = 0
    # What the backward pass recomputes of a layer: "none", all but its matrix "products", "full".
    remat: str = "products"
    chunk: int = 0  # tokens projected to the vocabulary at once; 0 chooses


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """One optimizer for all stages; its state starts afresh with each stage."""

    name: str = "adam"  # with decay AdamW; "adafactor": second moments of rows and columns only
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: float = 0.0  # decoupled (AdamW), times the learning rate
    clip_norm: float = 1.0  # of the global gradient; 0 clips nothing


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Greedy decoding of held-out problems, before the first stage and after each."""

    problems: int = 0  # how many; 0: the whole split
    batch: int = 64  # problems decoded together
    every: int = 0  # also every so many steps within a stage; 0: only between stages
    attempts: int = 0  # may be more than are trained; 0: rollout.attempts
    # How the second attempt is asked for: "correct" (the run's instruction) or "self_refine" (a
    # critique first, then a rewrite; text/prompts.py).
    protocol: str = "correct"
    samples: int = 0  # of each problem, for averages over samples and pass@k; 0: greedy alone
    temperature: float = 0.7  # of those samples


@dataclasses.dataclass(frozen=True)
class ScalingSettings:
    """Of --mode=scale: many first attempts against fewer that are each corrected once."""

    problems: int = 0  # how many; 0: as many as an evaluation
    solutions: int = 64  # the largest budget of one problem; budgets are 2, 4, 8, … up to it
    temperature: float = 0.7
    batch: int = 8  # problems decoded together


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """What grades, and its limits."""

    timeout_sec: float = 3.0  # wall clock of one symbolic comparison, or call of the function
    function: str = ""  # "module:function" in place of the problems' graders; rewards/functions.py
    program_timeout_sec: float = 5.0  # wall clock of one model-written program with its tests
    sandbox: str = "auto"  # of programs: "auto" (what works), "namespace", "landlock" or "none"
    allow_unsandboxed: bool = False  # run programs with all rights of this user where none works


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis; -1 takes what is left. See sharding.py."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When to save besides at evaluations and a stage's end, and how many of a stage to keep."""

    every: int = 100  # steps
    keep: int = 2  # of the newest; that of the best evaluation within the stage is kept besides


@dataclasses.dataclass(frozen=True)
class WatchdogSettings:
    """Seconds after which a phase counts as hung and ends the run (watchdog.py); 0: never.

    The first time, compiling is a part of a phase.
    """

    rollout: float = 7200.0  # of a step
    grade: float = 3600.0  # of a step, waiting for the other processes' grades included
    update: float = 7200.0  # of a step
    save: float = 3600.0  # waiting for the save before it included
    evaluation: float = 28800.0


@dataclasses.dataclass(frozen=True)
class CompileSettings:
    """Compiled programs: where they are kept, and what happens when one comes late."""

    cache: bool = True  # keep them in the work directory, so that the same command starts faster
    after_warmup: str = "warn"  # of a compile that should not have been: "warn" or "fail"


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """Where a run is logged to, beside its work directory."""

    wandb: str = ""  # a project of Weights & Biases (extra `wandb`); empty: none


@dataclasses.dataclass(frozen=True)
class Settings:
    """One experiment."""

    model: ModelSettings
    problems: ProblemSettings
    rollout: RolloutSettings
    recipe: tuple[str, ...]  # names of stages, in order; one named "base" makes the reference
    stages: Mapping[str, StageSettings]
    name: str = ""  # what tables call runs of these settings; empty: the recipe's stages
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
    seed: int = 0  # of weights, samples and the order of problems


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

# The smallest legal value of every number that has one.
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
