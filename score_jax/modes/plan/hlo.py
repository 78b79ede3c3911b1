"""Collectives and FLOPs of a compiled program on one device, from its text, loops included.

XLA's own cost analysis counts the body of a loop once. Here a body counts as often as it runs, if
the loop compares a counter with a constant. A data-dependent loop (the token loop of a rollout)
counts once and is reported apart. Of a conditional's branches the most expensive one counts: for
micro-batches of several widths that is the widest.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BETWEEN_SLICES = "xla_megascale"  # who handles a `send` to the network of the data centre
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(([^)]*)\)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|to_apply|called_computations)=\{?%?([\w.\-]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%([\w.\-]+))"
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    result: str  # its shape as written
    opcode: str
    operands: tuple[str, ...]
    line: str


@dataclasses.dataclass
class Cost:
    """The cost of a program, or of a part of it, on one device."""

    flops: float = 0.0
    count: dict[str, float] = dataclasses.field(default_factory=dict)  # collectives by kind
    bytes: dict[str, float] = dataclasses.field(default_factory=dict)  # of the full values
    sent: float = 0.0  # bytes that the chip sends for them, by a ring algorithm
    between: float = 0.0  # bytes that it gives to exchanges between slices; not in the others
    # Those of `count` in data-dependent loops: once per turn.
    per_turn: dict[str, float] = dataclasses.field(default_factory=dict)

    def add(self, other: "Cost", times: float = 1.0) -> None:
        """Adds a cost that occurs `times` times."""
        self.flops += times * other.flops
        self.sent += times * other.sent
        self.between += times * other.between
        for mine, theirs in (
            (self.count, other.count),
            (self.bytes, other.bytes),
            (self.per_turn, other.per_turn),
        ):
            for kind, value in theirs.items():
                mine[kind] = mine.get(kind, 0.0) + times * value


def cost(text: str) -> Cost:
    """The cost of a program from its optimised text (`compiled.as_text()`)."""
    computations, entry = _parse(text)
    seen: set[str] = set()  # chains: a collective can be spread over several fusions
    known: dict[str, Cost] = {}

    def of(name: str) -> Cost:
        if name not in known:
            known[name] = Cost()  # no computation calls itself
            known[name] = _of(computations[name])
        return known[name]

    def _of(lines: list[Instruction]) -> Cost:
        total = Cost()
        results = {line.name: line.result for line in lines}
        for line in lines:
            if line.opcode == "while":
                name, until = (
                    _match(rf"{k}=%?([\w.\-]+)", line.line) for k in ("body", "condition")
                )
                body = Cost()
                body.add(of(name))
                times = _trips(computations[until], computations[name])
                if times is None:
                    body.per_turn = dict(body.count)
                total.add(body, times or 1)
            elif line.opcode == "conditional":
                branches = [of(name) for name in _branches(line.line)]
                total.add(max(branches, key=lambda c: (c.flops, sum(c.bytes.values()))))
            elif line.opcode.removesuffix("-start") in KINDS:
                _collective(total, line, results, seen)
            elif line.opcode == "send" and _BETWEEN_SLICES in line.line:
                total.between += _bytes_of(results.get(line.operands[0], ""))
            elif line.opcode in ("convolution", "dot"):
                total.flops += _flops(line, results)
            else:
                for name in _CALLED.findall(line.line):
                    total.add(of(name))
        return total

    return of(entry)


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for row in text.splitlines():
        if start := _COMPUTATION.match(row):
            lines = computations.setdefault(start.group(2), [])
            entry = start.group(2) if start.group(1) else entry
        elif found := _INSTRUCTION.match(row):
            _, name, rest = found.groups()
            if opcode := _OPCODE.search(rest):
                operands = tuple(re.findall(r"%([\w.\-]+)", opcode.group(2)))
                result = rest[: opcode.start()]
                lines.append(Instruction(name, result, opcode.group(1), operands, rest))
    return computations, entry


def _match(pattern: str, line: str) -> str:
    found = re.search(pattern, line)
    assert found, f"no {pattern} in {line[:200]}"
    return found.group(1)


def _branches(line: str) -> Iterator[str]:
    for several, one in _BRANCHES.findall(line):
        yield from (re.findall(r"%([\w.\-]+)", several) if several else [one])


def _trips(condition: list[Instruction], body: list[Instruction]) -> int | None:
    """How often a loop with the condition `counter < constant` runs; None for other loops."""
    root, limits = condition[-1], _constants(condition)
    if root.opcode != "compare" or "direction=LT" not in root.line:
        return None
    counter, limit = root.operands
    if limit not in limits:
        return None
    return -(-limits[limit] // _stride(counter, condition, body))


def _stride(counter: str, condition: list[Instruction], body: list[Instruction]) -> int:
    """The counter's increment per turn; a pipelined loop does several turns in one."""
    (read,) = [line.line for line in condition if line.name == counter]
    raised = body[-1].operands[int(_match(r"index=(\d+)", read))]
    (made,) = [line for line in body if line.name == raised]
    known = _constants(body)
    steps = [known[name] for name in made.operands if name in known]
    return steps[0] if made.opcode == "add" and len(steps) == 1 else 1


