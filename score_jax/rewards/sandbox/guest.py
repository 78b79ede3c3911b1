"""The process inside the sandbox: holds one program, and does to its objects what a tester asks.

Nothing in this file guards anything. The program runs in the same process and may rewrite it. All
that the program can gain is to send other values than it would have returned. It never sees the
tests: it sees only the names that it must define, and the arguments of calls.

    {"load": [prelude, program, names]}       → {"value": {name: value, …}}
    {"do": operation, "args": […], "kwargs": {…}} → {"value": …, "changed": [[n, contents], …]}
    or, to either, {"raised": [name of a built-in exception, text]}

"changed" holds the lists, dicts and sets among the arguments that the call has changed.
"""

import builtins
import json
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from score_jax.rewards.sandbox import protocol

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


def serve(fd: int) -> None:
    """Answers requests until the tester is gone."""
    channel = protocol.Channel(fd)
    objects = protocol.Graph()  # those that the tester knows by number
    while True:
        try:
            request = channel.receive()
        except protocol.Malformed:
            return
        try:
            reply = _load(request, objects) if "load" in request else _do(request, objects)
        except BaseException as error:
            reply = {"raised": _describe(error)}
        try:
            channel.send(reply)
        except protocol.Unsendable as error:
            channel.send({"raised": _describe(error)})


def _load(request: dict[str, Any], objects: protocol.Graph) -> dict[str, Any]:
    """Runs the prelude and the program; returns the objects that have the names asked for."""
    prelude, program, names = request["load"]
    module = types.ModuleType(MODULE)
    sys.modules[MODULE] = module
    for source in (prelude, program):
        exec(compile(source, f"<{MODULE}>", "exec", dont_inherit=True), module.__dict__)
    found = {name: module.__dict__[name] for name in names if name in module.__dict__}
    return {"value": {name: _packed(one, protocol.Graph(), objects) for name, one in found.items()}}


def _do(request: dict[str, Any], objects: protocol.Graph) -> dict[str, Any]:
    graph = protocol.Graph()
    args = [protocol.unpack(one, graph, objects.values.__getitem__) for one in request["args"]]
    kwargs = {
        key: protocol.unpack(one, graph, objects.values.__getitem__)
        for key, one in request["kwargs"].items()
    }
    given = list(graph.values)
    before = _snapshots(given, objects)
    value = _OPERATIONS[request["do"]](*args, **kwargs)
    after = _snapshots(given, objects)
    changed = [
        [number, protocol.contents(given[number], graph, objects.add)]
        for number, (old, new) in enumerate(zip(before, after, strict=True))
        if old != new
    ]
    return {"value": _packed(value, graph, objects), "changed": changed}


def _packed(value: Any, graph: protocol.Graph, objects: protocol.Graph) -> Any:
    """A value as it is sent: a handle where it is too large or too deep."""
    try:
        return protocol.pack(value, graph, objects.add)
    except (protocol.Unsendable, RuntimeError):  # RuntimeError: a dict that a thread changes
        return {"object": objects.add(value)}


def _snapshots(values: list[Any], objects: protocol.Graph) -> list[str]:
    return [
        json.dumps(protocol.contents(value, protocol.Graph(values), objects.add))
        for value in values
    ]


def _describe(error: BaseException) -> list[str]:
    kinds = (kind for kind in type(error).__mro__ if kind in _EXCEPTIONS)
    try:
        text = str(error)[:1000]
    except BaseException:
        text = ""
    return [_EXCEPTIONS[next(kinds)], text]


def main(fd: int) -> None:
    """Serves, then ends the process without the program's exit handlers."""
    try:
        serve(fd)
    finally:
        os._exit(0)
