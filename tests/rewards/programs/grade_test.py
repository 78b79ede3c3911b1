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
        ('{"tests": ["assert f(1) == g(1)"]}', '"entry_points": \\["f"\\]'),
        ('{"tests": ["assert isclose(f(1), 1)"]}', "'f', 'isclose'"),
        ('{"tests": ["assert np.isclose(f(1), 1)"]}', "'f', 'np'"),
        ('{"tests": ["assert np.e < f(1)"], "entry_points": ["f"]}', "use 'np'"),
        ('{"tests": ["assert f(1)"], "entry_points": "f"}', "list of the names"),
        ('{"tests": ["assert f(1)"], "entry_points": ["f()"]}', "list of the names"),
        ('{"tests": ["import nowhere", "assert f(1)"]}', "imports 'nowhere'"),
        ('{"tests": ["assert f(1)"], "setup": "from nowhere.a import b"}', "imports 'nowhere'"),
        ('{"tests": [{"stdin": "1"}]}', "'stdin' and 'stdout'"),
        ('{"tests": [{"stdin": "1", "stdout": 1}]}', "'stdin' and 'stdout'"),
        ('{"tests": [{"stdin": "1", "stdout": "1"}, "assert f(1)"]}', "its own kind"),
    ],
)
def test_a_gold_that_cannot_be_used_is_an_error(text, words):
    with pytest.raises(InputError, match=words):
        read_gold(text)
    with pytest.raises(InputError, match="problem mbpp/7: "):
        grader.prepare([Problem("mbpp/7", "?", text, "program")], attempts=2)


@pytest.mark.parametrize(
    ("tests", "fields"),
    [
        (["assert isclose(f(1), 2)"], {"setup": "from math import isclose"}),
        (["assert isclose(f(1), 2)"], {"setup": "from math import *"}),
        (["assert isclose(f(1), 2)"], {"prelude": "from math import isclose"}),
        (["from math import isclose", "assert isclose(f(1), 2)"], {"entry_points": ["f"]}),
        (["import math as np", "assert np.isclose(f(1), 2)"], {}),
        (["assert math.isclose(f(1), 2)"], {}),
        (["assert abs(f(1) - 2) < 0.1"], {"entry_points": ["f"]}),
    ],
)
def test_a_program_replaces_nothing_that_tests_compare_with(tests, fields):
    forged = (
        "def isclose(*a): return True\nclass np: isclose = isclose\nmath = np\n"
        "def abs(x): return 0\ndef f(x): return {}"
    )
    pairs = [(forged.format(value), gold(tests=tests, **fields)) for value in (9, 2)]
    assert [grade.reward for grade in grade_texts(pairs, 30.0)] == [0.0, 1.0]


def test_entry_points_say_what_the_program_defines():
    tests = ["assert area(Square(2)) == 4"]
    with pytest.raises(InputError, match="'Square', 'area'"):
        grade_program("", tests)
    program = "class Square:\n    def __init__(s, x): s.x = x\ndef area(q): return q.x ** 2"
    assert grade_program(program, tests, entry_points=["area", "Square"]).reward == 1.0
    summed = gold(tests=["x = 5", "assert sum(10, x) == 15"], entry_points=["sum"])
    assert programs.grade_text("def sum(a, b): return a + b", summed).reward == 1.0
    caught = gold(tests=["try: f(-1)\nexcept MyError as e: assert e.n == 3\nelse: assert 0"])
    own = "class MyError({}):\n    n = 3\nclass Other(MyError): pass\ndef f(x): raise {}"
    for base, raised, right in (
        *(("Exception", "MyError()", 1), ("ValueError", "Other('x')", 1)),
        *(("ValueError", "ValueError()", 0), ("BaseException", "MyError()", 0)),
    ):
        assert programs.grade_text(own.format(base, raised), caught).reward == right


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("a, b = map(int, input().split())\nprint(a + b)", "passed"),
        ("import sys\nprint(sum(map(int, sys.stdin.read().split())), ' \\n\\n ')", "passed"),
        ("import os\nos.write(1, b'%d' % sum(map(int, open(0).read().split())))", "passed"),
        ("import sys\nprint(sum(map(int, sys.stdin.buffer.readline().split())))\nexit()", "passed"),
        ("if __name__ == '__main__':\n    print(sum(map(int, input().split())))", "passed"),
        (
            "import threading\ndef main(): print(sum(map(int, input().split())))\n"
            "threading.Thread(target=main).start()",
            "passed",
        ),
        ("print(3)", "failed"),
        ("print(sum(map(int, input().split())), 0)", "failed"),
        ("print(sum(map(int, input().split())))\nexit(1)", "exit"),
        ("input()\ninput()", "error"),
        ("print(", "syntax"),
        ("while True: pass", "timeout"),
        ("while True: print('x' * 9999)", "timeout"),
        ("import os\nos._exit(0)", "crash"),
        ("print(''.join(open('/proc/self/cmdline')))", "error"),
    ],
)
def test_a_script_is_tested_by_its_input_and_output(program, reason):
    cases = [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "3 4", "stdout": "7"}]
    text = f"```python\n{program}\n```\nExample:\n```\n3\n```"
    assert grade_texts([(text, gold(tests=cases))], 2.0)[0].reason == reason


def test_a_script_may_leave_a_long_input_unread_and_print_much():
    given = "5\n" + "x" * 300_000
    cases = [{"stdin": given, "stdout": "5 " * 100_000}] * 2
    assert programs.grade_text("print(input() + (' 5' * 99_999))", gold(tests=cases)).reward == 1.0


def test_functions_of_the_tests_are_called_for_the_program():
    tests = ["assert apply(lambda x: x * 2, [1, 2]) == [2, 4]", "assert apply(len, ['a']) == [1]"]
    apply = "def apply(f, xs): return [f(x) for x in xs]"
    assert grade_program(apply, tests).reason == "passed"
    assert grade_program("def apply(f, xs): return xs", tests).reason == "failed"
    # Its errors reach the program; its assertions do not. The program's objects go through it.
    tests = [
        "def g(x):\n    if x < 0: raise KeyError(x)\n    return x",
        "assert apply(g, [1, -1]) == [1, 'KeyError']",
    ]
    careful = (
        "def apply(f, xs):\n    found = []\n    for x in xs:\n        try: found.append(f(x))\n"
        "        except Exception as e: found.append(type(e).__name__)\n    return found"
    )
    assert grade_program(careful, tests, entry_points=["apply"]).reason == "passed"
    hidden = ["def g(x): assert x > 0", "assert apply(g, [-1])"]
    assert grade_program(careful, hidden).reason == "failed"
    chained = "def compose(f, g): return lambda x: f(g(x))"
    assert grade_program(chained, "assert compose(str, lambda x: x + 1)(1) == '2'").reward == 1.0
    own = "class P: x = 3\ndef apply(f): return f(P())"
    assert grade_program(own, "assert apply(lambda p: p.x + 1) == 4").reason == "passed"


def test_items_of_a_named_tuple_have_their_names():
    program = (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\n"
        "def f(p=P(1, 2)): return p._replace(x=5) if type(p) is P and p.x > 1 else p"
    )
    tests = ["assert f() == (1, 2)", "assert f().x == 1 and f()._asdict() == {'x': 1, 'y': 2}"]
    assert grade_program(program, tests).reason == "passed"
    assert grade_program(program, ["assert f().z"]).reason == "error"


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
