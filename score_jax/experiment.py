"""What every mode of a run shares, made once from its settings: model, text, mesh.

    Experiment.open(settings) -> config, tokenizer, template, mesh; with LoRA, the frozen weights
    template_of_source(...)   -> the template alone, before any weights are read or fetched
    .initial_params()         -> what training starts from, on the mesh: weights, or LoRA adapters
    .weights(params)          -> what the model computes with, given what is trained
    .episode_settings(...)    -> what a rollout is compiled for
    .texts(episode)           -> what the policy wrote, per row and attempt

Weights that a checkpoint will replace are never loaded: `param_shapes` and `state_shapes` say what
a checkpoint is restored into.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from score_jax.config.settings import Settings, StageSettings
from score_jax.data import pipeline
from score_jax.data.asked import instruction_limit
from score_jax.learner import lora, micro_batches, optimizer, step
from score_jax.learner.loss.token_logprobs import LikelihoodSettings
from score_jax.learner.settings import LearnerSettings
from score_jax.learner.step import TrainState
from score_jax.model import families, rope, transformer, weights
from score_jax.model.cache_layouts import layout_for
from score_jax.model.families import PRESET, ModelConfig
from score_jax.model.files import saved_params
from score_jax.problem import InputError, Problem
from score_jax.rewards.selective import Marks
from score_jax.rl.policy import Policy
from score_jax.rollout import programs
from score_jax.rollout.layout import laid_out
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles, sharding
from score_jax.structs import Episode, Params, PromptBatch
from score_jax.text import prompt_text, prompts, stops, templates, tokenizer
from score_jax.text.prompts import SELF_REFINE, STOPS, VERDICTS

PADDING = 1024  # rows; published embeddings have fewer rows of padding
GREEDY = Policy(temperature=0.0)
LONG_ATTEMPT = 64  # tokens
# What is drawn from the seed; stage i of a recipe draws from fold_in(seed, 1 + i).
_WEIGHTS, _ADAPTERS = 0, 2**31


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A run's fixed parts; made only if they fit together.

    Raises: InputError where model, tokenizer, settings and devices do not.
    """

    settings: Settings
    model: ModelConfig
    template: templates.Template
    mesh: Mesh  # an AbstractMesh, without devices, for programs that --mode=plan estimates
    base: Params | None = None  # with LoRA, the frozen weights, on the mesh; never donated
    planned_for: str = "tpu"  # the kind of devices that an AbstractMesh stands for
    # Tokens of the longest instruction of a training problem, where each problem has its own; 0: it
    # is not known, and taken to be as long as any may be.
    longest_instruction: int = 0

    def __post_init__(self) -> None:
        compiles.set_matmul_precision(self.settings.model.dtype)
        # Rotary frequencies may depend on it, and must be the same in sampler and learner.
        object.__setattr__(self, "model", rope.for_rows(self.model, _check(self)))

    @classmethod
    def open(
        cls,
        settings: Settings,
        template: templates.Template | None = None,
        longest_instruction: int = 0,
    ) -> "Experiment":
        """Loads what does not change in a run.

        template: that of the settings, where it is at hand. longest_instruction: as in the class.
        """
        mesh = sharding.make_mesh(**dataclasses.asdict(settings.mesh))
        source = settings.model.source
        template = template or template_of_source(settings)
        preset = source.startswith(PRESET)
        model = families.preset(source) if preset else weights.described(source)
        opened = cls(settings, model, template, mesh, longest_instruction=longest_instruction)
        if not preset:  # only now are the weights of a hub's model fetched
            opened = dataclasses.replace(opened, model=weights.shape(source))
        if not settings.model.lora.rank:
            return opened
        return dataclasses.replace(opened, base=opened.source_params(settings.model.dtype))

    def source_params(self, dtype: str = "float32") -> Params:
        """The weights of `model.source`, read from its files onto the mesh; random for a preset."""
        if self.settings.model.source.startswith(PRESET):
            key = jax.random.fold_in(jax.random.key(self.settings.seed), _WEIGHTS)
            return _initialiser(self.model, self.mesh)(key)

        def put(path: str, value: np.ndarray) -> jax.Array:
            axes = transformer.AXES[path.rsplit("/", 1)[-1]]
            return sharding.place(value, sharding.of_axes(self.mesh, axes, value.shape))

        return weights.load(self.settings.model.source, dtype, put=put)[1]

    def initial_params(self, loaded: Params | None = None) -> Params:
        """What training starts from, on the mesh; new arrays, safe to donate.

        loaded: `initial_reference()`, if that is at hand: copied, and not read from files again.
        """
        adapters = self.settings.model.lora
        if adapters.rank:
            key = jax.random.fold_in(jax.random.key(self.settings.seed), _ADAPTERS)
            return lora.init(key, self.model, adapters, self.mesh)
        return jax.tree.map(jax.numpy.copy, loaded) if loaded else self.source_params()

    def initial_reference(self) -> Params:
        """The policy of `initial_params` as a reference; with LoRA it takes no memory."""
        return {} if self.base else self.source_params()

    def param_shapes(self) -> Params:
        """Shapes and shardings of what is trained: all weights, or LoRA adapters."""
        if self.settings.model.lora.rank:
            return lora.shapes(self.model, self.settings.model.lora, self.mesh)
        return weights.shapes(self.model, self.mesh, "float32")

    def state_shapes(self, stage: StageSettings) -> TrainState:
        """Shapes and shardings of a stage's TrainState."""
        params, optimizing = self.param_shapes(), self.settings.optimizer
        taken = jax.ShapeDtypeStruct((), np.int32, sharding=sharding.replicated(self.mesh))
        return TrainState(
            step=taken,  # type: ignore[arg-type]
            params=params,
            opt_state=optimizer.shapes(optimizing, params, self.mesh),
            settings=self.learner_settings(stage),
        )

    def first_state(self, stage: StageSettings, params: Params) -> TrainState:
        """A stage's state at its first step, on the mesh; `params` are in it, not copied."""
        return sharding.on_mesh(self.mesh, step.init(params, self.learner_settings(stage)))

    def weights(self, params: Params) -> Params:
        """What the model computes with when `params` are trained: they, or the base under them."""
        return lora.weights(params, self.base, self.settings.model.lora)

    def read_beside(self, params: Params, reference: Params) -> Params:
        """`weights(reference)`, for programs that read `weights(params)` too.

        A LoRA reference without adapters gets adapters of 0: without any it would be compiled for.
        """
        unchanged = self.base and not reference
        return self.weights(jax.tree.map(jnp.zeros_like, params) if unchanged else reference)

    def decoding_weights(self, params: Params) -> Params:
        """`weights(params)` as decoding reads them; frees params, and with LoRA the base.

        For modes that only decode: so no weight is in memory twice.
        """
        weights, settings = self.weights(params), self.episode_settings()
        return laid_out(weights, settings=settings, mesh=self.mesh, frees=True)

    def merged(self, params: Params) -> Params:
        """Plain weights that compute what `weights(params)` does, up to rounding; for export."""
        return lora.merge(self.base, params, self.settings.model.lora) if self.base else params

    def episode_settings(
        self, *, policy: Policy | None = None, attempts: int = 0, samples: int = 0
    ) -> EpisodeSettings:
        """What a rollout is compiled for; by default the training rollout's."""
        rollout, said = self.settings.rollout, self.instructions
        return EpisodeSettings(
            model=self.model,
            policy=self._allowing(policy) if policy else self.policy,
            attempts=attempts or rollout.attempts,
            samples=samples or rollout.samples_per_problem,
            siblings=1 if samples else rollout.siblings,
            max_attempt_tokens=rollout.max_attempt_tokens,
            instruction=() if self.asks_each else tuple(self.template.instruction_ids),
            turn_end=tuple(self.template.turn_end_ids),
            end_ids=self.template.tokenizer.end_ids,
            pad_id=self.template.tokenizer.pad_id,
            slots=rollout.slots,
            turn_rows=rollout.turn_rows,
            shrink=self._shrink(),
            dtype=self.settings.model.dtype,
            cache_layout=layout_for(self.platform),
            untied=self.platform == "cpu",
            instructions=() if self.asks_each or len(said) < 2 else said,
            stops=self._automaton,
            close_stopped=self.template.closes_stopped,
        )

    @functools.cached_property
    def _automaton(self) -> stops.Automaton | None:
        wanted, text = stops_of(self.settings), self.template.tokenizer
        if not wanted:
            return None
        spelled_V = text.token_bytes()
        ends = [spelled_V[i].decode(errors="replace") for i in text.end_ids if i < len(spelled_V)]
        most = self.settings.rollout.max_attempt_tokens
        for stop in wanted.before + wanted.after:
            if held := [name for name in (*text.special, *ends) if name and name in stop]:
                raise InputError(
                    f"The stop sequence {stop!r} holds {held[0]!r}, which is a special token of "
                    "this model and never text, so it would end nothing. Remove it: attempts end "
                    "at the model's end tokens as they are."
                )
            spells = set(b"".join(spelled_V))  # none: --mode=plan without a tokenizer
            longest = most * max(map(len, spelled_V))
            if spells and (set(stop.encode()) - spells or len(stop.encode()) > longest):
                raise InputError(
                    f"The stop sequence {stop[:80]!r} would end nothing: no attempt of "
                    f"config.rollout.max_attempt_tokens={most} tokens of this model can hold it. "
                    "Remove it, or shorten it to the text's beginning."
                )
        return stops.compile(wanted, spelled_V)

    def _shrink(self) -> int:
        """The default of rollout.shrink: only where it saves more than its compiles cost.

        Short attempts end close together. And only on a CPU does a decode step with fewer slots
        take less time; elsewhere it reads the same weights.
        """
        rollout = self.settings.rollout
        if rollout.shrink >= 0:
            return rollout.shrink
        return 4 if self.platform == "cpu" and rollout.max_attempt_tokens >= LONG_ATTEMPT else 0

    @property
    def columns(self) -> int:
        """T: columns of a row that holds the longest possible episode of training."""
        settings, prompt = self.episode_settings(), self.settings.rollout.max_prompt_tokens
        return settings.row_tokens(prompt, self.instruction_tokens)

    @property
    def platform(self) -> str:
        """The kind of the mesh's devices."""
        here = isinstance(self.mesh, Mesh)
        return self.mesh.devices.flat[0].platform if here else self.planned_for

    @property
    def policy(self) -> Policy:
        """The distribution that training samples from and learns."""
        rollout = self.settings.rollout
        return self._allowing(Policy(rollout.temperature, rollout.top_k, rollout.top_p))

    def _allowing(self, policy: Policy) -> Policy:
        """The policy, which never samples rows of padding of the embedding, nor forbidden ids."""
        known = self.template.tokenizer.vocab_size
        return dataclasses.replace(
            policy,
            vocabulary=known if known < self.model.vocab_size else 0,
            forbidden=self.settings.rollout.forbidden_ids,
        )

    def likelihood_settings(self, policy: Policy) -> LikelihoodSettings:
        """What log-probs under `policy` are compiled for."""
        s = self.settings
        return LikelihoodSettings(
            model=self.model,
            policy=policy,
            dtype=s.model.dtype,
            chunk=s.memory.chunk,
            remat=s.memory.remat,
            attention=s.model.attention,
            mesh=self.mesh if self.mesh.size > 1 else None,
        )

    def learner_settings(self, stage: StageSettings, columns: int = 0) -> LearnerSettings:
        """What a stage's update is compiled for; columns: of rows, 0: `columns` of this run."""
        s = self.settings
        sampled = stage.objective == "rl"
        split = micro_batches.choose(
            s.memory,
            self.model,
            rows=s.rollout.rows if sampled else stage.documents_per_step or s.rollout.rows,
            columns=columns or self.columns,
            attempt_tokens=s.rollout.max_attempt_tokens,
            shards=sharding.batch_size(self.mesh),
            platform=self.platform,
        )
        return LearnerSettings(
            likelihood=self.likelihood_settings(self.policy if sampled else Policy()),
            optimizer=s.optimizer,
            samples=s.rollout.samples_per_problem if sampled else 1,
            max_attempt_tokens=s.rollout.max_attempt_tokens,
            split=split,
            lora=s.model.lora,
            siblings=s.rollout.siblings if sampled else 1,
        )

    @property
    def marks(self) -> Marks | None:
        """With selective revision, how later attempts open; else None."""
        marks = VERDICTS.get(self.settings.problems.prompt)
        return Marks(*marks) if marks else None

    def evaluation_prompts(self, problems: Sequence[Problem]) -> PromptBatch:
        """Every problem's prompt, in order, as pipeline.evaluation_prompts."""
        return pipeline.evaluation_prompts(
            problems,
            self.template.first_turn,
            max_prompt_tokens=self.settings.rollout.max_prompt_tokens,
            pad_id=self.template.tokenizer.pad_id,
            turn=self.template.turn,
            max_instruction_tokens=instruction_limit(self.settings, self.template),
        )

    def evaluation_rows(self, rows: int, samples: int = 0) -> int:
        """How many rows an evaluation of so many samples decodes together, where `rows` are wanted.

        samples: 0: many.
        """
        slots = self.settings.rollout.slots * sharding.batch_size(self.mesh)
        rows = min(rows, slots) if slots else rows
        return min(rows, samples or rows)

    def shares_rollout(self, settings: EpisodeSettings, rows: int, samples: int) -> bool:
        """Whether such an evaluation can decode in the slots of a step, with the step's program.

        Only CPUs have programs that can be shared. All samples must fit there, or all rows.
        """
        step = self.settings.rollout
        fits = self.evaluation_rows(rows, samples) <= step.rows <= self.evaluation_rows(rows)
        mine, steps = (
            programs.decoding(of, step.rows, fewer=0, shared=True)[0]
            for of in (settings, self.episode_settings())
        )
        return self.platform == "cpu" and step.siblings == 1 and fits and mine == steps

    @property
    def asks_each(self) -> bool:
        """Whether the instruction has fields of the row, so that each problem has its own."""
        return any(map(prompt_text.fields_of, self.settings.problems.instructions))

    @property
    def instruction_tokens(self) -> int:
        """The width of the training problems' own instructions; 0: they have none."""
        if not self.asks_each:
            return 0
        return self.longest_instruction or instruction_limit(self.settings, self.template)

    @functools.cached_property
    def instructions(self) -> tuple[tuple[int, ...], ...]:
        """The ids between two attempts: one tuple for all, or one for each later attempt.

        Where each problem has its own, these are stand-ins for them.
        """
        texts = self.settings.problems.instructions[1:]
        own = self.template.instruction_ids
        return tuple(
            map(tuple, (own, *(self.template.turn(prompt_text.stand_in(one)) for one in texts)))
        )

    def instructions_of(self, problem: Problem) -> tuple[tuple[int, ...], ...]:
        """The ids between two attempts at a problem, as `instructions`."""
        own = tuple(tuple(self.template.turn(text)) for text in problem.instructions)
        return own or self.instructions

    def sent(self, problem: Problem) -> dict[str, str]:
        """The texts that the model gets around its attempts, special tokens visible."""
        return self.template.sent(problem, self.instructions_of(problem))

    def texts(self, episode: Episode) -> list[list[str]]:
        """What the policy wrote, B rows of A texts, without end tokens. Fetches the ids."""
        tokens_BT, attempt_BT, truncated_BA = jax.device_get(
            (episode.tokens, episode.attempt, episode.truncated)
        )
        attempts = range(1, truncated_BA.shape[1] + 1)
        ends = set(self.template.tokenizer.end_ids)
        return [
            [self._text(tokens_T[attempt_T == a], ends) for a in attempts]
            for tokens_T, attempt_T in zip(tokens_BT, attempt_BT, strict=True)
        ]

    def _text(self, ids_N: np.ndarray, ends: set[int]) -> str:
        ids = ids_N.tolist()
        if ids and ids[-1] in ends:
            ids.pop()
        return self.template.attempt_text(ids)


