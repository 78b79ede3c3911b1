"""A phase that hangs ends its process, and the message names it."""

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from score_jax.config.settings import WatchdogSettings
from score_jax.runtime.watchdog import HUNG, Watchdog

ROOT = Path(__file__).resolve().parents[2]


def process(body: str) -> subprocess.CompletedProcess:
    """Runs `body` with a watchdog in a process of its own."""
    script = """
        import time
        from score_jax.config.settings import WatchdogSettings
        from score_jax.runtime.watchdog import Watchdog
        watchdog = Watchdog(WatchdogSettings(rollout=0.2, grade=0.2, evaluation=60.0))
        watchdog.at("stage1", 12)

        def never_ends():
            time.sleep(100)
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script) + textwrap.dedent(body)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_phase_that_hangs_is_named_with_step_host_and_stacks():
    done = process("""
        with watchdog.phase("rollout"):
            pass
        with watchdog.phase("evaluation"), watchdog.phase("grade"):
            never_ends()
    """)
    assert done.returncode == HUNG
    assert re.search(
        r"the phase 'grade' \(step 12 of stage1\) has taken more than config\.watchdog\.grade=0\.2 "
        r"seconds in process 0 on \S+\. It probably hangs",
        done.stderr,
    ), done.stderr
    assert "in never_ends" in done.stderr and "Thread" in done.stderr


def test_a_phase_that_gets_on_has_its_limit_from_there():
    done = process("""
        with watchdog.phase("evaluation"), watchdog.phase("grade"):
            for _ in range(6):
                time.sleep(0.1)
                watchdog.goes_on()
            print("went on", flush=True)
            never_ends()
    """)
    assert done.returncode == HUNG and done.stdout == "went on\n"
    assert "the phase 'grade'" in done.stderr


@pytest.mark.parametrize("limit_sec", [0.0, 30.0])
def test_a_phase_that_ends_in_time_or_has_no_limit_does_not_end_the_process(limit_sec):
    watchdog = Watchdog(WatchdogSettings(grade=limit_sec))
    for _ in range(3):
        with watchdog.phase("grade"):
            time.sleep(0.01)
    with pytest.raises(KeyError), watchdog.phase("grade"):
        raise KeyError
