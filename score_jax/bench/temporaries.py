"""The largest temporaries of a compiled program, by the operation that makes them.

Read from the program's text: the result of each instruction outside of fusions. XLA may put several
into the same memory at different times, so their sizes do not add up to the total.
"""

import math
import re
from typing import Any

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}
# Instructions that make no value of their own.
_NO_VALUE = {
    "parameter",
    "get-tuple-element",
    "tuple",
    "bitcast",
    "while",
    "conditional",
    "call",
    "constant",
}
_IN_ALL_NAMES = {"while", "body", "cond", "closed_call", "checkpoint", "rematted_computation"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (\w+)\[([\d,]*)\]\S* ([\w-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(\S+) .*\{$")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')


def largest(text: str, count: int = 5) -> list[dict[str, Any]]:
    """The `count` largest different ones of a program's text: `bytes`, `shape` and `made_by`."""
    inner = {
        name for line in text.splitlines() if " fusion(" in line for name in _CALLED.findall(line)
    }
    found: dict[tuple[str, str], int] = {}
    computation = ""
    for line in text.splitlines():
        if start := _COMPUTATION.match(line):
            computation = start.group(1)
        made = _INSTRUCTION.match(line)
        if not made or computation in inner or made.group(3) in _NO_VALUE:
            continue
        kind, shape, _ = made.groups()
        size = math.prod(int(x) for x in shape.split(",") if x)
        name = _NAME.search(line)
        key = (f"{kind}[{shape}]", _short(name.group(1)) if name else made.group(3))
        found[key] = size * _bits(kind) // 8
    order = sorted(found.items(), key=lambda item: -item[1])[:count]
    return [{"bytes": size, "shape": shape, "made_by": name} for (shape, name), size in order]


def _bits(kind: str) -> int:
    return _BITS.get(kind) or int(re.sub(r"\D", "", kind) or 8)


def _short(name: str) -> str:
    """The last parts of a path of transformations, without the parts that most paths share."""
    wanted = [
        part
        for part in name.split("/")
        if part not in _IN_ALL_NAMES and not part.startswith("jit(_train_step)")
    ]
    return "/".join(wanted[-4:])
