"""The slots of a rollout: their state and its transitions.

    first_state(...)     every slot holds a prompt
    write(state)         one token for every slot that is writing
    take_back(state)     tokens of a stop sequence leave the attempt that it ended
    instruct(state)      slots that ended an attempt are fed the instruction and continue writing
    rewind(state)        slots that ended their last attempt go back to the end of the first
    refill(state)        slots that ended their last attempt take the next samples of the queue
    move_together(state) the remaining samples move into fewer slots

Each takes the state and returns the next one; programs.py decides which is next. All shapes are
static: a transition skips the other slots by an index past the end.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.model.cache_layouts import ByRow
from score_jax.rollout import stopping
from score_jax.rollout.sampling import sample
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.stopping import Stopping
from score_jax.structs import Episode, Instructions

IDLE, WRITING, WAITING, DONE = 0, 1, 2, 3  # of a slot; WAITING: for the instruction


class Work(flax.struct.PyTreeNode):
    """Counts of the work of a rollout; scalars inside the loop, [devices] outside."""

    decode_steps: jax.Array
    slot_steps: jax.Array  # slots that a step computed, summed over steps
    live_slot_steps: jax.Array  # those of them that were writing
    fed_tokens: jax.Array  # tokens of prompts and instructions, fed in chunks


class Forks(flax.struct.PyTreeNode):
    """Where the slots' rows go back to for the next sibling: the end of their first attempt."""

    length: jax.Array  # [slots] tokens of the row there
    stopping: Stopping | None  # as it was there
    siblings: int = flax.struct.field(pytree_node=False)  # M, of a family


class Queue(flax.struct.PyTreeNode):
    """The prompts of samples that no slot has taken yet."""

    cache: kv.Cache  # of all Q problems, contiguous
    hidden_QD: jax.Array
    length_Q: jax.Array
    problem_R: jax.Array  # of each sample


class State(flax.struct.PyTreeNode):
    """The loop's carry: the rows written so far, and the slots (their arrays are [slots, ...])."""

    rows: Episode  # R samples, as far as they are written
    next_row: jax.Array  # first sample that no slot has taken yet
    row: jax.Array  # the sample in the slot
    status: jax.Array
    length: jax.Array  # tokens in the cache
    attempt: jax.Array  # 1..A
    count: jax.Array  # tokens of this attempt so far
    hidden: jax.Array  # [slots, D] of the last token fed
    cache: kv.Cache  # a ring
    ring: jax.Array  # the slot of the ring that the next step writes
    end: jax.Array  # the slot of the ring where this row's tokens end; `ring` while it is writing
    work: Work
    stopping: Stopping | None = None  # with stop sequences
    forks: Forks | None = None  # with siblings that share a slot


def first_state(
    prompt,
    tokens_QP,
    problem_R,
    slots: int,
    *,
    settings: EpisodeSettings,
    instruction_tokens: int = 0,
) -> State:
    """Every slot holds a prompt and writes attempt 1, of the first sample of a family."""
    s = settings
    family = family_of(s)
    prompt_cache, hidden_QD, length_Q = prompt
    prompt_tokens = tokens_QP.shape[1]
    samples, columns = problem_R.shape[0], s.row_tokens(prompt_tokens, instruction_tokens)
    in_prompt_QP = jnp.arange(prompt_tokens) < length_Q[:, None]
    tokens_QT = jnp.pad(
        jnp.where(in_prompt_QP, tokens_QP, s.pad_id),
        ((0, 0), (0, columns - prompt_tokens)),
        constant_values=s.pad_id,
    )
    # Rotated before it is copied and widened: all prompts end at slot P of the ring.
    prompt_cache = kv.to_ring(prompt_cache, length_Q, jnp.int32(prompt_tokens))
    row_slot = jnp.arange(slots)
    if family > 1:
        row_slot *= family
    problem_slot = problem_R[row_slot]
    none = jnp.int32(0)
    return State(
        rows=Episode(
            tokens=tokens_QT[problem_R],
            attempt=jnp.zeros((samples, columns), jnp.int32),
            logp=jnp.zeros((samples, columns), jnp.float32),
            length=length_Q[problem_R],
            truncated=jnp.zeros((samples, s.attempts), bool),
        ),
        next_row=jnp.int32(slots * family),
        row=row_slot,
        status=jnp.full(slots, WRITING),
        length=length_Q[problem_slot],
        attempt=jnp.ones(slots, jnp.int32),
        count=jnp.zeros(slots, jnp.int32),
        hidden=hidden_QD[problem_slot],
        cache=_settled(kv.widen(kv.take(prompt_cache, problem_slot), columns)),
        ring=jnp.int32(prompt_tokens),
        end=jnp.full(slots, prompt_tokens, jnp.int32),
        work=Work(none, none, none, fed_tokens=jnp.sum(length_Q)),
        stopping=stopping.first(slots) if s.stops else None,
        forks=Forks(jnp.zeros(slots, jnp.int32), stopping.first(slots) if s.stops else None, family)
        if family > 1
        else None,
    )


