r"""Equal and unequal answers, one by one. Gold first, answer second, which goes in a box."""

import pytest

from score_jax.rewards.answers.grade import grade_answer

# Decided without algebra: by spelling, exact numbers, kinds of values.
PLAIN_EQUAL = [
    ("42", "42"),
    ("42", "42.0"),
    ("42", " 42. "),
    ("42", "+42"),
    ("-3", "−3"),
    ("1234", "1,234"),
    ("1,234", "1234"),
    ("1234567", r"1,\!234,\!567"),
    ("335{,}670", "335670"),
    ("12345", r"12\,345"),
    ("12345", "12\u2009345"),
    ("18", r"\$18"),
    ("18", "$18"),
    ("18", "18 dollars"),
    ("18", r"18\text{ dollars per day}"),
    ("18", "18 eggs"),
    ("5\\text{ inches}", "5"),
    ("5", r"5\text{ cm}"),
    ("5", "5 cm"),
    ("5", r"5\text{ cm}^2"),
    ("5\\text{ square inches}", r"5\text{ inches}^2"),
    ("65 \\text{ children tickets }", r"65\text{ tickets}"),
    (r"90^\circ", "90"),
    ("90", r"90^{\circ}"),
    (r"90^\circ", r"90\text{ degrees}"),
    (r"50\%", "50"),
    (r"50\%", "0.5"),
    (r"12.5\%", "12.5"),
    ("12.5", r"12.5\%"),
    (r"50\%", "50 percent"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{1}{2}", r"\tfrac 1 2"),
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", r"\frac{2}{4}"),
    ("2", r"\frac{4}{2}"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"-\frac{1}{2}", "-1/2"),
    (r"\frac 1{72}", r"\frac{1}{72}"),
    (r"\frac{7}{2}", r"3\frac{1}{2}"),
    ("3.5", "3 1/2"),
    (r"-3\frac{1}{2}", "-3.5"),
    (r"\frac{1}{3}", r"0.\overline{3}"),
    (r"\frac{5}{6}", r"0.8\overline{3}"),
    ("1000000", "1 million"),
    ("1500000", r"1.5\text{ million}"),
    ("60000", r"6 \times 10^4"),
    (r"6.02\times 10^{-23}", "6.02e-23"),
    ("0.0000003", r"3 \cdot 10^{-7}"),
    ("5", "x = 5"),
    ("x=5", "5"),
    ("5", r"\text{Area} = 5"),
    ("(3,-2)", r"\left( 3, -2 \right)"),
    ("(0.5,0.6)", r"\left(\frac{1}{2}, \frac{3}{5}\right)"),
    ("(5)", "5"),
    (r"(1,\!000,2)", "(1000,2)"),
    ("2,3", "3, 2"),
    ("2,3", r"2 \text{ and } 3"),
    ("2,3", "3 and 2"),
    ("2,3", r"\{2, 3\}"),
    ("2,3", "x = 2, x = 3"),
    ("2,3", "x=3 or x=2"),
    ("-1, \\; -5", "-5,-1"),
    (r"10^\circ, 50^\circ", "50, 10"),
    ("(1,2),(3,4)", "(3,4), (1,2)"),
    ("(-4, 27);(2, 15)", "(2,15), (-4,27)"),
    ("[2,5)", r"\left[2, 5\right)"),
    ("[2,5)", r"2 \le x < 5"),
    ("[2,5)", r"5 > x \geq 2"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"(3,\infty)", "x > 3"),
    (r"(-\infty, 3]", r"x \leq 3"),
    (r"(-\infty,\infty)", r"\mathbb{R}"),
    (r"(0,9) \cup (9,36)", r"(9,36)\cup(0,9)"),
    (r"(0,9) \cup (9,36)", "(0,9)∪(9,36)"),
    (r"(0,\infty)", r"(0,+\infty)"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{bmatrix}1\\3\end{bmatrix}"),
    (r"\begin{pmatrix} -1/2 & 2 \end{pmatrix}", r"\begin{pmatrix} -0.5 & 2.0 \end{pmatrix}"),
    ("2516_8", "2516_{8}"),
    ("1A_{16}", "1a_{16}"),
    (r"\text{(C)}", "C"),
    (r"\text{C}", "(C)"),
    (r"\text{odd}", "odd"),
    (r"\text{Sunday}", "sunday"),
    (r"\text{A,B,E}", "B, A, E"),
    (r"\text{4:30 p.m.}", "4:30 pm"),
    ("3:1", "3 : 1"),
    (r"\text{two lines}", r"\text{two lines.}"),
    (r"\emptyset", r"\varnothing"),
    (r"2\pi", r"2 \pi"),
    (r"10\sqrt3", r"10\sqrt{3}"),
    ("x^2", "x^{2}"),
    (r"\frac{1}{2004!}", r"\dfrac{1}{2004!}"),
]

PLAIN_UNEQUAL = [
    ("42", "43"),
    ("42", "-42"),
    ("42", "4 2"),
    ("5", "1 4"),
    ("14", "1 4"),
    ("0.0000003", "0.0000004"),
    (r"6.02\times 10^{-23}", r"1.6 \times 10^{-19}"),
    ("9007199254740993", "9007199254740992"),
    (r"\frac{1}{3}", "0.333333"),
    (r"\frac{1}{3}", "0.33"),
    ("50", "0.5"),
    ("0.5", "50"),
    ("56088", r"123 \times 456"),
    ("56088", "123*456"),
    ("1024", "2^{10}"),
    ("4", r"\sqrt{16}"),
    ("5", "2+3"),
    (r"\frac{5}{6}", r"\frac{1}{2}+\frac{1}{3}"),
    ("7", "8 = 7"),
    ("7", "7 = 8"),
    ("5", "2x = 10"),
    ("5", "5 (or 6)"),
    ("5", "5 or 6"),
    ("5", r"5\text{ or }6"),
    ("5", r"5 \text{ or any other number}"),
    ("5", "5, 6"),
    ("5", "5 and something else"),
    ("5", "5x"),
    ("5", "5m"),
    ("5", r"5 \text{ million}"),
    ("5\\text{ inches}", r"5\text{ cm}"),
    ("5\\text{ inches}", r"5\text{ square inches}"),
    (r"90^\circ", r"90\text{ feet}"),
    ("x=5", "y=5"),
    ("(2,1)", "[2,1]"),
    ("(2,1)", "(1,2)"),
    ("(2,1)", "2,1"),
    ("2,1", "(2,1)"),
    (r"\{1,2\}", "(1,2)"),
    ("1,2", "1,2,3"),
    ("1,2,3", "1,2"),
    ("1,2", "1,1"),
    ("1,1,2", "1,2,2"),
    ("34", "3,4"),
    ("3,4", "34"),
    ("[2,5)", "(2,5)"),
    ("[2,5)", "[2,5]"),
    ("[2,5)", "2 < x < 5"),
    (r"(3,\infty)", r"x \geq 3"),
    (r"(0,9) \cup (9,36)", "(0,36)"),
    ("2516_8", "2516_9"),
    ("2516_8", "2516"),
    ("3:30", "4:40"),
    ("3:4", "6:8"),
    (r"\text{tea}", "eat"),
    ("tea", "eat"),
    (r"\text{even}", r"\text{even or odd}"),
    (r"\text{(C)}", "(D)"),
    (r"\text{odd}", "even"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 4 \end{pmatrix}"),
    ("3", "٣"),
    ("x", "X"),
    ("2\\pi x", "2\\pi X"),
    ("5", "banana"),
    ("5", "?"),
]

# These need the worker.
SYMBOLIC_EQUAL = [
    (r"\frac{1 + \sqrt{5}}{2}", r"\frac{\sqrt{5}+1}{2}"),
    (r"\frac{1 + \sqrt{5}}{2}", r"0.5+\frac{\sqrt5}{2}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"\frac94\pi", r"2.25\pi"),
    (r"\sqrt{12}", r"2\sqrt 3"),
    ("(x+1)^2", "x^2+2x+1"),
    ("(3x+7)(x+1)", "(x+1)(3x+7)"),
    (r"\frac{8t}{3}", r"\frac{8}{3}t"),
    ("2xy", "2 y x"),
    (r"\frac{2ab}{a^2 + b^2}", r"\frac{2ab}{b^2+a^2}"),
    (r"\frac{1}{5} + \frac{3}{5}i", r"\frac{1+3i}{5}"),
    ("2i", "(1+i)^2"),
    (r"\frac{1 + i \sqrt{3}}{2}", r"e^{\pi i/3}"),
    (r"\left( 3, \frac{9 \pi}{7} \right)", r"(3, 9\pi/7)"),
    (r"2 + \sqrt{2}, 2 - \sqrt{2}", r"2-\sqrt2, 2+\sqrt2"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    (r"2 - \sqrt{3}, 2 + \sqrt{3}", r"2 \pm \sqrt{3}"),
    (r"[0, \sqrt{8}]", r"[0, 2\sqrt{2}]"),
    (r"\begin{pmatrix} \sqrt{8} \\ 1 \end{pmatrix}", r"\begin{pmatrix} 2\sqrt2 \\ 1 \end{pmatrix}"),
    ("y=2x+3", "y = 3+2x"),
    ("y=2x+3", "2x+3"),
    ("y=2x+3", "2x - y + 3 = 0"),
    ("2x - y + 3z + 8 = 0", "4x - 2y + 6z + 16 = 0"),
    (r"8\sqrt{3} \text { square inches}", r"\sqrt{192}"),
    ("2^{10}", "1024"),
    ("2^{-1}", "0.5"),
    ("x^{3/2}", "x^{1.5}"),
    ("x^{3/2}+1", "x^1.5+1.0"),
    (r"\frac{1}{64}", "2^{-6}"),
    (r"\sin^2 y", r"1-\cos^2 y"),
    (r"\log_2 10", r"\frac{\ln 10}{\ln 2}"),
    (r"\sqrt{x^3}", r"x\sqrt{x}"),
    (r"-\sqrt{3}", "-3^{1/2}"),
]

SYMBOLIC_UNEQUAL = [
    (r"\sqrt{2}", "1.414213562373"),
    (r"\pi", "3.14159265"),
    (r"2^{-60}", r"2^{-61}"),
    (r"10^{-20}\sqrt{2}", r"10^{-20}\sqrt{3}"),
    (r"\frac{x+1}{2}", r"x+\frac{1}{2}"),
    ("(x+1)^2", "x^2+1"),
    (r"2^{-60} x", "2^{-61} x"),
    (r"\sqrt[3]{4}", r"\sqrt{4}"),
    (r"\sqrt{x^2}", "x"),
    ("y=2x+3", "y=2x+4"),
    ("x^2 + y^2 = 13", "x^2 - y^2 = 13"),
    (r"2 + \sqrt{2}, 2 - \sqrt{2}", r"2+\sqrt2, 2+\sqrt2"),
    (r"\pi", r"\pi^{1.0000000001}"),
    ("2k", "2"),
    ("5+i", "5-i"),
    ("-1 + 2i", "2i"),
    (r"\text{A,B}", "A, C"),
    ("xy", "x+y"),
    (r"8\sqrt{3}\text{ feet}", r"8\sqrt{3}\text{ inches}"),
]


def boxed(answer: str) -> str:
    return rf"So it is $\boxed{{{answer}}}$."


@pytest.mark.parametrize(("gold", "answer"), PLAIN_EQUAL)
def test_same_value_is_right(gold, answer):
    assert grade_answer(boxed(answer), gold).reason == "equal"


@pytest.mark.parametrize(("gold", "answer"), PLAIN_UNEQUAL)
def test_other_value_is_wrong(gold, answer):
    grade = grade_answer(boxed(answer), gold)
    assert grade.reward == 0.0
    assert grade.reason in ("unequal", "refused")


@pytest.mark.parametrize(("gold", "answer"), SYMBOLIC_EQUAL)
def test_same_expression_is_right(gold, answer):
    assert grade_answer(boxed(answer), gold).reason == "equal"


@pytest.mark.parametrize(("gold", "answer"), SYMBOLIC_UNEQUAL)
def test_other_expression_is_wrong(gold, answer):
    grade = grade_answer(boxed(answer), gold)
    assert grade.reward == 0.0
    assert grade.reason in ("unequal", "refused")


@pytest.mark.parametrize(("gold", "_"), PLAIN_EQUAL + SYMBOLIC_EQUAL)
def test_gold_is_right_against_itself(gold, _):
    assert grade_answer(boxed(gold), gold).reason == "equal"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_answer"),
        ("I would say 42", "no_answer"),
        (r"\boxed{}", "no_answer"),
        (r"\boxed{42", "no_answer"),
        ("The final answer is", "no_answer"),
        (r"\boxed{" + "4" * 301 + "}", "too_long"),
        (r"\boxed{2^{99999}}", "refused"),
        (r"\boxed{\pi^{2^{3^4}}}", "refused"),
        (r"\boxed{\frac{x}}}", "unparseable"),
        (r"\boxed{x +* }", "unparseable"),
    ],
)
def test_every_failure_has_its_own_reason(text, reason):
    grade = grade_answer(text, r"\sqrt{2}")
    assert (grade.reward, grade.reason) == (0.0, reason)


def test_gsm8k_gold_may_be_the_published_solution():
    assert grade_answer("6*7 is 42.\n#### 42", "He has 6*7=42.\n#### 42").reward == 1.0
    assert grade_answer("#### 1,042", "#### 1042").reward == 1.0
    assert grade_answer("#### 43", "He has 6*7=42.\n#### 42").reward == 0.0