def template_of_source(settings: Settings) -> templates.Template:
    """A run's template with the model's tokenizer; of the hub, no weights are downloaded for it."""
    _, source = saved_params.origin(settings.model.source, settings.model.tokenizer)
    return template_of(settings, tokenizer.load(source))


def template_of(settings: Settings, text: tokenizer.Tokenizer) -> templates.Template:
    """A run's template, with the prompt's own instruction, its first."""
    problems = settings.problems
    prompt_format, own = prompts.chosen(
        problems.prompt, problems.prompt_text, problems.instructions, problems.fields
    )
    if problems.prompt_text:
        own = [prompt_text.stand_in(one) for one in own]
    return templates.make(
        settings.model.template,
        text,
        system=problems.system,
        prompt_format=prompt_format,
        instruction=own[0] if own else "",
        thinking=settings.model.thinking,
        arguments=settings.model.template_arguments,
        date=settings.model.template_date,
        answer_prefix=settings.model.answer_prefix,
    )


def stops_of(settings: Settings) -> stops.Stops:
    """The stop sequences of a run: those of its named prompts, and those of its settings.

    A rollout may hold problems of several sets, so those of all sets' prompts end any attempt.
    """
    problems = settings.problems
    wanted = stops.Stops(problems.stop_before, problems.stop_after)
    sets = (problems.test, *problems.mixture.values(), *problems.tests.values())
    for prompt in dict.fromkeys((problems.prompt, *(one.prompt for one in sets))):
        if problems.prompt_stops and prompt in STOPS:
            wanted += STOPS[prompt]
    return wanted


