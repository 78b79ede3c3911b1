"""Memory of processes as the kernel counts it."""

import subprocess
import sys

import pytest

from score_jax.rewards.sandbox.linux import proc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")


def test_memory_is_counted_beyond_what_a_fork_shares():
    def holding(megabytes: int) -> subprocess.Popen:
        code = f"x = b'x' * ({megabytes} << 20); print(flush=True); input()"
        started = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert started.stdout and started.stdout.readline()
        return started

    with holding(0) as small, holding(100) as large:
        # Each is asked about twice, as program and as tester.
        assert proc.held_bytes([small.pid] * 2) == 0
        more = proc.held_bytes([large.pid] * 2) - 2 * (100 << 20) + 2 * proc.SHARED_BYTES
        assert 0 < more < 2 * (20 << 20)  # the interpreter itself
        small.kill()
        large.kill()
