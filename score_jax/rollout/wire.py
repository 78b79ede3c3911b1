"""What goes over an engine's socket: a header in JSON, then arrays as raw bytes.

    send(sock, header, arrays, wait_sec)          one message
    receive(sock, wait_sec) -> (header, arrays)   one message, its sizes checked before any is read
    described(settings), settings_of(header, …)   EpisodeSettings as a message, and back

    MAGIC, header's bytes (uint32)  |  header: {…, "arrays": [[name, dtype, shape], …]}  |  arrays

Nothing that is received is run: there is no pickle. A connection serves one question and answer.
"""

import dataclasses
import json
import math
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from score_jax.model import rope
from score_jax.model.families import ModelConfig
from score_jax.rl.policy import Policy
from score_jax.rollout.settings import EpisodeSettings
from score_jax.text.stops import Automaton, Stops

MAGIC = b"score-1\n"
_BEGIN = struct.Struct("!8sI")
_HEADER_BYTES, _ARRAY_BYTES = 2**24, 2**33  # at most
_KINDS = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32")
# Of EpisodeSettings, what an engine decides for itself.
_OWN = ("model", "stops", "slots", "turn_rows", "shrink", "cache_layout", "untied")
_TABLES = ("class_V", "next_SC", "size_V")

Header = dict[str, Any]
Arrays = dict[str, np.ndarray]


class Garbled(ValueError):
    """The other side does not speak this protocol."""


def send(sock: socket.socket, header: Header, arrays: Mapping[str, Any], wait_sec: float) -> None:
    """Sends one message. Raises: OSError; TimeoutError if it takes longer."""
    values = {name: np.ascontiguousarray(x) for name, x in arrays.items()}
    listed = [[name, str(x.dtype), x.shape] for name, x in values.items()]
    text = json.dumps({**header, "arrays": listed}).encode()
    sock.settimeout(wait_sec or None)
    for part in (_BEGIN.pack(MAGIC, len(text)), text, *(x.tobytes() for x in values.values())):
        sock.sendall(part)


def receive(sock: socket.socket, wait_sec: float) -> tuple[Header, Arrays]:
    """Receives one message.

    wait_sec: for all of it; 0: for ever.
    Raises: Garbled; OSError if the other side is gone; TimeoutError if it takes longer.
    """
    ends = time.monotonic() + wait_sec if wait_sec else math.inf
    magic, size = _BEGIN.unpack(_read(sock, _BEGIN.size, ends))
    if magic != MAGIC or size > _HEADER_BYTES:
        raise Garbled(f"a message begins with {magic!r} and {size}")
    try:
        header = json.loads(_read(sock, size, ends))
        listed = [(name, kind, tuple(map(int, shape))) for name, kind, shape in header["arrays"]]
        unknown = [kind for _, kind, _ in listed if kind not in _KINDS]
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise Garbled(f"a header that cannot be read ({error})") from None
    total = sum(8 * math.prod(shape) for *_, shape in listed)
    if unknown or total > _ARRAY_BYTES or any(n < 0 for *_, shape in listed for n in shape):
        raise Garbled(f"arrays that cannot be: {listed}")
    arrays = {}
    for name, kind, shape in listed:
        data = _read(sock, math.prod(shape) * np.dtype(kind).itemsize, ends)
        arrays[name] = np.frombuffer(data, kind).reshape(shape)
    return header, arrays


def _read(sock: socket.socket, size: int, ends: float) -> bytearray:
    data, got = bytearray(size), 0
    while got < size:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(None if ends == math.inf else left)
        more = sock.recv_into(memoryview(data)[got:])
        if not more:
            raise ConnectionResetError("the connection was closed in a message")
        got += more
    return data


def described(settings: EpisodeSettings) -> tuple[Header, Arrays]:
    """What an engine needs of the settings; of the model, how long a row of the run may be."""
    s = settings
    names = [field.name for field in dataclasses.fields(s) if field.name not in _OWN]
    header: Header = {name: getattr(s, name) for name in names}
    header |= {"policy": vars(s.policy), "longest_row": s.model.longest_row, "stops": None}
    if not s.stops:
        return header, {}
    stops = {"digest": s.stops.digest, "span": s.stops.span, **vars(s.stops.of)}
    return header | {"stops": stops}, {name: getattr(s.stops, name) for name in _TABLES}


def settings_of(header: Mapping[str, Any], arrays: Arrays, model: ModelConfig) -> EpisodeSettings:
    """Settings for `model`, as `described` says them. Raises: Garbled."""
    try:
        left = {name: value for name, value in header.items() if name != "longest_row"}
        policy, stops = Policy(**_tuples(left.pop("policy"))), left.pop("stops")
        automaton = None
        if stops:
            of = Stops(tuple(stops["before"]), tuple(stops["after"]))
            tables = [arrays[name] for name in _TABLES]
            automaton = Automaton(stops["digest"], stops["span"], of, *tables)
        model = rope.for_rows(model, header["longest_row"])
        return EpisodeSettings(model=model, policy=policy, stops=automaton, **_tuples(left))
    except (TypeError, KeyError, AttributeError) as error:
        raise Garbled(f"settings that cannot be read ({error})") from None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """Lists as tuples, which are static under jit."""

    def plain(x: Any) -> Any:
        return tuple(map(plain, x)) if isinstance(x, Sequence) and not isinstance(x, str) else x

    return {name: plain(value) for name, value in values.items()}
