"""One program, a batch, a problem's gold; what is remembered; what is refused without a run."""

import json
import threading

import pytest

from score_jax.problem import InputError, Problem
from score_jax.rewards import grader
from score_jax.rewards.programs import grade as programs
from score_jax.rewards.programs.grade import grade_program, grade_programs, grade_texts, read_gold
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

ADD = "def add(a, b):\n    return a + b\n"
TESTS = ["assert add(1, 2) == 3", "assert add(2, 2) == 4"]


@pytest.fixture(scope="module", autouse=True)
def _ended():
    sandboxes.need_any()
    yield
    start.close()
    sandboxes.close()


def gold(**fields) -> str:
    return json.dumps({"tests": TESTS, **fields})


@pytest.fixture
def asked(monkeypatch):
    """The programs that reached the sandbox."""
    programs.forget()
    ran: list[str] = []
    run = start.run

    def spy(jobs, *arguments, **settings):
        ran.extend(job.program for job in jobs)
        return run(jobs, *arguments, **settings)

    monkeypatch.setattr(start, "run", spy)
    return ran


def test_a_program_is_graded():
    assert grade_program(ADD, TESTS) == grade_program(ADD, tuple(TESTS))
    assert grade_program(ADD, TESTS).reward == 1.0
    assert grade_program(ADD, "assert add(1, 2) == 3").reason == "passed"
    assert grade_program(ADD, [*TESTS, "assert add(0, 0) == 1"]).reason == "failed"
    assert grade_program("def add(a, b): return 3", TESTS).reward == 0.0
    assert grade_program("def f(x): return math.pi", ["assert f(1) > 3"], "import math").reward == 1


def test_a_deadline_is_kept_and_not_remembered(asked):
    for _ in range(2):
        assert grade_program("while True: pass", TESTS, timeout_sec=0.3).reason == "timeout"
    assert len(asked) == 2


def test_equal_programs_run_once_and_verdicts_are_remembered(asked):
    jobs = [Job(ADD, tuple(TESTS)), Job(ADD + "#", tuple(TESTS))] * 5
    assert {grade.reason for grade in grade_programs(jobs, 30.0)} == {"passed"}
    assert {grade.reason for grade in grade_programs(jobs, 30.0)} == {"passed"}
    assert len(asked) == 2
    other = Job(ADD, ("assert add(1, 2) == 4",))
    assert grade_programs([other], 30.0)[0].reason == "failed"
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "no_program"),
        (" \n", "no_program"),
        (ADD + "\x00", "refused"),
        (ADD + "# \udc80", "refused"),
        ("#" * (programs.MAX_PROGRAM_CHARS + 1), "too_long"),
    ],
)
def test_what_is_not_a_program_is_not_run(program, reason, asked):
    assert grade_program(program, TESTS).reason == reason
    assert asked == []


def test_the_longest_program_is_run():
    longest = ADD + "#" * (programs.MAX_PROGRAM_CHARS - len(ADD))
    assert grade_program(longest, TESTS, timeout_sec=30.0).reason == "passed"
    wide = ADD + "#" + "漢" * (programs.MAX_PROGRAM_CHARS - len(ADD) - 1)
    assert grade_program(wide, TESTS, timeout_sec=30.0).reward == 0.0  # over the 8 MB of a message


def test_texts_are_graded_by_the_gold_of_their_problem():
    texts = [f"So:\n```python\n{ADD}```", f"{ADD}[DONE]", "I do not know", ""]
    reasons = [grade.reason for grade in grade_texts([(text, gold()) for text in texts], 30.0)]
    assert reasons == ["passed", "passed", "syntax", "no_program"]
    assert programs.grade_text(ADD, gold()).reward == 1.0


def test_helpers_and_a_stub_come_from_the_gold():
    helped = gold(tests=["assert f(2) == twice(3)"], prelude="def twice(x): return 2 * x")
    assert grade_texts([("def f(x): return twice(x) + 2", helped)], 30.0)[0].reward == 1.0
    stubbed = gold(stub="def add(a, b):\n")
    grades = grade_texts([("    return a + b", stubbed), (ADD, stubbed)], 30.0)
    assert [grade.reward for grade in grades] == [1.0, 1.0]
    assert grade_texts([("    return a + b", gold())], 30.0)[0].reason == "syntax"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON object"),
        ("[1]", "JSON object"),
        ("{}", "JSON object"),
        ('"tests"', "JSON object"),
        ('{"tests": []}', "at least one"),
        ('{"tests": [1]}', "at least one"),
        ('{"tests": "assert True"}', "at least one"),
        ('{"tests": ["assert True"], "setup": 3}', "at least one"),
        ('{"tests": ["assert f("]}', "does not compile"),
        ('{"tests": ["assert True"], "prelude": "def"}', "does not compile"),
    ],
)
def test_a_gold_that_cannot_be_used_is_an_error(text, words):
    with pytest.raises(InputError, match=words):
        read_gold(text)
    with pytest.raises(InputError, match="problem mbpp/7: "):
        grader.prepare([Problem("mbpp/7", "?", text, "program")], attempts=2)


def test_a_batch_of_problems_names_the_grader():
    problems = [Problem("a", "?", gold(), "program"), Problem("b", "?", "7", "first_character")]
    assert grader.prepare(problems, attempts=2) in sandboxes.KINDS
    reward_BA, _, reasons_BA = grader.grade(problems, [["x", ADD], ["7", "8"]], program_sec=30.0)
    assert reward_BA.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert reasons_BA == [["error", "passed"], ["equal", "unequal"]]


def test_problems_without_programs_start_no_sandbox(monkeypatch):
    monkeypatch.setattr(start, "configure", None)
    assert grader.prepare([Problem("a", "?", "7")], attempts=2) == ""
    with pytest.raises(InputError, match="no grader 'anser'"):
        grader.prepare([Problem("a", "?", "7", "anser")], attempts=2)


def test_threads_grade_at_once():
    found = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(grade_program(ADD + f"# {n}", TESTS).reward)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1.0] * 8
