"""Tests against programs: who provides a name, what is compared where, and how a run can end.

The programs here are harmless. They run in a thread, without a sandbox.
"""
# ruff: noqa: E501

import socket
import threading

import pytest

from score_jax.rewards.sandbox import guest, tester
from score_jax.rewards.sandbox.tester import Job


def verdict(program: str, *tests: str, setup: str = "", prelude: str = "") -> str:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=guest.serve, args=(theirs.fileno(),))
    thread.start()
    try:
        return tester.verdict(Job(program, tests, setup, prelude), ours.fileno())
    finally:
        ours.close()
        thread.join(10)
        theirs.close()


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(x): return x + 1", "assert f(1) == 2"),
        ("def f(*a, **k): return a, k", "assert f(1, 2, z=3) == ((1, 2), {'z': 3})"),
        (
            "def f(self, operation, function): return self + operation + function",
            "assert f(self=1, operation=2, function=3) == 6",
        ),
        ("def f(x): x.sort()", "a = [2, 1]\nf(a)\nassert a == [1, 2]"),
        ("def f(x): x[0].append(9)", "a = [[1]]\nb = a[0]\nf(a)\nassert b == [1, 9]"),
        ("def f(x, y): x.append(1); return y", "a = []\nassert f(a, a) == [1]"),
        ("def f(x): return x", "a = [1]\nassert f(a) is a"),
        ("def f(n):\n    for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]"),
        ("def f(n):\n    while True: yield n", "assert next(f(3)) == 3"),
        ("def f(n): return map(str, range(n))", "assert ''.join(f(3)) == '012'"),
        ("class P:\n    def __init__(s, x): s.x = x", "p = P(1)\np.x = 5\nassert p.x == 5"),
        ("class P:\n    def __len__(s): return 3", "assert len(P()) == 3 and P()"),
        ("class P:\n    def __bool__(s): return False", "assert not P()"),
        ("class P:\n    def __str__(s): return 'p'", "assert str(P()) == f'{P()}' == 'p'"),
        ("class P:\n    def __eq__(s, o): return True", "assert P() == P()"),
        ("class P: pass", "assert P() != P() and isinstance(P(), P)"),
        ("class P: pass\np = P()", "assert {p: 1}[p] == 1"),
        ("class P(dict): pass\ndef f(): return P(a=[1])", "assert f()['a'] == [1]"),
        ("def f(): return lambda x: x * 2", "assert f()(4) == 8"),
        ("def f(x): raise KeyError(x)", "try:\n    f(1)\nexcept KeyError: pass\nelse: assert 0"),
        ("class E(ValueError): pass\ndef f(): raise E", "try: f()\nexcept ValueError: pass"),
        ("def f(x, t): return [o for o in x if type(o) is t]", "assert f([1, '2'], int) == [1]"),
        ("def sum(a, b): return a + b", "assert sum(10, 15) == 25"),
        ("import math\ndef f(): return math.pi", "assert f() == math.pi"),
        ("x = 5", "assert x == 5"),
        ("def f(x): return x", "def check(g):\n    assert g(1) == 1\ncheck(f)"),
        ("def f(d): return d", "import random, math\nassert math.isclose(f(1.5), 1.5)"),
        ("import typing\ndef f(a: typing.List): return a", "assert f([1]) == [1]"),
        ("def f(): return float('nan')", "import math\nassert math.isnan(f())"),
    ],
)
def test_right_programs_pass(program, test):
    assert verdict(program, test) == "passed"


