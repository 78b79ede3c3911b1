"""The answer that an attempt states, in a form in which equal answers are equal strings."""

from score_jax.rewards.answers.extract import extract
from score_jax.rewards.answers.grade import MAX_ANSWER_CHARS
from score_jax.rewards.answers.spelling import normalise, tight

GRADERS = ("answer", "first_character")  # whose answers can be voted on; programs have none


def stated(grader: str, text: str) -> str | None:
    """What the attempt answers to a problem with that grader; None if it answers nothing.

    Answers are compared by spelling, without blanks and with one LaTeX command for each thing, not
    by algebra: 1/2 and 0.5 are two answers in a vote.
    """
    if grader == "first_character":
        return text[:1] if text[:1] in tuple("0123456789") else None
    answer = extract(text)
    if answer is None or len(answer) > MAX_ANSWER_CHARS:
        return answer
    return tight(normalise(answer)) or None
