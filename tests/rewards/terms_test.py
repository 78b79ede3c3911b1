"""Several named terms: weights, which one says what is solved, and what failures earn."""

import numpy as np
import pytest

from score_jax.problem import InputError, Problem
from score_jax.rewards import grader
from score_jax.rewards.functions import Limits, Rows
from score_jax.rewards.terms import Term, Terms
from score_jax.rewards.workers import pool

PROBLEM = Problem("p/1", "6+1", "7", grader="first_character")


@pytest.fixture(autouse=True)
def _ended():
    yield
    pool.close()


@pytest.fixture
def file(tmp_path):
    """A file of reward functions."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\n"
        "def short(problem, texts, gold):\n"
        "    if 'die' in texts: os._exit(1)\n"
        "    return [(1 / max(1, len(text)), 'short') for text in texts]\n"
        "def agrees(problem, texts, gold, verdict):\n    return [one.reward for one in verdict]\n"
        "def many(problems, texts, golds):\n"
        "    return [[len(problems)] * len(row) for row in texts]\n"
    )
    return path


def paid(terms: Terms, *texts: list[str]):
    return grader.pay(Rows([PROBLEM] * len(texts), texts), terms)


def test_terms_add_up_by_their_weights_and_are_kept_unweighted(file):
    terms = Terms({"right": Term(), "style": Term(f"{file}:short", weight=-0.5)})
    found = paid(terms, ["7", "8..."], ["77", ""])
    np.testing.assert_allclose(found.reward_BA, [[0.5, -0.125], [0.75, -0.5]])
    np.testing.assert_allclose(found.of_terms["style"], [[1.0, 0.25], [0.5, 1.0]])
    np.testing.assert_array_equal(found.of_terms["right"], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(found.solved_BA, [[1, 0], [1, 0]])  # the built-in one says
    assert found.reasons == [["equal", "unequal"], ["equal", "no_answer"]]


def test_a_sum_that_float32_cannot_hold_is_refused(file):
    terms = Terms({"right": Term(weight=3e38), "style": Term(f"{file}:short", weight=3e38)})
    with pytest.raises(InputError, match=r"attempt 2 at problem p/1 .* 6e\+38.*Lower the weights"):
        paid(terms, ["", "7"])
    assert paid(terms, ["8", "die"]).reward_BA.tolist() == [[0, 0]]  # its call failed: not a sum


def test_the_term_that_says_so_solves_from_a_threshold(file):
    marked = {"right": Term(), "style": Term(f"{file}:short", solves=True)}
    found = paid(Terms(marked, solved_at=0.5), ["7", "8..."], ["77", ""])
    np.testing.assert_array_equal(found.solved_BA, [[1, 0], [1, 1]])
    assert found.reasons[0] == ["short", "short"]
    only = Terms({"style": Term(f"{file}:short")})
    np.testing.assert_array_equal(paid(only, ["7", "77"]).solved_BA, [[1, 0]])


def test_a_row_whose_call_failed_earns_what_the_settings_say(file):
    terms = Terms({"right": Term(), "style": Term(f"{file}:short")}, failed=-2.0)
    found = paid(terms, ["7", "die"], ["7", "7"])
    np.testing.assert_array_equal(found.reward_BA, [[-2, -2], [2, 2]])
    np.testing.assert_array_equal(found.solved_BA, [[0, 0], [1, 1]])
    assert found.reasons == [["crash", "crash"], ["equal", "equal"]]
    assert found.failed == ["style: crash", ""]
    assert np.isnan(found.of_terms["style"][0]).all()


def test_a_program_that_hung_earns_it_too(monkeypatch):
    problem = Problem("p", "", "{}", grader="program")
    grades = {"hangs": "timeout", "right": "passed"}

    def grade_texts(pairs, program_sec):
        return [grader.Grade(float(text == "right"), grades[text]) for text, _ in pairs]

    monkeypatch.setattr(grader.programs, "grade_texts", grade_texts)
    found = grader.pay(Rows([problem], [["hangs", "right"]]), Terms(failed=-1.0))
    assert found.reward_BA.tolist() == [[-1.0, 1.0]]
    assert found.failed == [""]  # the program's fault, not the grader's


def test_a_function_may_ask_for_the_built_in_verdict(file):
    terms = Terms({"own": Term(f"{file}:agrees")})
    assert terms.needs_builtin()
    np.testing.assert_array_equal(paid(terms, ["7", "8"]).reward_BA, [[1, 0]])
    with pytest.raises(grader.InputError, match="no grader 'digit'"):
        grader.prepare([Problem("p", "", "7", grader="digit")], attempts=1, paid=terms)


def test_a_batch_term_gets_all_rows_at_once(file):
    terms = Terms({"own": Term(f"{file}:many", batch=True)}, limits=Limits(workers=1))
    np.testing.assert_array_equal(paid(terms, ["a"], ["b"], ["c"]).reward_BA, [[3], [3], [3]])


def test_no_rows_are_an_empty_batch(file):
    terms = Terms({"own": Term(f"{file}:many", batch=True), "right": Term()})
    assert paid(terms).reward_BA.shape == (0, 0)
