"""The lock of a work directory in a bucket, against an emulator; lock_test.py has that on disk."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_jax.buckets import places
from score_jax.buckets.client import Folder
from score_jax.problem import InputError
from score_jax.workdir import lock, lock_files
from tests.emulator import BUCKET
from tests.workdir.lock_test import assert_one_of_four_takes

ROOT = Path(__file__).parents[2]
HOLDS = """
import pathlib, sys, time
from score_jax.buckets import places
from score_jax.workdir import lock
lock.RENEW_SEC = 0.05
with lock.held(places.stands_for(pathlib.Path(sys.argv[1]), sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path, store) -> Path:
    """A folder that stands for one in the bucket."""
    return places.stands_for(tmp_path, f"gs://{BUCKET}/{tmp_path.name}")


@pytest.fixture
def quick(monkeypatch):
    for name, seconds in (("RENEW_SEC", 0.05), ("WATCH_SEC", 0.6), ("_LOOK_SEC", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


def of(place: Path) -> Folder:
    return Folder(places.url_of(place))


def write(place: Path, **changes) -> int:
    """A lock of a process that is not there; by default of this machine."""
    own = {**lock._myself(), "process": 2**22 + 1, **changes}
    return of(place).upload(lock.NAME, json.dumps(own).encode())


def test_the_second_is_refused_while_the_first_lives_and_not_once_it_was_killed(place):
    url = places.url_of(place)
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, place / "other", url],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout and first.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"process {first.pid} .*is at work in {url}, and two"):
        lock.held(place).__enter__()
    assert lock.is_held(place)
    first.kill()
    first.wait()
    with lock.held(place):
        assert json.loads(of(place).read(lock.NAME)[0])["process"] == os.getpid()
    assert not of(place).files() and not lock.is_held(place)


def test_a_lock_of_another_host_is_in_the_way_only_while_it_is_renewed(place, quick, capsys):
    write(place, machine="another", host="there")
    began = time.monotonic()
    with lock.held(place):
        assert time.monotonic() - began > lock.WATCH_SEC
    assert f"{places.url_of(place)}/lock.json is of another run" in capsys.readouterr().out

    write(place, machine="another", host="there", process=7)
    ended = threading.Event()

    def renew():
        while not ended.wait(0.1):
            write(place, machine="another", host="there", process=7)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(InputError, match="process 7 on there"):
            lock.held(place).__enter__()
    finally:
        ended.set()
        thread.join()
    assert of(place).files()


def test_a_lock_is_renewed_and_one_that_ends_in_time_is_waited_for(place, quick):
    file = lock_files.of(place)
    with lock.held(place):
        first = file.stamp()
        time.sleep(0.4)
        assert file.stamp() != first
    write(place, machine="another")
    threading.Timer(0.2, of(place).delete, [lock.NAME]).start()
    with lock.held(place):
        pass


def test_of_many_that_find_a_dead_lock_one_gets_it(place):
    for _ in range(5):
        write(place)
        assert_one_of_four_takes(place)


def test_a_run_whose_folder_another_host_took_over_ends(place):
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDS, place / "other", places.url_of(place)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert first.stdout and first.stdout.readline() == "held\n"
    write(place, host="there", process=7)
    assert first.wait(timeout=20) == 74
    assert first.stderr and "process 7 on there" in first.stderr.read()
