"""The automaton of stop sequences against a slow search in the bytes of all tokens."""

import numpy as np
import pytest

from score_jax.problem import InputError
from score_jax.text import stops
from score_jax.text.stops import Automaton, Stops

ALPHABET = [
    b"a",
    b"b",
    b"ab",
    b"ba",
    b"aab",
    b"bb",
    b"c",
    b"abcab",
    b"",
    b"\xe2\x82",
    b"\xac",
    b"x",
]
CASES = {
    "one letter": Stops(before=("a",)),
    "one that stays": Stops(after=("aba",)),
    "overlapping": Stops(before=("abab", "ba"), after=("aabb", "b" * 4)),
    "one inside another": Stops(before=("bc",), after=("abcab",)),
    "ends of each other": Stops(before=("bca",), after=("abca", "a€")),
    "a character of three bytes": Stops(before=("b€",), after=("€€",)),
}


def kept(written: list[bytes], wanted: Stops) -> int | None:
    """How many tokens stay if the last one completes a stop sequence; None if it completes none."""
    begin = max((i + 1 for i, text in enumerate(written) if not text), default=0)
    text, last = b"".join(written[begin:]), len(written[-1])
    goes = {stop.encode(): stop in wanted.before for stop in wanted.before + wanted.after}
    for end in range(len(text) - last + 1, len(text) + 1):
        if complete := [stop for stop in goes if text[:end].endswith(stop)]:
            stop = max(complete, key=len)
            if not goes[stop]:
                return len(written)
            ends = begin_ends = len(b"".join(written[:begin]))
            stays = begin
            for token in written[begin:]:
                ends += len(token)
                if ends - begin_ends > end - len(stop):
                    break
                stays += 1
            return stays
    return None


def follow(a: Automaton, ids: list[int]) -> int | None:
    """As `kept`, by the automaton's tables."""
    state = 0
    for n, i in enumerate(ids, start=1):
        state = int(a.next_SC[state, a.class_V[i]])
        if state < 0:
            assert n == len(ids), "an earlier token completes it"
            left = -1 - state
            while left > 0:
                left -= int(a.size_V[ids[n - 1]])
                n -= 1
            return n
    return None


@pytest.mark.parametrize("case", CASES)
def test_the_automaton_ends_a_text_where_a_slow_search_does(case):
    wanted, rng = CASES[case], np.random.default_rng(0)
    automaton = stops.compile(wanted, ALPHABET)
    found = []
    for _ in range(400):
        ids: list[int] = []
        while len(ids) < 12:
            ids.append(int(rng.integers(len(ALPHABET))))
            slow = kept([ALPHABET[i] for i in ids], wanted)
            assert follow(automaton, ids) == slow, ids
            if slow is not None:
                assert len(ids) - slow <= automaton.span
                found.append(len(ids) - slow)
                break
    assert len(found) > 10
    assert (max(found) > 0) == bool(wanted.before)


def test_the_stop_that_is_complete_first_counts_and_of_those_the_longest():
    first = stops.compile(Stops(before=("cd",), after=("b",)), [b"abcd"])
    assert follow(first, [0]) == 1
    longest = stops.compile(Stops(before=("abc",), after=("bc",)), [b"x", b"ab", b"c"])
    assert follow(longest, [0, 1, 2]) == 1


def test_every_token_that_holds_a_byte_of_the_text_leaves_with_all_it_holds():
    automaton = stops.compile(Stops(before=("Problem:",)), [b"4.\n\nPro", b"blem", b": Two", b"x"])
    assert follow(automaton, [3, 0, 1, 2]) == 1
    assert automaton.span == 8


def test_no_text_spans_a_special_token():
    automaton = stops.compile(Stops(before=("ab",)), [b"a", b"b", b""])
    assert follow(automaton, [0, 1]) == 0
    assert follow(automaton, [0, 2, 1]) is None


def test_tokens_that_lead_to_the_same_share_a_class():
    automaton = stops.compile(Stops(after=("ab",)), [b"a", b"b", b"xyz", b"", b"b9", b"c"])
    class_V = automaton.class_V
    assert len({*class_V[[2, 3, 4, 5]].tolist()}) == 2, "those that do not matter, and b9"
    assert automaton.next_SC.shape == (2, len(set(class_V.tolist())))


def test_equal_automatons_are_equal_and_others_are_not():
    tokens = [b"a", b"b", b"c"]
    one, again = (stops.compile(Stops(before=("ab",)), tokens) for _ in range(2))
    assert one == again and hash(one) == hash(again)
    assert one != stops.compile(Stops(after=("ab",)), tokens)
    assert one != stops.compile(Stops(before=("ac",)), tokens)


def test_texts_that_cannot_be_stops_are_refused():
    with pytest.raises(InputError, match="is empty: it would end every attempt at once"):
        stops.compile(Stops(before=("",)), [b"a"])
    with pytest.raises(InputError, match="'ab' is in stop_before and in stop_after"):
        stops.compile(Stops(before=("ab",), after=("ab",)), [b"a"])
