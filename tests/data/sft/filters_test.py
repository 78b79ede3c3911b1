"""Which episodes become documents, on episodes made by hand."""

import pytest

from score_jax.config import settings
from score_jax.data.sft import filters
from score_jax.data.sft.filters import Dialogue, Written


def written(text: str, reward: float) -> Written:
    return Written(ids=tuple(map(ord, text)), reward=reward, solved=reward > 0, text=text)


def episode(problem: str, *attempts: tuple[str, float]) -> Dialogue:
    return Dialogue(problem, (1, 2), tuple(written(*attempt) for attempt in attempts))


def texts(documents) -> list[tuple[str, ...]]:
    return [tuple(attempt.text for attempt in document.attempts) for document in documents]


# Of problem p every outcome, of q only failures, of r one right first attempt.
EPISODES = [
    episode("p", ("wrong a", 0), ("right b", 1)),
    episode("p", ("right c", 1), ("right d", 1)),
    episode("p", ("right e", 1), ("wrong f", 0)),
    episode("p", ("wrong g", 0), ("wrong h", 0)),
    episode("q", ("wrong i", 0), ("wrong j", 0)),
    episode("r", ("right k", 1), ("wrong l", 0)),
]


def test_star_keeps_second_attempts_that_repair_their_own_first():
    kept = filters.star(EPISODES, both_right=False, seed=(0,))
    assert texts(kept) == [("wrong a", "right b")]


def test_star_plus_keeps_two_right_attempts_too():
    kept = filters.star(EPISODES, both_right=True, seed=(0,))
    assert texts(kept) == [("wrong a", "right b"), ("right c", "right d")]


def test_pairs_join_each_wrong_first_attempt_with_any_right_one_of_its_problem():
    seen = set()
    for seed in range(40):
        kept = texts(filters.pairs(EPISODES, both_right=False, seed=(seed,)))
        assert [first for first, _ in kept] == ["wrong a", "wrong g"]
        seen |= {second for _, second in kept}
    # First and second attempts of p, of all its episodes; none of q's or r's.
    assert seen == {"right b", "right c", "right d", "right e"}


def test_pairs_plus_have_right_first_attempts_too():
    kept = texts(filters.pairs(EPISODES, both_right=True, seed=(0,)))
    assert [first for first, _ in kept] == ["wrong a", "right c", "right e", "wrong g", "right k"]
    assert all(second.startswith("right") for _, second in kept)
    assert kept[-1] == ("right k", "right k")  # the only right attempt at r


def test_right_first_attempts_are_kept_alone_and_learned():
    kept = filters.firsts(EPISODES, both_right=False, seed=(0,))
    assert texts(kept) == [("right c",), ("right e",), ("right k",)]
    assert {filters.learned(document, "never") for document in kept} == {(1.0,)}


def test_pairs_are_drawn_from_the_seed_alone():
    first, again, other = (
        filters.pairs(EPISODES * 5, both_right=True, seed=(seed,)) for seed in (3, 3, 4)
    )
    assert first == again != other


def test_a_document_keeps_the_prompt_and_the_ids_of_its_attempts():
    (kept,) = filters.star(EPISODES, both_right=False, seed=(0,))
    assert kept == EPISODES[0]
    pair = filters.pairs(EPISODES[:1], both_right=False, seed=(0,))[0]
    assert (pair.problem, pair.prompt) == ("p", (1, 2))
    assert pair.attempts == EPISODES[0].attempts


@pytest.mark.parametrize(
    ("rule", "of_wrong", "of_right"), [("never", 0, 0), ("right", 0, 1), ("always", 1, 1)]
)
def test_first_attempts_are_learned_as_asked_and_second_ones_always(rule, of_wrong, of_right):
    assert filters.learned(EPISODES[0], rule) == (of_wrong, 1)
    assert filters.learned(EPISODES[1], rule) == (of_right, 1)


def test_the_settings_know_every_filter():
    known = set(settings.CHOICES[settings.CollectSettings, "filter"]) - {""}
    assert known == filters.FILTERS.keys()