@functools.cache
def _initialiser(model: ModelConfig, mesh: Mesh):
    """Makes a preset's weights on the mesh from a key; compiled once."""
    shapes = weights.shapes(model, mesh, "float32")
    shardings = jax.tree.map(lambda x: x.sharding, shapes)
    make = functools.partial(transformer.init, model)
    return compiles.Compiled(make, compiles.OLDER_EMITTER, out_shardings=shardings)


def _check(experiment: Experiment) -> int:
    """Checks what needs the model and its tokenizer. Raises: InputError.

    Returns: tokens of the longest row that training or evaluation can hold.
    """
    settings, model, template = experiment.settings, experiment.model, experiment.template
    text = template.tokenizer
    # Special tokens beyond the embedding are never made from text (Gemma 3 has one, of images).
    beyond = set(range(model.vocab_size, text.vocab_size)) - set(text.special.values())
    if beyond or text.vocab_size < model.vocab_size - PADDING:
        raise InputError(
            f"the tokenizer has {text.vocab_size} tokens and the model's embedding "
            f"{model.vocab_size} rows: they do not belong together. Set config.model.tokenizer to "
            "the tokenizer the model was trained with."
        )
    beyond_text = [i for i in settings.rollout.forbidden_ids if not 0 <= i < text.vocab_size]
    if beyond_text or set(text.end_ids) <= set(settings.rollout.forbidden_ids):
        raise InputError(
            f"config.rollout.forbidden_ids={settings.rollout.forbidden_ids} must be ids of the "
            f"tokenizer, 0 to {text.vocab_size - 1}, and leave one of the ids that end an attempt "
            f"{text.end_ids}. Correct the list."
        )
    experiment._automaton  # noqa: B018  # refuses stop sequences that cannot work
    if settings.model.lora.rank:
        lora.targets(model, settings.model.lora)
    _check_attention(settings, model, experiment.platform)
    rollout = settings.rollout
    if rollout.attempts > 1 and not template.instruction_ids:
        raise InputError(
            "the instruction between two attempts is empty, so nothing asks for the second one. "
            "Choose another config.problems.prompt or instruction_text, or set "
            "config.rollout.attempts to 1."
        )
    turn = instruction_limit(settings, template) + len(template.turn_end_ids)
    attempts = max(rollout.attempts, settings.evaluation.attempts)
    if settings.evaluation.protocol == "self_refine":
        known = settings.problems.prompt in SELF_REFINE
        if not known or attempts != 2 or settings.evaluation.samples:
            raise InputError(
                "config.evaluation.protocol='self_refine' needs two attempts, no samples and one "
                f"of the prompts {', '.join(SELF_REFINE)}; this run has {attempts} attempts, "
                f"{settings.evaluation.samples} samples and the prompt "
                f"'{settings.problems.prompt}'. Change these, or set the protocol to 'correct'."
            )
        asked = [len(template.turn(said)) for said in SELF_REFINE[settings.problems.prompt]]
        attempts, turn = 3, max(turn, *(ids + len(template.turn_end_ids) for ids in asked))
    longest = (
        rollout.max_prompt_tokens + attempts * rollout.max_attempt_tokens + (attempts - 1) * turn
    )
    if longest > rope.context(model):
        raise InputError(
            f"an episode can be {longest} tokens long (prompt {rollout.max_prompt_tokens}, "
            f"{attempts} attempts of {rollout.max_attempt_tokens}, instructions of {turn}) "
            f"and the model's context is {rope.context(model)}. Lower "
            "config.rollout.max_attempt_tokens or config.rollout.max_prompt_tokens."
        )
    for name in settings.recipe:
        if settings.stages[name].verdict and settings.problems.prompt not in VERDICTS:
            raise InputError(
                f"config.stages.{name}.verdict={settings.stages[name].verdict:g} rewards verdicts, "
                f"and the prompt '{settings.problems.prompt}' does not ask for them. Set it to 0, "
                f"or config.problems.prompt to one of {', '.join(VERDICTS)}."
            )
    devices = sharding.batch_size(experiment.mesh)
    if rollout.problems_per_step % devices:
        raise InputError(
            f"config.rollout.problems_per_step={rollout.problems_per_step} cannot be split over "
            f"{devices} devices (mesh data x fsdp): each must hold the same number of problems. "
            f"Set it to a multiple of {devices}."
        )
    return longest


def _check_attention(settings: Settings, model: ModelConfig, platform: str):
    name = settings.model.attention
    needed = {"cudnn": "gpu", "splash": "tpu"}.get(name, platform)
    if platform != needed:
        raise InputError(
            f"config.model.attention={name!r} is a kernel for a {needed.upper()}, and the devices "
            f"here are of kind {platform!r}. Set it to 'xla'."
        )
    if name == "cudnn" and (settings.model.dtype != "bfloat16" or model.attention_softcap):
        raise InputError(
            "config.model.attention='cudnn' needs config.model.dtype='bfloat16' and a model that "
            "does not bound its attention scores (Gemma 2 does). Set it to 'xla'."
        )