def _constants(lines: list[Instruction]) -> dict[str, int]:
    found = ((line.name, re.search(r" constant\((\d+)\)", line.line)) for line in lines)
    return {name: int(value.group(1)) for name, value in found if value}


def _collective(total: Cost, line: Instruction, results: dict[str, str], seen: set[str]) -> None:
    # Its parts share a chain id. Channel ids do not help: shard_map makes all of them 1.
    if chain := re.search(r'chain_id="(\d+)"', line.line):
        if chain.group(1) in seen:
            return
        seen.add(chain.group(1))
    kind = line.opcode.removesuffix("-start")
    given = sum(_bytes_of(results.get(name, "")) for name in line.operands)
    made = _bytes_of(line.result)
    if line.opcode.endswith("-start") and kind != "all-reduce":
        # The start of a transfer returns its inputs, its outputs and some markers.
        made = made - given if kind == "all-gather" else given
    size = max(given, made) if kind == "reduce-scatter" else made
    members = _group_size(line.line)
    share = 1.0 if kind == "collective-permute" else (members - 1) / members
    total.sent += size * share * (2 if kind == "all-reduce" else 1)
    total.count[kind] = total.count.get(kind, 0.0) + 1
    total.bytes[kind] = total.bytes.get(kind, 0.0) + size


def _group_size(line: str) -> int:
    """How many devices take part in a collective; groups are written in three ways."""
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(part.split("=") for part in named.group(1).split(","))
        return math.prod(int(sizes[axis]) for axis in named.group(2).split(","))
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiled.group(1))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(listed.group(1).split(","))
    return 1


def _bytes_of(result: str) -> int:
    return sum(
        _BYTES.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)
        for kind, shape in _ARRAY.findall(result)
    )


def _dims(result: str) -> list[int]:
    array = _ARRAY.search(result)
    assert array, result[:100]
    return [int(n) for n in array.group(2).split(",") if n]


def _flops(line: Instruction, results: dict[str, str]) -> float:
    """FLOPs of a matrix product. On a TPU it is a convolution with batch axes as spatial axes."""
    out, lhs, rhs = line.result, *(results[name] for name in line.operands[:2])
    if line.opcode == "dot":
        summed = _match(r"lhs_contracting_dims=\{([\d,]*)\}", line.line)
        axes = [int(n) for n in summed.split(",") if n]
        return 2.0 * math.prod(_dims(out)) * math.prod(_dims(lhs)[axis] for axis in axes)
    left, right, made = re.split(r"_|->", _match(r"dim_labels=([\w\->]+)", line.line))
    of_out, of_right = (
        dict(zip(made, _dims(out), strict=True)),
        dict(zip(right, _dims(rhs), strict=True)),
    )
    of_left = dict(zip(left, _dims(lhs), strict=True))
    window = re.search(r"window=\{([^}]*)\}", line.line)
    spatial = 1.0
    for axis in sorted(c for c in made if c.isdigit()):
        spatial *= _valid(int(axis), of_left[axis], of_out[axis], window.group(1) if window else "")
    return 2.0 * of_out["b"] * of_out["f"] * of_right["i"] * spatial


def _valid(axis: int, inputs: int, outputs: int, window: str) -> int:
    """Pairs of an output and a window position that hit an input, along one spatial axis."""

    def of(name: str, default: str) -> str:
        values = re.search(rf"(?:^| ){name}=(\S+)", window)
        return values.group(1).split("x")[axis] if values else default

    size, stride = int(of("size", "1")), int(of("stride", "1"))
    low = int(of("pad", "0_0").split("_")[0])
    dilated, spread = int(of("lhs_dilate", "1")), int(of("rhs_dilate", "1"))
    count = 0
    for place in range(size):
        for output in range(outputs):
            at = output * stride + place * spread - low
            count += 0 <= at <= (inputs - 1) * dilated and at % dilated == 0
    return count
