"""One run at a time in a folder, and locks that dead runs left."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_jax.problem import InputError
from score_jax.workdir import lock, lock_files

ROOT = Path(__file__).parents[2]
HOLDS = """
import pathlib, sys, time
from score_jax.workdir import lock
with lock.held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def quick(monkeypatch):
    """Locks are renewed and watched in fractions of a second."""
    for name, seconds in (("RENEW_SEC", 0.05), ("WATCH_SEC", 0.6), ("_LOOK_SEC", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


def write(folder: Path, **changes) -> Path:
    """A lock of a process that is not there; by default of this machine."""
    path = folder / lock.NAME
    path.write_text(json.dumps({**lock._myself(), "process": 2**22 + 1, **changes}))
    return path


def test_the_second_is_refused_while_the_first_lives_and_not_once_it_was_killed(tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout and first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"process {first.pid} .*is at work in {tmp_path}"):
        lock.held(tmp_path).__enter__()
    first.kill()
    deadline = time.monotonic() + 10
    while lock._started(first.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    # It is a zombie now: nobody has waited for it.
    with lock.held(tmp_path):
        assert json.loads((tmp_path / lock.NAME).read_text())["process"] == os.getpid()
    first.wait()
    assert not any(tmp_path.iterdir())


def test_a_process_that_took_the_number_of_a_dead_one_does_not_count(tmp_path):
    write(tmp_path, process=os.getpid(), started="1")
    with lock.held(tmp_path):
        pass


@pytest.mark.parametrize("text", [None, "", "[]"])
def test_a_lock_of_another_host_is_in_the_way_only_while_it_is_renewed(
    tmp_path, quick, text, capsys
):
    path = write(tmp_path, machine="another", host="there")
    if text is not None:
        path.write_text(text)  # of a process that was killed while it wrote
    began = time.monotonic()
    with lock.held(tmp_path):
        assert time.monotonic() - began > lock.WATCH_SEC
    assert "watching it for" in capsys.readouterr().out

    path = write(tmp_path, machine="another", host="there", process=7)
    ended = threading.Event()

    def renew():
        while not ended.wait(0.1):
            os.utime(path)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 7 on there"):
            lock.held(tmp_path).__enter__()
    finally:
        ended.set()
        thread.join()
    assert path.exists()


def test_a_lock_is_renewed_and_one_that_ends_in_time_is_waited_for(tmp_path, quick):
    with lock.held(tmp_path):
        first = lock.lock_files.of(tmp_path).stamp()
        time.sleep(0.2)
        assert lock.lock_files.of(tmp_path).stamp() != first
    path = write(tmp_path, machine="another")
    threading.Timer(0.2, path.unlink).start()
    with lock.held(tmp_path):
        pass


def assert_one_of_four_takes(place: Path) -> None:
    """Four threads find a dead lock at once."""
    got, refused = [], []
    ready = threading.Barrier(4)

    def take():
        ready.wait()
        try:
            got.append(lock._take(place))
        except InputError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1 and len(refused) == 3
    got[0].release()


def test_of_many_that_find_a_dead_lock_one_gets_it(tmp_path):
    for _ in range(20):
        write(tmp_path)
        assert_one_of_four_takes(tmp_path)


def test_a_lock_that_is_made_while_there_seems_to_be_none_stays(tmp_path, monkeypatch):
    file = lock_files.of(tmp_path)
    write(tmp_path, process=7, host="there")
    monkeypatch.setattr(file, "stamp", lambda: None)  # a moment ago
    assert not file.remove_left(None)
    assert json.loads((tmp_path / "lock.json").read_text())["process"] == 7


def test_a_lock_that_a_quicker_process_has_taken_over_is_given_back(tmp_path, monkeypatch):
    path, real = write(tmp_path), lock._started

    def started(process: int) -> str:
        if process != os.getpid():  # the dead one is looked at; then another process takes over
            write(tmp_path, process=7, host="there")
            return ""
        return real(process)

    monkeypatch.setattr(lock, "_started", started)
    with pytest.raises(InputError, match="process 7 on there"):
        lock.held(tmp_path).__enter__()
    assert json.loads(path.read_text())["process"] == 7


def test_a_run_whose_folder_another_host_took_over_ends(tmp_path):
    program = HOLDS.replace("with", "lock.RENEW_SEC = 0.05\nwith")
    first = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stdout and first.stdout.readline() == "held\n"
    write(tmp_path, host="there", process=7)
    assert first.wait(timeout=20) == 74
    assert first.stderr and "process 7 on there" in first.stderr.read()


def test_a_folder_that_cannot_be_written_is_refused_or_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write to the work directory"):
        lock.held(tmp_path / "file" / "run").__enter__()
    with lock.held(tmp_path, read_only=True) as writes:
        assert writes


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    with lock.held(tmp_path / "run"):
        assert (tmp_path / "run" / lock.NAME).exists()
    assert not (tmp_path / "run").exists()
