"""Reward functions of the user's own: what they get, may return, and how they may fail."""

import time

import pytest

from score_jax.problem import Grade, InputError, Problem
from score_jax.rewards import functions, grader
from score_jax.rewards.workers import pool

PROBLEM = Problem("p/1", "Say please.", "please", tags={"level": "1"})


@pytest.fixture(autouse=True)
def _ended():
    yield
    pool.close()


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes the module `mine` where the run would import it from."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(body: str) -> str:
        (tmp_path / "mine.py").write_text("from score_jax.problem import Grade\n" + body)
        return "mine:reward"

    return write


def test_it_gets_problem_texts_of_all_attempts_and_gold(module):
    name = module(
        "def reward(problem, texts, gold):\n"
        "    assert (problem.id, problem.prompt, gold) == ('p/1', 'Say please.', 'please')\n"
        "    assert problem.tags == {'level': '1'} and problem.gold == gold\n"
        "    return [gold in text and text not in texts[:n] for n, text in enumerate(texts)]\n"
    )
    rows = [["please", "please"], ["no", "yes please"], ["", "\ud800"]]
    reward_BA, _, reasons_BA = grader.grade([PROBLEM] * 3, rows, function=name)
    assert reward_BA.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert reasons_BA[0] == ["rewarded", "unrewarded"]


def test_it_may_give_reasons_of_its_own(module):
    name = module("def reward(p, texts, g): return [Grade(1.0, 'short'), Grade(0.0, 'long')]")
    assert functions.grade(name, [PROBLEM], [["a", "b"]], 5.0) == [
        [Grade(1.0, "short"), Grade(0.0, "long")]
    ]


def test_a_call_that_hangs_dies_or_raises_costs_its_own_reward_only(module):
    name = module(
        "import os\n"
        "def reward(problem, texts, gold):\n"
        "    if texts[0] == 'hang':\n        while True: pass\n"
        "    if texts[0] == 'die': os._exit(0)\n"
        "    if texts[0] == 'raise': raise ValueError\n"
        "    if texts[0] == 'few': return []\n"
        "    if texts[0] == 'half': return [0.5]\n"
        "    print('loud')\n"
        "    return [1]\n"
    )
    rows = [["fine"], ["hang"], ["die"], ["raise"], ["few"], ["half"], ["fine"]]
    pool.shared(functions._work(name))
    began = time.monotonic()
    grades = functions.grade(name, [PROBLEM] * len(rows), rows, 2.0)
    assert time.monotonic() - began < 6.0
    assert [one.reward for (one,) in grades] == [1, 0, 0, 0, 0, 0, 1]
    error = "function_error"
    assert [one.reason for (one,) in grades[1:6]] == ["timeout", "crash", error, error, error]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def other(): pass", "cannot be imported .AttributeError"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("reward = 3", "is a int, not a function"),
        ("def reward(): pass", "TypeError"),
        ("def reward(p, t, g): return 1 / 0", r"ZeroDivisionError: .*mine\.py, line 2"),
        ("def reward(p, t, g): return [1]", "1 rewards for 2 attempts"),
        ("def reward(p, t, g): return [0, 2]", "reward 2"),
        ("def reward(p, t, g): return [0.5, 1]", "0 or 1"),
        ("def reward(p, t, g): return [float('nan'), 1]", "reward nan"),
        ("import os\ndef reward(p, t, g): os._exit(1)", "'crash'"),
    ],
)
def test_a_mistake_in_it_is_reported_before_the_run(module, body, words):
    name = module(body)
    with pytest.raises(InputError, match=words):
        grader.prepare([PROBLEM], attempts=2, function=name)


def test_a_good_one_is_prepared_without_a_sandbox(module):
    name = module("def reward(p, texts, g): return [0 for text in texts]")
    assert grader.prepare([PROBLEM], attempts=3, function=name) == ""


def test_the_example_is_found_by_its_name():
    name = "examples.rewards.conversation:rubric"
    gold = '{"mentions": ["sorry"], "improves": true}'
    problem = Problem("c/1", "I waited two weeks!", gold)
    assert grader.prepare([problem], attempts=2, function=name) == ""
    grades = functions.grade(name, [problem], [["Sorry.", "Sorry."]], 5.0)
    assert [one.reason for one in grades[0]] == ["all_rules", "improves"]


def test_it_is_found_in_the_folder_that_the_run_starts_in(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("def reward(problem, texts, gold): return [1] * len(texts)")
    monkeypatch.chdir(tmp_path)  # the command score-jax has another folder first in sys.path
    assert grader.prepare([PROBLEM], attempts=2, function="beside:reward") == ""
