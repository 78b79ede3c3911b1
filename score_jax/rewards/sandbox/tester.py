"""The trusted side: runs the tests of one program, whose functions are calls into the sandbox.

Tests and expected values stay in this process. Where a test names what the program defines, it gets
plain data or a Handle. Calls, attributes, items and iteration of a Handle go to the guest process,
and return plain data or another Handle. Every `==` and `assert` is evaluated here, on plain data. A
Handle equals no plain value, whatever its class claims, and does no arithmetic: that would show the
expected value to the program. The program compares two Handles.

Who provides a name: names that the tests, their setup or the prelude define are their own. So are
the built-ins, and standard modules that a test uses without importing them. The program provides
the job's entry points, and nothing else. Where a job names none, the program provides all other
names; a built-in name only if it provides no other: `assert sum(10, 15) == 6`. An exception that
tests only catch is the program's own class of that name, by its name alone.

The program may call functions of the tests that it got as arguments. They run here. What they
change in their arguments the program does not see, and an assertion in them that fails ends the
tests.

Tests may import the standard library and the packages that programs may import, nothing else.

Not handled: objects of the tests' own classes as arguments of the program's, tests that fork.
"""

import ast
import builtins
import dataclasses
import functools
import importlib
import sys
import types
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from score_jax.rewards.sandbox import protocol
from score_jax.rewards.sandbox.choose import Scope


@dataclasses.dataclass(frozen=True)
class Job:
    """One program and the tests that it has to pass."""

    program: str
    tests: tuple[str, ...]  # statements
    setup: str = ""  # run before the tests, on their side: it may call the program
    prelude: str = ""  # code from the prompt: the program gets it, and the tests trust it
    blocks: tuple[tuple[str, ...], ...] = ()  # in place of `program`: readings of a text, choose.py
    stub: str = ""  # the beginning of a function that a block may continue
    entry_points: tuple[str, ...] = ()  # what the program defines for the tests
    cases: tuple[tuple[str, str], ...] = ()  # in place of `tests`: standard input, its output

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> "Job":
        """The job whose `vars` were sent as JSON."""
        return cls(**{**fields, "tests": tuple(fields["tests"])})

    def code(self, names: Sequence[str]) -> Any:
        """The program as the guest takes it; names: what it must define."""
        if not self.blocks:
            return self.program
        return {"blocks": self.blocks, "names": list(names), "stub": self.stub}


class Ended(BaseException):
    """The guest process ended, or asked to end. No `except Exception` of a test catches this."""


