"""All attempts of a batch of problems, sampled in one compiled program.

    run(params, prompts, key, *, settings, mesh=None) -> Episode

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
nothing is decoded to text or tokenised again. Shapes are static; no step talks to the host.

Randomness is addressed: the uniform for the token at a column comes from (key, problem index,
sample, column). The same samples come out whatever the number of slots, devices or turn_rows.
"""

import dataclasses
import functools
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
    turn_rows: int = 0  # slots served per turn-around; 0: an eighth of them
    dtype: str = "float32"  # of weights and cache while decoding

    def row_tokens(self, prompt_tokens: int) -> int:
        """T: columns of a row that holds the longest possible episode."""
        turn = len(self.turn_end) + len(self.instruction)
        return prompt_tokens + self.attempts * self.max_attempt_tokens + (self.attempts - 1) * turn


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
    cache: kv.Cache
    steps: jax.Array  # decode steps taken
    live: jax.Array  # slots that were writing, summed over steps


class Work(flax.struct.PyTreeNode):
    """What a rollout cost, per device."""

    decode_steps: jax.Array  # [devices]
    live_slot_steps: jax.Array  # [devices]


def run(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
) -> Episode:
    """Samples G episodes of A attempts for each of Q problems.

    Args:
      params: as in transformer.py, stacked; laid out for decoding inside, once per call.
      prompts: Q problems; with a mesh, Q must be a multiple of its data-parallel size.
      key: addresses every draw together with problem index, sample and column; consumed.

    Returns: Episode of B = Q * G rows; row q * G + g is sample g of problem q.
    """
    return run_counted(params, prompts, key, settings=settings, mesh=mesh)[0]


def run_counted(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
) -> tuple[Episode, Work]:
    """As `run`, and what it cost."""
    tokens = (np.asarray(prompts.tokens), np.asarray(prompts.length), np.asarray(prompts.index))
    return _run(params, *tokens, key, settings=settings, mesh=mesh)


@functools.partial(jax.jit, static_argnames=("settings", "mesh"))
def _run(params, tokens_QP, length_Q, index_Q, key, *, settings: EpisodeSettings, mesh):
    if mesh is None:
        return _serve(params, tokens_QP, length_Q, index_Q, key, settings=settings)
    by_row = PartitionSpec(sharding.BATCH_AXES)
    everywhere = PartitionSpec()
    return jax.shard_map(
        functools.partial(_serve, settings=settings),
        mesh=mesh,
        in_specs=(everywhere, by_row, by_row, by_row, everywhere),
        out_specs=by_row,
        # The loop's trip count differs per device and touches no collective; there is nothing
        # for the replication checker to check.
        check_vma=False,
    )(params, tokens_QP, length_Q, index_Q, key)


