"""Which sampled episodes become documents: the data sets of STaR and Pair-SFT.

    star(episodes)      a wrong first attempt and the right second one *of the same episode*
    pairs(episodes)     a wrong first attempt and a right one drawn from *all* right attempts, first
                        or second, at the same problem
    firsts(episodes)    right first attempts alone, as STaR for one attempt learns

With `both_right` (D+ of the paper) also documents whose two attempts are both right. The last
attempt of a document is never truncated, because truncated attempts count as wrong.

Source: SCoRe, arXiv 2409.12917, section 4; STaR, arXiv 2203.14465; Welleck et al. 2022.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Written:
    """One attempt as it was sampled."""

    ids: tuple[int, ...]  # its end token included
    reward: float
    solved: bool
    truncated: bool = False
    text: str = ""  # for readers of the data set


@dataclasses.dataclass(frozen=True)
class Dialogue:
    """A problem and two attempts: one episode, or a document made from several."""

    problem: str  # Problem.id
    prompt: tuple[int, ...]  # ids of the row up to attempt 1
    attempts: tuple[Written, ...]  # one or two


def star(episodes: Sequence[Dialogue], *, both_right: bool, seed: Sequence[int]) -> list[Dialogue]:
    """Episodes with a wrong and then a right attempt; with `both_right` also two right ones."""
    del seed
    return [
        episode
        for episode in episodes
        if _right(episode.attempts[1]) and (both_right or not _right(episode.attempts[0]))
    ]


def pairs(episodes: Sequence[Dialogue], *, both_right: bool, seed: Sequence[int]) -> list[Dialogue]:
    """Every wrong first attempt with a random right attempt at its problem, if there is one.

    With `both_right` also every right first attempt, which may be paired with itself.
    """
    draw = np.random.default_rng(seed)
    right: dict[str, list[Written]] = {}
    for episode in episodes:
        right.setdefault(episode.problem, []).extend(filter(_right, episode.attempts))
    documents = []
    for episode in episodes:
        first, known = episode.attempts[0], right[episode.problem]
        if known and (both_right or not _right(first)):
            second = known[draw.integers(len(known))]
            documents.append(dataclasses.replace(episode, attempts=(first, second)))
    return documents


def firsts(
    episodes: Sequence[Dialogue], *, both_right: bool, seed: Sequence[int]
) -> list[Dialogue]:
    """Right first attempts; a second one does not belong to the document."""
    del both_right, seed
    found = [episode for episode in episodes if _right(episode.attempts[0])]
    return [dataclasses.replace(episode, attempts=episode.attempts[:1]) for episode in found]


def _right(attempt: Written) -> bool:
    return attempt.solved


FILTERS: dict[str, Callable[..., list[Dialogue]]] = {
    "star": star,
    "pair": pairs,
    "first": firsts,
}
ATTEMPTS = {"star": 2, "pair": 2, "first": 1}  # sampled for a filter
# Whether a document's first attempt is in the loss. Imitating wrong attempts would teach errors.
LEARN_FIRST: dict[str, Callable[[Written], bool]] = {
    "never": lambda attempt: False,
    "right": _right,
    "always": lambda attempt: True,
}


def learned(document: Dialogue, learn_first: str) -> tuple[float, ...]:
    """Weight of each attempt in the loss; the last is always learned.

    learn_first: a key of LEARN_FIRST.
    """
    return (*(float(LEARN_FIRST[learn_first](one)) for one in document.attempts[:-1]), 1.0)