class Guest:
    """The guest process, as the tests see it."""

    def __init__(self, fd: int):
        self._channel = protocol.Channel(fd)
        self.failure = ""  # why the program can no longer pass
        self.exceptions: dict[str, type[Exception]] = {}  # the program's own, that tests catch
        self._functions = protocol.Graph()  # of the tests, that the program has got

    def load(self, job: Job, names: Sequence[str]) -> dict[str, Any]:
        """Runs the program; returns the values of those `names` that it defines."""
        prelude = "\n".join([job.prelude, *_imports(job.setup)])
        wanted = [*names, *self.exceptions]
        found = self._ask({"load": [prelude, job.code(wanted), list(names)]}).get("value")
        if not isinstance(found, dict):
            self._end("crash")
        return {
            name: self._unpack(found[name], protocol.Graph()) for name in names if name in found
        }

    def printed(self, job: Job, given: str) -> str:
        """What the program prints as a script that is given this standard input."""
        script = [job.prelude, job.code(job.entry_points), given]
        found = self._ask({"script": script}).get("value")
        if not isinstance(found, str):
            self._end("crash")
        return found

    def do(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Does an operation on the program's objects; returns or raises what the operation does."""
        graph = protocol.Graph()
        message = {
            "do": operation,
            "args": [protocol.pack(one, graph, self._number_of) for one in args],
            "kwargs": {
                key: protocol.pack(one, graph, self._number_of) for key, one in kwargs.items()
            },
        }
        given = list(graph.values)
        reply = self._ask(message)
        try:
            for number, contents in reply.get("changed", ()):
                protocol.replace(given[number], contents, graph, self._resolve)
        except (protocol.Malformed, TypeError, ValueError, LookupError):
            self._end("crash")
        return self._unpack(reply.get("value"), graph)

    def _ask(self, message: Any) -> dict[str, Any]:
        if self.failure:
            raise Ended
        try:
            self._channel.send(message)
            while isinstance(reply := self._channel.receive(), dict) and "ask" in reply:
                self._channel.send(self._answer(reply))
        except protocol.Malformed:
            self._end("crash")
        if not isinstance(reply, dict):
            self._end("crash")
        if "raised" in reply:
            self._raise(reply["raised"])
        return reply

    def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Calls a function of the tests for the program."""
        graph = protocol.Graph()
        try:
            function = self._resolve(asked["ask"])
            args = [protocol.unpack(one, graph, self._resolve) for one in asked["args"]]
            kwargs = {
                str(key): protocol.unpack(one, graph, self._resolve)
                for key, one in asked["kwargs"].items()
            }
        except (TypeError, LookupError, AttributeError):
            self._end("crash")
        try:
            return {"answer": protocol.pack(function(*args, **kwargs), graph, self._number_of)}
        except AssertionError:
            self._end("failed")  # the program must not hide it
        except Exception as error:
            kinds = (kind.__name__ for kind in type(error).__mro__ if kind in _EXCEPTIONS)
            return {"raised": [next(kinds), str(error)[:1000]]}

    def _unpack(self, data: Any, graph: protocol.Graph) -> Any:
        try:
            return protocol.unpack(data, graph, self._resolve)
        except protocol.Malformed:
            self._end("crash")

    def _resolve(self, number: int) -> Any:
        return Handle(self, number) if number >= 0 else self._functions.values[-1 - number]

    def _number_of(self, value: Any) -> int:
        if type(value) is Handle:
            return value._Handle__number  # type: ignore[attr-defined]
        if isinstance(value, _FUNCTIONS):
            return -1 - self._functions.add(value)
        raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")

    def _raise(self, raised: Any) -> NoReturn:
        """Raises what the program raised: a built-in exception, or its own that tests catch."""
        match raised:
            case [[*names, str(name)], str(text), int(number)] if number >= 0:
                kind = vars(builtins).get(name)
            case _:
                self._end("crash")
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            self._end("exit")
        if kind is StopIteration:
            raise _Exhausted
        own = next((one for one in names if one in self.exceptions), None)
        if own is not None:
            raise _own(self.exceptions[own], kind)(text, Handle(self, number))
        try:
            error = kind(text)
        except Exception:  # some take more than a text, such as UnicodeDecodeError
            error = Exception(text)
        raise error

    def _end(self, failure: str) -> NoReturn:
        self.failure = self.failure or failure
        raise Ended


_FUNCTIONS = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial),
    *(types.MethodDescriptorType, types.WrapperDescriptorType, types.MethodWrapperType),
)
_EXCEPTIONS = {
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception)
}


class _Own(Exception):
    """An exception of the program's own class. Its other attributes are the program's."""

    def __init__(self, text: str, handle: "Handle"):
        super().__init__(text)
        self._handle = handle

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_handle"], name)


def _own(known: type[Exception], built_in: type[Exception]) -> type[Exception]:
    """A class that tests catch by its own name and by that of the built-in class it extends."""
    if issubclass(known, built_in):
        return known
    return type(known.__name__, (known, built_in), {})


class _Exhausted(RuntimeError):
    """The program raised StopIteration; outside of `next` it must not end a loop of the tests."""


class Handle:
    """An object of the program. All names of this class are dunders: others are the object's."""

    __slots__ = ("__guest", "__number")

    def __init__(self, guest: Guest, number: int):
        object.__setattr__(self, "_Handle__guest", guest)
        object.__setattr__(self, "_Handle__number", number)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self.__guest.do("call", self, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__name__":
            raise AttributeError(name)
        return self.__guest.do("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__guest.do("assign", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self.__guest.do("item", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__guest.do("store", self, key, value)

    def __iter__(self) -> Iterator[Any]:
        iterator = self.__guest.do("iterate", self)
        return iterator if isinstance(iterator, Handle) else iter(iterator)

    def __next__(self) -> Any:
        try:
            return self.__guest.do("next", self)
        except _Exhausted:
            raise StopIteration from None

    def __len__(self) -> int:
        return self.__guest.do("length", self)

    def __bool__(self) -> bool:
        return self.__guest.do("truth", self) is True

    def __str__(self) -> str:
        return str(self.__guest.do("text", self))

    def __repr__(self) -> str:
        return str(self.__guest.do("repr", self))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Handle):
            return False
        if self.__number == other.__number:
            return True
        return self.__guest.do("equal", self, other) is True

    def __hash__(self) -> int:
        return hash((Handle, self.__number))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, Handle) and self.__guest.do("instance", instance, self) is True


def verdict(job: Job, fd: int) -> str:
    """Runs the tests against the guest on the other end of `fd`; returns the reason of the grade.

    "passed": all tests held. "failed": an assertion did not. "syntax": the program or a test does
    not compile. "error": one of them raised. "exit", "crash": the guest asked to end, or ended.
    """
    guest = Guest(fd)
    try:
        reason = _run(job, guest)
    except AssertionError:
        reason = "failed"
    except SyntaxError:
        reason = "syntax"
    except Exception:
        reason = "error"
    except Ended:
        reason = "crash"
    return guest.failure or reason


def _run(job: Job, guest: Guest) -> str:
    if job.cases:
        for given, expected in job.cases:
            assert printed_text(guest.printed(job, given)) == printed_text(expected)
        return "passed"
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(compile(job.prelude, "<prelude>", "exec", dont_inherit=True), namespace)
    statements = [one for one in (job.setup, *job.tests) if one.strip()]
    modules, wanted = names(statements, frozenset(namespace))
    caught = exceptions(statements)
    guest.exceptions = {
        name: type(name, (_Own,), {}) for name in (*wanted, *job.entry_points) if name in caught
    }
    wanted = [name for name in job.entry_points or wanted if name not in caught]
    namespace.update((name, importlib.import_module(name)) for name in modules)
    namespace.update(guest.exceptions)
    namespace.update(guest.load(job, wanted))
    for statement in statements:
        exec(compile(statement, "<tests>", "exec", dont_inherit=True), namespace)
    return "passed"


def printed_text(text: str) -> str:
    """What of an output counts: no blanks at the end of a line, no blank lines at the end."""
    return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))


