"""All attempts of a batch of problems, sampled in one compiled program.

    run(params, prompts, key, *, settings, mesh=None, limit_QGA=None) -> Episode

This is the whole interface to the trainer: an external engine that returns the same `Episode`
(ids as sampled, log-probs of the distribution sampled from, truncation flags) can replace it.

How it works. Every problem's prompt is prefilled once; its G samples start from copies of that
cache. A *slot* is a cache row in which one sample lives. The loop alternates between

  * a burst: every slot that is writing samples a token and feeds it, one token per step, until
    enough slots stand idle;
  * a turn-around: up to `turn_rows` idle slots move on. A slot that ended an attempt is fed the
    instruction in one chunk and goes on writing; a slot that ended its last attempt takes the next
    sample of the queue, if there are more samples than slots.

So nobody waits for the slowest row before attempt 2, the cache of attempt 1 carries over, and
nothing is decoded to text or tokenised again. When the queue is empty and few samples are still
being written, they move together into fewer slots (`shrink`), so that the last long ones do not
pay for the slots of all. Shapes are static; no step talks to the host.

Randomness is addressed: the uniform for the token at a column comes from (key, problem index,
sample, column). The same samples come out whatever the number of slots, devices or turn_rows.
Siblings, samples that share their first attempt, take that attempt's uniforms from the first of
them: each writes it for itself, which costs steps and needs no copying between slots.
"""

import dataclasses
import functools
import itertools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from score_jax import sharding
from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.model.families import ModelConfig
from score_jax.rl.policy import Policy
from score_jax.rollout.sampling import sample
from score_jax.structs import Episode, Params, PromptBatch

IDLE, WRITING, WAITING, DONE = 0, 1, 2, 3  # of a slot; WAITING: for the instruction


@dataclasses.dataclass(frozen=True)
class EpisodeSettings:
    """Everything that a compiled rollout depends on besides the shapes of its inputs."""

    model: ModelConfig
    policy: Policy
    attempts: int  # A
    samples: int  # G, samples per problem
    max_attempt_tokens: int  # tokens of one attempt, its end token included
    instruction: tuple[int, ...]  # ids between two attempts
    turn_end: tuple[int, ...]  # ids that close a truncated attempt before the instruction
    end_ids: tuple[int, ...]  # ids that end an attempt
    pad_id: int
    slots: int = 0  # per device; 0: one per sample
    turn_rows: int = 0  # slots served per turn-around; 0: a sixteenth of them
    shrink: int = 0  # how often what is left may move into half of the slots
    siblings: int = 1  # M: samples g * M to g * M + M - 1 have the same first attempt
    dtype: str = "float32"  # of weights and cache while decoding
    cache_layout: str = "by_head"  # see model/cache_layouts.py

    def row_tokens(self, prompt_tokens: int) -> int:
        """T: columns of a row that holds the longest possible episode."""
        turn = len(self.turn_end) + len(self.instruction)
        return prompt_tokens + self.attempts * self.max_attempt_tokens + (self.attempts - 1) * turn


class Work(flax.struct.PyTreeNode):
    """What a rollout cost; scalars inside the loop, [devices] outside."""

    decode_steps: jax.Array
    slot_steps: jax.Array  # slots that a step computed, summed over steps
    live_slot_steps: jax.Array  # those of them that were writing
    fed_tokens: jax.Array  # tokens of prompts and instructions, fed in chunks


class _State(flax.struct.PyTreeNode):
    """The loop's carry: what is written, and the slots (their arrays are [slots, ...])."""

    rows: Episode  # R samples, as far as they are written
    next_row: jax.Array  # first sample that no slot has taken yet
    row: jax.Array  # which sample lives in the slot
    status: jax.Array
    length: jax.Array  # tokens in the cache
    attempt: jax.Array  # 1..A
    count: jax.Array  # tokens of this attempt so far
    hidden: jax.Array  # [slots, D] of the last token fed
    cache: kv.Cache  # a ring
    ring: jax.Array  # where in the ring the next step writes
    end: jax.Array  # where in the ring this slot's tokens end; `ring` while it is writing
    work: Work


