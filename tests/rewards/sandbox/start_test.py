"""Which sandbox is chosen, when none is, and that its processes end when they should."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from score_jax.problem import InputError
from score_jax.rewards.sandbox import launch, scarce, self_test, start
from score_jax.rewards.sandbox.scarce import MachineGone
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import other_machines, sandboxes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

RIGHT = Job("def f(x): return x", ("assert f(1) == 1",))
WRONG = Job("def f(x): return 2", ("assert f(1) == 1",))
HANGING = Job("while True: pass", ("assert f(1) == 1",))


@pytest.fixture(autouse=True)
def _fresh():
    start.close()  # another file's, in the same process
    yield
    start.configure.__globals__["_default"] = ("auto", False, start.Packages())
    start.close()


class NoKindWorks:
    """Replaces Sandbox as on a kernel that refuses."""

    def __init__(self, kind: str, packages: object):
        self.kind = kind
        if kind != "none":
            raise start.SandboxGone(f"unshare: no {kind}s here")


class Leaky:
    """A sandbox in which every probe succeeds."""

    def __init__(self, kind: str, packages: object):
        self.kind = kind
        self.closed = False

    def run(self, jobs, timeout_sec, **_):
        return ["passed"] * len(jobs)

    def close(self):
        self.closed = True


def test_without_a_sandbox_programs_are_refused_and_the_message_names_the_fix(monkeypatch):
    monkeypatch.setattr(start, "Sandbox", NoKindWorks)
    with pytest.raises(InputError) as error:
        start.start("auto")
    for words in ("no namespaces here", "no landlocks here", "--privileged", "allow_unsandboxed"):
        assert words in str(error.value)
    with pytest.raises(InputError):
        start.configure("auto")


def test_a_sandbox_in_which_probes_succeed_is_refused(monkeypatch):
    monkeypatch.setattr(start, "Sandbox", Leaky)
    with pytest.raises(InputError, match="namespace: a file was read; a file was written"):
        start.start("namespace")


def test_a_sandbox_in_which_nothing_runs_is_refused(monkeypatch):
    monkeypatch.setattr(Leaky, "run", lambda self, jobs, sec, **_: ["crash"] * len(jobs))
    monkeypatch.setattr(start, "Sandbox", Leaky)
    with pytest.raises(InputError, match="a harmless program does not run"):
        start.start("landlock")


def test_running_without_one_takes_two_settings_and_is_logged_each_time(
    monkeypatch, capsys, caplog
):
    with pytest.raises(InputError, match="allow_unsandboxed=True"):
        start.start("none")
    monkeypatch.setattr(start, "Sandbox", NoKindWorks)
    assert start.start("auto", allow_unsandboxed=True).kind == "none"
    assert "WITHOUT A SANDBOX" in capsys.readouterr().err
    assert "WITHOUT A SANDBOX" in caplog.text


def test_auto_never_takes_none_where_a_sandbox_works():
    sandboxes.need_any()
    assert start.configure("auto", allow_unsandboxed=True) in ("namespace", "landlock")


def test_without_a_sandbox_programs_are_still_kept_apart_from_the_tests(capsys):
    assert start.configure("none", allow_unsandboxed=True) == "none"
    capsys.readouterr()
    always = "class A:\n    __eq__ = lambda s, o: True\ndef f(x): return A()"
    jobs = [RIGHT, WRONG, Job(always, RIGHT.tests), Job("import os; os._exit(0)", RIGHT.tests)]
    assert start.run(jobs, 30.0) == ["passed", "failed", "failed", "crash"]


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_probes_find_the_holes_of_running_without_a_sandbox(kind, capsys):
    box = sandboxes.of_kind(kind)
    assert self_test.holes(box.run) == []
    open_box = start.Sandbox("none")
    try:
        found = self_test.holes(open_box.run)
    finally:
        open_box.close()
    assert {"a file was read", "a file was made", "a process was made"} <= set(found)
    assert len(found) >= 10


def test_a_sandbox_killed_from_outside_is_replaced():
    sandboxes.need_any()
    assert start.run([RIGHT], 30.0) == ["passed"]
    os.kill(start.shared()._process.pid, signal.SIGKILL)
    assert start.run([RIGHT, WRONG], 30.0) == ["passed", "failed"]


def test_the_successor_of_a_sandbox_is_of_the_kind_that_the_logs_name(monkeypatch):
    sandboxes.need_any()
    kind = start.configure("auto", allow_unsandboxed=True)
    os.kill(start.shared()._process.pid, signal.SIGKILL)
    monkeypatch.setattr(self_test, "holes", lambda run: ["a hole"])
    with pytest.raises(MachineGone, match=f"{kind}: a hole"):
        start.run([RIGHT], 30.0)


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_a_forkserver_killed_from_outside_is_replaced(kind):
    box = sandboxes.of_kind(kind)
    for pid in sandboxes.descendants(box._process.pid):
        os.kill(pid, signal.SIGKILL)
    assert box.run([RIGHT, WRONG], 30.0) == ["passed", "failed"]


def test_closing_leaves_no_process_and_no_descriptor():
    sandboxes.need_any()
    before = sandboxes.descriptors()
    box = start.start("auto")
    thread = threading.Thread(target=_run_suppressed, args=(box, [HANGING] * 3))
    thread.start()
    time.sleep(0.5)
    processes = [box._process.pid, *sandboxes.descendants(box._process.pid)]
    assert len(processes) >= 4
    box.close()
    thread.join()
    assert not any(sandboxes.alive(pid) for pid in processes)
    assert sandboxes.descriptors() == before


def _run_suppressed(box: start.Sandbox, jobs: list[Job]) -> None:
    with pytest.raises(start.SandboxGone):
        box.run(jobs, 30.0)


def test_killing_the_trainer_leaves_no_process_even_while_programs_hang():
    sandboxes.need_any()
    program = (
        "import threading, time\nfrom score_jax.rewards.sandbox import start\n"
        "from score_jax.rewards.sandbox.tester import Job\nbox = start.start()\n"
        "job = Job('while True: pass', ('assert f(1)',))\n"
        "threading.Thread(target=box.run, args=([job] * 3, 60.0)).start()\n"
        "time.sleep(0.5)\nprint(box._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert trainer.stdout is not None
    pid = int(trainer.stdout.readline())
    processes = [pid, *sandboxes.descendants(pid)]
    assert len(processes) >= 4
    trainer.kill()
    trainer.wait()
    trainer.stdout.close()
    for _ in range(100):
        if not any(map(sandboxes.alive, processes)):
            break
        time.sleep(0.1)
    assert not any(map(sandboxes.alive, processes))


def test_an_interrupted_batch_leaves_no_program_running():
    sandboxes.need_any()
    box = start.shared()
    idle = set(sandboxes.programs_of(box))
    with pytest.raises(KeyboardInterrupt), box._connect() as connection:
        question = start.json.dumps(
            {"id": 0, "job": vars(HANGING), "timeout_sec": 60.0, "overtime": False}
        )
        connection.sendall(question.encode() + b"\n")
        until = time.monotonic() + 20
        while idle.issuperset(sandboxes.programs_of(box)):
            assert time.monotonic() < until, "the program never started"
            time.sleep(0.05)
        testers = len(sandboxes.testers_of(box))
        raise KeyboardInterrupt

    def gone() -> tuple[bool, bool]:
        programs, left = sandboxes.programs_of(box), sandboxes.testers_of(box)
        return idle.issuperset(programs), len(left) < testers

    for _ in range(50):
        if all(gone()):
            break
        time.sleep(0.1)
    assert gone() == (True, True)


def test_threads_share_the_sandbox_and_a_fork_starts_its_own():
    sandboxes.need_any()
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append(start.run([RIGHT, WRONG], 30.0)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["passed", "failed"]] * 6
    ours = start.shared()._process.pid
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(queue,))
    child.start()
    theirs, reasons = queue.get()
    child.join()
    assert (reasons, theirs != ours) == (["passed", "failed"], True)
    assert start.run([WRONG], 30.0) == ["failed"]


def _in_child(queue) -> None:
    reasons = start.run([RIGHT, WRONG], 30.0)
    queue.put((start.shared()._process.pid, reasons))
    start.close()  # multiprocessing children skip atexit


def test_programs_run_unsandboxed_where_nothing_isolates(monkeypatch, capsys):
    monkeypatch.setattr(launch, "_MAIN", other_machines.main("no_linux"))
    with pytest.raises(InputError, match="not Linux"):
        start.configure()
    assert start.configure(allow_unsandboxed=True) == "none"
    assert "not Linux" in capsys.readouterr().err
    ended = Job("import os; os._exit(0)", RIGHT.tests)
    many = [RIGHT, WRONG, ended, HANGING, *[RIGHT] * 20]
    began = time.monotonic()
    assert start.run(many, 1.0) == ["passed", "failed", "crash", "timeout", *["passed"] * 20]
    assert start.run([HANGING] * 20, 1.0, overtime=True) == ["timeout"] * 20
    assert time.monotonic() - began < 15.0
    processes = sandboxes.descendants(start.shared()._process.pid)
    start.close()
    assert not any(map(sandboxes.alive, processes))


def test_where_not_even_unsandboxed_programs_run_the_message_has_the_last_words(monkeypatch):
    monkeypatch.setattr(launch, "_MAIN", other_machines.main("no_modules"))
    with pytest.raises(InputError, match="not even without a sandbox") as error:
        start.configure(allow_unsandboxed=True)
    for words in ("ended while starting (status 1)", "printed last", "libz.so.1", "-S -c"):
        assert words in str(error.value)


def test_a_machine_that_has_few_processes_is_asked_again(monkeypatch):
    monkeypatch.setattr(launch, "_MAIN", other_machines.main("few_processes"))
    start.configure("none", allow_unsandboxed=True)
    assert start.run([RIGHT, WRONG, RIGHT], 10.0) == ["passed", "failed", "passed"]


def test_a_machine_that_has_no_processes_left_is_not_bad_input(monkeypatch):
    monkeypatch.setattr(launch, "_MAIN", other_machines.main("no_processes"))
    start.configure("none", allow_unsandboxed=True)
    for _ in range(2):
        with pytest.raises(MachineGone, match=r"temporarily unavailable.*ulimit -u") as error:
            start.run([RIGHT, WRONG], 10.0)
        assert isinstance(error.value, OSError)


def test_descriptors_that_are_used_up_are_waited_for(monkeypatch):
    sandboxes.need_any()
    start.configure()
    socketpair, left = start.socket.socketpair, [2]

    def refuse():
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(24, "Too many open files")
        return socketpair()

    monkeypatch.setattr(start.socket, "socketpair", refuse)
    assert start.run([RIGHT], 10.0) == ["passed"]
    left[0] = 1 << 30
    monkeypatch.setattr(scarce, "PATIENCE_SEC", 0.2)
    with pytest.raises(MachineGone, match=r"Too many open files.*ulimit -n"):
        start.run([RIGHT], 10.0)


def test_without_a_folder_for_temporary_files_the_message_names_the_variable(monkeypatch):
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(start.tempfile, "gettempdir", refuse)
    with pytest.raises(InputError, match=r"No usable temporary directory.*Set .* TMPDIR"):
        start.start()


def test_a_python_that_needs_its_library_path_gets_it(monkeypatch, tmp_path):
    """Python is a script here that ends without the variable, as a loader does."""
    sandboxes.need_any()
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$LD_LIBRARY_PATH" = {tmp_path} ] || {{ echo libpython.so >&2; exit 127; }}'
        "\n"
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(launch, "_PYTHON", (str(python), *launch._PYTHON[1:]))
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    launch._library_path.cache_clear()
    with pytest.raises(start.SandboxGone, match=r"status 127.*printed last: libpython.so"):
        start.Sandbox("none")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    launch._library_path.cache_clear()
    box = start.Sandbox("none")
    box.close()
    monkeypatch.undo()
    # It is not handed on where Python starts without it.
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    launch._library_path.cache_clear()
    assert launch._library_path() == {}
    launch._library_path.cache_clear()
