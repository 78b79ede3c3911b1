"""Plain Python values as JSON lines, between a tester and the guest that holds the program.

A value of an exact built-in type is copied. Any other object stays on its side, and its number, a
handle, is sent. So what arrives is plain data, and reading it runs no code of the other side.
Pickle and marshal are not used: they can be made to run code or crash.

    None, bool, str, int, float, list   as JSON writes them (NaN and infinities included)
    {"tuple": [...]}, {"dict": [[k, v], ...]}, {"bytes": "00ff"}, {"Fraction": [1, 3]} …
    {"same": n}     the n-th list, dict, set … of this exchange, in the order of arrival
    {"namedtuple": [names, [...]]}   a tuple whose items have names
    {"array": [type, shape, [...]]}         an array of numpy; its scalars are sent as plain ones
    {"object": n}   a handle
    {"function": n} a function of the tests

Limits: 8 MB a message, 40 levels. Not sent: classes, attributes of subclasses, time zones.
"""

import enum
import importlib
import json
import os
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_BYTES = 8_000_000
MAX_DEPTH = 40


class Unsendable(ValueError):
    """The value is too large or too deep to be sent."""


class Malformed(ValueError):
    """The bytes are not a message, or the other side is gone."""


# An object that stays on its side → its number; -1, -2, … are functions of the tests.
Opaque = Callable[[Any], int]
Resolve = Callable[[int], Any]  # the number of an object of the other side → what stands for it


def _moment(value: date | time) -> list[Any]:
    names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
    return [getattr(value, name) for name in names if hasattr(value, name)]


# Types rebuilt from a few numbers or a string: how to get these parts, and the parts' types.
_PARTS: dict[type, tuple[Callable[[Any], list[Any]], tuple[type, ...]]] = {
    complex: (lambda value: [value.real, value.imag], (float,)),
    range: (lambda value: [value.start, value.stop, value.step], (int,)),
    Fraction: (lambda value: [value.numerator, value.denominator], (int,)),
    Decimal: (lambda value: [str(value)], (str,)),
    date: (_moment, (int,)),
    time: (_moment, (int,)),
    datetime: (_moment, (int,)),
    timedelta: (lambda value: [value.days, value.seconds, value.microseconds], (int,)),
}
_PART_NAMES = {kind.__name__: kind for kind in _PARTS}
# Containers that can change: two references to one must stay two references to one.
_MUTABLE = (list, dict, set, deque, bytearray, Counter, OrderedDict, defaultdict)
_CONTAINERS = {one.__name__: one for one in (list, set, dict, OrderedDict, Counter)}
_FIXED = {"tuple": tuple, "frozenset": frozenset}
# Built-ins that a test may pass as arguments, such as the `int` of remove_datatype(values, int).
_NAMED = (int, float, str, bool, list, tuple, dict, set, frozenset, bytes, complex)
_NAMED_FUNCTIONS = (abs, len, max, min, round, sorted, sum, ord, chr)
_BUILTINS = {one.__name__: one for one in (*_NAMED, *_NAMED_FUNCTIONS)}


class Named(tuple):  # type: ignore[type-arg]  # of anything
    """A named tuple of the other side: equal to a plain tuple, its items also attributes."""

    _fields: tuple[str, ...] = ()

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))


# Of numpy's numbers, those whose plain form is exact.
_ARRAY_TYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
}


