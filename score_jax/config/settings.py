"""All settings, as frozen dataclasses with their defaults, choices and smallest values.

build.py makes them from a config file's tree; checks.py refuses combinations that cannot work.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple


class Least(NamedTuple):
    """The smallest valid value of a number."""

    value: float


class Most(NamedTuple):
    """The largest valid value of a number."""

    value: float = 2**31 - 1  # of whole ones, as steps are counted in int32


Count = Annotated[int, Least(0)]
Positive = Annotated[int, Least(1)]
NonNegative = Annotated[float, Least(0.0)]
AboveZero = Annotated[float, Least(1e-6)]
Seconds = Annotated[float, Least(1e-3), Most(1e6)]  # the system waits 24 days at most at a time
SecondsOrNever = Annotated[float, Least(0.0), Most(1e6)]  # 0: never


@dataclasses.dataclass(frozen=True)
class CollectSettings:
    """Documents for an SFT stage: sampled, graded and filtered before its first step."""

    # "star", "pair": two attempts, the second right; "first": right first attempts alone. Empty:
    # none are sampled, see `documents`.
    filter: Literal["star", "pair", "first", ""] = ""
    steps: Count = 0  # rollouts, each with as many episodes as an RL step
    policy: str = ""  # stage whose policy samples; empty: the stage before this one
    both_right: bool = False  # keep episodes with both attempts right too (D+ of the paper)
    learn_first: Literal["never", "right", "always"] = "right"  # which first attempts are trained


@dataclasses.dataclass(frozen=True)
class DocumentSettings:
    """Documents of an SFT stage that collects none: the problems with their own solutions."""

    # Part of the problems whose solutions are learned, drawn from the seed; or the passes over them
    # that the stage's steps shall be, which says how many are drawn. epochs 0: share decides.
    share: AboveZero = 1.0
    epochs: NonNegative = 0.0
    # Share of the documents that are corrections: a wrong first attempt (another problem's
    # solution), the instruction, and the solution. Only the latter is learned. The others are first
    # attempts alone.
    corrections: NonNegative = 0.0
    # What an attempt says, with {solution} and {answer}; empty: as the prompt asks for it.
    text: str = ""


@dataclasses.dataclass(frozen=True)
class StageSettings:
    """One stage of training. SCoRe's stages, its ablations and SFT are values of these settings."""

    steps: Count  # number of updates
    learning_rate: NonNegative  # peak of the schedule
    objective: Literal["rl", "sft"] = "rl"  # on graded episodes, or on documents
    start: str = ""  # stage whose params this one starts from; empty: the stage before it
    reference: str = ""  # stage whose policy is the reference of the KL; empty: the base model
    collect: CollectSettings = CollectSettings()
    documents: DocumentSettings = DocumentSettings()
    # Rewards. Source of the symbols: arXiv 2409.12917.
    reward_attempt1: float = 1.0  # weight of r_1 in attempt 1's reward; 0 in Stage I
    reward_attempt2: float = 1.0  # weight of r_a in the reward of attempt 2 and later
    early_attempts: Positive = 1  # treated as attempt 1, here and for the KL; Stage I(b): 2
    bonus: float = 0.0  # alpha: adds alpha * (r_a - r_{a-1}) to the reward of attempt a > 1
    kl_attempt1: NonNegative = 0.01  # beta of attempt 1; paper: beta_2 in Stage I, else beta_1
    kl_attempt2: NonNegative = 0.01  # beta of attempt 2 and later; beta_1 in the paper
    kl_target: NonNegative = 0.0  # nats: kl_attempt1 adapts to keep its KL there; 0: fixed
    verdict: NonNegative = 0.0  # reward of a true verdict (selective revision), without bonus
    discount: NonNegative = 0.0  # gamma: weight of later attempts' rewards for earlier attempts
    attempts: Count = 0  # attempts sampled in this stage; 0: rollout.attempts
    offline_share: NonNegative = 0.0  # of problems: the reference writes attempt 1, untrained
    # Truncated attempts earn rewards.truncated. "zero": nothing else; "mask": they, and those whose
    # reward function failed, are not trained on;
    # "penalty": attempts lose up to 1, linearly over the last overlong_tokens before the limit.
    truncation: Literal["zero", "mask", "penalty"] = "zero"
    overlong_tokens: Count = 0
    # Estimators.
    baseline: Literal["leave_one_out", "sibling", "batch_mean", "none"] = "leave_one_out"
    # No update at a step whose samples earn the same, problem by problem: only the KL would move
    # it, and Adam would scale that up. Single problems of a step are never left out: in Stage I
    # their KL holds the first attempt.
    skip_unmixed: bool = False
    standardize: bool = False  # divide advantages by their deviation over a problem's samples
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"  # k1: in the reward; others: a loss
    importance_cap: NonNegative = 0.0  # largest importance weight learner / sampler; 0: off
    # What divides a sum over tokens: the number of rows ("sequence"), of tokens ("token"), or rows
    # times max_attempt_tokens ("constant").
    normalizer: Literal["sequence", "token", "constant"] = "sequence"
    # Learning rate.
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after warm-up
    warmup_steps: Count = 0
    final_fraction: NonNegative = 1.0  # learning rate at the end of the schedule / its peak
    documents_per_step: Count = 0  # rows of an SFT step; 0: as many as an RL step


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters that are trained instead of the weights. See learner/lora.py."""

    rank: Count = 0  # 0: no adapters, all weights are trained
    alpha: AboveZero = 32.0  # the adapters' product is multiplied by alpha / rank
    targets: str = "layers/.*"  # regular expression: adapted weights, e.g. "layers/(query|up)"


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """The model and its tokenizer."""

    # "preset:NAME" (random weights), a Hugging Face folder or hub id, a .gguf file (any part of a
    # split one), a folder or hub id of PEFT adapters, which are merged into their base, or a run
    # of score_jax: its work directory, or DIR/checkpoints/STAGE/STEP in it. Folders and files may
    # be in a bucket, gs://BUCKET/PATH.
    source: str
    tokenizer: str = ""  # "characters", a folder or a .gguf file; empty: the model's own
    # "auto": the chat template that the model ships; "plain" (nothing is added) if it has none.
    # Others: chatml, llama2, llama3, gemma, or the name of a .jinja file.
    template: str = "auto"
    # What a chat template takes besides messages, as {"date_string": "1 May 2025"}.
    template_arguments: Mapping[str, bool | int | float | str] = dataclasses.field(
        default_factory=dict
    )
    template_date: str = "2024-07-26"  # what a chat template takes as today
    # A fixed beginning of every attempt, such as "```python\n". The model continues it: it is
    # context, not sampled, and part of the text that is graded.
    answer_prefix: str = ""
    thinking: bool = False  # True: models that can think (Qwen3) do so within attempts
    dtype: Literal["float32", "bfloat16"] = "float32"  # of matmuls and frozen weights
    # Attention kernel of the update: "xla"; on GPUs "cudnn" (bfloat16 only), on TPUs "splash".
    attention: Literal["xla", "cudnn", "splash"] = "xla"
    lora: LoraSettings = LoraSettings()


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """One more problem set, for a mixture or for evaluation."""

    name: str = ""  # as ProblemSettings.name; empty (test only): the training set
    path: str = ""
    split: str = ""  # empty: "train", or "test" for evaluation
    prompt: str = ""  # must have the instruction of problems.prompt; empty: problems.prompt
    prompt_text: str = ""  # instead of prompt: a text, as ProblemSettings.prompt_text
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    solutions: bool = False  # as ProblemSettings.solutions
    weight: AboveZero = 1.0  # of this set in a mixture, relative to the other weights


@dataclasses.dataclass(frozen=True)
class ProblemSettings:
    """The problems and their prompt."""

    # A key of data.problems.PROBLEM_SETS; for your own problems "jsonl", "parquet", "hf:OWNER/NAME"
    # (Hugging Face hub) or "tfds:NAME".
    name: str
    prompt: str = ""  # a key of text.prompts.PROMPTS: first turn and instruction
    path: str = ""  # a folder or file, which may be gs://…; empty: TFDS, or no files at all
    system: str = ""  # system message for the chat template
    stop_before: tuple[str, ...] = ()  # texts that end an attempt and do not belong to it
    stop_after: tuple[str, ...] = ()  # texts that end an attempt and belong to it
    prompt_stops: bool = True  # attempts also end at the named prompt's own stop sequences
    # In place of `prompt`, with instruction_text: the first turn. {problem}, {context} and
    # {meta.topic} in it are fields of the rows; {{context}} is the text {context}; other braces, as
    # TeX has them, are text. See text/prompt_text.py.
    prompt_text: str = ""
    # Before each later attempt, or one for each; fields as in prompt_text, but not the answer.
    instruction_text: str | tuple[str, ...] = ""
    split: str = ""  # training split; empty: "train"
    fields: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # of your own problems: our name -> theirs, as {"answer": "reward_model.ground_truth"}
    # The answers are whole solutions: the answer is what each states last, in a box, after ####, in
    # a sentence ("the answer is …") or between <answer> tags.
    solutions: bool = False
    bad_golds: NonNegative = 0.02  # largest share of answers in a file that nothing can match
    weight: AboveZero = 1.0  # of this set in a mixture
    mixture: Mapping[str, SourceSettings] = dataclasses.field(
        default_factory=dict
    )  # further training sets
    test: SourceSettings = SourceSettings()  # the set for evaluation
    tests: Mapping[str, SourceSettings] = dataclasses.field(
        default_factory=dict
    )  # further sets for evaluation, reported by their names
    # Smallest and largest share of the base model's first attempts that solve a problem; others are
    # not sampled after the stage `base`. Measured once, before the first such stage; (): all.
    pass_rate: tuple[float, ...] = ()
    pass_rate_samples: Count = 0  # first attempts per problem; 0: rollout.samples_per_problem
    curriculum_steps: Count = 0  # RL steps until the hardest level has joined; 0: all at once

    @property
    def instructions(self) -> tuple[str, ...]:
        """The texts of `instruction_text`: none, one, or one per later attempt."""
        texts = self.instruction_text
        return texts if isinstance(texts, tuple) else (texts,) if texts else ()


@dataclasses.dataclass(frozen=True)
class RolloutSettings:
    """Sampling of one step's episodes."""

    problems_per_step: Positive  # Q
    samples_per_problem: Positive  # G
    max_prompt_tokens: Positive
    max_attempt_tokens: Positive  # per attempt, end token included
    prompt_buckets: tuple[int, ...] = ()  # shorter widths that a batch of prompts may be padded to
    attempts: Positive = 2  # A
    siblings: Positive = 1  # samples that share one first attempt; see baseline "sibling"
    temperature: NonNegative = 1.0
    top_k: Count = 0  # 0: off
    top_p: AboveZero = 1.0  # 1: off
    forbidden_ids: tuple[int, ...] = ()  # tokens that are never sampled, in any rollout
    slots: Count = 0  # samples decoded at a time on a device; 0: all of the step
    turn_rows: Count = 0  # slots that start their next attempt or sample together; 0: slots / 16
    # How often the last samples of a step may move into half as many slots; each adds a compile.
    # -1: 4 on CPUs if attempts may have 64 tokens or more, else 0.
    shrink: Annotated[int, Least(-1)] = -1
    # "socket:PATH": another process (score_jax.rollout.serve) samples in --mode=evaluate and in
    # stages that collect documents; stages of RL refuse it (docs/engine.md). All else, evaluations
    # within training too, this process samples. "": this process.
    engine: str = ""

    @property
    def rows(self) -> int:
        """B: episodes of a step."""
        return self.problems_per_step * self.samples_per_problem


