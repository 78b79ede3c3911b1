"""Counting compilations: warm-up, late recompilations, and the persistent cache."""

import re
import threading
import time

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from score_jax.runtime import ahead as beside
from score_jax.runtime import compiles
from score_jax.runtime.compiles import LateCompile, Watch


@pytest.fixture
def cache(tmp_path):
    """The persistent cache in a folder of the test's own."""
    folder = tmp_path / "cache"
    compiles.keep_in(folder)
    yield folder
    compiles.keep_in(None)


def fresh_function():
    """A jitted function that was not called yet."""

    def some_rollout(x):
        return jnp.sin(x) * 2

    return jax.jit(some_rollout)


def test_only_the_first_run_of_a_phase_may_compile():
    messages: list[str] = []
    function = fresh_function()
    with Watch(say=messages.append) as watch:
        for width in (4, 4, 7, 4, 7):
            with watch.phase("rollout", width):
                function(np.ones(width))
        assert not watch.late and not messages
        assert watch.misses == 2
        with watch.phase("rollout", 4):
            function(np.ones(5, ml_dtypes.bfloat16))
    assert [program.name for program in watch.late] == ["jit(some_rollout)"]
    (message,) = messages
    assert "in phase rollout/4: jit(some_rollout)" in message and "bfloat16[5]" in message


def test_a_late_compile_fails_the_run_if_so_set():
    function = fresh_function()
    with Watch(after_warmup="fail") as watch:
        for _ in range(2):
            with watch.phase("update"):
                function(np.ones(3))
        with pytest.raises(LateCompile, match=r"phase update.*\[8\]"), watch.phase("update"):
            function(np.ones(8))


def test_a_long_compile_is_named_while_it_lasts_and_its_seconds_at_the_end(monkeypatch):
    monkeypatch.setattr(compiles, "LONG_SEC", 0.01)
    messages: list[str] = []

    def _slow_update(x):
        for i in range(30):
            x = jnp.cumsum(jnp.sin(x) * i)
        return x

    with Watch(say=messages.append) as watch, watch.phase("stage", 7):
        jax.jit(_slow_update)(np.ones(7))
    named, ended = messages
    assert re.fullmatch(r"compiling slow update \(stage\) … \d+ s", named)
    assert re.fullmatch(r"compiled slow update \(stage\) in \d+ s", ended)


def test_a_short_compile_is_not_mentioned():
    messages: list[str] = []
    with Watch(say=messages.append):
        fresh_function()(np.ones(3))
    assert not messages


def test_nothing_is_counted_after_leaving():
    with Watch() as watch:
        pass
    fresh_function()(np.ones(2))
    assert not watch.programs


def test_a_second_start_reads_every_program_from_the_cache(cache):
    def start() -> Watch:
        jax.clear_caches()  # as a new process would begin
        with Watch() as watch:
            fresh_function()(jnp.arange(6.0)).block_until_ready()
        return watch

    first, second = start(), start()
    assert first.misses >= 1 and first.hits == 0
    assert second.misses == 0 and second.hits == len(first.programs)
    assert any(cache.iterdir())


def slow_program():
    """A program that was not compiled yet."""

    def slow_program(x):
        for i in range(30):
            x = jnp.cumsum(jnp.sin(x) * i)
        return x

    return compiles.Compiled(slow_program, {})


def busy() -> tuple[beside.Job, threading.Event]:
    """A job that is under way, and what ends it."""
    begun, go_on = threading.Event(), threading.Event()
    job = beside.Job(lambda: (begun.set(), go_on.wait()))
    begun.wait()
    return job, go_on


def test_what_is_compiled_ahead_is_not_compiled_again_nor_late():
    program, x = slow_program(), np.arange(7, dtype=np.float32)
    with Watch(after_warmup="fail") as watch:
        with watch.phase("update"):
            wanted = slow_program()(x)
        before = len(watch.programs)
        with watch.phase("update"):  # no part of it
            program.ahead(jax.ShapeDtypeStruct(x.shape, x.dtype))
            while len(watch.programs) == before:
                time.sleep(0.01)
            found = program(x)
        (one,) = watch.programs[before:]
    assert one.ahead and one.name == "jit(slow_program)" and "float32[7]" in one.shapes
    np.testing.assert_array_equal(found, wanted)