def run(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    limit_QGA: np.ndarray | None = None,
) -> Episode:
    """Samples G episodes of A attempts for each of Q problems.

    Args:
      params: as in transformer.py, stacked; laid out for decoding inside, once per call.
      prompts: Q problems; with a mesh, Q must be a multiple of its data-parallel size.
      key: addresses every draw together with problem index, sample and column; consumed.
      limit_QGA: tokens each attempt may have, its end token included, 1 to max_attempt_tokens;
        None: max_attempt_tokens for all.

    Returns: Episode of B = Q * G rows; row q * G + g is sample g of problem q.
    """
    return run_counted(params, prompts, key, settings=settings, mesh=mesh, limit_QGA=limit_QGA)[0]


def run_counted(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    limit_QGA: np.ndarray | None = None,
) -> tuple[Episode, Work]:
    """As `run`, and what it cost."""
    arguments = call_arguments(params, prompts, key, settings=settings, limit_QGA=limit_QGA)
    return compiled(*arguments, settings=settings, mesh=mesh)


def check(episode: Episode) -> None:
    """Refuses episodes whose behaviour log-probs are missing or wrong; fetches them.

    Raises: ValueError. For engines plugged in from outside: a trainer that takes zeros for
    log-probs trains, and on the wrong objective.
    """
    logp_N = np.asarray(episode.logp)[np.asarray(episode.attempt) > 0]
    bad = int(np.sum(~np.isfinite(logp_N) | (logp_N > 0.0)))
    if bad:
        raise ValueError(
            f"{bad} of {logp_N.size} sampled tokens have a log-prob that is not finite or above 0. "
            "The rollout must return log-probs under the distribution that it drew from."
        )
    if logp_N.size and not np.any(logp_N):
        raise ValueError(
            f"All {logp_N.size} sampled tokens have log-prob 0, as if none had been stored. "
            "The rollout must return log-probs under the distribution that it drew from."
        )


def call_arguments(params, prompts: PromptBatch, key, *, settings: EpisodeSettings, limit_QGA=None):
    """The arrays that `compiled` takes, in order."""
    shape = (len(prompts.tokens), settings.samples, settings.attempts)
    if limit_QGA is None:
        limit_QGA = np.full(shape, settings.max_attempt_tokens, np.int32)
    limit_QGA = np.asarray(limit_QGA, np.int32)
    if limit_QGA.shape != shape:
        raise ValueError(f"limit_QGA is {limit_QGA.shape} and must be {shape}")
    tokens = (np.asarray(prompts.tokens), np.asarray(prompts.length), np.asarray(prompts.index))
    return (params, *tokens, limit_QGA, key)


@functools.partial(jax.jit, static_argnames=("settings", "mesh"))
def compiled(
    params, tokens_QP, length_Q, index_Q, limit_QGA, key, *, settings: EpisodeSettings, mesh
) -> tuple[Episode, Work]:
    """The program behind `run`, for those who want to lower it themselves."""
    s = settings
    params = transformer.for_decoding(s.model, params, s.dtype)
    if mesh is None:
        return _serve(params, tokens_QP, length_Q, index_Q, limit_QGA, key, settings=s)
    shards = sharding.decoding_shardings(mesh, transformer.AXES, params)
    if mesh.shape["tensor"] > 1:
        s = dataclasses.replace(s, model=s.model.share("tensor", mesh.shape["tensor"]))
    by_row, everywhere = PartitionSpec(sharding.BATCH_AXES), PartitionSpec()
    of_params = jax.tree.map(lambda shard: shard.spec, shards)
    return jax.shard_map(
        functools.partial(_serve, settings=s),
        mesh=mesh,
        in_specs=(of_params, by_row, by_row, by_row, by_row, everywhere),
        out_specs=by_row,
        # The checker knows no loop whose trip count differs between the shards of the data. Inside
        # it, only the devices that share one copy of the model talk, and they agree on the count.
        check_vma=False,
    )(params, tokens_QP, length_Q, index_Q, limit_QGA, key)


