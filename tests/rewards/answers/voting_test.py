import pytest

from score_jax.rewards.answers.voting import stated


@pytest.mark.parametrize(
    ("grader", "text", "answer"),
    [
        ("first_character", "7:12", "7"),
        ("first_character", ":12", None),
        ("first_character", "", None),
        ("answer", "so the final answer is $ 12 $. I hope it is correct.", "12"),
        ("answer", "I do not know", None),
        ("answer", r"\boxed{}", None),
    ],
)
def test_what_an_attempt_answers(grader, text, answer):
    assert stated(grader, text) == answer


def test_two_spellings_of_one_answer_are_one_vote():
    assert stated("answer", r"\boxed{\dfrac{1}{2}}") == stated("answer", r"\boxed{\frac{1}{2}}")
