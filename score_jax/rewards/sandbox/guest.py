"""The process inside the sandbox: holds one program, and does to its objects what a tester asks.

Nothing in this file guards anything. The program runs in the same process and may rewrite it. All
that the program can gain is to send other values than it would have returned. It never sees the
tests: it sees only the names that it must define, and the arguments of calls.

    {"load": [prelude, program, names]}           → {"value": {name: value, …}}
    {"script": [prelude, program, input]}         → {"value": what it printed}
    {"do": operation, "args": […], "kwargs": {…}} → {"value": …, "changed": [[n, contents], …]}
    or, to each, {"raised": [names of its classes, text, number]}

The program is its source, or {"blocks": readings of a text, "stub", "names"}: see choose.py.
"changed" holds the lists, dicts and sets among the arguments that the call has changed. During a
request the guest may call a function that the tests gave it:

    {"ask": n, "args": […], "kwargs": {…}}        → {"answer": …}, or {"raised": [name, text]}
"""

import builtins
import contextlib
import json
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from score_jax.rewards.sandbox import choose, protocol, script

MODULE = "program"  # not __main__: a main guard would wait for input

_EXCEPTIONS = {
    kind: name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__name__ == name
}

_OPERATIONS: dict[str, Callable[..., Any]] = {
    "call": operator.call,
    "attribute": getattr,
    "assign": setattr,
    "item": operator.getitem,
    "store": operator.setitem,
    "iterate": iter,
    "next": next,
    "length": len,
    "truth": bool,
    "text": str,
    "repr": repr,
    "equal": operator.eq,
    "instance": isinstance,
}


class _Server:
    """One end of the exchange with the tester."""

    def __init__(self, fd: int):
        self._channel = protocol.Channel(fd)
        self._objects = protocol.Graph()  # those that the tester knows by number
        self._chosen: dict[str, str] = {}

    def serve(self) -> Any:
        """Answers requests until the tester is gone, or sends what this process waits for."""
        while True:
            request = self._channel.receive()
            if "answer" in request or "raised" in request:
                return request
            try:
                if "load" in request:
                    reply = self._load(*request["load"])
                elif "script" in request:
                    reply = self._script(*request["script"])
                else:
                    reply = self._do(request)
            except protocol.Malformed:
                raise
            except BaseException as error:
                reply = {"raised": self._describe(error)}
            try:
                self._channel.send(reply)
            except protocol.Unsendable as error:
                self._channel.send({"raised": self._describe(error)})

    def _source(self, program: Any) -> str:
        """The program's source; a text's is chosen once."""
        if isinstance(program, str):
            return program
        key = json.dumps(program)
        if key not in self._chosen:
            self._chosen[key] = choose.choose(program["blocks"], program["names"], program["stub"])
        return self._chosen[key]

    def _load(self, prelude: str, program: Any, names: list[str]) -> dict[str, Any]:
        """Runs the prelude and the program; returns the objects that have the names asked for."""
        module = types.ModuleType(MODULE)
        sys.modules[MODULE] = module
        for source in (prelude, self._source(program)):
            exec(compile(source, f"<{MODULE}>", "exec", dont_inherit=True), module.__dict__)
        found = {name: module.__dict__[name] for name in names if name in module.__dict__}
        packed = {name: self._packed(one, protocol.Graph()) for name, one in found.items()}
        return {"value": packed}

    def _script(self, prelude: str, program: Any, given: str) -> dict[str, Any]:
        return {"value": script.run(prelude, self._source(program), given)}

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        graph = protocol.Graph()
        args = [protocol.unpack(one, graph, self._resolve) for one in request["args"]]
        kwargs = {
            key: protocol.unpack(one, graph, self._resolve)
            for key, one in request["kwargs"].items()
        }
        given = list(graph.values)
        before = self._snapshots(given)
        value = _OPERATIONS[request["do"]](*args, **kwargs)
        after = self._snapshots(given)
        changed = [
            [number, protocol.contents(given[number], graph, self._number)]
            for number, (old, new) in enumerate(zip(before, after, strict=True))
            if old != new
        ]
        return {"value": self._packed(value, graph), "changed": changed}

    def _resolve(self, number: int) -> Any:
        return self._objects.values[number] if number >= 0 else TestFunction(self, number)

    def _number(self, value: Any) -> int:
        return value.number if type(value) is TestFunction else self._objects.add(value)

    def ask(self, number: int, args: Any, kwargs: dict[str, Any]) -> Any:
        """Calls a function of the tests; returns or raises what it does."""
        graph = protocol.Graph()
        message = {
            "ask": number,
            "args": [protocol.pack(one, graph, self._number) for one in args],
            "kwargs": {key: protocol.pack(one, graph, self._number) for key, one in kwargs.items()},
        }
        self._channel.send(message)
        reply = self.serve()
        if "raised" in reply:
            name, text = reply["raised"]
            raise getattr(builtins, name, Exception)(text)
        return protocol.unpack(reply["answer"], graph, self._resolve)

    def _packed(self, value: Any, graph: protocol.Graph) -> Any:
        """A value as it is sent: a handle where it is too large or too deep."""
        try:
            return protocol.pack(value, graph, self._number)
        except (protocol.Unsendable, RuntimeError):  # RuntimeError: a dict that a thread changes
            return {"object": self._objects.add(value)}

    def _snapshots(self, values: list[Any]) -> list[str]:
        return [
            json.dumps(protocol.contents(value, protocol.Graph(values), self._number))
            for value in values
        ]

    def _describe(self, error: BaseException) -> list[Any]:
        """Its own classes' names and the first built-in one; its text; its number."""
        kinds = type(error).__mro__
        built_in = next(place for place, kind in enumerate(kinds) if kind in _EXCEPTIONS)
        try:
            text = str(error)[:1000]
        except BaseException:
            text = ""
        names = [kind.__name__ for kind in kinds[:built_in]] + [_EXCEPTIONS[kinds[built_in]]]
        return [names, text, self._objects.add(error)]


class TestFunction:
    """A function of the tests, in the program's hands."""

    def __init__(self, server: _Server, number: int):
        self._server = server
        self.number = number

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        return self._server.ask(self.number, args, kwargs)


def serve(fd: int) -> None:
    """Answers requests until the tester is gone."""
    with contextlib.suppress(protocol.Malformed):
        _Server(fd).serve()


def main(fd: int) -> None:
    """Serves, then ends the process without the program's exit handlers."""
    try:
        serve(fd)
    finally:
        os._exit(0)
