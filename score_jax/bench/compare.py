"""Programs side by side: each runs in a process of its own, in turn, on one core and on all.

    python -m score_jax.bench compare --workloads=small,real --cores=1,all --rounds=3 --reps=3 \\
        --program="Hugging Face=python bench_torch.py --workload={workload} --threads={cores}" \\
        --program="before=env -C OLD OLD/.venv/bin/python -m score_jax.bench {what} …" \\
        --out=runs.jsonl

A program is a command of which {workload}, {what} (rollout or update), {cores} and {reps} are
filled in. Its last line is a JSON object with `tokens_per_sec` of {what}; or, of a command without
{what}, with `rollout_tok_s` and `update_tok_s`. `env -C` runs another checkout in its own folder,
or python would import this one. Ours is always the first. The figures of a round
are taken one after the other (A B C A B C …), since a machine's speed changes while it is measured:
a ratio is the median of the rounds' own ratios.

Prints the tables of BENCHMARKS.md. A program that fails has no figure; its last line of standard
error stands below the tables.
"""

import contextlib
import itertools
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from score_jax.problem import InputError

WHATS = ("rollout", "update")
OURS = "score_jax"
_COMMAND = (
    shlex.quote(sys.executable) + " -m score_jax.bench {what} --workload={workload} --reps={reps}"
)


class Figure(NamedTuple):
    """What one run of a program gave."""

    program: str
    workload: str
    what: str
    cores: int
    round: int
    tokens_per_sec: float | None  # None: it failed
    failure: str = ""


def programs_of(given: Sequence[str]) -> dict[str, str]:
    """Ours and the given NAME=COMMAND, in order. Raises: InputError."""
    found = {OURS: _COMMAND}
    for one in given:
        name, equals, command = one.partition("=")
        if not (name.strip() and equals and command.strip()):
            raise InputError(f"--program={one!r} is not of the form NAME=COMMAND.")
        try:
            command.format(workload="", what="", cores=1, reps=1)
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(
                f"--program={one!r} names {error}. Known: {{workload}}, {{what}}, {{cores}} and "
                "{reps}; write other braces twice."
            ) from None
        found[name.strip()] = command
    return found


def cores_of(text: str) -> list[int]:
    """Numbers of cores from such as "1,all". Raises: InputError for more than there are."""
    there = len(_usable())
    found = [
        there if part == "all" else int(part) if part.isdigit() else 0 for part in text.split(",")
    ]
    if bad := [n for n in found if not 0 < n <= there]:
        raise InputError(
            f"--cores={text}: {bad[0]} is not a number of cores of this machine, which has "
            f"{there}. Name numbers from 1 on, or all."
        )
    if set(found) != {there} and not hasattr(os, "sched_setaffinity"):
        raise InputError(
            f"--cores={text}: this system cannot pin a program to some of its cores. Set it to all."
        )
    return list(dict.fromkeys(found))


def measure(
    programs: Mapping[str, str],
    workloads: Sequence[str],
    cores: Sequence[int],
    *,
    rounds: int,
    reps: int,
) -> Iterator[Figure]:
    """Runs every program for every workload and number of cores, a round after the other."""
    places = itertools.product(range(1, rounds + 1), workloads, cores)
    for (number, workload, count), name in itertools.product(places, programs):
        command = programs[name]
        for what in WHATS if "{what}" in command else ("",):
            filled = command.format(workload=workload, what=what, cores=count, reps=reps)
            found, failure = _run(filled, count)
            for of in (what,) if what else WHATS:
                key = "tokens_per_sec" if what else f"{of}_tok_s"
                speed = found.get(key)
                why = failure or ("" if speed else f"no {key} in its last line")
                yield Figure(name, workload, of, count, number, speed, why)


def _run(command: str, cores: int) -> tuple[dict[str, Any], str]:
    """The JSON object of a command's last line, on the last `cores` cores; why there is none."""
    try:
        with _pinned(_usable()[-cores:]):
            done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    except OSError as error:
        return {}, str(error)
    lines = done.stdout.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines and not done.returncode else None
    except json.JSONDecodeError:
        found = None
    if isinstance(found, dict):
        return found, ""
    said = done.stderr.strip().splitlines()
    return {}, said[-1] if said else f"no JSON object in its last line; status {done.returncode}"


@contextlib.contextmanager
def _pinned(cores: list[int]) -> Iterator[None]:
    """Programs that are started here run on these cores, where a system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _usable() -> list[int]:
    """The numbers of this process's cores."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def tables(figures: Sequence[Figure]) -> str:
    """A table of rollouts and one of updates, in Markdown: tokens per second, median of the rounds
    with [min, max]; behind others', how many times as fast ours was, median of the rounds' ratios.
    """
    programs = list(dict.fromkeys(f.program for f in figures))
    places = list(dict.fromkeys((f.workload, f.cores) for f in figures))
    speed = {
        (f.program, f.workload, f.what, f.cores, f.round): f.tokens_per_sec
        for f in figures
        if f.tokens_per_sec
    }
    rounds = sorted({f.round for f in figures})
    parts = []
    for what in WHATS:
        lines = [f"| {what}, tokens per second | cores | {' | '.join(programs)} |"]
        lines.append("|---" * (2 + len(programs)) + "|")
        for workload, cores in places:
            cells = []
            for program in programs:
                runs = {r: speed.get((program, workload, what, cores, r)) for r in rounds}
                ours = {r: speed.get((OURS, workload, what, cores, r)) for r in rounds}
                both = [a / b for r in rounds if (a := ours[r]) and (b := runs[r])]
                cells.append(_cell([v for v in runs.values() if v], program != OURS, both))
            lines.append(f"| `{workload}` | {cores} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    failed = dict.fromkeys(
        f"{f.program}, {f.workload}, {f.cores} cores, {f.what}: {f.failure}"
        for f in figures
        if f.failure
    )
    return "\n\n".join(parts + (["Not measured:\n" + "\n".join(failed)] if failed else []))


def _cell(speeds: list[float], compared: bool, ratios: list[float]) -> str:
    if not speeds:
        return "–"
    shown = _rounded(statistics.median(speeds))
    if len(speeds) > 1:
        shown += f" [{_rounded(min(speeds))}, {_rounded(max(speeds))}]"
    return shown + (f" ({statistics.median(ratios):.2f})" if compared and ratios else "")


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