def family_of(settings: EpisodeSettings) -> int:
    """How many samples a slot writes one after the other: siblings, which share attempt 1."""
    return settings.siblings if settings.attempts > 1 else 1


def idle_state(columns: int, *, settings: EpisodeSettings) -> State:
    """`settings.slots` slots without rows, each with a row of its own to fill; see stream.py."""
    s, slots = settings, settings.slots
    none, zero = jnp.int32(0), jnp.zeros(slots, jnp.int32)
    return State(
        rows=Episode(
            tokens=jnp.full((slots, columns), s.pad_id, jnp.int32),
            attempt=jnp.zeros((slots, columns), jnp.int32),
            logp=jnp.zeros((slots, columns), jnp.float32),
            length=zero,
            truncated=jnp.zeros((slots, s.attempts), bool),
        ),
        next_row=jnp.int32(slots),
        row=jnp.arange(slots),
        status=jnp.full(slots, DONE),
        length=zero,
        attempt=zero + 1,
        count=zero,
        hidden=jnp.zeros((slots, s.model.width), s.dtype),
        cache=_settled(kv.empty(s.model, slots, columns, s.dtype, s.cache_layout)),
        ring=none,
        end=zero,
        work=Work(none, none, none, none),
        stopping=stopping.first(slots) if s.stops else None,
    )


def _settled(cache: kv.Cache) -> kv.Cache:
    """Keeps the memory layout that a TPU's decode step writes: all rows of a ring slot together.

    Without this, XLA chooses another layout outside the steps. Each burst and each turn-around then
    begins with a transposed copy of the whole cache, which takes as much memory again.
    """
    if not isinstance(cache[0], ByRow):
        return cache

    def pinned(cache: kv.Cache) -> kv.Cache:
        return jax.tree.map(lambda x_BSC: with_layout_constraint(x_BSC, Layout((1, 0, 2))), cache)

    return jax.lax.platform_dependent(cache, tpu=pinned, default=lambda cache: cache)


def _pass(state: State) -> State:
    """The same state, with its cache settled."""
    return state.replace(cache=_settled(state.cache))


def _alive(state: State) -> jax.Array:
    alive = (state.status == WRITING) | (state.status == WAITING)
    return alive | _rewinds(state) if state.forks else alive


def _rewinds(state: State) -> jax.Array:
    """The slots that ended a row and have more of its family to write."""
    assert state.forks
    family = state.forks.siblings
    return (state.status == DONE) & (state.row % family < family - 1)


def _left_in_queue(state: State) -> jax.Array:
    return state.rows.length.shape[0] - state.next_row


def too_many_left(state: State, *, fewer: int | jax.Array):
    """Whether the remaining samples need more than `fewer` slots."""
    return (_left_in_queue(state) > 0) | (jnp.sum(_alive(state)) > fewer)