class Graph:
    """Objects, numbered in the order in which they first occur; they are kept alive."""

    def __init__(self, values: list[Any] | None = None):
        self.values: list[Any] = []
        self._number: dict[int, int] = {}
        for value in values or []:
            self.add(value)

    def add(self, value: Any) -> int:
        """The number of an object; the next number if it has none yet."""
        number = self._number.setdefault(id(value), len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


def pack(value: Any, graph: Graph, opaque: Opaque, depth: int = 0) -> Any:
    """The form of a value that json can write. Raises: Unsendable."""
    kind = type(value)
    if value is None or kind is bool or kind is str or kind is float:
        return value
    if kind is int:
        return value if -(2**63) < value < 2**63 else {"int": hex(value)}
    if depth > MAX_DEPTH:
        raise Unsendable(f"nested more than {MAX_DEPTH} levels deep")
    if kind in _MUTABLE:
        known = len(graph.values)
        number = graph.add(value)
        return contents(value, graph, opaque, depth) if number == known else {"same": number}
    if kind in (tuple, frozenset):
        return {kind.__name__: [pack(item, graph, opaque, depth + 1) for item in value]}
    if issubclass(kind, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
        items = [pack(item, graph, opaque, depth + 1) for item in value]
        return {"namedtuple": [[str(name) for name in value._fields], items]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind in _PARTS and getattr(value, "tzinfo", None) is None:
        return {kind.__name__: [pack(part, graph, opaque) for part in _PARTS[kind][0](value)]}
    if isinstance(value, enum.Enum) and isinstance(value, int | str):
        return pack(value.value, graph, opaque, depth + 1)
    for name, builtin in _BUILTINS.items():
        if value is builtin:
            return {"builtin": name}
    if numpy := sys.modules.get("numpy"):
        if isinstance(value, numpy.generic) and kind.__name__ in _ARRAY_TYPES:
            return value.item()
        if kind is numpy.ndarray and value.dtype.name in _ARRAY_TYPES:
            flat = value.reshape(-1).tolist()
            return {"array": [value.dtype.name, list(value.shape), flat]}
    number = opaque(value)
    return {"object": number} if number >= 0 else {"function": -1 - number}


def contents(value: Any, graph: Graph, opaque: Opaque, depth: int = 0) -> Any:
    """The form that json can write of a container that already has a number."""
    if isinstance(value, dict):
        pairs = [
            [pack(key, graph, opaque, depth + 1), pack(item, graph, opaque, depth + 1)]
            for key, item in list(value.items())
        ]
        kind = type(value)
        return {(kind.__name__ if kind in (Counter, OrderedDict) else "dict"): pairs}
    if isinstance(value, bytearray):
        return {"bytearray": value.hex()}
    items = [pack(item, graph, opaque, depth + 1) for item in list(value)]
    if isinstance(value, list):
        return items
    if isinstance(value, deque):
        return {"deque": [value.maxlen, items]}
    return {"set": items}


def unpack(data: Any, graph: Graph, resolve: Resolve, depth: int = 0) -> Any:
    """The value whose packed form is `data`. Raises: Malformed."""
    if data is None or isinstance(data, bool | str | int | float):
        return data
    if depth > MAX_DEPTH + 1:
        raise Malformed("too deep")
    if isinstance(data, list):
        return _fill([], data, graph, resolve, depth)
    if not isinstance(data, dict) or len(data) != 1:
        raise Malformed("not a value")
    ((tag, inner),) = data.items()
    try:
        return _tagged(tag, inner, graph, resolve, depth)
    except (TypeError, ArithmeticError, LookupError, ValueError, ImportError) as error:
        raise Malformed(f"not a {tag[:20]}") from error


def _tagged(tag: str, inner: Any, graph: Graph, resolve: Resolve, depth: int) -> Any:
    if tag == "int":
        return int(inner, 16)
    if tag == "same":
        return graph.values[_natural(inner)]
    if tag == "object":
        return resolve(_natural(inner))
    if tag == "function":
        return resolve(-1 - _natural(inner))
    if tag == "builtin":
        return _BUILTINS[inner]
    if tag == "bytes":
        return bytes.fromhex(inner)
    if tag in _FIXED:
        return _FIXED[tag](unpack(item, graph, resolve, depth + 1) for item in _list(inner))
    if tag == "namedtuple":
        names, items = inner
        named = Named(unpack(item, graph, resolve, depth + 1) for item in _list(items))
        if len(names) != len(named) or not all(str(name).isidentifier() for name in names):
            raise Malformed("wrong names of items")
        vars(named).update(zip(names, named, strict=True), _fields=tuple(names))
        return named
    if tag == "array":
        name, shape, numbers = inner
        if name not in _ARRAY_TYPES or not all(type(one) in (bool, int, float) for one in numbers):
            raise Malformed("wrong parts of an array")
        numpy = importlib.import_module("numpy")  # a test of numpy's arrays has imported it
        return numpy.array(numbers, name).reshape([_natural(size) for size in shape])
    if tag in _PART_NAMES:
        kind = _PART_NAMES[tag]
        parts = [unpack(part, graph, resolve, depth + 1) for part in _list(inner)]
        if not all(type(part) in _PARTS[kind][1] for part in parts):
            raise Malformed(f"wrong parts of a {tag}")
        return kind(*parts)
    if tag == "bytearray":
        value: Any = bytearray.fromhex(inner)
        graph.add(value)
        return value
    if tag == "deque":
        longest, items = inner
        return _fill(deque(maxlen=longest), items, graph, resolve, depth)
    return _fill(_CONTAINERS[tag](), inner, graph, resolve, depth)


def _fill(value: Any, inner: Any, graph: Graph, resolve: Resolve, depth: int) -> Any:
    """Fills an empty container. It gets its number before its items do, as at the sender."""
    graph.add(value)
    _put(value, inner, graph, resolve, depth)
    return value


def _put(value: Any, inner: Any, graph: Graph, resolve: Resolve, depth: int) -> None:
    if isinstance(value, dict):
        for key, item in _list(inner):
            value[unpack(key, graph, resolve, depth + 1)] = unpack(item, graph, resolve, depth + 1)
    else:
        append = value.add if isinstance(value, set) else value.append
        for item in _list(inner):
            append(unpack(item, graph, resolve, depth + 1))


def replace(value: Any, data: Any, graph: Graph, resolve: Resolve) -> None:
    """Replaces what is in a container by the other side's `contents`. Raises: Malformed."""
    try:
        inner = data if isinstance(value, list) else next(iter(data.values()))
        if isinstance(value, bytearray):
            value[:] = bytes.fromhex(inner)
            return
        value.clear()
        _put(value, inner[1] if isinstance(value, deque) else inner, graph, resolve, 0)
    except (TypeError, ArithmeticError, LookupError, ValueError, AttributeError) as error:
        raise Malformed("contents of another kind") from error


def _natural(number: Any) -> int:
    if type(number) is not int or number < 0:
        raise Malformed("not the number of an object")
    return number


def _list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed("not a list")
    return data


class Channel:
    """One end of an exchange: JSON messages over a descriptor, one a line."""

    def __init__(self, fd: int):
        self.fd = fd
        self._lines = open(fd, "rb", 1 << 16, closefd=False)  # noqa: SIM115  (fd is the caller's)

    def send(self, message: Any) -> None:
        """Writes a message. Raises: Unsendable if it is too long, Malformed if nobody reads."""
        try:
            data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        except RecursionError as error:
            raise Unsendable("nested too deep") from error
        if len(data) > MAX_BYTES:
            raise Unsendable(f"{len(data)} bytes, more than {MAX_BYTES}")
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError as error:
            raise Malformed("the other side is gone") from error

    def receive(self) -> Any:
        """Reads a message. Raises: Malformed."""
        try:
            line = self._lines.readline(MAX_BYTES)
        except OSError as error:
            raise Malformed("the other side is gone") from error
        if not line.endswith(b"\n"):
            too_long = f"a message of more than {MAX_BYTES} bytes"
            raise Malformed(too_long if len(line) == MAX_BYTES else "the other side is gone")
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Malformed("not JSON") from error
