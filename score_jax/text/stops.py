"""Stop sequences: texts that end an attempt, found in the bytes of its tokens.

    Stops(before=("Problem:",), after=("I hope it is correct.",))
    compile(stops, token_bytes) -> Automaton     what a compiled rollout looks up, per token

An attempt ends with the token in which a stop sequence is complete, wherever its text began: in
that token, or in tokens before it. What is complete first counts; of several that end at the same
byte, the longest. Tokens are whole, so:

  * `after`: the text belongs to the attempt, with all of the token that completes it;
  * `before`: every token that holds any byte of it leaves the attempt. Choose texts that begin
    where a token begins: "Problem:" and not ".\\n\\nProblem:", or the full stop may go as well.

Special tokens have no bytes, and no stop sequence spans one.

The automaton is that of Aho and Corasick (1975) over bytes: a state is the longest end of the
attempt's text that begins some stop sequence. One step of ours takes a whole token. Tokens that
lead from every state to the same result share a class; most tokens share one.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from score_jax.problem import InputError


@dataclasses.dataclass(frozen=True)
class Stops:
    """Texts that end an attempt."""

    before: tuple[str, ...] = ()  # it ends before the text, which does not belong to it
    after: tuple[str, ...] = ()  # it ends after the text

    def __add__(self, other: "Stops") -> "Stops":
        return Stops(self.before + other.before, self.after + other.after)

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


@dataclasses.dataclass(frozen=True)
class Automaton:
    """Tables for the tokens of one vocabulary. Equal ones compile to one program."""

    digest: str  # of all tables
    span: int  # the most tokens that can leave an attempt at once
    of: Stops = dataclasses.field(compare=False)
    class_V: np.ndarray = dataclasses.field(compare=False, repr=False)
    # The next state; or -1 - n if the token completes a stop sequence: the tokens that hold the
    # last n bytes leave the attempt. State 0 begins an attempt.
    next_SC: np.ndarray = dataclasses.field(compare=False, repr=False)
    size_V: np.ndarray = dataclasses.field(compare=False, repr=False)  # bytes of a token


def compile(stops: Stops, token_bytes: Sequence[bytes]) -> Automaton:
    """Makes the automaton.

    token_bytes: the bytes of each id's text, b"" for special tokens.
    Raises: InputError for an empty text, or one that is both `before` and `after`.
    """
    leaves = _leaves(stops)
    next_SY, column = _byte_table(leaves)
    # All that a token does is a vector: where it leads from each state. The same byte after the
    # same vector gives the same one, so few vectors serve all tokens.
    vectors = [np.arange(len(next_SY)), np.zeros(len(next_SY), np.int64)]
    number = {vector.tobytes(): v for v, vector in enumerate(vectors)}

    @functools.cache
    def after(v: int, byte: int) -> int:
        found_S = next_SY[np.maximum(vectors[v], 0), column[byte]]
        # Bytes of the token after a text that leaves the attempt leave with it.
        ended_S = np.where(vectors[v] < -1, vectors[v] - 1, vectors[v])
        vector = np.where(vectors[v] < 0, ended_S, found_S)
        if number.setdefault(vector.tobytes(), len(vectors)) == len(vectors):
            vectors.append(vector)
        return number[vector.tobytes()]

    size_V = np.array([len(text) for text in token_bytes])
    bytes_ = np.frombuffer(b"".join(token_bytes), np.uint8).astype(np.int64)
    begin_V = np.cumsum(size_V) - size_V
    vector_V = (size_V == 0).astype(np.int64)  # a token without bytes leads to state 0
    for i in range(size_V.max(initial=0)):
        (token_N,) = np.nonzero(size_V > i)
        pairs = vector_V[token_N] * 256 + bytes_[begin_V[token_N] + i]
        of_pair, which_N = np.unique(pairs, return_inverse=True)
        vector_V[token_N] = np.array([after(*divmod(int(pair), 256)) for pair in of_pair])[which_N]
    used, class_V = np.unique(vector_V, return_inverse=True)
    next_SC = np.stack([vectors[v] for v in used], axis=1)
    tables = tuple(map(_small, (class_V, next_SC, size_V)))
    digest = hashlib.sha256(b"".join(x.tobytes() + str(x.shape).encode() for x in tables))
    span = max((len(text) for text, goes in leaves.items() if goes), default=0)
    return Automaton(digest.hexdigest(), span, stops, *tables)


def _leaves(stops: Stops) -> dict[bytes, bool]:
    """Each stop sequence's bytes, and whether they leave the attempt."""
    leaves = {text.encode(): False for text in stops.after}
    leaves |= {text.encode(): True for text in stops.before}
    if b"" in leaves:
        raise InputError("A stop sequence is empty: it would end every attempt at once. Remove it.")
    if both := set(stops.before) & set(stops.after):
        raise InputError(
            f"The stop sequence {min(both)!r} is in stop_before and in stop_after. Its text either "
            "belongs to the attempt (stop_after) or not (stop_before): remove it from one."
        )
    return leaves


def _byte_table(leaves: dict[bytes, bool]) -> tuple[np.ndarray, np.ndarray]:
    """next_SY and the column Y of each byte; column 0 is for all bytes that are in no sequence.

    next_SY: the next state; -1 if a sequence is complete that stays; -1 - n if one of n bytes goes.
    """
    states = sorted({text[:n] for text in leaves for n in range(len(text))}, key=len)
    number = {text: i for i, text in enumerate(states)}  # b"" is 0
    alphabet = sorted({byte for text in leaves for byte in text})
    next_SY = np.zeros((len(states), 1 + len(alphabet)), np.int64)
    for text, i in number.items():
        for y, byte in enumerate(alphabet, start=1):
            ends = [(text + bytes([byte]))[n:] for n in range(len(text) + 1)]  # longest first
            complete = next((end for end in ends if end in leaves), None)
            if complete is None:
                next_SY[i, y] = next((number[end] for end in ends if end in number), 0)
            else:
                next_SY[i, y] = -1 - len(complete) * leaves[complete]
    column = np.zeros(256, np.int64)
    column[alphabet] = np.arange(1, 1 + len(alphabet))
    return next_SY, column


def _small(x: np.ndarray) -> np.ndarray:
    """The array in the smallest type that holds its values."""
    lowest, highest = x.min(initial=0), x.max(initial=0)
    return x.astype(np.promote_types(np.min_scalar_type(lowest), np.min_scalar_type(highest)))
