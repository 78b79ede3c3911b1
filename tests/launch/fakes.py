"""Stand-ins for gcloud, kubectl, srun, …: they note how they were called and answer by list.

tools = Tools(folder)
tools.answer("gcloud", "describe", out="READY")        the first call with `describe` in its line
tools.answer("gcloud", "describe", out="PREEMPTED")    the second and all later ones
done = tools.run("launch/tpu_vm.sh", "--name=x", …)
tools.calls("gcloud")                                  lists of words, in the order of the calls
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# As a program: its own name says whom it stands for. An answer is claimed by making a folder, which
# one of two calls at a time can do.
_TOOL = """#!{python} -SE
import json, os, pathlib, signal, sys, time

here = pathlib.Path(__file__).parent.parent
name = pathlib.Path(sys.argv[0]).name
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
line = " ".join(sys.argv[1:])
mine = [a for a in json.loads((here / "answers.json").read_text())
        if a["tool"] == name and a["when"] in line]
said = None
for answer in mine:
    said = answer
    try:
        os.mkdir(here / f"answer{{answer['number']}}")
        break
    except FileExistsError:
        pass
if said is None:
    sys.exit(0)
heard = []
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda n, _: heard.append(n))
if said["stdin"]:
    (here / said["stdin"]).write_text(sys.stdin.read())
print(said["out"], flush=True)
print(said["err"], end="", file=sys.stderr, flush=True)
(here / f"saying{{said['number']}}").touch()
if said["touch"]:
    (here / said["touch"]).touch()
until = said["until"]
while until and not (heard if until == "signal" else (here / until).exists()):
    time.sleep(0.02)
if heard:
    (here / "heard").write_text(" ".join(map(str, heard)))
sys.exit(said["status"])
"""


class Tools:
    """A folder of fake programs, first on PATH of what is run with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._answers: list[dict[str, object]] = []
        (folder / "bin").mkdir(parents=True)
        self._write()

    def answer(
        self,
        tool: str,
        when: str,
        *,
        out: str = "",
        err: str = "",
        status: int = 0,
        until: str = "",
        touch: str = "",
        stdin: str = "",
    ) -> int:
        """What `tool` answers, once, or from then on if it is the last one that fits.

        when: a piece of the call's line. until: a file in the folder to wait for, or "signal".
        touch: a file to make. stdin: a file for what it is given to read. Returns its number.
        """
        number = len(self._answers)
        self._answers.append(
            {"tool": tool, "when": when, "out": out, "err": err, "status": status}
            | {"until": until, "touch": touch, "stdin": stdin, "number": number}
        )
        self._write()
        return number

    def _write(self) -> None:
        (self.folder / "answers.json").write_text(json.dumps(self._answers))
        for tool in {str(answer["tool"]) for answer in self._answers}:
            path = self.folder / "bin" / tool
            if not path.exists():
                path.write_text(_TOOL.format(python=sys.executable))
                path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        """What scripts see: these programs first, no long waits."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        own = {"LOOK_SEC": "0", "CAPACITY_SEC": "0", "TMPDIR": str(self.folder)}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "TPU_"))}
        return {**kept, "PATH": path, **own, **more}

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen:
        """Starts a script of the repository, or one with an absolute path, with bash."""
        return subprocess.Popen(
            ["bash", str(ROOT / script), *arguments],
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return self.finish(self.start(script, *arguments, **environment))

    def finish(self, started: subprocess.Popen) -> subprocess.CompletedProcess:
        try:
            out, err = started.communicate(timeout=60)
        finally:
            if started.poll() is None:
                self.hang_up(started)
        return subprocess.CompletedProcess(started.args, started.returncode, out, err)

    def hang_up(self, started: subprocess.Popen) -> None:
        """Kills the script and what it runs, but not what it has put into a session of its own."""
        os.killpg(started.pid, signal.SIGKILL)
        started.communicate(timeout=30)

    def wait_for(self, number: int) -> None:
        """Until answer `number` is being given."""
        wait_until((self.folder / f"saying{number}").exists)

    def calls(self, tool: str) -> list[list[str]]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call[1:] for call in map(json.loads, lines) if call[0] == tool]


def wait_until(true, timeout_sec: float = 30) -> None:
    end = time.monotonic() + timeout_sec
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