def keep_writing(state: State, *, turn_rows: int):
    """Whether a burst continues: some slot is writing, and too few are idle for a turn-around.

    Too few: less than turn_rows / slots of the slots with work left. It is a share and not a number
    because near the end turn_rows idle slots may never come together.
    """
    writing = jnp.sum(state.status == WRITING)
    refillable = (state.status == DONE) & (_left_in_queue(state) > 0)
    waits = (state.status == WAITING) | refillable
    idle = jnp.sum(waits | _rewinds(state) if state.forks else waits)
    enough = jnp.maximum(1, turn_rows * (writing + idle) // len(state.row))
    return (writing > 0) & (idle < enough)


def write(
    state: State,
    *,
    params,
    keys_2R,
    limit_RA,
    settings: EpisodeSettings,
    greedy: jax.Array | None = None,
) -> State:
    """One token for every slot that is writing; greedy: as of `sampling.sample`."""
    s = settings
    rows, work = state.rows, state.work
    slots, samples = state.row.shape[0], rows.tokens.shape[0]
    writing = state.status == WRITING
    logits = transformer.project(s.model, params, state.hidden)
    uniform = jnp.zeros(slots)
    if s.policy.temperature > 0.0:
        draw = jax.vmap(lambda key, column: jax.random.uniform(jax.random.fold_in(key, column)))
        column = state.length + state.stopping.taken if state.stopping else state.length
        uniform = draw(keys_2R[jnp.minimum(state.attempt - 1, 1), state.row], column)
    token, logp = sample(logits, uniform, s.policy, s.model.split_over, greedy)

    count = state.count + 1
    is_end, stops = jnp.isin(token, jnp.array(s.end_ids, jnp.int32)), state.stopping
    if stops and s.stops:
        stops, stopped = stopping.follow(stops, token, writing, is_end, s.stops)
        is_end |= stopped
    ended = writing & (is_end | (count == limit_RA[state.row, state.attempt - 1]))
    row = jnp.where(writing, state.row, samples)  # past the end: dropped
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
        stopping=stops,
    )


def take_back(state: State, *, settings: EpisodeSettings) -> State:
    """Tokens that hold text of a stop sequence leave the row, if it does not belong to the attempt.

    The slots of the cache beyond the row's new end are never seen: the instruction and the next
    attempt overwrite them.
    """
    rows, stops, automaton = state.rows, state.stopping, settings.stops
    assert stops and automaton
    goes_BK = stopping.going_back(stops, rows.tokens, state.row, state.length, automaton)
    gone = jnp.sum(goes_BK, axis=1)
    samples, columns = rows.tokens.shape
    column_BK = state.length[:, None] - 1 - jnp.arange(automaton.span)
    at = (state.row[:, None], jnp.where(goes_BK, column_BK, columns))  # the others are dropped
    row = jnp.where(gone > 0, state.row, samples)
    return state.replace(
        rows=rows.replace(
            tokens=rows.tokens.at[at].set(settings.pad_id, mode="drop"),
            attempt=rows.attempt.at[at].set(0, mode="drop"),
            logp=rows.logp.at[at].set(0.0, mode="drop"),
            length=rows.length.at[row].add(-gone, mode="drop"),
        ),
        length=state.length - gone,
        end=state.end - gone,
        stopping=stops.replace(back=jnp.zeros_like(stops.back), taken=stops.taken + gone),
    )


def rewind(state: State, *, settings: EpisodeSettings) -> State:
    """Slots that ended a row go back to the end of its first attempt, for the next sibling.

    So siblings share that attempt's tokens, its log-probs and its cache, whatever rounding would
    have made of it if they had written it each. What is beyond it in the cache is never seen.
    """
    forks, rows = state.forks, state.rows
    assert forks
    samples, columns = rows.tokens.shape
    goes = _rewinds(state)
    row = jnp.where(goes, state.row + 1, samples)  # past the end: dropped
    in_first = jnp.arange(columns) < forks.length[:, None]

    def shared(x_RT: jax.Array, beyond: int) -> jax.Array:
        return x_RT.at[row].set(jnp.where(in_first, x_RT[state.row], beyond), mode="drop")

    again = stopping.restored(state.stopping, forks.stopping, goes)
    return state.replace(
        rows=rows.replace(
            tokens=shared(rows.tokens, settings.pad_id),
            attempt=shared(rows.attempt, 0),
            logp=shared(rows.logp, 0),
            length=rows.length.at[row].set(forks.length, mode="drop"),
            truncated=rows.truncated.at[row, 0].set(rows.truncated[state.row, 0], mode="drop"),
        ),
        row=state.row + goes,
        status=jnp.where(goes, WAITING, state.status),
        length=jnp.where(goes, forks.length, state.length),
        attempt=jnp.where(goes, 1, state.attempt),
        end=jnp.where(goes, state.end - (state.length - forks.length), state.end),
        stopping=again,
    )


