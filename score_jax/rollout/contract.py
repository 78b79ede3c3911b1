"""What an engine returned, held against its contract (engine.py) row by row; needs no weights.

    for fault in faults(episode, prompts, settings): …

That log-probs are those of the weights, and draws those of the log-probs, conformance.py checks.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np

from score_jax.rollout import episode as ours
from score_jax.rollout.settings import EpisodeSettings
from score_jax.structs import Episode, PromptBatch


class Fault(NamedTuple):
    """One way in which an engine breaks the contract."""

    rule: str
    what: str


def faults(episode: Episode, prompts: PromptBatch, settings: EpisodeSettings) -> list[Fault]:
    """The first fault of each rule; none if the rows are as they must be. episode: fetched."""
    s, problems = settings, len(prompts.tokens)
    columns = s.row_tokens(prompts.tokens.shape[1], prompts.instruction_tokens)
    rows = (problems * s.samples, columns)
    for name, kind, shape in (
        ("tokens", np.int32, rows),
        ("attempt", np.int32, rows),
        ("logp", np.float32, rows),
        ("length", np.int32, rows[:1]),
        ("truncated", np.bool_, (rows[0], s.attempts)),
    ):
        got = np.asarray(getattr(episode, name))
        if got.dtype != kind or got.shape != shape:
            expected = f"must be {np.dtype(kind)} of shape {shape}"
            return [Fault("shape", f"{name} is {got.dtype} of shape {got.shape} and {expected}")]
    found: dict[str, Fault] = {}
    for b in range(rows[0]):
        for fault in _of_row(b, episode, prompts, s):
            found.setdefault(fault.rule, fault)
    for fault in _log_probs(episode, s):
        found.setdefault(fault.rule, fault)
    return list(found.values())


def _log_probs(rows: Episode, s: EpisodeSettings) -> Iterator[Fault]:
    if np.any(np.asarray(rows.logp)[np.asarray(rows.attempt) == 0]):
        yield Fault("logp", "tokens that were not sampled have log-probs other than 0")
    if s.policy.temperature == 0.0:
        if np.any(rows.logp):
            yield Fault("logp", "greedy decoding has no choice: its log-probs must be 0")
        return
    try:
        ours.check(rows)
    except ValueError as error:
        yield Fault("logp", str(error))


def _of_row(b: int, rows: Episode, prompts: PromptBatch, s: EpisodeSettings) -> Iterator[Fault]:
    """Faults of a row, up to the first after which its columns mean nothing."""
    tokens_T, mark_T = np.asarray(rows.tokens)[b], np.asarray(rows.attempt)[b]
    q, truncated_A = b // s.samples, np.asarray(rows.truncated)[b]
    at = int(prompts.length[q])
    if not np.array_equal(tokens_T[:at], prompts.tokens[q, :at]):
        yield Fault("prompt", f"row {b} does not begin with the ids of its prompt, in column 0")
        return
    columns = np.nonzero(mark_T == 1)[0]
    for a in range(1, s.attempts + 1):
        end = at + len(columns)
        if not np.array_equal(columns, np.arange(at, end)):
            where = f"columns {columns[0]} to {columns[-1]}, {len(columns)} of them"
            yield Fault("attempts", f"row {b}: attempt {a} begins in column {at}; marked: {where}")
            return
        closed = yield from _ending(
            f"row {b}, attempt {a}", tokens_T[at:end], truncated_A[a - 1], s
        )
        at = end
        if a == s.attempts:
            break
        fed = [*(s.turn_end if closed else ()), *_instruction(prompts, q, a + 1, s)]
        columns = np.nonzero(mark_T == a + 1)[0]
        end = int(columns[0]) if len(columns) else at + len(fed)
        if (got := tokens_T[at:end].tolist()) != fed:
            between = f"row {b}: after attempt {a} are the ids {got}, and {fed} were to be fed"
            yield Fault("instruction", between)
            return
        at = end
    if rows.length[b] != at:
        yield Fault("length", f"row {b} has {at} tokens, and length says {rows.length[b]}")
    if np.any(tokens_T[at:] != s.pad_id) or np.any(mark_T[at:]):
        yield Fault("padding", f"row {b} ends after {at} tokens, and what follows is not padding")


def _ending(
    where: str, written_N: np.ndarray, truncated: bool, s: EpisodeSettings
) -> Generator[Fault, None, bool]:
    """Faults of how an attempt ended; returns whether `turn_end` closes it."""
    written, limit = written_N.tolist(), s.max_attempt_tokens
    ends = [n for n, token in enumerate(written, start=1) if token in s.end_ids]
    stop, leaves = _stop(written, s)
    if ends and ends[0] < len(written):
        yield Fault("end", f"{where} goes on after the end token {written[ends[0] - 1]}")
    if len(written) > limit:
        yield Fault("limit", f"{where} has {len(written)} tokens, and the limit is {limit}")
    if leaves:
        yield Fault("stop", f"{where} has the text of a stop sequence that it ends before")
    elif stop and stop < len(written):
        yield Fault("stop", f"{where} goes on after a stop sequence")
    cut = not ends and not stop and len(written) >= limit
    # The tokens of a stop sequence that an attempt ends before are not in the row.
    if not (ends or stop or cut) and not (s.stops and s.stops.span):
        yield Fault("end", f"{where} ends after {len(written)} tokens of {limit} without an end")
    if truncated != cut:
        yield Fault("truncated", f"{where}: truncated is {bool(truncated)} and must be {cut}")
    return cut or (s.close_stopped and not ends)


def _stop(written: list[int], s: EpisodeSettings) -> tuple[int, bool]:
    """Tokens up to the end of the first stop sequence, 0: there is none; and whether it leaves."""
    state, automaton = 0, s.stops
    for n, token in enumerate(written if automaton else (), start=1):
        assert automaton
        if token in s.end_ids:
            break
        class_V = automaton.class_V
        state = int(automaton.next_SC[state, class_V[min(token, len(class_V) - 1)]])
        if state < 0:
            return n, state < -1
    return 0, False


def _instruction(prompts: PromptBatch, q: int, attempt: int, s: EpisodeSettings) -> list[int]:
    own = prompts.instructions
    if own is None:
        return list(s.before(attempt))
    c = min(attempt - 2, own.length.shape[1] - 1)
    return own.tokens[q, c, : own.length[q, c]].tolist()
