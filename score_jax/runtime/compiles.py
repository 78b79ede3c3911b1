"""Watches what XLA compiles during a run, and sets where compiled programs are cached.

A rollout and an update are compiled once per shape, at their first step. A later recompilation
stops all devices while it lasts. It means that a shape or type changed which should stay the same.
`Watch` counts such recompilations, names the function and the shapes, and can fail the run:

    with Watch(after_warmup="warn", say=print) as watch:
        for ...:
            with watch.phase("rollout", width):     # compiling in the first run of a phase is
                episode.run(...)                    # warm-up; in a later run it is reported

A program that takes more than a few seconds to compile is named while it is compiled, and its
seconds are said at the end.

jax.monitoring counts compilations but does not know shapes; they are parsed from the message that
jax logs for each compilation.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from score_jax.problem import expanded
from score_jax.runtime import ahead as beside
from score_jax.runtime import program_cache, signals

_COMPILE = "compile"
_BUILT = "/jax/core/compile/backend_compile_duration"
# Tracing, lowering and compiling; a program's tracing reports that of its parts as well.
_COMPILING = "/jax/core/compile/"
_AWAITED = f"{_COMPILING}awaited"  # our own event: seconds that the run waited for another thread
_FROM_CACHE = "/jax/compilation_cache/cache_hits"
_LOGGER = "jax._src.interpreters.pxla"  # logs "Compiling NAME with global shapes and types [...]"
_MESSAGE = re.compile(r"Compiling (.*?) with global shapes and types (.*?)\. Argument mapping")


class LateCompile(RuntimeError):
    """Something was recompiled after its warm-up, and the settings make that an error."""


# A program that compiles for so long is named, and again every so many seconds.
LONG_SEC, AGAIN_SEC = 5.0, 30.0

AFTER_WARMUP = {"warn": False, "fail": True}  # whether a recompilation after warm-up is an error


@dataclasses.dataclass(frozen=True)
class Program:
    """One program that was compiled, or read from the cache."""

    name: str
    shapes: str
    seconds: float
    from_cache: bool  # read from the persistent cache instead of being compiled
    ahead: bool = False  # beside the run, before it was called


def keep_in(folder: Path | None) -> None:
    """Caches every compiled program of this process in a folder; None: no cache.

    Where the environment names a folder for all runs, in JAX_COMPILATION_CACHE_DIR, it is used
    instead. It must be as trusted as the program itself: its contents are executed.
    """
    shared = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if folder and shared:
        folder = expanded(shared)
    where = str(folder.absolute()) if folder else None  # the process may change its directory
    jax.config.update("jax_compilation_cache_dir", where)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # XLA's own caches would put the folder's path into the key: a moved folder would be useless.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    program_cache.install()


Options = dict[str, int | bool]

# LLVM's passes take much of a compile on a CPU. Without most of them a rollout takes a tenth less
# to compile, and 0.99 [0.94, 1.21] of the time to run. (At 0 the program itself is slow.)
# Each of the 32 parts into which XLA would divide a program for its threads costs a share of it:
# with two, which the cores beside another compile can take, the quickstart's programs take 0.93.
FEW_PASSES: Options = {
    "xla_backend_optimization_level": 1,
    "xla_cpu_parallel_codegen_split_count": 2,
}
# XLA's older emitter compiles an update in half the time of its new one, and the update of the
# benchmark's `small` takes 0.95 [0.89, 0.96] of the CPU time. (A rollout would take twice as long
# to compile.) The program that makes the quickstart's initial weights: 6.2 CPU seconds become 1.1.
OLDER_EMITTER: Options = FEW_PASSES | {"xla_cpu_use_fusion_emitters": False}


@functools.cache
def _known(options: tuple[tuple[str, int | bool], ...]) -> bool:
    try:  # a later XLA may not know them
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def set_matmul_precision(dtype: str) -> None:
    """Makes jax multiply float32 in full, unless JAX_DEFAULT_MATMUL_PRECISION says otherwise.

    By default GPUs round the factors to 10 bits (TF32) and TPUs to 7 (bfloat16): sampler and
    learner, whose products have different shapes, then differ by a few hundredths of a nat.
    """
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]  # made by jax
    if dtype == "float32" and chosen is None:
        jax.config.update("jax_default_matmul_precision", "highest")


class Compiled:
    """`work` under jax.jit, with options of XLA where it is compiled for a CPU.

    how: of jax.jit.
    """

    def __init__(self, work: Callable[..., Any], options: Options, **how: Any):
        self._work, self._options, self._how = work, options, how
        self._made: dict[bool, Any] = {}  # with options, and without
        self._ahead: dict[Any, beside.Job] = {}  # by what they are compiled for
        self._begun: set[Any] = set()

    def _on(self, platform: str) -> Any:
        # Whoever asked for fewer optimizations has that; options here would undo it.
        fewest = jax.config.read("jax_disable_most_optimizations")
        has = platform == "cpu" and not fewest and _known(tuple(self._options.items()))
        if has not in self._made:
            options = self._options if has else {}
            self._made[has] = jax.jit(self._work, compiler_options=options, **self._how)
        return self._made[has]

    def __call__(self, *arguments: Any, **static: Any) -> Any:
        if self._ahead and (job := self._ahead.pop(_kind(arguments, static), None)):
            _await(job)
        # A part of another program has that program's options.
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arguments))
        return self._on("" if traced else jax.default_backend())(*arguments, **static)

    def ahead(self, *arguments: Any, **static: Any) -> None:
        """Begins to compile, beside the run, the program of a call with such arguments.

        arguments: arrays, or their shapes with the shardings that the arrays will have.
        """
        if (kind := _kind(arguments, static)) in self._begun:
            return
        self._begun.add(kind)
        made, shapes = self._on(jax.default_backend()), jax.tree.map(_shape, arguments)
        # jax finds it again when it is called.
        self._ahead[kind] = beside.Job(lambda: made.lower(*shapes, **static).compile())

    def lower(self, *arguments: Any, platform: str = "", **static: Any) -> Any:
        """As of jax.jit; platform: of the devices, for the options that a call has there."""
        return self._on(platform).lower(*arguments, **static)

    def _cache_size(self) -> int:
        return sum(made._cache_size() for made in self._made.values())


def _kind(arguments: tuple[Any, ...], static: dict[str, Any]) -> Any:
    """What a call is compiled for, but for shardings; hashable."""
    leaves, tree = jax.tree.flatten(arguments)
    shapes = [(np.shape(x), getattr(x, "dtype", type(x))) for x in leaves]
    return tree, tuple(shapes), tuple(sorted(static.items(), key=lambda item: item[0]))


def _shape(x: Any) -> Any:
    if not isinstance(x, jax.Array):
        return x
    where = x.sharding if x.committed else None
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where, weak_type=x.weak_type)


def _await(job: beside.Job) -> None:
    """Until the program is compiled, which counts as compiling it."""
    if not job.begun():
        return
    started = time.perf_counter()
    signals.begun(_COMPILE)
    job.wait()
    signals.ended(_COMPILE)
    jax.monitoring.record_event_duration_secs(_AWAITED, time.perf_counter() - started)


def call(program: Callable[..., Any], *arguments: Any, **how: Any) -> Any:
    """Calls a program; what takes a `call` can be given one that plans, or `ahead`."""
    return program(*arguments, **how)


def ahead(program: Any, *arguments: Any, **how: Any) -> None:
    """Begins to compile what `call` would call; see `Compiled.ahead`."""
    program.ahead(*arguments, **how)


class Watch:
    """Counts compiled programs inside its `with` block; a process may have one at a time.

    after_warmup: a key of AFTER_WARMUP.
    """

    def __init__(self, *, after_warmup: str = "warn", say: Callable[[str], None] = print):
        self.programs: list[Program] = []
        self.late: list[Program] = []  # those compiled after their phase's warm-up
        self._fails = AFTER_WARMUP[after_warmup]
        self._say = say
        self._seen: set[Hashable] = set()
        self._busy = _Spans()  # of compiling
        self._lock = threading.Lock()  # programs may be compiled in several threads
        self._phase = ""
        # Of each thread that compiles: the program's name and shapes, whether it came from the
        # cache, and who says that it takes long.
        self._message: dict[int, tuple[str, str]] = {}
        self._hit: set[int] = set()
        self._compiling: dict[int, _Compiling] = {}

    @property
    def hits(self) -> int:
        """Programs read from the persistent cache."""
        return sum(program.from_cache for program in self.programs)

    @property
    def misses(self) -> int:
        """Programs compiled."""
        return len(self.programs) - self.hits

    def compile_sec(self) -> float:
        """Seconds in which something was traced, lowered, compiled or read from the cache."""
        return self._busy.seconds

    @contextlib.contextmanager
    def phase(self, *key: Hashable) -> Iterator[None]:
        """Runs one phase. Equal keys name the same phase; its first run is its warm-up.

        Raises: LateCompile if a later run compiled something and `after_warmup` is "fail".
        """
        before, outer, self._phase = len(self.programs), self._phase, str(key[0])
        try:
            yield
        finally:
            self._phase = outer
        if key not in self._seen:
            self._seen.add(key)
            return
        late = [program for program in self.programs[before:] if not program.ahead]
        self.late += late
        for program in late:
            text = (
                f"recompiled after warm-up, in phase {'/'.join(map(str, key))}: {program.name} for "
                f"{program.shapes} ({program.seconds:.1f} s). A shape, a type or a sharding that "
                "should stay the same has changed."
            )
            if self._fails:
                raise LateCompile(text)
            self._say(text)

    def __enter__(self) -> "Watch":
        jax.monitoring.register_event_duration_secs_listener(self._on_duration)
        jax.monitoring.register_event_listener(self._on_event)
        logger = logging.getLogger(_LOGGER)
        self._level = logger.level
        logger.addFilter(self._on_log)
        logger.setLevel(logging.DEBUG)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        beside.drop()
        jax.monitoring.unregister_event_duration_listener(self._on_duration)
        jax.monitoring.unregister_event_listener(self._on_event)
        logger = logging.getLogger(_LOGGER)
        logger.removeFilter(self._on_log)
        logger.setLevel(self._level)
        for compiling in list(self._compiling.values()):
            compiling.give_up()

    def _on_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        thread, ahead = threading.get_ident(), beside.is_here()
        if event.startswith(_COMPILING) and not ahead:
            end = time.perf_counter()
            with self._lock:
                self._busy.add(end - duration_secs, end)
        if event == _BUILT:
            if not ahead:
                signals.ended(_COMPILE)
            # jax reports a cache hit before the duration of reading it.
            hit = thread in self._hit
            self._hit.discard(thread)
            named = self._message.get(thread, ("?", "?"))
            self.programs.append(Program(*named, duration_secs, hit, ahead))
            if compiling := self._compiling.pop(thread, None):
                compiling.end()

    def _on_event(self, event: str, **_: str | int) -> None:
        if event == _FROM_CACHE:
            self._hit.add(threading.get_ident())

    def _on_log(self, record: logging.LogRecord) -> bool:
        if match := _MESSAGE.match(record.getMessage()):
            thread, ahead = threading.get_ident(), beside.is_here()
            self._message[thread] = (match.group(1), match.group(2))
            if not ahead:
                signals.begun(_COMPILE)
            if former := self._compiling.get(thread):  # it failed, or was only lowered
                former.give_up()
            phase = "" if ahead else self._phase
            self._compiling[thread] = _Compiling(match.group(1), phase, self._say)
        return record.levelno > logging.DEBUG  # hides the debug messages that __enter__ enabled


class _Spans:
    """Spans of time, and the seconds that they cover together.

    A span is added when it ends. It may hold earlier ones, as a program's tracing does that of its
    parts: more than the last KEPT it does not hold, as a step traces a few things for ever.
    """

    KEPT = 1000

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last: collections.deque[tuple[float, float]] = collections.deque()  # disjoint
        self._before = -math.inf  # the end of those that are not kept

    def add(self, start: float, end: float) -> None:
        """Joins a span that ends last to those that it overlaps."""
        start, more = max(start, self._before), 0.0
        while self._last and self._last[-1][1] >= start:
            earlier = self._last.pop()
            start, end = min(start, earlier[0]), max(end, earlier[1])
            more -= earlier[1] - earlier[0]
        self._last.append((start, end))
        self.seconds += more + end - start  # at once: other threads read it
        if len(self._last) > self.KEPT:
            self._before = self._last.popleft()[1]


class _Compiling:
    """Says that a program is being compiled, once that takes long."""

    def __init__(self, name: str, phase: str, say: Callable[[str], None]):
        self._name = name.removeprefix("jit(").removesuffix(")").strip("_").replace("_", " ")
        if phase not in ("", self._name):
            self._name += f" ({phase})"
        self._say, self._began, self._said = say, time.monotonic(), False
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        wait_sec = LONG_SEC
        while not self._ended.wait(wait_sec):
            self._say(f"compiling {self._name} … {time.monotonic() - self._began:.0f} s")
            self._said, wait_sec = True, AGAIN_SEC

    def end(self) -> None:
        self.give_up()
        if self._said:
            self._say(f"compiled {self._name} in {time.monotonic() - self._began:.0f} s")

    def give_up(self) -> None:
        self._ended.set()
