"""The trusted side: runs the tests of one program, whose functions are calls into the sandbox.

Tests and expected values stay in this process. Where a test names what the program defines, it gets
plain data or a Handle. Calls, attributes, items and iteration of a Handle go to the guest process,
and return plain data or another Handle. Every `==` and `assert` is evaluated here, on plain data. A
Handle equals no plain value, whatever its class claims, and does no arithmetic: that would show the
expected value to the program. The program compares two Handles.

Who provides a name: names that the tests, their setup or the prelude define are their own. So are
the built-ins, and standard modules that a test uses without importing them. The program provides
all others. It provides a built-in name only if it provides no other: `assert sum(10, 15) == 6`.

Not handled: functions of the tests as arguments of the program's, tests that fork.
"""

import ast
import builtins
import dataclasses
import importlib
import symtable
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from score_jax.rewards.sandbox import protocol


@dataclasses.dataclass(frozen=True)
class Job:
    """One program and the tests that it has to pass."""

    program: str
    tests: tuple[str, ...]  # statements
    setup: str = ""  # run before the tests, on their side: it may call the program
    prelude: str = ""  # code from the prompt: the program gets it, and the tests trust it

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> "Job":
        """The job whose `vars` were sent as JSON."""
        return cls(**{**fields, "tests": tuple(fields["tests"])})


class Ended(BaseException):
    """The guest process ended, or asked to end. No `except Exception` of a test catches this."""


class Guest:
    """The guest process, as the tests see it."""

    def __init__(self, fd: int):
        self._channel = protocol.Channel(fd)
        self.failure = ""  # why the program can no longer pass

    def load(self, job: Job, names: Sequence[str]) -> dict[str, Any]:
        """Runs the program; returns the values of those `names` that it defines."""
        prelude = "\n".join([job.prelude, *_imports(job.setup)])
        found = self._ask({"load": [prelude, job.program, list(names)]}).get("value")
        if not isinstance(found, dict):
            self._end("crash")
        return {
            name: self._unpack(found[name], protocol.Graph()) for name in names if name in found
        }

    def do(self, operation: str, /, *args: Any, **kwargs: Any) -> Any:
        """Does an operation on the program's objects; returns or raises what the operation does."""
        graph = protocol.Graph()
        message = {
            "do": operation,
            "args": [protocol.pack(one, graph, _number_of) for one in args],
            "kwargs": {key: protocol.pack(one, graph, _number_of) for key, one in kwargs.items()},
        }
        given = list(graph.values)
        reply = self._ask(message)
        try:
            for number, contents in reply.get("changed", ()):
                protocol.replace(given[number], contents, graph, self._handle)
        except (protocol.Malformed, TypeError, ValueError, LookupError):
            self._end("crash")
        return self._unpack(reply.get("value"), graph)

    def _ask(self, message: Any) -> dict[str, Any]:
        if self.failure:
            raise Ended
        try:
            self._channel.send(message)
            reply = self._channel.receive()
        except protocol.Malformed:
            self._end("crash")
        if not isinstance(reply, dict):
            self._end("crash")
        if "raised" in reply:
            self._raise(reply["raised"])
        return reply

    def _unpack(self, data: Any, graph: protocol.Graph) -> Any:
        try:
            return protocol.unpack(data, graph, self._handle)
        except protocol.Malformed:
            self._end("crash")

    def _handle(self, number: int) -> "Handle":
        return Handle(self, number)

    def _raise(self, raised: Any) -> NoReturn:
        """Raises the built-in exception that the program raised."""
        match raised:
            case [str(name), str(text)]:
                kind = vars(builtins).get(name)
            case _:
                self._end("crash")
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            self._end("exit")
        if kind is StopIteration:
            raise _Exhausted
        try:
            error = kind(text)
        except Exception:  # some take more than a text, such as UnicodeDecodeError
            error = Exception(text)
        raise error

    def _end(self, failure: str) -> NoReturn:
        self.failure = self.failure or failure
        raise Ended


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


def _number_of(value: Any) -> int:
    if type(value) is not Handle:
        raise TypeError(f"a {type(value).__name__} of the tests cannot be given to the program")
    return value._Handle__number  # type: ignore[attr-defined]


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
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(compile(job.prelude, "<prelude>", "exec", dont_inherit=True), namespace)
    statements = [one for one in (job.setup, *job.tests) if one.strip()]
    modules, wanted = names(statements, frozenset(namespace))
    namespace.update((name, importlib.import_module(name)) for name in modules)
    namespace.update(guest.load(job, wanted))
    for statement in statements:
        exec(compile(statement, "<tests>", "exec", dont_inherit=True), namespace)
    return "passed"


def names(statements: Sequence[str], known: frozenset[str]) -> tuple[list[str], list[str]]:
    """The standard modules that tests use without an import, and what the program must define.

    known: names that are already defined. Raises: SyntaxError for a bad test.
    """
    defined: set[str] = set()
    read: set[str] = set()
    for statement in statements:
        table = symtable.symtable(statement, "<tests>", "exec")
        symbols = table.get_symbols()
        defined |= {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()}
        read |= _globals_read(table)
    free = read - defined
    trees = [ast.parse(statement) for statement in statements]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    uses = Counter(node.id for node in nodes if isinstance(node, ast.Name))
    dotted = Counter(
        node.value.id
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    )
    modules = {name for name in free & sys.stdlib_module_names if uses[name] == dotted[name]}
    built_in = free & vars(builtins).keys()
    wanted = free - modules - built_in
    if not wanted and trees:
        wanted = built_in.intersection(*(_called(tree) for tree in trees))
    return sorted(modules - known), sorted(wanted - known)


def _called(tree: ast.AST) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


def _globals_read(table: symtable.SymbolTable) -> set[str]:
    """Names that code looks up in its module, also from inside its functions."""
    top = table.get_type() == "module"
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (top or symbol.is_global())
    }
    return found.union(*(_globals_read(child) for child in table.get_children()))


def _imports(source: str) -> list[str]:
    """The import statements at the top level of the tests' setup; the program gets them too."""
    return [
        ast.unparse(node)
        for node in ast.parse(source).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
