"""The programs of a rollout: what runs on the device between two looks of the host.

    begin    every slot takes a sample of a batch, and the others queue for one
    decode   bursts and turn-arounds, until few enough samples are left, or for so many steps
    move     the samples that are left, in fewer slots

and where the host brings the prompts (stream.py):

    empty    slots without samples
    admit    idle slots take prompts

A *burst*: every writing slot samples a token and feeds it, one token per step, until enough slots
are idle. A *turn-around* serves up to `turn_rows` idle slots. A slot that ended an attempt is fed
the instruction in one chunk and continues writing; a slot that ended its last attempt takes the
next sample of the queue, if there is one. Before that, the text of a stop sequence that does not
belong to its attempt is taken back (stopping.py).

On a CPU each is a program of its own, so that a step's rollout and an evaluation share `decode`,
which takes longest to compile: there, the likeliest token is an argument of it and no setting.
Elsewhere a step's rollout is one program of them all (episode.py), in which XLA chooses the memory
layout of the cache.

Each is `work(params, held, …, settings=…) -> Slots` for one shard of the data, on one device or
those that share the model. `by_shard` runs it on all of them.
"""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.rollout import slots
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.slots import Queue, State
from score_jax.runtime import compiles, sharding
from score_jax.structs import Episode, Instructions, Params

BY_ROW = PartitionSpec(sharding.BATCH_AXES)  # the first axis is split over the shards of the data
BY_DEVICE = PartitionSpec((*sharding.BATCH_AXES, "tensor"))  # each device has a part of its own
COPIES = PartitionSpec()
PROMPT = (BY_DEVICE, BY_ROW, BY_ROW)  # what `prefill.prefill` returns

_NO_END = np.iinfo(np.int32).max


class Slots(flax.struct.PyTreeNode):
    """The slots, and what their rows are addressed and limited by; R rows.

    After `move` there are fewer slots than rows, and from the start where a queue has more.
    """

    state: State
    keys_R2: jax.Array  # as words: the keys of attempt 1 and of later ones
    limit_RA: jax.Array
    asked: Instructions | None  # of the rows, where each problem has its own
    queue: Queue | None = None


# Between programs: the slots without their caches, scalars as [shards]; and the caches of slots and
# queue, of which each device has its own heads.
Held = tuple[Slots, kv.Cache, kv.Cache]
_HELD = (BY_ROW, BY_DEVICE, BY_DEVICE)


def _apart(held: Slots) -> Held:
    state, queue = _scalars(held.state, lambda x: x[None]), held.queue
    bare = held.replace(
        state=state.replace(cache=()), queue=queue.replace(cache=()) if queue else None
    )
    return bare, state.cache, queue.cache if queue else ()


def _together(held: Held) -> Slots:
    bare, cache, queued = held
    state = _scalars(bare.state, lambda x: x[0]).replace(cache=cache)
    return bare.replace(state=state, queue=bare.queue and bare.queue.replace(cache=queued))


def _scalars(state: State, change) -> State:
    """The state with its scalars changed; between programs they are [shards]."""
    work = jax.tree.map(change, state.work)
    return state.replace(next_row=change(state.next_row), ring=change(state.ring), work=work)


def by_shard(work, params: Params, arguments, specs, out, *, settings: EpisodeSettings, mesh):
    """work(params, *arguments, settings=…) on every shard of the data.

    params: as `transformer.for_decoding` returns them. specs, out: how each of the arguments, and
    what `work` returns, is split. settings: for `work`, with a device's part of the model.
    """
    s = settings
    if mesh is None:
        return work(params, *arguments, settings=s)
    shards = sharding.decoding_shardings(mesh, transformer.AXES, params)
    if mesh.shape["tensor"] > 1:
        s = dataclasses.replace(s, model=s.model.share("tensor", mesh.shape["tensor"]))
    return jax.shard_map(
        functools.partial(work, settings=s),
        mesh=mesh,
        in_specs=(jax.tree.map(lambda shard: shard.spec, shards), *specs),
        out_specs=out,
        # The checker refuses loops whose trip count differs between shards of the data. In the loop
        # only devices that share one copy of the model communicate, and their counts are equal.
        check_vma=False,
    )(params, *arguments)


