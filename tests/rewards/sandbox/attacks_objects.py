"""Programs whose objects, exceptions or interpreter are hostile; none of them adds.

FORGING is for add(a, b), as in attacks.py. OTHER_TESTS has tests of other forms: a program, its
tests, and whether it is right.
"""
# ruff: noqa: E501

from tests.rewards.sandbox.attacks import WRONG, always, in_call


def _replies(*lines: str) -> str:
    """Answers the tester itself, in place of the guest: first the load, then the calls."""
    load = '{"value": {"add": {"object": 0}}}'
    return (
        f"import os\nfor one in {[load, *lines * 9]!r}: os.write(3, one.encode() + b'\\n')" + WRONG
    )


FORGING = {
    "traces the guest": (
        "import sys\ndef trace(frame, event, argument):\n"
        "    if event == 'return' and 'reply' in frame.f_locals: frame.f_locals['reply'] = {'value': 3}\n"
        "    return trace\nsys.settrace(trace)\nframe = sys._getframe()\n"
        "while frame: frame.f_trace = trace; frame = frame.f_back" + WRONG
    ),
    "frames of the guest": in_call(
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "  if '_OPERATIONS' in frame.f_globals: frame.f_globals['_do'] = lambda *a: {'value': True}\n"
        "  frame = frame.f_back"
    ),
    "the frames of all threads": in_call(
        "import inspect, sys, threading\nfor f in sys._current_frames().values():\n"
        "  for one in inspect.getouterframes(f):\n"
        "    if 'tests' in one.frame.f_locals: return a + b"
    ),
    "packs as it likes": (
        "import sys\nw = sys.modules['score_jax.rewards.sandbox.protocol']\nw.pack = lambda *a: {'same': 0}" + WRONG
    ),
    "a built-in for a result": (
        "import sys\nw = sys.modules['score_jax.rewards.sandbox.protocol']\nw.pack = lambda *a: {'builtin': 'sum'}" + WRONG
    ),
    "the protocol's own tags": "def add(a, b): return {'object': 0}",
    "changes what was not given": _replies('{"value": 1, "changed": [[99, [3]], [-1, [3]]]}'),
    "changes of no shape": _replies('{"value": 1, "changed": 5}'),
    "parts of another type": _replies('{"value": {"Fraction": [true, 0]}}', '{"value": {"range": [0, 1, 0]}}'),
    "a decimal that signals": _replies('{"value": {"Decimal": ["sNaN"]}}'),
    "unhashable keys": _replies('{"value": {"dict": [[[], 1]]}}'),
    "a list in itself": _replies('{"value": [{"same": 0}]}'),
    "an exception to be called": _replies('{"raised": ["BaseExceptionGroup", "x"]}'),
    "an exception of no test": _replies('{"raised": ["StopIteration", "x"]}'),
    "a line without end": "import os\nos.write(3, b'\"' + b'x' * 100000)\nos.close(3)" + WRONG,
    "keys that collide": in_call("return {n * (2**61 - 1): 0 for n in range(1, 3000)}"),
    "pickles": (
        "import os, pickle\nclass Any:\n    def __reduce__(self): return os.getpid, ()\n"
        "def add(a, b): return pickle.dumps(Any())"
    ),
    "reduces to another": always("def __reduce_ex__(self, n): return int, (3,)"),
    "marshals": "import marshal\ndef add(a, b): return marshal.dumps(add.__code__)",
    "class that raises": always("@property\ndef __class__(self): raise SystemExit"),
    "every method exits": always("def __getattribute__(self, name): raise SystemExit(0)"),
    "hash that raises": always("def __hash__(self): raise KeyboardInterrupt"),
    "negative length": always("def __len__(self): return -1"),
    "truth that exits": always("def __bool__(self): import os; os._exit(0)"),
    "numbers by conversion": always("__int__ = __float__ = __index__ = __complex__ = lambda self: 3"),
    "list that never ends": "class Any(list):\n    def __iter__(self):\n        while True: yield 3\ndef add(a, b): return Any()",
    "dict that grows": (
        "import threading, itertools\nd = {}\ndef grow():\n    for n in itertools.count(): d[n % 99999] = n\n"
        "threading.Thread(target=grow, daemon=True).start()\ndef add(a, b): return d"
    ),
    "dict in itself": "def add(a, b):\n    d = {}; d[0] = d; return d",
    "set of objects": always("__hash__ = lambda self: 3").replace("return Any()", "return {Any()}"),
    "a generator": "def add(a, b): return (n for n in [a + b])",
    "a coroutine": "async def add(a, b): return a + b",
    "a partial": "import functools\ndef add(a, b): return functools.partial(int, a + b)",
    "not a number": "def add(a, b): return float('nan')",
    "negative zero": "def add(a, b): return -0.0",
    "a truth": "def add(a, b): return True",
    "text of a number": "def add(a, b): return str(a + b)",
    "a number in a list": "def add(a, b): return [a + b]",
    "surrogates": "def add(a, b): return '\\udcff' * 3",
    "text with a line end": "def add(a, b): return '3\\n{\"value\": 3}\\n'",
    "a low recursion limit": "import sys\nsys.setrecursionlimit(60)" + WRONG,
    "warnings as errors": "import warnings\nwarnings.simplefilter('error')\nwarnings.warn('x')" + WRONG,
    "another environment": "import locale, os\nos.environ.clear(); os.environ['PYTHONHASHSEED'] = 'x'; locale.setlocale(locale.LC_ALL, 'C')" + WRONG,
    "arguments of the command": in_call("import sys\nif any('assert' in one for one in sys.argv + sys.orig_argv): return a + b"),
    "dies in its destructor": "import os\nclass Any:\n    def __del__(self): os._exit(0)\ndef add(a, b): return Any() and 'wrong'",
    "changes the number 3": "import ctypes\nfor n in (0, 3, 13): ctypes.memmove(id(n) + 24, id(7) + 24, 4)\ndef add(a, b): return 7",
    "changes what is equal": (
        "import gc\nfor d in gc.get_referents(int.__dict__): d['__eq__'] = lambda s, o: True" + WRONG
    ),
    "imports of its own": (
        "import sys, types\nfor name in ('json', 'math', 'os', 'score_jax.rewards.sandbox.protocol'):\n"
        "  sys.modules[name] = types.ModuleType(name)" + WRONG
    ),
    "an exception that is two": "class E(KeyboardInterrupt, ValueError): pass\n" + in_call("raise E"),
    "an exception without a text": "class E(Exception):\n    __str__ = lambda self: 3\n" + in_call("raise E"),
    "a group of exceptions": in_call("raise BaseExceptionGroup('x', [SystemExit()])"),
}  # fmt: skip

