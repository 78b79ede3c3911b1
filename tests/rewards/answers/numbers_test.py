"""Numbers and units, read exactly."""

from fractions import Fraction

import pytest

from score_jax.rewards.answers.numbers import literal, split_unit, units_agree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("007", 7),
        ("5.", 5),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("12 345", 12345),
        ("\\frac{-3}{4}", Fraction(-3, 4)),
        ("-\\frac{3}{-4}", Fraction(3, 4)),
        ("6/4", Fraction(3, 2)),
        ("2\\frac{1}{3}", Fraction(7, 3)),
        ("-2 1/3", Fraction(-7, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("1.5e-3", Fraction(3, 2000)),
        ("1.5 \\times 10^{-3}", Fraction(3, 2000)),
        ("10^{12}", 10**12),
        ("2.5 million", 2500000),
    ],
)
def test_numbers_written_out_are_exact(text, value):
    assert literal(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", ".", "x", "1 4", "1,23", "1,2345", "0,123", "1e99999", "1/0", "\\frac{1}{0}"),
        *("2^{10}", "2+3", "2\\cdot 3", "3!", "--3", "1.2.3", "\\frac{\\frac{1}{2}}{3}", "٣", "²"),
        *("0x10", "1_000", "nan", "inf", "\\pi", "3\\%"),
    ],
)
def test_anything_else_is_no_number(text):
    assert literal(text) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("5", ("5", "")),
        ("5\\text{ inches}", ("5", "inch")),
        ("5\\text{ inches}^2", ("5", "inch^2")),
        ("5\\text{ sq. in.}", ("5", "inch^2")),
        ("8\\sqrt{3}\\text{ feet}", ("8\\sqrt{3}", "foot")),
        ("\\$7.50", ("7.50", "dollar")),
        ("-\\$7", ("-7", "dollar")),
        ("\\$7\\text{ per day}", ("7", "day")),
        ("50\\%", ("50", "%")),
        ("5 cm", ("5", "centimeter")),
        ("5cm", ("5", "centimeter")),
        ("5 apples", ("5", "apple")),
        ("5xyz", ("5xyz", "")),
        ("5m", ("5m", "")),
        ("5 or any", ("5 or any", "")),
        ("5\\text{ or 6}", ("5\\text{ or 6}", "")),
        ("5 more than x", ("5 more than x", "")),
    ],
)
def test_units_are_split_from_numbers(text, parts):
    assert split_unit(text) == parts


def test_units_may_be_missing_but_not_differ():
    assert units_agree("", "inch") and units_agree("inch", "")
    assert units_agree("children ticket", "ticket")
    assert not units_agree("inch", "centimeter")
    assert not units_agree("inch", "inch^2")
    assert not units_agree("mile", "hour mile")
