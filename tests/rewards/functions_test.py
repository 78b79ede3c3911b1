"""Reward functions of the user's own: what they get, may return, and how they may fail."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from score_jax.problem import Grade, InputError, Problem
from score_jax.rewards import functions, grader
from score_jax.rewards.functions import Limits, Rows
from score_jax.rewards.workers import calls, pool

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


@pytest.fixture
def count(tmp_path):
    """A line of code that notes a call, and how many have been noted."""
    file = tmp_path / "calls"
    file.touch()
    return f"open({str(file)!r}, 'a').write('x')", lambda: len(file.read_text())


def rows(*texts: list[str], problem: Problem = PROBLEM, **told) -> Rows:
    return Rows([problem] * len(texts), texts, **told)


def test_it_gets_problem_texts_of_all_attempts_and_gold(module):
    name = module(
        "def reward(problem, texts, gold):\n"
        "    assert (problem.id, problem.prompt, gold) == ('p/1', 'Say please.', 'please')\n"
        "    assert problem.tags == {'level': '1'} and problem.gold == gold\n"
        "    return [gold in text and text not in texts[:n] for n, text in enumerate(texts)]\n"
    )
    texts = [["please", "please"], ["no", "yes please"], ["", "\ud800"]]
    reward_BA, _, reasons_BA = grader.grade([PROBLEM] * 3, texts, function=name)
    assert reward_BA.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert reasons_BA[0] == ["rewarded", "unrewarded"]


def test_it_may_give_reasons_of_its_own(module):
    name = module("def reward(p, texts, g): return [Grade(1.0, 'short'), (0.25, 'long')]")
    assert functions.grade(name, rows(["a", "b"]), Limits()) == [
        [Grade(1.0, "short"), Grade(0.25, "long")]
    ]


@pytest.mark.parametrize("returned", ["[0.7, -2]", "(0.7, -2)", "numpy.array([0.7, -2])"])
def test_a_reward_is_any_finite_number(module, returned):
    name = module(f"import numpy\ndef reward(p, t, g): return {returned}")
    reward_BA, solved_BA, _ = grader.grade([PROBLEM], [["a", "b"]], function=name)
    np.testing.assert_array_equal(reward_BA, np.float32([[0.7, -2]]))
    assert not solved_BA.any()


def test_it_gets_by_name_what_it_asks_for(module):
    name = module(
        "def reward(problem, texts, gold, truncated, *, tokens, verdict, stage, step=5, fields):\n"
        "    assert (truncated, tokens, stage, step) == ([False, True], [3, 4], 'stage1', 7)\n"
        "    assert fields == {} and verdict == [Grade(1.0, 'equal'), Grade(0.0, 'unequal')]\n"
        "    return [0.5, 0.5]\n"
    )
    told = {"truncated_BA": np.array([[False, True]]), "tokens_BA": np.array([[3, 4]])}
    given = rows(["7", "8"], problem=Problem("p", "", "7"), **told, stage="stage1", step=7)
    verdicts = [[Grade(1.0, "equal"), Grade(0.0, "unequal")]]
    (found,) = functions.grade(name, given, Limits(), verdicts=verdicts)
    assert [one.reward for one in found] == [0.5, 0.5]


def test_it_may_be_async_and_keep_what_belongs_to_the_event_loop(module):
    name = module(
        "import asyncio\nloops = set()\n"
        "async def reward(problem, texts, gold):\n"
        "    await asyncio.sleep(0)\n"
        "    loops.add(asyncio.get_running_loop())\n"
        "    return [len(loops)] * len(texts)\n"
    )
    found = functions.grade(name, rows(["a"], ["b"], ["c"]), Limits(workers=1))
    assert [one.reward for (one,) in found] == [1, 1, 1]


@pytest.mark.parametrize("marked", ["", "reward.batch = True\n"])
def test_a_batch_function_is_called_once_for_all_rows(module, count, marked):
    note, counted = count
    name = module(
        "def reward(problems, texts, golds, *, truncated, step):\n"
        f"    {note}\n"
        "    assert (len(problems), golds, step) == (3, ['please'] * 3, 4)\n"
        "    assert truncated == [[False], [True], [False]]\n"
        "    return [[float(len(text)) for text in row] for row in texts]\n" + marked
    )
    given = rows(["a"], ["bb"], [""], truncated_BA=np.array([[0], [1], [0]], bool), step=4)
    found = functions.grade(name, given, Limits(), batch=not marked)
    assert [one.reward for (one,) in found] == [1, 2, 0]
    assert counted() == 1


def test_a_call_that_hangs_dies_prints_or_forks_costs_its_own_row_only(module):
    name = module(
        "import os, sys\n"
        "def reward(problem, texts, gold):\n"
        "    if texts[0] == 'hang':\n        while True: pass\n"
        "    if texts[0] == 'die': os._exit(0)\n"
        "    if texts[0] == 'exit': sys.exit(3)\n"
        "    if texts[0] == 'fork': os.fork()\n"
        "    print('loud'); print('loud', file=sys.stderr)\n"
        "    return [0.5]\n"
    )
    texts = [["fine"], ["hang"], ["die"], ["fork"], ["exit"], *[["fine"]] * 8]
    began = time.monotonic()
    found = functions.grade(name, rows(*texts), Limits(timeout_sec=1.0))
    assert time.monotonic() - began < 6.0
    half = [Grade(0.5, "rewarded")]
    assert found == [half, "timeout", "crash", half, "crash", *[half] * 8]
    reward_BA, solved_BA, reasons = grader.grade([PROBLEM] * 2, [["die"], ["fine"]], function=name)
    assert reward_BA.tolist() == [[0.0], [0.5]] and not solved_BA.any()
    assert reasons == [["crash"], ["rewarded"]]


def test_what_a_killed_call_had_started_ends_with_it(module, tmp_path):
    name = module(
        "import subprocess, time\n"
        "def reward(problem, texts, gold):\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        f"    open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "    time.sleep(60)\n"
    )
    assert functions.grade(name, rows(["a"]), Limits(timeout_sec=0.5)) == ["timeout"]
    pid = int((tmp_path / "pid").read_text())
    stat = Path(f"/proc/{pid}/stat")
    for _ in range(50):
        if not stat.exists() or " Z " in stat.read_text():
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("def other(): pass", "cannot be imported .AttributeError"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("reward = 3", "is a int, not a function"),
        ("def reward(): pass", "TypeError"),
        ("def reward(p, t, g, *, rubric): pass", "'rubric'.*Known: fields, stage"),
        ("def reward(p, t, g): return 1 / 0", r"(?s)mine\.py.*, line 2, in .*ZeroDivisionError"),
        ("def reward(p, t, g): return [1]", "1 rewards for 2 attempts"),
        ("def reward(p, t, g): return 0.7", "returned 0.7 .one float., not a list"),
        ("def reward(p, t, g): return (0.7, 'good')", "'good' .str. as the reward of attempt 2"),
        ("def reward(p, t, g): return {'a': 1, 'b': 2}", "one dict.*not a list"),
        ("def reward(p, t, g): return {0.0, 1.0}", "one set.*not a list"),
        ("import sys\ndef reward(p, t, g): sys.exit(3)", r"'crash'.*as sys\.exit\(\), Keyboard"),
        ("import sys\nsys.exit(3)", r"cannot be imported \(SystemExit: 3\)"),
        (
            "class E(Exception):\n    def __str__(self): raise RuntimeError\n"
            "def reward(p, t, g): raise E",
            r"raised E\n",
        ),
        ("def reward(p, t, g): return [None, 1]", "None .NoneType. as the reward of attempt 1"),
        ("def reward(p, t, g): return [float('nan'), 1]", "reward nan for attempt 1"),
        ("def reward(p, t, g): return [1, float('inf')]", "reward inf for attempt 2"),
        (
            "def reward(p, t, g): return [0, -1e300]",
            r"reward -1e\+300 for attempt 2.*at most 3e\+38",
        ),
        ("def reward(p, t, g): return [10**400, 0]", "reward inf for attempt 1"),
        ("def reward(p, t, g): return [[0], [1]]\nreward.batch = True", "2 lists of rewards"),
        ("def reward(p, t, g): return [0, 1]\nreward.batch = True", "1 rows|for 1 rows"),
        ("import os\ndef reward(p, t, g): os._exit(1)", "'crash'"),
    ],
)
def test_a_mistake_in_it_is_reported_before_the_run(module, body, words):
    name = module(body)
    with pytest.raises(InputError, match=words) as raised:
        grader.prepare([PROBLEM], attempts=2, function=name)
    assert "imported" not in str(raised.value) or "empty texts" not in str(raised.value)


def test_a_mistake_in_a_run_is_reported_with_the_row_and_its_traceback(module):
    name = module(
        "def reward(p, texts, g):\n    return [judge(text) for text in texts]\n"
        "def judge(text):\n    return 1 / len(text)\n"
    )
    with pytest.raises(InputError, match=r"p/1, attempts: 'bad', ''") as raised:
        grader.grade([PROBLEM] * 2, [["a", "b"], ["bad", ""]], function=name)
    said = str(raised.value)
    assert "in reward\n" in said and "in judge\n" in said and "division by zero" in said
    assert "serving.py" not in said  # the user's own code alone


def test_a_good_one_is_prepared_without_a_sandbox(module):
    name = module("def reward(p, texts, g): return [0 for text in texts]")
    assert grader.prepare([PROBLEM], attempts=3, function=name) == ""


def test_the_example_is_found_by_its_name():
    name = "examples.rewards.conversation:rubric"
    gold = '{"mentions": ["sorry"], "improves": true}'
    problem = Problem("c/1", "I waited two weeks!", gold)
    assert grader.prepare([problem], attempts=2, function=name) == ""
    (found,) = functions.grade(name, rows(["Sorry.", "Sorry."], problem=problem), Limits())
    assert [one.reason for one in found] == ["all_rules", "improves"]


def test_it_is_found_in_the_folder_that_the_run_starts_in(tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("def reward(problem, texts, gold): return [1] * len(texts)")
    monkeypatch.chdir(tmp_path)  # the command score-jax has another folder first in sys.path
    assert grader.prepare([PROBLEM], attempts=2, function="beside:reward") == ""


@pytest.mark.parametrize("name", ["sub/json.py:reward", "{}/sub/json.py:reward"])
def test_it_may_be_named_by_its_file_and_import_what_lies_beside_it(tmp_path, monkeypatch, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "one_more.py").write_text("VALUE = 0.25")
    (tmp_path / "sub" / "json.py").write_text(
        "import one_more\ndef reward(problem, texts, gold): return [one_more.VALUE] * len(texts)"
    )
    monkeypatch.chdir(tmp_path)
    name = name.format(tmp_path)
    assert grader.prepare([PROBLEM], attempts=2, function=name) == ""
    assert grader.grade([PROBLEM], [["a"]], function=name)[0] == [[0.25]]


def test_a_failed_call_is_made_again(module, count, monkeypatch):
    monkeypatch.setattr(calls, "BACK_OFF_SEC", 0.01)
    note, counted = count
    name = module(
        "import os\n"
        "def reward(problem, texts, gold):\n"
        f"    {note}\n"
        f"    tries = os.path.getsize({note.split(chr(39))[1]!r})\n"
        "    if tries == 1: os._exit(1)\n"
        "    return [1 / (tries - 2)]\n"
    )
    with pytest.raises(InputError, match="ZeroDivisionError"):
        functions.grade(name, rows(["a"]), Limits(retries=1))
    open(note.split("'")[1], "w").close()
    assert functions.grade(name, rows(["a"]), Limits(retries=2)) == [[Grade(1.0, "rewarded")]]
    assert counted() == 3


def test_remembered_rows_are_judged_once(module, count):
    note, counted = count
    name = module(f"def reward(p, texts, g):\n    {note}\n    return [len(t) / 2 for t in texts]")
    given = rows(["a"], ["bb"], ["a"])
    limits = Limits(remember=10, timeout_sec=30.0)
    for _ in range(2):
        found = functions.grade(name, given, limits)
        assert [one.reward for (one,) in found] == [0.5, 1.0, 0.5]
    assert counted() == 2
    functions.grade(name, given, Limits())
    assert counted() == 5


def test_variables_that_it_needs_are_checked_before_the_run(module, monkeypatch):
    name = module("import os\ndef reward(p, t, g): return [float(os.environ['JUDGE_KEY'])]")
    limits = Limits(environment=("JUDGE_KEY",))
    with pytest.raises(InputError, match="JUDGE_KEY, which is not set"):
        functions.prepare(name, PROBLEM, 1, limits)
    monkeypatch.setenv("JUDGE_KEY", "0.5")
    functions.prepare(name, PROBLEM, 1, limits)
    assert functions.grade(name, rows(["a"]), limits) == [[Grade(0.5, "rewarded")]]


@pytest.mark.parametrize(("gib", "soft"), [(0, -1), (3, 3 << 30)])
def test_memory_is_limited_if_asked(module, gib, soft):
    name = module(
        "import resource\ndef reward(p, t, g): return [resource.getrlimit(resource.RLIMIT_AS)[0]]"
    )
    ((found,),) = functions.grade(name, rows(["a"]), Limits(memory_gib=gib))
    assert found.reward == soft


def test_fields_of_a_row_reach_it(module):
    """A row of a file may hold anything: lists, groups, and what JSON has no word for."""
    asks = functions.Asks(("fields",), batch=False)
    (asked,) = functions._questions(rows(["a"]), asks, ())
    assert json.loads(json.dumps(asked))["extras"] == {"fields": {}}


def _judge(seconds: float, note: str) -> str:
    return (
        "import time\n"
        f"def reward(problem, texts, gold):\n    {note}\n    time.sleep({seconds})\n"
        "    return [0.5] * len(texts)\n"
    )


def _timed(module, count, seconds: float, workers: int, number: int = 64) -> None:
    """Warm workers take calls * time / workers, within a fifth; each call is made once."""
    note, counted = count
    name, limits = module(_judge(seconds, note)), Limits(workers=workers)
    given = rows(*[[str(n), ""] for n in range(number)])
    functions.grade(name, rows(*[["warm", ""]] * workers), limits)
    before, began = counted(), time.monotonic()
    found = functions.grade(name, given, limits)
    wall_sec = time.monotonic() - began
    assert found == [[Grade(0.5, "rewarded")] * 2] * number
    assert counted() - before == number
    assert wall_sec < 1.2 * number * seconds / workers + 0.3
    print(f"{seconds} s, {workers} workers: {wall_sec:.2f} s")


@pytest.mark.parametrize(("seconds", "workers"), [(0.05, 2), (0.05, 16), (0.6, 16)])
def test_a_slow_judge_is_paid_in_full(module, count, seconds, workers):
    _timed(module, count, seconds, workers)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "workers"), [(0.6, 2), (2.0, 16), (2.0, 2)])
def test_a_very_slow_judge_is_paid_in_full(module, count, seconds, workers):
    _timed(module, count, seconds, workers)
