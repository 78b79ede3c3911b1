"""Edit ratio against the textbook's table, and diffs that lose nothing."""

import random

import pytest

from score_jax.evaluation import edits


def common_by_table(a: str, b: str) -> int:
    """Length of the longest common subsequence, cell by cell."""
    above = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, start=1):
            diagonal, above[j] = above[j], diagonal + 1 if x == y else max(above[j], above[j - 1])
    return above[-1]


def test_the_ratio_is_deletions_and_insertions_over_both_lengths():
    assert edits.edit_ratio("abcd", "abxd") == pytest.approx(2 / 8)
    assert edits.edit_ratio("abc", "abc") == 0.0
    assert edits.edit_ratio("abc", "xyz") == 1.0
    assert edits.edit_ratio("", "ab") == 1.0
    assert edits.edit_ratio("", "") == 0.0


def test_the_ratio_agrees_with_the_slow_table_on_random_texts():
    draw = random.Random(0)
    for _ in range(200):
        a, b = ("".join(draw.choices("abcd", k=draw.randint(1, 90))) for _ in range(2))
        wanted = 1 - 2 * common_by_table(a, b) / (len(a) + len(b))
        assert edits.edit_ratio(a, b) == pytest.approx(wanted, abs=1e-12)


def test_words_are_whole_and_join_to_the_text():
    text = "so x_1 = 12.5,\n  然后 \ud800!"
    assert "".join(edits.words(text)) == text
    assert edits.words("12.5 ab") == ["12", ".", "5", " ", "ab"]


def test_a_word_diff_marks_what_the_other_text_lacks():
    before, after = edits.word_diff("the sum is 7.", "the sum is 8 then.")
    assert before == [("the sum is ", False), ("7", True), (".", False)]
    assert after == [("the sum is ", False), ("8 then", True), (".", False)]


def test_a_word_diff_of_equal_or_empty_texts_marks_nothing():
    assert edits.word_diff("a b", "a b") == ([("a b", False)], [("a b", False)])
    assert edits.word_diff("", "") == ([], [])
