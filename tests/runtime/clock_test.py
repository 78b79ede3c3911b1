"""Seconds of phases, with compiling kept apart."""

import time

import jax
import numpy as np

from score_jax.runtime.clock import Clock
from score_jax.runtime.compiles import Watch


def test_seconds_of_compiling_are_counted_once_and_belong_to_no_phase():
    def slow(x):
        time.sleep(0.2)  # while it is traced, inside another function that is traced
        return jax.numpy.sin(x)

    with Watch() as watch:
        clock = Clock(watch.compile_sec)
        began = clock.now()
        with clock.phase("evaluation"):
            jax.jit(lambda x: jax.jit(slow)(x))(np.ones(3)).block_until_ready()
            time.sleep(0.05)
        elapsed = clock.now() - began
        found = clock.taken()
        assert 0.2 <= found["sec/compile"] < 0.4 + 0.2  # and not once for each function
        assert 0.05 <= found["sec/evaluation"] <= elapsed < found["sec/compile"]
        assert found["sec/save"] == 0.0
        assert not any(clock.taken().values())  # each second is told once


def test_a_phase_that_fails_is_counted_and_one_of_a_step_is_not():
    clock = Clock()
    for name in ("save", "grade"):
        try:
            with clock.phase(name):
                time.sleep(0.01)
                raise OSError
        except OSError:
            pass
    found = clock.taken()
    assert found["sec/save"] >= 0.01 and set(found) == {
        "sec/compile",
        "sec/evaluation",
        "sec/save",
    }
