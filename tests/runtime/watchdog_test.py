"""A phase that hangs ends its process, and the message names it."""

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from score_jax.config.settings import WatchdogSettings
from score_jax.runtime.watchdog import HUNG, Watchdog

ROOT = Path(__file__).resolve().parents[2]


def script(body: str) -> list[str]:
    """A command that runs `body` with a watchdog."""
    head = """
        import time
        from score_jax.config.settings import WatchdogSettings
        from score_jax.runtime.watchdog import Watchdog
        watchdog = Watchdog(
            WatchdogSettings(rollout=0.2, grade=0.2, save=1.0, evaluation=60.0)
        )
        watchdog.at("stage1", 12)

        def never_ends():
            time.sleep(100)
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)]


def process(body: str) -> subprocess.CompletedProcess:
    """Runs `body` with a watchdog in a process of its own."""
    return subprocess.run(script(body), cwd=ROOT, capture_output=True, text=True, timeout=60)


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
            for _ in range(15):
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


def test_time_in_which_the_process_was_stopped_does_not_count():
    body = """
        with watchdog.phase("save"):
            print("begun", flush=True)
            for _ in range(7):
                time.sleep(0.1)
    """
    with subprocess.Popen(script(body), cwd=ROOT, stdout=subprocess.PIPE) as stopped:
        assert stopped.stdout.readline() == b"begun\n"
        stopped.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait(60) == 0


def test_phases_are_watched_by_one_thread_which_ends_after_them():
    watchdog = Watchdog(WatchdogSettings(grade=30.0, evaluation=30.0))
    with watchdog.phase("evaluation"):
        for _ in range(100):
            with watchdog.phase("grade"):
                watchdog.goes_on()
        watching = [thread for thread in threading.enumerate() if thread.name == "watchdog"]
        assert len(watching) == 1
    watching[0].join(10)
    assert not watching[0].is_alive()
    with watchdog.phase("grade"):
        assert any(thread.name == "watchdog" for thread in threading.enumerate())