def _serve(params, tokens_QP, length_Q, index_Q, key, *, settings: EpisodeSettings):
    """The rollout of one device."""
    s = settings
    params = jax.tree.map(lambda x: x.astype(s.dtype), params)
    params = transformer.unstack(params)
    problems, prompt_tokens = tokens_QP.shape
    samples = problems * s.samples
    slots = min(s.slots or samples, samples)
    turn_rows = min(s.turn_rows or max(1, slots // 8), slots)

    prompt_cache = kv.empty(s.model, problems, prompt_tokens, s.dtype)
    start_Q = jnp.zeros(problems, jnp.int32)
    hidden_QPD, prompt_cache = transformer.extend(s.model, params, prompt_cache, tokens_QP, start_Q)
    hidden_QD = hidden_QPD[jnp.arange(problems), length_Q - 1]
    prompt = (prompt_cache, hidden_QD, length_Q)

    problem_R = jnp.repeat(jnp.arange(problems), s.samples)
    sample_R = jnp.tile(jnp.arange(s.samples), problems)
    key_R = jax.vmap(lambda i, g: jax.random.fold_in(jax.random.fold_in(key, i), g))(
        index_Q[problem_R], sample_R
    )
    state = _first_state(prompt, tokens_QP, problem_R, slots, settings=s)

    def unfinished(state: _State):
        return jnp.any((state.status == WRITING) | (state.status == WAITING))

    def burst_then_turn(state: _State):
        state = jax.lax.while_loop(
            functools.partial(_keep_writing, turn_rows=turn_rows, samples=samples),
            functools.partial(_decode, params=params, key_R=key_R, settings=s),
            state,
        )
        if s.attempts > 1:
            state = _instruct(state, params, turn_rows, settings=s)
        if slots < samples:
            state = _refill(state, prompt, problem_R, turn_rows)
        return state

    state = jax.lax.while_loop(unfinished, burst_then_turn, state)
    return state.rows, Work(decode_steps=state.steps[None], live_slot_steps=state.live[None])


def _first_state(prompt, tokens_QP, problem_R, slots: int, *, settings: EpisodeSettings) -> _State:
    """Every slot holds a prompt and writes attempt 1."""
    s = settings
    prompt_cache, hidden_QD, length_Q = prompt
    samples, columns = problem_R.shape[0], s.row_tokens(tokens_QP.shape[1])
    behind = columns - tokens_QP.shape[1]
    in_prompt_QP = jnp.arange(tokens_QP.shape[1]) < length_Q[:, None]
    tokens_QT = jnp.pad(
        jnp.where(in_prompt_QP, tokens_QP, s.pad_id),
        ((0, 0), (0, behind)),
        constant_values=s.pad_id,
    )
    problem_slot = problem_R[:slots]
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
        cache=jax.tree.map(
            lambda x: jnp.pad(x[problem_slot], ((0, 0), (0, 0), (0, behind), (0, 0))), prompt_cache
        ),
        steps=jnp.int32(0),
        live=jnp.int32(0),
    )


def _keep_writing(state: _State, *, turn_rows: int, samples: int):
    """A burst goes on while somebody writes and too few slots are idle for a turn-around."""
    refillable = (state.status == DONE) & (state.next_row < samples)
    idle = jnp.sum((state.status == WAITING) | refillable)
    return jnp.any(state.status == WRITING) & (idle < turn_rows)


def _decode(state: _State, *, params, key_R, settings: EpisodeSettings) -> _State:
    """One token for every slot that is writing."""
    s = settings
    rows = state.rows
    samples, columns = rows.tokens.shape
    writing = state.status == WRITING
    logits = transformer.project(s.model, params, state.hidden)
    uniform = jnp.zeros(state.row.shape)
    if s.policy.temperature > 0.0:
        draw = jax.vmap(lambda key, column: jax.random.uniform(jax.random.fold_in(key, column)))
        uniform = draw(key_R[state.row], state.length)
    token, logp = sample(logits, uniform, s.policy)

    count = state.count + 1
    is_end = jnp.isin(token, jnp.array(s.end_ids, jnp.int32))
    ended = writing & (is_end | (count == s.max_attempt_tokens))
    row = jnp.where(writing, state.row, samples)  # past the end: written nowhere
    column = state.length
    rows = rows.replace(
        tokens=rows.tokens.at[row, column].set(token, mode="drop"),
        attempt=rows.attempt.at[row, column].set(state.attempt, mode="drop"),
        logp=rows.logp.at[row, column].set(logp, mode="drop"),
        length=rows.length.at[row].set(column + 1, mode="drop"),
        truncated=rows.truncated.at[row, state.attempt - 1].set(ended & ~is_end, mode="drop"),
    )
    # Idle slots compute along; a column past the end is written nowhere.
    start = jnp.where(writing, state.length, columns)
    hidden, cache = transformer.extend(s.model, params, state.cache, token[:, None], start)
    last = state.attempt == s.attempts
    return state.replace(
        rows=rows,
        status=jnp.where(ended, jnp.where(last, DONE, WAITING), state.status),
        length=state.length + writing,
        count=jnp.where(writing, count, state.count),
        hidden=jnp.where(writing[:, None], hidden[:, 0], state.hidden),
        cache=cache,
        steps=state.steps + 1,
        live=state.live + jnp.sum(writing),
    )


def _instruct(state: _State, params, turn_rows: int, *, settings: EpisodeSettings) -> _State:
    """Feeds the instruction to up to `turn_rows` waiting slots, which then write the next attempt.

    A truncated attempt is closed by `turn_end` first, so the chunk is N = I or I + E tokens long:

        ended by itself   i i i .      truncated   e i i i
    """
    s = settings
    rows = state.rows
    slots, (samples, columns) = state.row.shape[0], rows.tokens.shape
    (slot_W,) = jnp.nonzero(state.status == WAITING, size=turn_rows, fill_value=slots)

    def feed(state: _State) -> _State:
        row_W = state.row.at[slot_W].get(mode="fill", fill_value=samples)
        start_W = state.length.at[slot_W].get(mode="fill", fill_value=0)
        attempt_W = state.attempt.at[slot_W].get(mode="fill", fill_value=1)
        closed = jnp.array(s.turn_end + s.instruction, jnp.int32)
        open_ = jnp.array(s.instruction + (s.pad_id,) * len(s.turn_end), jnp.int32)
        truncated_W = rows.truncated.at[row_W, attempt_W - 1].get(mode="fill", fill_value=False)
        tokens_WN = jnp.where(truncated_W[:, None], closed, open_)
        fed_W = len(s.instruction) + truncated_W * len(s.turn_end)
        hidden_WND, cache = transformer.extend(
            s.model, params, state.cache, tokens_WN, start_W, slot_W
        )
        hidden_WD = jnp.take_along_axis(hidden_WND, fed_W[:, None, None] - 1, axis=1)[:, 0]
        offset_N = jnp.arange(tokens_WN.shape[1])
        column_WN = jnp.where(
            offset_N < fed_W[:, None], start_W[:, None] + offset_N, columns
        )  # padding is written nowhere
        length_W = start_W + fed_W
        return state.replace(
            rows=rows.replace(
                tokens=rows.tokens.at[row_W[:, None], column_WN].set(tokens_WN, mode="drop"),
                length=rows.length.at[row_W].set(length_W, mode="drop"),
            ),
            status=state.status.at[slot_W].set(WRITING, mode="drop"),
            length=state.length.at[slot_W].set(length_W, mode="drop"),
            attempt=state.attempt.at[slot_W].add(1, mode="drop"),
            count=state.count.at[slot_W].set(0, mode="drop"),
            hidden=state.hidden.at[slot_W].set(hidden_WD, mode="drop"),
            cache=cache,
        )

    return jax.lax.cond(jnp.any(state.status == WAITING), feed, lambda state: state, state)


def _refill(state: _State, prompt: Any, problem_R: jax.Array, turn_rows: int) -> _State:
    """Gives up to `turn_rows` finished slots to the next samples of the queue."""
    prompt_cache, hidden_QD, length_Q = prompt
    slots, samples = state.row.shape[0], problem_R.shape[0]
    (slot_W,) = jnp.nonzero(state.status == DONE, size=turn_rows, fill_value=slots)
    row_W = state.next_row + jnp.arange(turn_rows)
    taken_W = (slot_W < slots) & (row_W < samples)
    slot_W = jnp.where(taken_W, slot_W, slots)
    problem_W = problem_R.at[row_W].get(mode="clip")

    def load(cache_BKSE: jax.Array, prompt_QKPE: jax.Array) -> jax.Array:
        prompt_tokens = prompt_QKPE.shape[2]
        return cache_BKSE.at[slot_W, :, :prompt_tokens].set(prompt_QKPE[problem_W], mode="drop")

    return state.replace(
        next_row=state.next_row + jnp.sum(taken_W),
        row=state.row.at[slot_W].set(row_W, mode="drop"),
        status=state.status.at[slot_W].set(WRITING, mode="drop"),
        length=state.length.at[slot_W].set(length_Q[problem_W], mode="drop"),
        attempt=state.attempt.at[slot_W].set(1, mode="drop"),
        count=state.count.at[slot_W].set(0, mode="drop"),
        hidden=state.hidden.at[slot_W].set(hidden_QD[problem_W], mode="drop"),
        cache=jax.tree.map(load, state.cache, prompt_cache),
    )