class Program:
    """`work(params, held, *by_row, *everywhere, *prompt, settings=…) -> Slots`, for every shard."""

    def __init__(self, work, *, donates: bool, loops: bool):
        """Args:

        donates: whether the result is as large as `held`, and takes its memory.
        loops: over tokens, or is made for several numbers of slots: the older emitter would take
          longer to compile it, or it to run.
        """
        self.work = work
        options = compiles.FEW_PASSES if loops else compiles.OLDER_EMITTER

        def of_shard(params, held: Held | None, *arguments, settings: EpisodeSettings) -> Held:
            before = _together(held) if held else None
            return _apart(work(params, before, *arguments, settings=settings))

        def compiled(params, held, by_row, everywhere, prompt, *, settings, mesh):
            specs = (_HELD if held else BY_ROW, *[BY_ROW] * len(by_row))
            specs += (*[COPIES] * len(everywhere), *[PROMPT] * len(prompt))
            arguments = (held, *by_row, *everywhere, *prompt)
            how = {"settings": settings, "mesh": mesh}
            return by_shard(of_shard, params, arguments, specs, _HELD, **how)

        compiled.__name__ = work.__name__.strip("_")  # in messages about compiling
        how = {"donate_argnames": "held"} if donates else {}
        self._compiled = compiles.Compiled(
            compiled, options, static_argnames=("settings", "mesh"), **how
        )

    def __call__(
        self,
        params: Params,
        held: Held | None,
        by_row=(),
        everywhere=(),
        prompt=(),
        *,
        settings: EpisodeSettings,
        mesh: Mesh | None,
    ) -> Held:
        """by_row, everywhere, prompt: the arguments of `work`, by how they are split."""
        how = {"settings": settings, "mesh": mesh}
        return self._compiled(params, held, by_row, everywhere, prompt, **how)

    def ahead(self, params, held, by_row=(), everywhere=(), prompt=(), **how) -> None:
        """As of compiles.Compiled."""
        self._compiled.ahead(params, held, by_row, everywhere, prompt, **how)

    def lower(self, params, held, by_row=(), everywhere=(), prompt=(), **how):
        """As of jax.jit."""
        return self._compiled.lower(params, held, by_row, everywhere, prompt, **how)

    def _cache_size(self) -> int:
        return self._compiled._cache_size()


def _begin(
    params: Params,
    held: None,
    tokens_QP: jax.Array,
    index_Q: jax.Array,
    limit_QGA: jax.Array,
    asked_Q: Instructions | None,
    key: jax.Array,
    prompt: tuple[kv.Cache, jax.Array, jax.Array],
    *,
    settings: EpisodeSettings,
) -> Slots:
    """`settings.slots` slots with the first samples; the others queue."""
    del params, held
    s, problems = settings, tokens_QP.shape[0]
    problem_R = jnp.repeat(jnp.arange(problems), s.samples)
    sample_R = jnp.tile(jnp.arange(s.samples), problems)
    widest = asked_Q.tokens.shape[2] if asked_Q else 0
    state = slots.first_state(
        prompt, tokens_QP, problem_R, s.slots, settings=s, instruction_tokens=widest
    )
    return Slots(
        state,
        words(key, index_Q[problem_R], firsts(sample_R, s), sample_R),
        limit_QGA.reshape(len(problem_R), -1),
        jax.tree.map(lambda x: x[problem_R], asked_Q),
        Queue(*prompt, problem_R) if s.slots * slots.family_of(s) < len(problem_R) else None,
    )


def words(key: jax.Array, index_R: jax.Array, *samples_R: jax.Array) -> jax.Array:
    """The keys of these samples, as words: [R, one for each of samples_R, …]."""
    of = jax.vmap(functools.partial(address, key))
    return jnp.stack([jax.random.key_data(of(index_R, sample_R)) for sample_R in samples_R], axis=1)


def address(key: jax.Array, index: jax.Array, sample: jax.Array) -> jax.Array:
    """The key of a sample of the problem with that index."""
    return jax.random.fold_in(jax.random.fold_in(key, index), sample)


def firsts(sample_R, settings: EpisodeSettings):
    """The samples whose uniforms these use in attempt 1: their first siblings."""
    return sample_R - sample_R % settings.siblings


def _admit(
    params: Params,
    held: Slots,
    slot_W: jax.Array,
    tokens_WP: jax.Array,
    keys_W2: jax.Array,
    limit_WA: jax.Array,
    asked_W: Instructions | None,
    prompt: tuple[kv.Cache, jax.Array, jax.Array],
    *,
    settings: EpisodeSettings,
) -> Slots:
    """These slots take new prompts; an index past the end takes none."""
    del params
    state, (cache, hidden_WD, length_W) = held.state, prompt
    columns = state.rows.tokens.shape[1]
    in_prompt_WT = jnp.arange(columns) < length_W[:, None]
    tokens_WT = jnp.pad(tokens_WP, ((0, 0), (0, columns - tokens_WP.shape[1])))
    begun = {
        "tokens": jnp.where(in_prompt_WT, tokens_WT, settings.pad_id),
        "attempt": 0,
        "logp": 0.0,
        "length": length_W,
        "truncated": False,
    }
    rows = {
        name: getattr(state.rows, name).at[slot_W].set(value, mode="drop")
        for name, value in begun.items()
    }
    here_W = slot_W < len(state.row)
    fed_tokens = state.work.fed_tokens + jnp.sum(jnp.where(here_W, length_W, 0))
    state = state.replace(rows=Episode(**rows), work=state.work.replace(fed_tokens=fed_tokens))
    widened = kv.widen(cache, kv.slots_of(state.cache))
    return Slots(
        slots.load(
            state, slot_W, row_W=slot_W, length_W=length_W, hidden_WD=hidden_WD, cache=widened
        ),
        held.keys_R2.at[slot_W].set(keys_W2, mode="drop"),
        held.limit_RA.at[slot_W].set(limit_WA, mode="drop"),
        jax.tree.map(lambda x, new: x.at[slot_W].set(new, mode="drop"), held.asked, asked_W),
    )