def test_waiting_for_another_thread_counts_as_compiling_and_is_named(monkeypatch):
    monkeypatch.setattr(compiles, "LONG_SEC", 0.01)
    program, messages = slow_program(), list[str]()
    with Watch(say=messages.append) as watch:
        job, go_on = busy()
        program.ahead(np.ones(5))
        go_on.set(), job.wait()
        while not (watch.programs or any(one._future.running() for one in program._ahead.values())):
            time.sleep(0.001)
        assert watch.compile_sec() == 0  # by the other thread alone
        program(np.ones(5))
        assert watch.compile_sec() > 0
    assert [program.ahead for program in watch.programs] == [True]
    assert messages and all("slow program" in message for message in messages)


def test_what_has_not_begun_is_compiled_where_it_is_called_and_else_not_at_all():
    called, never = slow_program(), slow_program()
    with Watch() as watch:
        job, go_on = busy()
        called.ahead(np.ones(3)), never.ahead(np.ones(4))
        called(np.ones(3))
        assert [one.ahead for one in watch.programs] == [False]
    go_on.set(), job.wait()
    while beside.is_busy():
        time.sleep(0.01)
    assert never._cache_size() == 0 and len(watch.programs) == 1


def test_programs_are_compiled_with_options_only_where_they_are_known(monkeypatch):
    asked: list[dict] = []
    compile_with = lambda work, compiler_options: asked.append(compiler_options) or work  # noqa: E731
    made = {
        options: compiles.Compiled(jnp.sin, {options: 1})
        for options in ("xla_backend_optimization_level", "xla_option_of_the_past")
    }
    known, unknown = made.values()
    for one in made.values():
        one(0.0)
    monkeypatch.setattr(jax, "jit", compile_with)
    known._made.clear(), unknown._made.clear()
    known._on("gpu"), known._on("cpu"), unknown._on("cpu")
    assert asked == [{}, known._options, {}]


def test_options_do_not_undo_that_fewer_optimizations_are_asked_for(request):
    program = compiles.Compiled(jnp.sin, compiles.OLDER_EMITTER)
    program(0.0)
    request.getfixturevalue("quick_compile")
    program(0.0)
    assert set(program._made) == {True, False}


@pytest.mark.parametrize("options", [compiles.OLDER_EMITTER, {"xla_option_of_the_past": 1}])
def test_a_program_with_options_may_be_a_part_of_another_one(options):
    def work(x, *, times):
        return times * x

    made = compiles.Compiled(work, options, static_argnames="times")
    assert made(2.0, times=3) == 6.0 and jax.jit(lambda x: made(x, times=3))(2.0) == 6.0
    assert made._cache_size() == 1
    known = options is compiles.OLDER_EMITTER
    assert compiles._known(tuple(options.items())) == known
    assert made.lower(2.0, times=3, platform="cpu").compile()(2.0) == 6.0


def test_seconds_of_programs_inside_one_another_or_side_by_side_are_counted_once():
    busy = compiles._Spans()
    for start, end in [(1, 2), (3, 4), (2.5, 5), (7, 8), (7.5, 9), (8.5, 8.9)]:
        busy.add(start, end)
    assert busy.seconds == pytest.approx((2 - 1) + (5 - 2.5) + (9 - 7))


def test_a_run_of_many_steps_keeps_few_spans_of_compiling(monkeypatch):
    """Seen: after 15,000 steps, each of which traces something, half of a step went into a sum."""
    monkeypatch.setattr(compiles._Spans, "KEPT", 3)
    busy = compiles._Spans()
    for step in range(100):
        busy.add(step, step + 0.25)
        assert len(busy._last) <= 3
        assert busy.seconds == pytest.approx(0.25 * (step + 1))
    busy.add(98.125, 100)  # holds one whole span, and part of another
    assert busy.seconds == pytest.approx(98 * 0.25 + (100 - 98))
    busy.add(0, 200)  # more than what is kept
    assert busy.seconds == pytest.approx(97 * 0.25 + (200 - 96.25))


def test_float32_is_multiplied_in_full_unless_the_user_said_otherwise(monkeypatch):
    def chosen(dtype: str, before: str | None) -> str | None:
        jax.config.update("jax_default_matmul_precision", before)
        compiles.set_matmul_precision(dtype)
        return jax.config.jax_default_matmul_precision

    was = jax.config.jax_default_matmul_precision
    try:
        assert chosen("float32", None) == "highest"
        assert chosen("float32", "tensorfloat32") == "tensorfloat32"
        assert chosen("bfloat16", None) is None
    finally:
        jax.config.update("jax_default_matmul_precision", was)