def instruct(
    state: State,
    *,
    params,
    rows: int,
    settings: EpisodeSettings,
    asked: Instructions | None = None,
) -> State:
    """Feeds the instruction to up to `rows` waiting slots, which then write the next attempt.

    asked: the rows' own instructions, if they have them.

    An attempt that is not closed by its own end token is closed by `turn_end` first, so the chunk
    is N = I or I + E tokens long:

        ended by itself   i i i .      truncated   e i i i
    """
    s = settings
    episodes = state.rows
    slots, (samples, columns) = state.row.shape[0], episodes.tokens.shape
    (slot_W,) = jnp.nonzero(state.status == WAITING, size=rows, fill_value=slots)

    def feed(state: State) -> State:
        state = _pass(state)
        row_W = state.row.at[slot_W].get(mode="fill", fill_value=samples)
        start_W = state.length.at[slot_W].get(mode="fill", fill_value=0)
        attempt_W = state.attempt.at[slot_W].get(mode="fill", fill_value=1)
        end_W = state.end.at[slot_W].get(mode="fill", fill_value=0)
        open_W = episodes.truncated.at[row_W, attempt_W - 1].get(mode="fill", fill_value=False)
        if state.stopping and s.close_stopped:
            open_W |= state.stopping.stopped.at[slot_W].get(mode="fill", fill_value=False)
        said = _instruction(row_W, attempt_W, asked, s)
        tokens_WN, fed_W = _closed(*said, open_W, s)
        length_W = start_W + fed_W

        contiguous = kv.from_ring(kv.take(state.cache, slot_W), start_W, end_W)
        hidden_WND, contiguous = transformer.extend(s.model, params, contiguous, tokens_WN, start_W)
        turned = kv.to_ring(contiguous, length_W, state.ring)
        hidden_WD = jnp.take_along_axis(hidden_WND, fed_W[:, None, None] - 1, axis=1)[:, 0]

        offset_N = jnp.arange(tokens_WN.shape[1])
        column_WN = jnp.where(
            offset_N < fed_W[:, None], start_W[:, None] + offset_N, columns
        )  # padding is dropped
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
            cache=_settled(kv.put(state.cache, slot_W, turned)),
            end=state.end.at[slot_W].set(state.ring, mode="drop"),
            work=state.work.replace(fed_tokens=state.work.fed_tokens + fed_tokens),
            stopping=stopping.begin(state.stopping, slot_W),
            forks=_fork(state, jnp.where(attempt_W == 1, slot_W, slots)),
        )

    return jax.lax.cond(jnp.any(state.status == WAITING), feed, _pass, state)


def _fork(state: State, slot_W: jax.Array) -> Forks | None:
    """These slots have ended attempt 1: their siblings go back to here."""
    if not state.forks:
        return None

    def of(kept: jax.Array, now: jax.Array) -> jax.Array:
        return kept.at[slot_W].set(now.at[slot_W].get(mode="clip"), mode="drop")

    return state.forks.replace(
        length=of(state.forks.length, state.length),
        stopping=jax.tree.map(of, state.forks.stopping, state.stopping),
    )


def _instruction(
    row_W: jax.Array,
    attempt_W: jax.Array,
    asked: Instructions | None,
    s: EpisodeSettings,
) -> tuple[jax.Array, jax.Array]:
    """The ids before the next attempt of these rows, padded behind, and how many they are.

    One instruction for all is broadcast: it is a constant of the program.
    """
    if asked:
        most = asked.length.shape[1] - 1
        at = (row_W, jnp.minimum(attempt_W - 1, most))
        return (
            asked.tokens.at[at].get(mode="fill", fill_value=s.pad_id),
            asked.length.at[at].get(mode="fill", fill_value=1),
        )
    ids = [s.before(a) for a in range(2, s.attempts + 1)]
    most = max(map(len, ids))
    tokens_CN = jnp.array([(*one, *(s.pad_id,) * (most - len(one))) for one in ids], jnp.int32)
    length_C = jnp.array([len(one) for one in ids], jnp.int32)
    if not s.instructions:
        return tokens_CN[:1], length_C[:1]
    which_W = jnp.minimum(attempt_W, len(ids)) - 1
    return tokens_CN[which_W], length_C[which_W]