def _decode(
    params: Params,
    held: Slots,
    how_long: jax.Array,
    greedy: jax.Array | None,
    *,
    settings: EpisodeSettings,
) -> Slots:
    """Until at most how_long[0] samples are left, or for how_long[1] steps."""
    s, (fewer, steps) = settings, how_long
    first_step = held.state.work.decode_steps

    def goes_on(state: State) -> jax.Array:
        in_time = state.work.decode_steps - first_step < steps
        return in_time & slots.too_many_left(state, fewer=fewer)

    def may_write(state: State) -> jax.Array:
        return goes_on(state) & slots.keep_writing(state, turn_rows=s.turn_rows)

    token = functools.partial(
        slots.write,
        params=params,
        keys_2R=jax.random.wrap_key_data(held.keys_R2).T,
        limit_RA=held.limit_RA,
        settings=s,
        greedy=greedy,
    )
    turns = []
    if s.stops and s.stops.span:
        turns.append(functools.partial(slots.take_back, settings=s))
    if held.state.forks:
        turns.append(functools.partial(slots.rewind, settings=s))
    if s.attempts > 1:
        feed = {"params": params, "rows": s.turn_rows, "asked": held.asked, "settings": s}
        turns.append(functools.partial(slots.instruct, **feed))
    if held.queue:
        turns.append(functools.partial(slots.refill, queue=held.queue, rows=s.turn_rows))

    def burst_then_turn(state: State) -> State:
        state = jax.lax.while_loop(may_write, token, state)
        for turn in turns:
            state = turn(state)
        return state

    return held.replace(state=jax.lax.while_loop(goes_on, burst_then_turn, held.state))


def _move(params: Params, held: Slots, *, settings: EpisodeSettings) -> Slots:
    """The samples that are still being written, in `settings.slots` slots; no queue is left."""
    del params
    return held.replace(state=slots.move_together(held.state, settings.slots), queue=None)


begin = Program(_begin, donates=False, loops=False)
admit = Program(_admit, donates=True, loops=False)
decode = Program(_decode, donates=True, loops=True)
move = Program(_move, donates=False, loops=True)


def are_shared() -> bool:
    """Whether each is a program of its own; see above."""
    return jax.default_backend() == "cpu"


def decoding(
    settings: EpisodeSettings, of: int, *, fewer: int, steps: int = _NO_END, shared: bool
) -> tuple[EpisodeSettings, tuple[Any, Any]]:
    """The settings of `decode` and its arguments: until `fewer` samples are left, or those steps.

    of: slots of a shard. shared: for the program that all rollouts of a model have in common, as
    far as they can; else for the one that computes nothing beside.
    """
    s, greedy = settings, None
    turn_rows = min(s.turn_rows or max(1, of // 16), of)
    if shared:
        greedy = np.bool_(s.policy.temperature == 0)
        policy = dataclasses.replace(s.policy, temperature=1.0, top_k=0, top_p=1.0)
        s = dataclasses.replace(s, policy=policy if greedy else s.policy)
    # What these say is in the shapes.
    s = dataclasses.replace(
        s, turn_rows=turn_rows, samples=1, siblings=1, max_attempt_tokens=1, slots=0, shrink=0
    )
    return s, (np.array([fewer, steps], np.int32), greedy)


@functools.partial(
    compiles.Compiled,
    options=compiles.OLDER_EMITTER,
    static_argnames=("key_words", "columns", "asked", "settings", "mesh"),
)
def empty(
    *,
    key_words: tuple[int, ...],
    columns: int,
    asked: tuple[int, ...],
    settings: EpisodeSettings,
    mesh: Mesh | None,
) -> Held:
    """Slots without rows. asked: [C, N] of the problems' own instructions, if they have them."""

    def of_shard(_, *, settings: EpisodeSettings):
        state = slots.idle_state(columns, settings=settings)
        keys_R2 = jnp.zeros((settings.slots, 2, *key_words), jnp.uint32)
        limit_RA = jnp.zeros((settings.slots, settings.attempts), jnp.int32)
        own = None
        if asked:
            zero_RCN = jnp.zeros((settings.slots, *asked), jnp.int32)
            own = Instructions(zero_RCN, zero_RCN[..., 0])
        return _apart(Slots(state, keys_R2, limit_RA, own))

    return by_shard(of_shard, {}, (), (), _HELD, settings=settings, mesh=mesh)