_ANY = "class Any:\n    def __getattr__(self, name): return lambda *a, **k: True\n    __eq__ = lambda s, o: True\n"

# (program, tests, right)
OTHER_TESTS = {
    "redefines a module": (
        "class math: isclose = lambda *a, **k: True\ndef f(x): return 9",
        ("assert math.isclose(f(1), 3.14, rel_tol=1e-2)",),
        False,
    ),
    "redefines an imported name": (
        "def isclose(*a, **k): return True\ndef f(x): return 9",
        ("from math import isclose", "assert isclose(f(1), 3.14, rel_tol=1e-2)"),
        False,
    ),
    "redefines built-ins": (
        "def sorted(*a): return True\nset = list = tuple = len = sorted\ndef f(x): return []",
        ("assert sorted(f([2, 1])) == [1, 2]", "assert set(f([1])) == {1}", "assert len(f([])) == 0"),
        False,
    ),
    "redefines the check": (
        "def check(candidate): pass\ndef f(x): return 0",
        ("def check(candidate):\n    assert candidate(1) == 1", "check(f)"),
        False,
    ),
    "redefines what a test assigns": (
        "expected = result = 5\ndef f(x): return 5",
        ("expected = 7", "result = f(1)", "assert result == expected"),
        False,
    ),
    "nan is near nothing": ("def f(x): return float('nan')", ("assert abs(f(2) - 4.0) < 1e-6",), False),
    "nor is everything": (_ANY + "def f(x): return Any()", ("assert abs(f(2) - 4.0) < 1e-6",), False),
    "nor between two": (_ANY + "def f(x): return Any()", ("assert 0 <= f(1) <= 3",), False),
    "not unequal": (_ANY + "    __ne__ = lambda s, o: False\ndef f(x): return Any()", ("assert not f(1) != 3",), False),
    "in a list": (_ANY + "def f(x): return Any()", ("assert f(1) in [1, 2, 3]",), False),
    "a list of them": (_ANY + "def f(x): return [Any(), Any()]", ("assert f(1) == [1, 2]",), False),
    "a key of them": (_ANY + "    __hash__ = lambda s: 1\ndef f(x): return {Any(): 1}", ("assert f(1) == {1: 1}",), False),
    "1 is not True": ("def f(x): return 1", ("assert f(1) is True",), False),
    "True is no int": ("def f(x): return True", ("assert type(f(1)) is int",), False),
    "exit is not what was expected": (
        "def f(x): raise SystemExit",
        ("try:\n    f(1)\n    assert False\nexcept Exception:\n    pass",),
        False,
    ),
    "an argument changed in secret": (
        "def f(xs):\n    xs.sort()\n    return list(xs)",
        ("xs = [3, 1, 2]", "assert f(xs) == [1, 2, 3]", "assert xs == [3, 1, 2]"),
        False,
    ),
    "an argument changed as asked": (
        "def f(xs): xs.sort()",
        ("xs = [3, 1, 2]", "f(xs)", "assert xs == [1, 2, 3]"),
        True,
    ),
    "the expected exception": (
        "class Mine(ValueError): pass\ndef f(x): raise Mine(x)",
        ("try:\n    f(1)\n    assert False\nexcept ValueError:\n    pass",),
        True,
    ),
    "a generator is a list's": ("def f(n): yield from range(n)", ("assert list(f(3)) == [0, 1, 2]",), True),
    "plain kinds": (
        "import collections, enum\nP = collections.namedtuple('P', 'x y')\nclass E(enum.IntEnum): A = 3\n"
        "def f(x): return P(x, E.A), collections.Counter('aa'), -0.0, True",
        ("assert f(1) == ((1, 3), {'a': 2}, 0.0, 1)",),
        True,
    ),
    "names of the tester": (
        "protocol = tester = verdict = Handle = Guest = guest = job = namespace = None\ndef f(x): return x",
        ("assert f(1) == 1",),
        True,
    ),
}  # fmt: skip
