"""Stop sequences in the decode loop: every step follows an automaton, turn-arounds take back.

    follow(stopping, token, …)    one token further; says which slots stop
    going_back(stopping, …)       the tokens of a text that does not belong to the attempt
    begin(stopping, slot_W)       slots that begin an attempt

text/stops.py says what ends an attempt. A token that goes back was sampled and fed like any other:
it stays in the row and the cache until the next turn-around. There the row's length goes back to
the last token before the text (`slots.take_back`), and the instruction overwrites what is beyond:

    sampled      p p 1 1 1 1 .      the last two tokens hold "Problem:"
    taken back   p p 1 1 . . .
    instructed   p p 1 1 i i i

After that, columns are used again. A draw is addressed by a column that no other draw of the row
has: `taken` is added to it.
"""

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.text.stops import Automaton


class Stopping(flax.struct.PyTreeNode):
    """What the slots know about stop sequences; arrays are [slots]."""

    state: jax.Array  # of the automaton
    stopped: jax.Array  # bool: a stop sequence ended the slot's attempt
    back: jax.Array  # bytes at the row's end whose tokens have yet to go back
    taken: jax.Array  # tokens of the row that went back so far


def first(slots: int) -> Stopping:
    """Slots that begin a row."""
    zero = jnp.zeros(slots, jnp.int32)
    return Stopping(state=zero, stopped=zero > 0, back=zero, taken=zero)


def follow(
    stopping: Stopping,
    token: jax.Array,
    writing: jax.Array,
    is_end: jax.Array,
    automaton: Automaton,
) -> tuple[Stopping, jax.Array]:
    """One token further in every slot that is writing, and which of them stop now.

    An end token is never part of a stop sequence.
    """
    class_B = jnp.asarray(automaton.class_V).at[token].get(mode="clip")
    found = jnp.asarray(automaton.next_SC)[stopping.state, class_B].astype(jnp.int32)
    stops = writing & ~is_end & (found < 0)
    return stopping.replace(
        state=jnp.where(writing, jnp.maximum(found, 0), stopping.state),
        stopped=stopping.stopped | stops,
        back=jnp.where(stops, -1 - found, stopping.back),
    ), stops


def going_back(
    stopping: Stopping, tokens_RT: jax.Array, row: jax.Array, length: jax.Array, a: Automaton
) -> jax.Array:
    """Which of a row's last tokens go back, [slots, span] bool, the last token first."""
    column = length[:, None] - 1 - jnp.arange(a.span)
    token = tokens_RT.at[row[:, None], column].get(mode="clip")
    size = jnp.asarray(a.size_V).at[token].get(mode="clip").astype(jnp.int32)
    newer = jnp.cumsum(size, axis=1) - size  # bytes of the tokens after it
    return newer < stopping.back[:, None]


def begin(
    stopping: Stopping | None, slot_W: jax.Array, *, new_row: bool = False
) -> Stopping | None:
    """These slots begin an attempt, perhaps of a new row; indices past the end are dropped."""
    if stopping is None:
        return None
    begun = stopping.replace(
        state=stopping.state.at[slot_W].set(0, mode="drop"),
        stopped=stopping.stopped.at[slot_W].set(False, mode="drop"),
    )
    if new_row:
        begun = begun.replace(taken=stopping.taken.at[slot_W].set(0, mode="drop"))
    return begun


def restored(
    stopping: Stopping | None, earlier: Stopping | None, slots: jax.Array
) -> Stopping | None:
    """These slots, [slots] bool, as they were earlier."""
    return jax.tree.map(lambda now, before: jnp.where(slots, before, now), stopping, earlier)