@dataclasses.dataclass(frozen=True)
class MemorySettings:
    """How an update fits into memory. These settings change results by rounding only."""

    # The update splits its rows into this many parts of rows of similar length; 0: one part, or on
    # a CPU as many as are fastest.
    micro_batches: Count = 0
    # A part is padded to the width of its longest row, rounded up to one of this many widths. Each
    # width is compiled. 0: four if there are several parts and attempts may have 64 tokens; else 1.
    widths: Count = 0
    # What the backward pass recomputes of a layer: "none", "products" (all but its matrix products)
    # or "full".
    remat: Literal["none", "products", "full"] = "products"
    chunk: Count = 0  # tokens projected to the vocabulary at once; 0: chosen automatically


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """The optimizer of all stages; each stage starts with a new state."""

    name: Literal["adam", "adafactor"] = "adam"  # adam: AdamW with weight_decay
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    weight_decay: NonNegative = 0.0  # decoupled (AdamW), multiplied by the learning rate
    clip_norm: NonNegative = 1.0  # largest norm of the gradient; 0: no clipping
    # A step whose loss, gradient or log-probs are not finite is never taken. "stop": the run stops
    # and saves what the step learned from (--mode=replay); "skip": it goes on and counts the step.
    nonfinite: Literal["stop", "skip"] = "stop"


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Greedy decoding of held-out problems, before the first stage and after each stage."""

    problems: Count = 0  # number of problems of each set; 0, or more than there are: all
    batch: Positive = 64  # rows decoded together
    every: Count = 0  # also every this many steps within a stage; 0: only between stages
    every_problems: Count = 0  # number of problems then; 0: `problems`
    every_except: tuple[str, ...] = ()  # stages that are not evaluated within
    attempts: Count = 0  # may be more than in training; 0: rollout.attempts
    # Instruction before the second attempt: "correct" (that of the run) or "self_refine" (first a
    # critique, then a rewrite; text/prompts.py).
    protocol: Literal["correct", "self_refine"] = "correct"
    samples: Count = 0  # per problem, for averages over samples and pass@k; 0: greedy only
    temperature: Annotated[float, Least(0.001)] = 0.7  # of these samples


@dataclasses.dataclass(frozen=True)
class ScalingSettings:
    """--mode=scale: compares many first attempts with fewer that are each corrected once."""

    problems: Count = 0  # number of problems; 0: as many as an evaluation
    solutions: Annotated[int, Least(2)] = 64  # attempts per problem; 2, 4, 8, … are compared
    temperature: Annotated[float, Least(0.001)] = 0.7
    batch: Positive = 64  # rows decoded together


@dataclasses.dataclass(frozen=True)
class FunctionSettings:
    """One named term of the reward. See rewards/functions.py."""

    function: str = ""  # "module:function", "file.py:function", or "builtin": the problems' graders
    weight: float = 1.0  # the reward is the sum of weight * term
    batch: bool = False  # called once for all rows of a step and process, not once for each row
    solves: bool = False  # this term decides what is solved; none: "builtin", else the only term


@dataclasses.dataclass(frozen=True)
class RewardSettings:
    """Graders and their limits."""

    timeout_sec: Seconds = 3.0  # wall time of a symbolic comparison
    function: str = ""  # instead of the problems' graders: a term "function" of weight 1
    functions: Mapping[str, FunctionSettings] = dataclasses.field(
        default_factory=dict
    )  # named terms
    solved_at: float = 1.0  # an attempt is solved if the term that decides it earns so much
    truncated: float = 0.0  # reward of an attempt that hit its limit
    failed: float = 0.0  # reward where a function or a program hung ("timeout") or died ("crash")
    failed_share: NonNegative = 0.25  # a run stops if more of a step's rows fail: functions only
    function_timeout_sec: Seconds = 60.0  # wall time of a call of a function, from its start
    workers: Count = 0  # calls of a function side by side; 0: one for each CPU, 2 to 8
    retries: Count = 0  # of a call that raised, hung or died, after 1, 2, 4, … seconds
    remember: Count = 0  # rows whose rewards a function is not asked for again; 0: none
    environment: tuple[str, ...] = ()  # variables that functions need: checked before the run
    function_memory_gib: Count = 8  # address space of a worker that calls functions; 0: no limit
    program_timeout_sec: Seconds = 5.0  # wall time of a model-written program with its tests
    sandbox: Literal["auto", "namespace", "landlock", "none"] = "auto"  # auto: one that works
    allow_unsandboxed: bool = False  # if no sandbox works, run programs with all rights of the user
    packages: tuple[str, ...] = ()  # installed ones that programs and their tests may import too


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Number of devices along each axis; -1: all remaining ones. See runtime/sharding.py."""

    data: Annotated[int, Least(-1)] = -1
    fsdp: Annotated[int, Least(-1)] = 1
    tensor: Annotated[int, Least(-1)] = 1
    # Groups of devices, in their order, that only a network joins; 0: as TPUs say of themselves.
    slices: Annotated[int, Least(0)] = 0


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are saved, and how many are kept."""

    every: Positive = 100  # steps; checkpoints are also saved at evaluations and at a stage's end
    keep: Positive = 2  # newest ones kept of a stage, besides that of its best evaluation


@dataclasses.dataclass(frozen=True)
class WatchdogSettings:
    """Seconds after which a phase counts as hung and the watchdog ends the run; 0: never.

    The first rollout, update and evaluation include compiling.
    """

    rollout: SecondsOrNever = 7200.0  # of one step
    grade: SecondsOrNever = 3600.0  # of one step, including the wait for other processes' grades
    train_step: SecondsOrNever = 7200.0  # the update of one step
    save: SecondsOrNever = 3600.0  # including the wait for the previous save
    evaluation: SecondsOrNever = 28800.0  # since a row has ended


@dataclasses.dataclass(frozen=True)
class CompileSettings:
    """Cache of compiled programs, and recompilations."""

    cache: bool = True  # keep compiled programs in the work directory: the next start is faster
    after_warmup: Literal["warn", "fail"] = "warn"  # when a program is recompiled after warm-up


@dataclasses.dataclass(frozen=True)
class LoggingSettings:
    """Where a run is logged, besides its work directory."""

    wandb: str = ""  # a Weights & Biases project (extra `wandb`); empty: none
    samples_every: Count = 50  # steps of an RL stage between training samples kept; 0: none
    profile: str = ""  # STAGE:STEP+N: N steps to profile, into DIR/profile; empty: none


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


def _hints() -> Iterator[tuple[type, str, Any]]:
    for cls in [x for x in globals().values() if isinstance(x, type)]:
        for name, hint in typing.get_type_hints(cls, include_extras=True).items():
            yield cls, name, hint


# (class, setting) -> the names that it may have.
CHOICES: dict[tuple[type, str], tuple[str, ...]] = {
    (cls, name): typing.get_args(hint)
    for cls, name, hint in _hints()
    if typing.get_origin(hint) is Literal
}
# (class, setting) -> its smallest valid value.
MINIMA: dict[tuple[type, str], float] = {
    (cls, name): hint.__metadata__[0].value
    for cls, name, hint in _hints()
    if typing.get_origin(hint) is Annotated
}
# (class, setting) -> its largest valid value.
MAXIMA: dict[tuple[type, str], float] = {
    (cls, name): [*hint.__metadata__[1:], Most()][0].value
    for cls, name, hint in _hints()
    if typing.get_origin(hint) is Annotated and (hint.__metadata__[1:] or hint.__origin__ is int)
}