def _serve(params, tokens_QP, length_Q, index_Q, limit_QGA, key, *, settings: EpisodeSettings):
    """The rollout of one shard of the data, on one device or those that share the model."""
    s = settings
    problems = tokens_QP.shape[0]
    samples = problems * s.samples
    prompt = _prefill(params, tokens_QP, length_Q, settings=s)

    problem_R = jnp.repeat(jnp.arange(problems), s.samples)
    sample_R = jnp.tile(jnp.arange(s.samples), problems)
    address = jax.vmap(lambda i, g: jax.random.fold_in(jax.random.fold_in(key, i), g))
    first_R = sample_R - sample_R % s.siblings  # who draws for the first attempt
    keys_2R = jnp.stack([address(index_Q[problem_R], g) for g in (first_R, sample_R)])
    decode = functools.partial(
        _decode, params=params, keys_2R=keys_2R, limit_RA=limit_QGA.reshape(samples, -1), settings=s
    )
    sizes = slot_counts(samples, s)
    state = _first_state(prompt, tokens_QP, problem_R, sizes[0], settings=s)
    for slots, fewer in itertools.pairwise((*sizes, 0)):
        turn_rows = min(s.turn_rows or max(1, slots // 16), slots)
        turns = []
        if s.attempts > 1:
            turns.append(functools.partial(_instruct, params=params, rows=turn_rows, settings=s))
        if slots == sizes[0] < samples:  # later, the queue is empty
            turns.append(functools.partial(_refill, prompt=prompt, of=problem_R, rows=turn_rows))
        keep_writing = functools.partial(
            _keep_writing, turn_rows=turn_rows, slots=slots, fewer=fewer
        )
        state = jax.lax.while_loop(
            functools.partial(_too_many_left, fewer=fewer),
            functools.partial(_burst_then_turn, keep_writing, decode, turns),
            state,
        )
        if fewer:
            state = _move_together(state, fewer)
    return state.rows, jax.tree.map(lambda x: x[None], state.work)


def _burst_then_turn(keep_writing, decode, turns, state: _State) -> _State:
    state = jax.lax.while_loop(keep_writing, decode, state)
    for turn in turns:
        state = turn(state)
    return state


def slot_counts(samples: int, settings: EpisodeSettings) -> list[int]:
    """How many slots a device decodes with: at first, and after each `shrink`."""
    counts = [min(settings.slots or samples, samples)]
    for _ in range(settings.shrink):
        if counts[-1] > 4:  # below, a step costs the same
            counts.append(counts[-1] // 2)
    return counts


def _prefill(params, tokens_QP, length_Q, *, settings: EpisodeSettings):
    """Feeds every prompt once; (cache of contiguous rows, hidden_QD of last tokens, length_Q)."""
    problems, prompt_tokens = tokens_QP.shape
    s = settings
    cache = kv.empty(s.model, problems, prompt_tokens, s.dtype, s.cache_layout)
    start_Q = jnp.zeros(problems, jnp.int32)
    hidden_QPD, cache = transformer.extend(s.model, params, cache, tokens_QP, start_Q)
    return cache, hidden_QPD[jnp.arange(problems), length_Q - 1], length_Q


def _first_state(prompt, tokens_QP, problem_R, slots: int, *, settings: EpisodeSettings) -> _State:
    """Every slot holds a prompt and writes attempt 1."""
    s = settings
    prompt_cache, hidden_QD, length_Q = prompt
    prompt_tokens = tokens_QP.shape[1]
    samples, columns = problem_R.shape[0], s.row_tokens(prompt_tokens)
    in_prompt_QP = jnp.arange(prompt_tokens) < length_Q[:, None]
    tokens_QT = jnp.pad(
        jnp.where(in_prompt_QP, tokens_QP, s.pad_id),
        ((0, 0), (0, columns - prompt_tokens)),
        constant_values=s.pad_id,
    )
    # Turned before it is copied and widened: all prompts end at slot P of the ring.
    prompt_cache = kv.to_ring(prompt_cache, length_Q, jnp.int32(prompt_tokens))
    problem_slot = problem_R[:slots]
    none = jnp.int32(0)
    return _State(
        rows=Episode(
            tokens=tokens_QT[problem_R],
            attempt=jnp.zeros((samples, columns), jnp.int32),
            logp=jnp.zeros((samples, columns), jnp.float32),
            length=length_Q[problem_R],
            truncated=jnp.zeros((samples, s.attempts), bool),
        ),
        next_row=jnp.int32(slots),
        row=jnp.arange(slots),
        status=jnp.full(slots, WRITING),
        length=length_Q[problem_slot],
        attempt=jnp.ones(slots, jnp.int32),
        count=jnp.zeros(slots, jnp.int32),
        hidden=hidden_QD[problem_slot],
        cache=kv.widen(kv.take(prompt_cache, problem_slot), columns),
        ring=jnp.int32(prompt_tokens),
        end=jnp.full(slots, prompt_tokens),
        work=Work(none, none, none, fed_tokens=jnp.sum(length_Q)),
    )


def _alive(state: _State) -> jax.Array:
    return (state.status == WRITING) | (state.status == WAITING)


def _left_in_queue(state: _State) -> jax.Array:
    return state.rows.length.shape[0] - state.next_row


def _too_many_left(state: _State, *, fewer: int):
    """Whether what is left to do needs more than `fewer` slots."""
    return (_left_in_queue(state) > 0) | (jnp.sum(_alive(state)) > fewer)


def _keep_writing(state: _State, *, turn_rows: int, slots: int, fewer: int):
    """A burst goes on while somebody writes and too few slots are idle for a turn-around.

    Too few: less than turn_rows / slots of those that have something left to do, so that the last
    samples do not wait for company that never comes.
    """
    writing = jnp.sum(state.status == WRITING)
    refillable = (state.status == DONE) & (_left_in_queue(state) > 0)
    idle = jnp.sum((state.status == WAITING) | refillable)
    enough = jnp.maximum(1, turn_rows * (writing + idle) // slots)
    return (writing > 0) & (idle < enough) & _too_many_left(state, fewer=fewer)


def _decode(state: _State, *, params, keys_2R, limit_RA, settings: EpisodeSettings) -> _State:
    """One token for every slot that is writing."""
    s = settings
    rows, work = state.rows, state.work
    slots, samples = state.row.shape[0], rows.tokens.shape[0]
    writing = state.status == WRITING
    logits = transformer.project(s.model, params, state.hidden)
    uniform = jnp.zeros(slots)
    if s.policy.temperature > 0.0:
        draw = jax.vmap(lambda key, column: jax.random.uniform(jax.random.fold_in(key, column)))
        uniform = draw(keys_2R[jnp.minimum(state.attempt - 1, 1), state.row], state.length)
    token, logp = sample(logits, uniform, s.policy, s.model.split_over)

    count = state.count + 1
    is_end = jnp.isin(token, jnp.array(s.end_ids, jnp.int32))
    ended = writing & (is_end | (count == limit_RA[state.row, state.attempt - 1]))
    row = jnp.where(writing, state.row, samples)  # past the end: written nowhere
    column = state.length
    rows = rows.replace(
        tokens=rows.tokens.at[row, column].set(token, mode="drop"),
        attempt=rows.attempt.at[row, column].set(state.attempt, mode="drop"),
        logp=rows.logp.at[row, column].set(logp, mode="drop"),
        length=rows.length.at[row].set(column + 1, mode="drop"),
        truncated=rows.truncated.at[row, state.attempt - 1].set(ended & ~is_end, mode="drop"),
    )
    hidden, cache = transformer.step(
        s.model, params, state.cache, token, state.length, state.ring, writing
    )
    ring = (state.ring + 1) % kv.slots_of(cache)
    last = state.attempt == s.attempts
    return state.replace(
        rows=rows,
        status=jnp.where(ended, jnp.where(last, DONE, WAITING), state.status),
        length=state.length + writing,
        count=jnp.where(writing, count, state.count),
        hidden=jnp.where(writing[:, None], hidden, state.hidden),
        cache=cache,
        ring=ring,
        end=jnp.where(writing, ring, state.end),
        work=work.replace(
            decode_steps=work.decode_steps + 1,
            slot_steps=work.slot_steps + slots,
            live_slot_steps=work.live_slot_steps + jnp.sum(writing),
        ),
    )


def _instruct(state: _State, *, params, rows: int, settings: EpisodeSettings) -> _State:
    """Feeds the instruction to up to `rows` waiting slots, which then write the next attempt.

    A truncated attempt is closed by `turn_end` first, so the chunk is N = I or I + E tokens long:

        ended by itself   i i i .      truncated   e i i i
    """
    s = settings
    episodes = state.rows
    slots, (samples, columns) = state.row.shape[0], episodes.tokens.shape
    (slot_W,) = jnp.nonzero(state.status == WAITING, size=rows, fill_value=slots)

    def feed(state: _State) -> _State:
        row_W = state.row.at[slot_W].get(mode="fill", fill_value=samples)
        start_W = state.length.at[slot_W].get(mode="fill", fill_value=0)
        attempt_W = state.attempt.at[slot_W].get(mode="fill", fill_value=1)
        end_W = state.end.at[slot_W].get(mode="fill", fill_value=0)
        closed = jnp.array(s.turn_end + s.instruction, jnp.int32)
        open_ = jnp.array(s.instruction + (s.pad_id,) * len(s.turn_end), jnp.int32)
        truncated_W = episodes.truncated.at[row_W, attempt_W - 1].get(mode="fill", fill_value=False)
        tokens_WN = jnp.where(truncated_W[:, None], closed, open_)
        fed_W = len(s.instruction) + truncated_W * len(s.turn_end)
        length_W = start_W + fed_W

        contiguous = kv.from_ring(kv.take(state.cache, slot_W), start_W, end_W)
        hidden_WND, contiguous = transformer.extend(s.model, params, contiguous, tokens_WN, start_W)
        turned = kv.to_ring(contiguous, length_W, state.ring)
        hidden_WD = jnp.take_along_axis(hidden_WND, fed_W[:, None, None] - 1, axis=1)[:, 0]

        offset_N = jnp.arange(tokens_WN.shape[1])
        column_WN = jnp.where(
            offset_N < fed_W[:, None], start_W[:, None] + offset_N, columns
        )  # padding is written nowhere
        fed_tokens = jnp.sum(jnp.where(slot_W < slots, fed_W, 0))
        return state.replace(
            rows=episodes.replace(
                tokens=episodes.tokens.at[row_W[:, None], column_WN].set(tokens_WN, mode="drop"),
                length=episodes.length.at[row_W].set(length_W, mode="drop"),
            ),
            status=state.status.at[slot_W].set(WRITING, mode="drop"),
            length=state.length.at[slot_W].set(length_W, mode="drop"),
            attempt=state.attempt.at[slot_W].add(1, mode="drop"),
            count=state.count.at[slot_W].set(0, mode="drop"),
            hidden=state.hidden.at[slot_W].set(hidden_WD, mode="drop"),
            cache=kv.put(state.cache, slot_W, turned),
            end=state.end.at[slot_W].set(state.ring, mode="drop"),
            work=state.work.replace(fed_tokens=state.work.fed_tokens + fed_tokens),
        )

    return jax.lax.cond(jnp.any(state.status == WAITING), feed, lambda state: state, state)


def _refill(state: _State, *, prompt: Any, of: jax.Array, rows: int) -> _State:
    """Gives up to `rows` finished slots to the next samples of the queue."""
    prompt_cache, hidden_QD, length_Q = prompt
    slots, samples = state.row.shape[0], of.shape[0]  # of: the problem of each sample
    (slot_W,) = jnp.nonzero(state.status == DONE, size=rows, fill_value=slots)
    row_W = state.next_row + jnp.arange(rows)
    taken_W = (slot_W < slots) & (row_W < samples)
    slot_W = jnp.where(taken_W, slot_W, slots)

    def load(state: _State) -> _State:
        problem_W = of.at[row_W].get(mode="clip")
        length_W = length_Q[problem_W]
        contiguous = kv.widen(kv.take(prompt_cache, problem_W), kv.slots_of(state.cache))
        turned = kv.to_ring(contiguous, length_W, state.ring)
        return state.replace(
            next_row=state.next_row + jnp.sum(taken_W),
            row=state.row.at[slot_W].set(row_W, mode="drop"),
            status=state.status.at[slot_W].set(WRITING, mode="drop"),
            length=state.length.at[slot_W].set(length_W, mode="drop"),
            attempt=state.attempt.at[slot_W].set(1, mode="drop"),
            count=state.count.at[slot_W].set(0, mode="drop"),
            hidden=state.hidden.at[slot_W].set(hidden_QD[problem_W], mode="drop"),
            cache=kv.put(state.cache, slot_W, turned),
            end=state.end.at[slot_W].set(state.ring, mode="drop"),
        )

    return jax.lax.cond(jnp.any(taken_W), load, lambda state: state, state)


def _move_together(state: _State, slots: int) -> _State:
    """The samples that are still being written, in as few as `slots` slots."""
    size = state.row.shape[0]
    (slot_W,) = jnp.nonzero(_alive(state), size=slots, fill_value=size)

    def of(x: jax.Array) -> jax.Array:
        return x.at[slot_W].get(mode="clip")

    return state.replace(
        row=of(state.row),
        status=jnp.where(slot_W < size, of(state.status), DONE),
        length=of(state.length),
        attempt=of(state.attempt),
        count=of(state.count),
        hidden=of(state.hidden),
        cache=kv.take(state.cache, slot_W),
        end=of(state.end),
    )