def exceptions(statements: Sequence[str]) -> set[str]:
    """The names that tests use only to catch an exception."""
    if not any("except" in one for one in statements):
        return set()
    nodes = [node for one in statements for node in ast.walk(ast.parse(one))]
    handlers = [node.type for node in nodes if isinstance(node, ast.ExceptHandler) and node.type]
    caught = [part for one in handlers for part in ast.walk(one) if isinstance(part, ast.Name)]
    used = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    return {
        name for name, count in Counter(one.id for one in caught).items() if count == used[name]
    }


def names(statements: Sequence[str], known: frozenset[str]) -> tuple[list[str], list[str]]:
    """The standard modules that tests use without an import, and what the program must define.

    known: names that are already defined. Raises: SyntaxError for a bad test.
    """
    source = "\n".join(statements)
    scope = Scope.of(source)
    nodes = list(ast.walk(ast.parse(source)))
    free = scope.read - _starred(nodes)
    uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    dotted = Counter(
        node.value.id
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )
    modules = {name for name in free & sys.stdlib_module_names if uses[name] == dotted[name]}
    built_in = free & vars(builtins).keys()
    wanted = free - modules - built_in
    if not wanted and statements:
        wanted = built_in.intersection(*(_called(ast.parse(one)) for one in statements))
    return sorted(modules - known), sorted(wanted - known)


def defined(source: str) -> frozenset[str]:
    """The names that code defines at its top level."""
    return Scope.of(source).defined | _starred(ast.walk(ast.parse(source)))


def _starred(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """The names that `from MODULE import *` of standard modules define."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            name = node.module or ""
            if name.partition(".")[0] in sys.stdlib_module_names:
                module = importlib.import_module(name)
                public = [one for one in vars(module) if not one.startswith("_")]
                found.update(getattr(module, "__all__", public))
    return frozenset(found)


def _called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _imports(source: str) -> list[str]:
    """The import statements at the top level of the tests' setup; the program gets them too."""
    return [
        ast.unparse(node)
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