def _closed(
    ids_WN: jax.Array, length_W: jax.Array, open_W: jax.Array, s: EpisodeSettings
) -> tuple[jax.Array, jax.Array]:
    """The instructions with `turn_end` before those that follow an open attempt."""
    rows, ends = ids_WN.shape[0], len(s.turn_end)
    end_WE = jnp.broadcast_to(jnp.array(s.turn_end, jnp.int32), (rows, ends))
    padded = (end_WE, ids_WN), (ids_WN, jnp.full_like(end_WE, s.pad_id))
    closed, itself = (jnp.concatenate(both, axis=1) for both in padded)
    return jnp.where(open_W[:, None], closed, itself), length_W + open_W * ends


def refill(state: State, *, queue: Queue, rows: int) -> State:
    """Gives up to `rows` finished slots to the next samples of the queue."""
    slots, samples = len(state.row), len(queue.problem_R)
    family = state.forks.siblings if state.forks else 1
    (slot_W,) = jnp.nonzero(state.status == DONE, size=rows, fill_value=slots)
    row_W = state.next_row + family * jnp.arange(rows)
    taken_W = (slot_W < slots) & (row_W < samples)
    slot_W = jnp.where(taken_W, slot_W, slots)

    def take(state: State) -> State:
        state = _pass(state)
        problem_W = queue.problem_R.at[row_W].get(mode="clip")
        prompts = kv.widen(kv.take(queue.cache, problem_W), kv.slots_of(state.cache))
        return load(
            state.replace(next_row=state.next_row + family * jnp.sum(taken_W)),
            slot_W,
            row_W=row_W,
            length_W=queue.length_Q[problem_W],
            hidden_WD=queue.hidden_QD[problem_W],
            cache=prompts,
        )

    return jax.lax.cond(jnp.any(taken_W), take, _pass, state)


def load(state: State, slot_W, *, row_W, length_W, hidden_WD, cache: kv.Cache) -> State:
    """These slots begin attempt 1 of these rows; an index past the end begins none.

    cache, length_W, hidden_WD: the prompts, contiguous and as wide as the ring.
    """
    turned = kv.to_ring(cache, length_W, state.ring)
    return state.replace(
        row=state.row.at[slot_W].set(row_W, mode="drop"),
        status=state.status.at[slot_W].set(WRITING, mode="drop"),
        length=state.length.at[slot_W].set(length_W, mode="drop"),
        attempt=state.attempt.at[slot_W].set(1, mode="drop"),
        count=state.count.at[slot_W].set(0, mode="drop"),
        hidden=state.hidden.at[slot_W].set(hidden_WD, mode="drop"),
        cache=_settled(kv.put(state.cache, slot_W, turned)),
        end=state.end.at[slot_W].set(state.ring, mode="drop"),
        stopping=stopping.begin(state.stopping, slot_W, new_row=True),
    )


def move_together(state: State, slots: int) -> State:
    """The samples that are still being written, in as few as `slots` slots."""
    size = state.row.shape[0]
    (slot_W,) = jnp.nonzero(_alive(state), size=slots, fill_value=size)

    def of(x: jax.Array) -> jax.Array:
        return x.at[slot_W].get(mode="clip")

    row = of(state.row)
    if state.forks:  # a slot without a row has no siblings to write
        row = jnp.where(slot_W < size, row, state.forks.siblings - 1)
    return state.replace(
        row=row,
        status=jnp.where(slot_W < size, of(state.status), DONE),
        length=of(state.length),
        attempt=of(state.attempt),
        count=of(state.count),
        hidden=of(state.hidden),
        cache=_settled(kv.take(state.cache, slot_W)),
        end=of(state.end),
        stopping=jax.tree.map(of, state.stopping),
        forks=jax.tree.map(of, state.forks),
    )