@pytest.mark.parametrize(
    ("program", "test", "reason"),
    [
        ("def f(x): return x", "assert f(1) == 2", "failed"),
        ("def g(x): return x", "assert f(1) == 1", "error"),
        ("def f(x): return 1 / 0", "assert f(1) == 1", "error"),
        ("def f(x:", "assert f(1) == 1", "syntax"),
        ("class P:\n    def __eq__(s, o): return True\ndef f(x): return P()", "assert f(1) == 2", "failed"),
        ("class P:\n    def __ne__(s, o): return False\ndef f(x): return P()", "assert not f(1) != 2", "failed"),
        ("class P(int): pass\ndef f(x): return P(2)", "assert f(1) == 2", "failed"),
        ("def f(x): return (1, 2)", "assert f(1) == [1, 2]", "failed"),
        ("import collections\ndef f(): return collections.deque([1])", "assert f() == [1]", "failed"),
        ("class P:\n    def __sub__(s, o): return 0\ndef f(): return P()", "assert abs(f() - 3) < 1", "error"),
        ("class P:\n    def __lt__(s, o): return True\ndef f(): return P()", "assert f() < 3", "error"),
        ("class P:\n    def __float__(s): return 3.\ndef f(): return P()", "import math\nassert math.isclose(f(), 3)", "error"),
        ("class P:\n    def __contains__(s, o): return True\ndef f(): return P()", "assert 5 in f()", "error"),
        ("def f(x): raise StopIteration", "assert all(map(f, [1, 2]))", "error"),
        ("def f(x): raise SystemExit", "try: f(1)\nexcept: pass", "exit"),
        ("def f(x): raise KeyboardInterrupt", "try: f(1)\nexcept BaseException: pass", "exit"),
        ("def f(x): return x\nraise SystemExit", "assert f(1) == 1", "exit"),
        ("def abs(x): return 3\ndef f(x): return x", "assert abs(f(-2)) == 3", "failed"),
        ("class m: pi = 3\nmath = m\ndef f(): return 3", "assert f() == math.pi", "failed"),
        ("def f(x): return x", "f = None\nassert f(1) == 1", "error"),
        ("check = lambda f: True\nf = 1", "def check(g): assert g(1) == 1\ncheck(f)", "error"),
        ("def f(x): return x", "class A: pass\nassert f(A())", "error"),
        ("def f(x): return x", "assert f(", "syntax"),
    ],
)  # fmt: skip
def test_wrong_programs_fail(program, test, reason):
    assert verdict(program, test) == reason


def test_helpers_of_the_prompt_are_trusted_and_the_program_has_them_too():
    prelude = "def double(x): return 2 * x"
    test = "assert double(f(3)) == 6"
    assert verdict("def f(x): return double(x) // 2", test, prelude=prelude) == "passed"
    forged = "def double(x): return 6\ndef f(x): return 0"
    assert verdict(forged, test, prelude=prelude) == "failed"
    assert verdict(forged, test, setup=prelude) == "failed"
    assert verdict(forged, test) == "passed"  # then double is what the program has to define


def test_setup_may_call_the_program_and_its_imports_are_the_programs_too():
    program = (
        "class Node:\n    def __init__(s, x): s.x, s.next = x, None\ndef f(n): return n.next.x"
    )
    setup = "root = Node(1)\nroot.next = Node(2)"
    assert verdict(program, "assert f(root) == 2", setup=setup) == "passed"
    program = "def f(x): return math.floor(x)"
    assert verdict(program, "assert f(1.5) == 1", setup="import math") == "passed"


def test_the_program_is_asked_for_names_alone_and_sees_no_test(monkeypatch):
    seen = []
    send = tester.protocol.Channel.send

    def spy(line, message):
        seen.append(str(message))
        send(line, message)

    monkeypatch.setattr(tester.protocol.Channel, "send", spy)
    test = "EXPECTED = 1234567\ndef check(g):\n    value = g(11)\n    assert value == EXPECTED + 7654321"
    assert verdict("def f(x): return 8888888", test, "check(f)") == "passed"
    asked = [one for one in seen if "value" not in one]
    assert len(asked) == 2
    for hidden in ("1234567", "7654321", "assert", "EXPECTED", "check"):
        assert not any(hidden in one for one in asked)


@pytest.mark.parametrize(
    ("statements", "modules", "wanted"),
    [
        (["assert f(x) == 1"], [], ["f", "x"]),
        (["x = 1", "assert f(x) == [i for i in range(3)]"], [], ["f"]),
        (["assert f() == sys.maxsize"], ["sys"], ["f"]),
        (["import sys\nassert f() == sys.maxsize"], [], ["f"]),
        (["assert calendar(3) == 4"], [], ["calendar"]),
        (["assert sum(1, 2) == 3", "assert sum(3, 4) == 7"], [], ["sum"]),
        (["assert int(f(5)) == 35"], [], ["f"]),
        (["def check(c):\n    y = 1\n    assert c(y) == g(y)", "check(f)"], [], ["f", "g"]),
        (["class T:\n    def t(self): return f(self)"], [], ["f"]),
    ],
)
def test_names_that_tests_take_from_modules_and_from_the_program(statements, modules, wanted):
    assert tester.names(statements, frozenset()) == (modules, wanted)
    assert tester.names(statements, frozenset(wanted)) == (modules, [])
