r"""Answers as people and models write them, kind by kind, and the wrong ones nearest to them.

Pairs are (gold, answer in a box); where the place matters, (text, gold).
"""

import pytest

from score_jax.rewards.answers import grade_answer, grade_answers, grade_leniently

BOXED_RIGHT = {
    "spaces": [
        *(("17", r"17\,"), ("17", r"17\;"), ("17", r"\,17"), ("17", r"17\ "), ("17", "17~")),
        *(("17", r"17\quad"), ("17", r"17\\"), ("17", r"17\hspace{2mm}"), ("17", r"17\!")),
        *(("17", "17{}"), ("17", r"$17\,$"), ("17", r"17\,."), ("(1,2)", r"(1,2)\ ")),
        *(("x+1", r"x+1\,"), (r"\text{even}", r"\text{even}\,")),
    ],
    "style": [
        *(("5", r"\boldsymbol{5}"), ("5", r"\bm{5}"), ("5", r"\textbf{5}"), ("5", r"\mathsf{5}")),
        *(("5", r"\color{red}5"), ("5", r"\color{red}{5}"), ("5", r"{\color{red} 5}")),
        *(("5", r"{\bf 5}"), ("5", r"\rm 5"), ("5", r"\large 5"), ("5", r"\textstyle 5")),
        *(("5", r"\boldsymbol{\mathbf{5}}"), ("5", r"\underline{\underline{5}}")),
        *(("5", r"\colorbox{yellow}{5}"), (r"\frac34", r"\textcolor{blue}{\frac34}")),
        *((r"\frac34", r"\nicefrac{3}{4}"), (r"\frac34", r"\sfrac{3}{4}")),
        *((r"\text{even}", r"\textsf{even}"), (r"\text{even}", r"\mathbf{even}")),
        *(("2i", r"2\mathrm{i}"), ("e^2", r"\mathrm{e}^2"), (r"2\sqrt{3}", r"\mathbf{2\sqrt{3}}")),
        *(("x^{12}", r"\mathbf{x}^{\mathbf{12}}"), (r"2\sqrt{3}", r"\textbf{$2\sqrt{3}$}")),
        *(
            ("5", r"\color[rgb]{1,0,0}5"),
            ("5", r"\text{\bf 5}"),
            (r"\frac{1}{23}", r"\frac{\bf 1}{\bf 23}"),
        ),
    ],
    "plain text": [
        *(
            (r"\frac{\pi}{2}", "pi/2"),
            (r"\frac{\sqrt{3}}{2}", "sqrt(3)/2"),
            (r"2\sqrt{3}", "2sqrt3"),
        ),
        *(("e^{2x}", "exp(2x)"), ("e^{16}-1", "-1 + exp(16)"), (r"\cos 2x", "cos 2x")),
        *(("(-\\infty,3)", "(-inf, 3)"), ("(-\\infty,3)", "(-oo, 3)"), ("-\\infty", "-infinity")),
        *((r"\log_2 5", "log_2(5)"), (r"\ln 2", "ln(2)"), (r"\arctan 2", "atan(2)")),
        *(("x^2+1", "x**2 + 1"), (r"\sqrt[3]{2}", "2^(1/3)"), ("2\\theta", "2*theta")),
        *(
            (r"x \neq 2", "x != 2"),
            (r"1 \leq x \leq 3", "1 <= x <= 3"),
            (r"4\sqrt{2}", r"4\sqrt(2)"),
        ),
        *(("|x|", "abs(x)"), (r"1\pm\sqrt{2}", "1 +/- sqrt(2)"), ("e^{16}-1", "e^16 - 1")),
        *((r"(-\infty,1)\cup(2,\infty)", "(-inf,1) U (2,inf)"), ("[1,2]", "x in [1,2]")),
    ],
    "gold in plain text": [
        *(("sqrt(2)/2", r"\frac{\sqrt2}{2}"), ("exp(-x)", "e^{-x}"), ("1 + 2*I", "1+2i")),
        *(("2*log(3)", r"2\ln 3"), ("2*log(3)", "2*log(3)"), (r"\log 3", "log(3)")),
        *(("oo", r"\infty"), ("cos(2*pi*t)", r"\cos(2\pi t)"), ("x**2 + 2*x", "x^2+2x")),
        *(("E**2", "e^2"), ("Matrix([[1, 2], [3, 4]])", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}")),
    ],
    "unicode": [
        *(("-8", "–8"), ("-8", "—8"), ("-8", "‐8"), ("2-3i", "2–3i"), (r"\frac14", "¼")),
        *((r"\frac74", "1¾"), ("x^{10}", "x¹⁰"), ("10^{-3}", "10⁻³"), ("x_1", "x₁")),
        *((r"\omega", "ω"), (r"\Delta", "Δ"), (r"\lambda", "λ"), (r"\alpha+\beta", "α+β")),
        *(
            (r"\sqrt{12}", "√12"),
            (r"\sqrt{12}", "√(12)"),
            ("6", "“6”"),
            ("6", "`6`"),
            ("6", "6\u00a0"),
        ),
        *((r"\mathbb{R}", "ℝ"), (r"x\geq 2", "x ⩾ 2"), (r"90^\circ", "90º")),
    ],
    "inequalities": [
        *((r"(\frac{1}{2},\infty)", r"x > \frac{1}{2}"), ("x > 2", r"(2,\infty)"), ("x>3", "3<x")),
        *((r"m \in [\sqrt{2}, +\infty)", r"m \geq \sqrt{2}"), (r"x \leq \frac32", "1.5 >= x")),
        *((r"[0,2\pi)", r"0 \leq \theta < 2\pi"), (r"(2,5)", r"\{x \mid 2 < x < 5\}")),
        *((r"(2,\infty)", r"\{x \in \mathbb{R} : x > 2\}"), ("(1,5)", r"x>1 \text{ and } x<5")),
        *((r"(-\infty,-1)\cup(1,\infty)", r"x<-1 \text{ or } x>1"),),
        *((r"(-\infty,-1]\cup[1,\infty)", r"x \leq -1, x \geq 1"),),
        *((r"(-\infty,3)\cup(3,\infty)", r"x \neq 3"), (r"x \neq 3", r"\mathbb{R}\setminus\{3\}")),
        *((r"(-\infty,3)\cup(3,\infty)", r"\mathbb{R} - \{3\}"),),
        *(("(-2,2)", "|x| < 2"), (r"(-\infty,0)\cup(0,\infty)", r"x \in \mathbb{R}, x \neq 0")),
        *((r"\{-1\}\cup[2,\infty)", r"x \geq 2 \text{ or } x = -1"),),
        *((r"(-\infty,\infty)", r"\text{all real numbers}"),),
    ],
    "names": [
        *(("(1,2)", r"x=1,\ y=2"), ("(1,2)", "y=2, x=1"), ("(1,2,3)", "a=1, b=2, c=3")),
        *(("(3,5)", "(x,y)=(3,5)"), ("17", "f(3)=17"), ("17", r"\overline{AB} = 17")),
        *(
            ("17", "m+n = 17"),
            ("17", "a_{10} = 17"),
            ("17", "[ABC] = 17"),
            (r"\frac13", r"P(A)=\frac13"),
        ),
        *(("17", r"\angle ABC = 17^\circ"), ("12", "x = 3*4 = 12")),
        *(("17", r"\sin\theta = 17"), ("17", "AB + BC = 17"), ("17", r"\text{Area of } ABC = 17")),
    ],
    "bases": [
        *(("1101_2", "(1101)_2"), ("1101_2", r"1101_{\text{two}}"), ("1101_2", "1101 base 2")),
        *(("1101_2", r"1101 \text{ (base 2)}"), ("2516_8", "(2516)_{8}"), ("1A_{16}", "(1A)_{16}")),
    ],
    "units": [
        *(
            ("180", r"180 \text{ (days)}"),
            ("17", "17 (hours)"),
            ("17", "17 km/h"),
            ("17", "17 m/s"),
        ),
        *(("17", r"17 \frac{\text{km}}{\text{h}}"), ("17", r"17\frac{\text{m}}{\text{s}^2}")),
        *((r"17\text{ mph}", r"17\text{ miles per hour}"), (r"17\text{ mph}", "17 miles/hour")),
        *(("120^\\circ", "120^o"), ("17", "₹17"), ("17", "17€"), ("17", "Rs. 17"), ("17", "US$17")),
        *(("17", "17 m^2"), ("17", "17 cm²"), ("17", r"17\ \mathrm{km/h}"), ("17", "17 sq ft")),
        *((r"8\sqrt{3}", r"\sqrt{192}\text{ feet}"),),
        *(("17", "17°C"), ("17", r"17^\circ\text{C}"), ("17", "17 in total")),
    ],
    "words for numbers": [
        *(("60", "5 dozen"), ("60", "5 dozen eggs"), (r"\frac{3}{1000}", "3 thousandths")),
        *(
            ("6000000", r"6\text{ million dollars}"),
            (r"\frac23", "2 thirds"),
            ("12", "12 (twelve)"),
        ),
        *(("12", "twelve"), ("205", "two hundred and five"), (r"\text{twenty-one}", "21")),
    ],
    "matrices": [
        *((r"\begin{pmatrix}-2\\3\end{pmatrix}", r"\begin{pmatrix}-2 \cr 3\end{pmatrix}"),),
        *(
            (
                r"\begin{pmatrix}-2\\3\end{pmatrix}",
                r"\left[\begin{array}{c}-2\\3\end{array}\right]",
            ),
        ),
        *((r"\begin{pmatrix}-2\\3\end{pmatrix}", r"\begin{psmallmatrix}-2\\3\end{psmallmatrix}"),),
        *((r"\begin{pmatrix}-2\\3\end{pmatrix}", r"\begin{pmatrix}-2\\[2pt]3\\\end{pmatrix}"),),
    ],
    "choices": [
        *(("C", r"\textbf{(C)}\ 12"), ("C", "C) 12"), ("C", "C. 12"), ("C", "C: 12"), ("C", "(c)")),
        *((r"\text{(D)}", r"\text{(D) } 24"), (r"\textbf{(D)}\ 24", "D"), ("C", "Option C")),
    ],
    "degrees": [
        *((r"\sin 40^\circ", r"\cos 50^\circ"), (r"\sin 40^\circ", r"\sin(40^{\circ})")),
        *((r"\tan 20^\circ", r"\cot 70^\circ"), (r"\sin^2 10^\circ", r"1-\cos^2 10^\circ")),
        *((r"\sin 40^\circ", r"\sin(20^\circ+20^\circ)"), (r"\frac{\sqrt3}{3}", r"\tan 30^\circ")),
    ],
    "grouping": [
        *(("1000000", "1_000_000"), ("1000000", r"1\_000\_000"), ("1000000", "1'000'000")),
        *(("1000000", "1.000.000"), ("25000", "25_000")),
        *(("1234567", "12,34,567"),),
    ],
    "true equations": [
        *(("12", r"\frac{24}{2} = 12"), ("12", "3*4 = 12"), ("10", r"\binom{5}{2} = 10")),
        *(("5", r"\sqrt{16}+1 = 5"), ("x^2+2x+1", "(x+1)^2 = x^2+2x+1")),
    ],
}

BOXED_WRONG = {
    "words that change a value": [
        *(("5", "5 dozen"), ("5", r"5\text{ dozen}"), ("5", "5 dozen eggs"), ("5", "5 (dozen)")),
        *(
            ("5", "5 hundred"),
            ("5", "5 lakh"),
            ("5", "5 thousandths"),
            ("5", r"5\text{ thousandths}"),
        ),
        *(("5", "5 factorial"), ("5", "5!"), ("5", "5 squared"), ("5", r"5\text{ pairs}")),
        *(
            ("5", "5 couples"),
            ("5", "5 thirds"),
            ("5", "5 halves"),
            ("5", "5 tens"),
            ("5", "5 quarters"),
        ),
        *(("5", "5 basis points"), ("5", "5k"), ("5", "5 times 2"), ("60", "50 dozen")),
    ],
    "hedges": [
        *(("5", "5 (or 6)"), ("5", r"5\text{ (or 6)}"), ("5", "5 or 6"), ("5", "5 (maybe)")),
        *(("5", "either 5 or 6"), ("5", "5 (not 6)"), ("5", "5 (six)"), ("12", "12 (thirteen)")),
    ],
    "other units": [
        *((r"5\text{ km}", "5 miles"), (r"5\text{ km/h}", "5 mph"), (r"17\text{ m/s}", "17 km/h")),
        *((r"17\text{ cm}^2", "17 cm"), (r"90^\circ", "90 radians"), (r"\$17", "17 euros")),
    ],
    "other choices": [
        *(("C", r"\textbf{(D)}\ 12"), ("C", "(C) or (D)"), ("C", "C, D"), ("C", "CD")),
        *(("C", "(C) 12 (D) 13"), ("12", "(C) 13")),
    ],
    "other names and equations": [
        *(("(1,2)", "x=2, y=1"), ("(1,2)", "x=1, x=2"), ("(1,2)", "1, 2"), ("17", "2x = 17")),
        *(("17", "16 = 17"), ("17", "8+8 = 17"), ("17", "x = 17+0"), ("17", "17 = 17+0")),
        *(("56088", r"123 \times 456 = 56087"), ("56088", "123*456"), ("5", "5=5=6")),
        *(("5", "x+3 = 5"), ("12", "12,34")),
    ],
    "other sets": [
        *((r"(2,\infty)", r"x \geq 2"), (r"(2,\infty)", "x<2"), ("(1,5)", r"x>1 \text{ or } x<5")),
        *((r"(-\infty,-1)\cup(1,\infty)", "-1<x<1"), (r"(-\infty,0)\cup(0,\infty)", r"x \neq 1")),
        *((r"(-\infty,0)\cup(0,\infty)", r"\mathbb{R}"), ("2", "x>2"), ("2", r"x \neq 3")),
        *(("1101_2", "(1101)_3"), ("1101_2", "1101"), ("13", "1101_2")),
        *(("(-2,2)", "|x|<3"), ("2", r"x \geq 2 \text{ or } x = 2"), ("(1,2)", "[[1,2]]")),
    ],
    "other signs": [
        *(("-8", "8"), ("8", "–8"), ("52", "5²"), ("5", "5²"), ("34", "3_4"), ("34", "¾")),
        *(("5", "５"), ("5", "5\u200b"), ("5", r"\textcolor{white}{6}5"), ("5", r"5\phantom{6}")),
        *((r"\sin 40^\circ", r"\sin 50^\circ"), (r"\sin 40^\circ", r"\cos 40^\circ")),
        *((r"\sqrt{2}", "sqrt(3)"), ("2", "sqrt(4)"), ("4", "2**2"), (r"\pi", "3.14159")),
    ],
}

PLACED_RIGHT = {
    "explained": [
        *(("The answer is 42 because geometry proves it", "42"),),
        *(
            ("The answer is $12$, as required.", "12"),
            ("The answer is 12 (since 3*4 is 12).", "12"),
        ),
        *(("The final answer is $42$, because 6*7=42. I hope it is correct.", "42"),),
        *(("The final answer is therefore 12.", "12"), ("The answer is equal to 12.", "12")),
        *(
            ("The answer is 12 due to symmetry.", "12"),
            ("The final answer is $2+3=5$ dollars.", "5"),
        ),
        *(
            ("The answer is 12, which is what we wanted.", "12"),
            ("the answer is: $3*4 = 12$", "12"),
        ),
        *(("The answer is, therefore, 12.", "12"), ("The answer to the problem is 12.", "12")),
        *(("The answer is 12 by the formula.", "12"), ("The answer is 12 and we are done.", "12")),
        *(
            ("The answer is $\\$36$ because of the sale.", "36"),
            ("The answer is 12 (see above).", "12"),
        ),
    ],
    "labels": [
        *(("The sum is $8-4=4$.\n\n**Answer:** 4.", "4"), ("Answer: 4", "4"), ("Answer = 4", "4")),
        *(("Final Answer: 4", "4"), ("**Final Answer: 4**", "4"), ("FINAL ANSWER: 4", "4")),
        *(("### Final Answer\n\n4", "4"), ("**Final Answer**\n\n$4$", "4"), ("## Answer: 4", "4")),
        *(
            ("Final Answer:\n$$4$$", "4"),
            ("- Answer: 4", "4"),
            ("Answer: 4\n\nI hope it helps.", "4"),
        ),
        *(("The final answers are $1$ and $2$. I hope they are correct.", "1, 2"),),
        *(("\\textbf{Final Answer: } $4$", "4"), ("Final Answer\n4", "4"), ("Answer: (C) 4", "C")),
    ],
    "markers and headings": [
        *(
            ("#### Answer: 1800", "1800"),
            ("#### 3*4=<<3*4=12>>12", "12"),
            ("#### 12 (twelve)", "12"),
        ),
        *(("#### 12</s>", "12"), ("#### 12<|im_end|>", "12"), ("#### The answer is 12", "12")),
        *(("#### **12**", "12"), ("#### x^2+1", "1+x^2"), ("#### \\frac{1}{2}", "0.5")),
        *(("#### Step 1: Count\nfoo\n#### Step 2: Add\nThe answer is 18.", "18"),),
        *(("#### 1. Count\nfoo\n#### 2. Add\nThe answer is 18.", "18"),),
        *(("#### Final Answer\n18", "18"), ("#### Step 1\nfoo\n#### 18", "18")),
        *(("#### Explanation\nfoo\nAnswer: 18", "18"), ("#### Sunday", r"\text{Sunday}")),
    ],
    "boxes": [
        *(("boxed{5}", "5"), ("The answer is $boxed{12}$.", "12"), ("\\\\boxed{5}", "5")),
        *(("\x08oxed{5}", "5"), ("$\\boxed {5}$", "5")),
        *(("oxed{12}", "12"), ("\\framebox{12}", "12"), ("2 boxed toys.\n#### 12", "12")),
    ],
    "corrections": [
        *(("The previous solution's final answer is $12$. However, … \\boxed{15}", "15"),),
        *(("I had \\boxed{12}, which is wrong. The final answer is $15$.", "15"),),
        *(
            ("The final answer is 12. No: the final answer is 15.", "15"),
            ("\\boxed{2} \\boxed{3}", "3"),
        ),
    ],
}

PLACED_WRONG = {
    "a box that never closes": [
        *((r"\boxed{5", "5"), (r"so \boxed{5 and the answer is 5", "5"), ("boxed{5", "5")),
    ],
    "prose": [
        *(("I think 5", "5"), ("= 5", "5"), ("#### Step 5: count", "5"), ("Answer:", "5")),
        *(("Answer the question: 5", "5"), ("The answer is not 5.", "5")),
        *(("The answer is between 4 and 5", "5"), ("The answer is 3 times as much as 5", "3")),
    ],
    "a step or a quotation": [
        *(("Step 1. Answer: 4\nStep 2: 4+5=9.", "4"), ('The problem says "Answer: 4".', "4")),
        *(
            ("First step:\nAnswer: 4\nSecond step: 4+5 = 9", "4"),
            ("> Answer: 4\n\nNow, 3+5=8", "4"),
        ),
        *(("Problem: what is 2+2? Answer: 4\nSo we have $3$.", "4"),),
        *(("The answer is 4 for the first step. Then we add 5.", "4"),),
    ],
    "an earlier or a weaker answer": [
        *(("The final answer is $12$. But \\boxed{15}", "12"), ("\\boxed{15}\n#### 12", "12")),
        *(
            ("\\boxed{12}. The final answer is $15$.", "12"),
            ("\\boxed{15}. The answer is 12.", "12"),
        ),
        *(("The final answer is 15.\n#### 12", "12"), ("\\boxed{15}\nAnswer: 12", "12")),
    ],
    "hedges": [
        *(
            ("The answer is 5 or 6.", "5"),
            ("The answer is 5 (or 6).", "5"),
            ("Answer: 5 or 6", "5"),
        ),
        *(("The answer is 5 because it may be 6 or 5", "5"), ("The answer is 5 as well as 6", "5")),
        *(("#### 5 or 6", "5"), ("The answer is 5 dozen.", "5")),
    ],
}


def boxed(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(rf"So it is $\boxed{{{answer}}}$.", gold) for gold, answer in pairs]


RIGHT = {kind: boxed(pairs) for kind, pairs in BOXED_RIGHT.items()} | PLACED_RIGHT
WRONG = {kind: boxed(pairs) for kind, pairs in BOXED_WRONG.items()} | PLACED_WRONG


@pytest.mark.parametrize("kind", RIGHT)
def test_each_kind_of_right_answer_is_right(kind):
    pairs = RIGHT[kind]
    grades = grade_answers(pairs)
    assert [(*p, g.reason) for p, g in zip(pairs, grades, strict=True) if g.reward != 1.0] == []


@pytest.mark.parametrize("kind", WRONG)
def test_the_nearest_wrong_answers_are_wrong(kind):
    pairs = WRONG[kind]
    grades = grade_answers(pairs)
    assert [pair for pair, grade in zip(pairs, grades, strict=True) if grade.reward] == []


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("So 6*7 = 42", "42"),
        ("So $x = 42$ follows.", "42"),
        ("It is 1/2.", r"\frac{1}{2}"),
        ("\\boxed{5}. No, \\boxed{6}.", "5"),
        ("The final answer is 5.\nThe final answer is 6.", "5"),
        ("Answer: 4\nCheck: 2+2 = 4", "4"),
        ("#### 5\nor\n#### 6", "5"),
        ("\\boxed{42", "42"),
        ("The answer is $\\frac12$.", "0.5"),
    ],
)
def test_leniently_an_answer_counts_wherever_it_may_be_meant(text, gold):
    assert grade_leniently(text, gold).reward == 1.0


@pytest.mark.parametrize(
    ("text", "gold"),
    [("So 6*7 = 42, not 41", "42"), ("Of 5 we take \\boxed{6}", "5"), ("", "5"), ("five", "6")],
)
def test_leniently_not_every_number_counts(text, gold):
    assert grade_leniently(text, gold).reward == 0.0


def test_a_lenient_batch_keeps_its_order_and_its_reasons():
    pairs = [("\\boxed{5} \\boxed{6}", "5"), ("none", "5"), ("\\boxed{7}", "8"), ("I say 3", "3")]
    reasons = [grade.reason for grade in grade_answers(pairs, lenient=True)]
    assert reasons == ["equal", "no_answer", "unequal", "equal"]
    assert [grade_answer(*pair).reason for pair in pairs[:1]] == ["unequal"]
