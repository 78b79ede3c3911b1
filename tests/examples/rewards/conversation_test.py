"""The example rubric, rule by rule."""

import json

import pytest

from examples.rewards.conversation import broken_rule, rubric
from score_jax.problem import Problem


@pytest.mark.parametrize(
    ("rules", "text", "broken"),
    [
        ({}, "Hello.", ""),
        ({}, " ", "empty"),
        ({"mentions": ["refund", "sorry|apologi[sz]e"]}, "We apologise; your REFUND is due.", ""),
        ({"mentions": ["refund", "sorry"]}, "Sorry.", "mentions"),
        ({"avoids": ["lawyer"]}, "Ask a Lawyer.", "avoids"),
        ({"least_words": 3}, "Too short", "length"),
        ({"most_words": 2}, "Far too long", "length"),
        ({"least_words": 3, "most_words": 3}, "Just long enough", ""),
        ({"asks": True}, "Which order was it?", ""),
        ({"asks": True}, "It was late.", "asks"),
        ({"asks": False}, "Was it late?", "asks"),
    ],
)
def test_every_rule_must_hold(rules, text, broken):
    assert broken_rule(rules, text) == broken


def test_a_repeated_reply_is_no_improvement():
    gold = json.dumps({"improves": True})
    grades = rubric(Problem("1", "?", gold), ["a", "a ", "b"], gold)
    assert [(one.reward, one.reason) for one in grades] == [
        (1.0, "all_rules"),
        (0.0, "improves"),
        (1.0, "all_rules"),
    ]


@pytest.mark.parametrize("gold", ["[]", '{"mention": ["x"]}', '"text"'])
def test_a_gold_that_is_no_rubric_is_an_error(gold):
    with pytest.raises(ValueError, match="rubric"):
        rubric(Problem("1", "?", gold), ["a"], gold)
