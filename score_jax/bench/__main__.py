"""Benchmarks for anyone's machine: `python -m score_jax.bench rollout|update|rewards|compare`.

    --workload=small|real|group|skewed|long|large    random weights (workloads.py)
    --config=configs/NAME.py             the rollout or update of a config instead
    --config.KEY=VALUE                   with overrides
    --reps=N                             timed runs, compile and one warm-up excluded
    --dtype=float32|bfloat16             of a workload's matmuls
    --topology=v5e:2x2                   only compile the decode step or the update for that TPU
    --vocabulary=N                       vocabulary size of a workload's model
    --memory="KEY=VALUE,…"               update: settings of config.memory for a workload
    --against="KEY=VALUE,…"              update: also time these, or reference=none, in turn
    --analyse                            update: only compile, and print the memory it would take
    --attention=xla|cudnn|splash         update: the attention of a workload
    --mbpp=mbpp.jsonl                    rewards: programs from MBPP's references, not stand-ins
    --program="NAME=COMMAND"             compare: another program, several times; see compare.py
    --workloads=small,real               compare: the workloads
    --cores=1,all                        compare: how many cores, pinned
    --rounds=N                           compare: runs of each program
    --out=runs.jsonl                     compare: adds each figure to this file

All cores are used, as by a run; `taskset` restricts them. Prints a readable table and, as its last
line, one JSON object; compare prints Markdown tables. Timings on a shared machine are noisy:
compare programs in one interleaved run, and look at the spread.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from score_jax.config.build import build
from score_jax.config.settings import CHOICES, MemorySettings, ModelSettings
from score_jax.console import command
from score_jax.problem import InputError, nearest
from score_jax.runtime import heap


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what")
    parser.add_argument("--workload", default="small")
    parser.add_argument("--config")
    parser.add_argument("--reps", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=CHOICES[ModelSettings, "dtype"])
    parser.add_argument("--topology", default="")
    parser.add_argument("--vocabulary", type=int, default=0)
    parser.add_argument("--memory", default="")
    parser.add_argument("--against", default="")
    parser.add_argument("--attention", default="xla", choices=CHOICES[ModelSettings, "attention"])
    parser.add_argument("--analyse", action="store_true")
    parser.add_argument("--mbpp", default="")
    parser.add_argument("--program", action="append", default=[])
    parser.add_argument("--workloads", default="small,real,group,skewed")
    parser.add_argument("--cores", default="1,all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", default="")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs one benchmark."""
    given, overrides = parser().parse_known_args(list(argv))
    if given.what not in BENCHMARKS:
        raise InputError(f"unknown benchmark {given.what}. {nearest(given.what, BENCHMARKS)}")
    for name in ("reps", "rounds"):
        if getattr(given, name) < 1:
            raise InputError(
                f"--{name}={getattr(given, name)} measures nothing. Set it to 1 or more."
            )
    if overrides and not given.config:
        raise InputError(f"unexpected arguments: {' '.join(overrides)}. See --help.")
    BENCHMARKS[given.what](given, overrides)


def _workload(given, overrides: list[str]):
    from score_jax.bench import workloads
    from score_jax.config.command_line import settings_of

    if given.config:
        return workloads.of_config(settings_of([f"--config={given.config}", *overrides]))
    return workloads.named(
        given.workload,
        dtype=given.dtype,
        vocabulary=given.vocabulary,
        shapes=given.what == "update" and (given.analyse or bool(given.topology)),
    )


def _rollout(given, overrides: list[str]) -> None:
    from score_jax.bench import rollout, timing

    work = _workload(given, overrides)
    if given.topology:
        timing.report(rollout.compile_for(work, given.topology))
    else:
        timing.report(rollout.measure(work, given.reps))


def _update(given, overrides: list[str]) -> None:
    from score_jax.bench import timing, update

    work = _workload(given, overrides)
    work = dataclasses.replace(work, memory=_changed(work.memory, given.memory, "--memory"))
    if not given.config:
        work = dataclasses.replace(work, attention=given.attention)
    if given.analyse or given.topology:
        timing.report(update.memory_of(work, given.topology))
        return
    against = None
    if given.against:
        kept = [pair for pair in given.against.split(",") if pair != "reference=none"]
        memory = _changed(work.memory, ",".join(kept), "--against")
        reference = "reference=none" not in given.against.split(",")
        against = update.Variant(memory, reference)
    timing.report(update.measure(work, given.reps, against))


def _changed(memory: MemorySettings, pairs: str, flag: str) -> MemorySettings:
    """The settings changed by "KEY=VALUE,…". Raises: InputError for an unknown key."""
    tree: dict[str, Any] = dataclasses.asdict(memory)
    for pair in pairs.split(",") if pairs else ():
        key, _, value = pair.partition("=")
        if key not in tree:
            raise InputError(f"{flag}: unknown setting {key}. {nearest(key, tree)}")
        tree[key] = int(value) if value.isdigit() else value
    return build(MemorySettings, tree, flag)


def _rewards(given, overrides: list[str]) -> None:
    from score_jax.bench import rewards, timing

    del overrides
    timing.report(rewards.measure(given.reps, given.mbpp) | timing.where())


def _compare(given, overrides: list[str]) -> None:
    from score_jax import jsonfiles
    from score_jax.bench import compare

    del overrides
    programs, cores = compare.programs_of(given.program), compare.cores_of(given.cores)
    found = []
    for figure in compare.measure(
        programs, given.workloads.split(","), cores, rounds=given.rounds, reps=given.reps
    ):
        found.append(figure)
        print(*figure[:5], figure.failure or figure.tokens_per_sec, flush=True)
        if given.out:
            with open(given.out, "a", encoding="ascii") as file:
                file.write(jsonfiles.line(figure._asdict()))
    print(compare.tables(found))


BENCHMARKS = {"rollout": _rollout, "update": _update, "rewards": _rewards, "compare": _compare}

if __name__ == "__main__":
    heap.keep_pages()
    command.run(main)
