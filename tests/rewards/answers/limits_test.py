"""What must never reach the symbolic library."""

import pytest

from score_jax.rewards.answers.limits import power_depth, refusal, too_deep, unbalanced
from score_jax.rewards.answers.spelling import normalise


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        ("x", 0),
        ("x^2y^2z^2w^2", 1),
        ("x^{2}+y^{3}", 1),
        ("2^{3^4}", 2),
        ("2^{3^{4^5}}", 3),
        ("2^3^4^5", 3),
        ("((9^9)^9)^9", 3),
        ("\\frac{a^2}{b^{c^2}}", 2),
    ],
)
def test_depth_of_powers(text, depth):
    assert power_depth(text) == depth


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^9}}",
        "9**9**9**9",
        "2^{99999}",
        "2^{1+99999}",
        "2^99999",
        "1000!",
        "((5!)!)!",
        "5!!",
        "\\binom{9999}{3}",
        "\\binom{\\binom{9}{3}}{3}",
        "\\sum_{n=1}^9 n",
        "\\int x",
        "\\input{file}",
        "\\def x",
        "\\begin{verbatim}x\\end{verbatim}",
        "__import__('os')",
        "x;y",
        "x`y`",
        '"x"',
        "1 4x",
        "5\\text{ or more}x",
    ],
)
def test_hostile_or_foreign_text_is_refused(text):
    assert refusal(normalise(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "\\frac{1+\\sqrt{5}}{2}",
        "x^5-3x^4y^2+2z_1",
        "e^{i\\pi/3}",
        "2^{x^2}",
        "\\sqrt[3]{4}\\cdot 10!",
        "\\binom{10}{3}",
        "(-\\infty,3)\\cup[4,\\sqrt{20}]",
        "\\begin{pmatrix} \\sqrt{2} & 1 \\\\ 0 & x \\end{pmatrix}",
        "|x-3|+\\lfloor y\\rfloor",
    ],
)
def test_ordinary_formulas_are_not_refused(text):
    assert refusal(normalise(text)) is None


def test_brackets_are_counted():
    assert unbalanced("{") and unbalanced("}{") and not unbalanced("{{}}\\{")
    assert too_deep("(" * 21) and not too_deep("()" * 200)
