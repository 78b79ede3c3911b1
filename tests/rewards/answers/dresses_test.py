r"""MATH-500 golds in the dresses that people and models give to an answer: right in each of them.

The gold of another problem in the same dress is wrong.
"""

import re

import pytest

from score_jax.rewards.answers.grade import grade_answers
from score_jax.rewards.answers.numbers import literal
from score_jax.rewards.answers.spelling import normalise
from tests.rewards.answers.real_data_test import rows, shuffled

DRESSES = {
    "boxed": r"So it is $\boxed{ANSWER}$.",
    "boxed display": "Thus\n\\[\n\\boxed{ANSWER}\n\\]",
    "fbox": r"So it is $\fbox{ANSWER}$.",
    "box without backslash": "So it is boxed{ANSWER}.",
    "box and a copied answer": r"The previous final answer is $0.123$. No: \boxed{ANSWER}",
    "paper's sentence": "Final Answer: The final answer is $ANSWER$. I hope it is correct.",
    "sentence": "Therefore the final answer is $ANSWER$.",
    "sentence after a box": r"I had \boxed{0.123}. The final answer is $ANSWER$.",
    "bold sentence": "The final answer is **$ANSWER$**.",
    "therefore": "The final answer is therefore $ANSWER$.",
    "because": "The answer is $ANSWER$ because of the symmetry of the 4 sides.",
    "since in brackets": "The answer is $ANSWER$ (since all 4 sides are equal).",
    "as required": "The final answer is $ANSWER$, as required.",
    "answer is": "So the answer is $ANSWER$.",
    "round brackets": r"The answer is \(ANSWER\).",
    "square brackets": "The final answer is\n\\[\nANSWER\n\\]",
    "double dollars": "The answer is\n$$ANSWER$$",
    "label": "It is symmetric.\n\nAnswer: $ANSWER$",
    "bold label": "It is symmetric.\n\n**Answer:** $ANSWER$.",
    "final label": "It is symmetric.\nFinal Answer: $ANSWER$",
    "list item": "- Answer: $ANSWER$",
    "heading": "### Final Answer\n\n$ANSWER$",
    "bold heading": "**Final Answer**\n\n\\[ ANSWER \\]",
    "marker": "It is symmetric.\n#### ANSWER",
    "marker with label": "#### Answer: $ANSWER$",
    "marker with token": "#### ANSWER<|im_end|>",
    "heading before it": "#### Step 1: Count\nWe count.\n#### Result\nThe answer is $ANSWER$.",
    "backticks": "The final answer is `ANSWER`.",
    "mathbf": r"\boxed{\mathbf{ANSWER}}",
    "boldsymbol": r"\boxed{\boldsymbol{ANSWER}}",
    "colour": r"\boxed{{\color{red} ANSWER}}",
    "textcolor": r"\boxed{\textcolor{blue}{ANSWER}}",
    "displaystyle": r"\boxed{\displaystyle ANSWER}",
    "thin space": r"\boxed{ANSWER\,}",
    "backslash space": r"\boxed{ANSWER\ }",
    "tie": r"The final answer is $ANSWER~$. I hope it is correct.",
    "dollars in the box": r"\boxed{$ANSWER$}",
}
# Only for golds that are numbers without a unit.
OF_NUMBERS = {
    "plain sentence": "The final answer is ANSWER.",
    "plain label": "Answer: ANSWER",
    "plain because": "The answer is ANSWER because there are 4 sides.",
    "named": r"\boxed{x = ANSWER}",
    "unit": r"\boxed{ANSWER\text{ units}}",
    "unit in brackets": r"\boxed{ANSWER \text{ (units)}}",
    "unit in plain text": "The final answer is ANSWER units.",
    "text": r"\boxed{\text{ANSWER}}",
    "plain marker with unit": "#### ANSWER apples",
}


def unicode(gold: str) -> str:
    for latex, char in (("-", "−"), ("^2", "²"), (r"\cup", "∪"), (r"\infty", "∞"), (r"\pi", "π")):
        gold = gold.replace(latex, char)
    return gold


def plain(gold: str) -> str:
    gold = re.sub(r"\\left|\\right|\\!", "", gold)
    gold = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", gold)
    gold = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", gold)
    gold = re.sub(r"\\(pi|theta|sin|cos|tan|log|ln)(?![A-Za-z])", r" \1", gold)
    return gold.replace(r"\infty", "inf").replace(r"\leq", "<=").replace(r"\le ", "<= ")


# The same LaTeX, spelled otherwise.
RESPELLED = {
    "dfrac": lambda gold: gold.replace(r"\frac", r"\dfrac"),
    "no left and right": lambda gold: re.sub(r"\\(?:left|right)(?![A-Za-z])", "", gold),
    "unicode": unicode,
    "plain text": plain,
}


def dressed() -> dict[str, list[tuple[str, str]]]:
    golds = [row["answer"] for row in rows("math/test.jsonl")]
    numbers = [gold for gold in golds if literal(normalise(gold)) is not None]
    found = {
        name: [(dress.replace("ANSWER", g), g) for g in golds] for name, dress in DRESSES.items()
    }
    found |= {
        name: [(dress.replace("ANSWER", gold), gold) for gold in numbers]
        for name, dress in OF_NUMBERS.items()
    }
    found |= {
        name: [(rf"\boxed{{{spell(gold)}}}", gold) for gold in golds]
        for name, spell in RESPELLED.items()
    }
    return found


def shares(pairs_of: dict[str, list[tuple[str, str]]]) -> dict[str, tuple[float, list, list]]:
    """Per dress the share that is right, and the first few that are and that are not."""
    grades = iter(grade_answers([pair for pairs in pairs_of.values() for pair in pairs], 30.0))
    found = {}
    for name, pairs in pairs_of.items():
        mine = [(next(grades), *pair) for pair in pairs]
        right = [one for one in mine if one[0].reward == 1.0]
        found[name] = (len(right) / len(mine), right[:9], [o for o in mine if not o[0].reward][:9])
    return found


@pytest.mark.slow
def test_math_500_golds_are_right_in_each_dress():
    found = shares(dressed())
    print()
    for name, (share, _, _) in found.items():
        print(f"{name:32} {share:7.1%}")
    assert {name: wrong for name, (share, _, wrong) in found.items() if share < 0.99} == {}


@pytest.mark.slow
def test_math_500_golds_of_other_problems_are_wrong_in_each_dress():
    found = shares({name: shuffled(pairs) for name, pairs in dressed().items()})
    print()
    for name, (share, _, _) in found.items():
        print(f"{name:32} {share:7.2%}")
    assert {name: right for name, (share, right, _) in found.items() if share > 0.003} == {}
