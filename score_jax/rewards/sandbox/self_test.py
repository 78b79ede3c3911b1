"""Attacks on the sandbox, run before it is trusted: each must fail on this machine.

A feature that the kernel claims to have may be switched off, incomplete, or undone by a container.
So the kernel is not asked: the attacks are run as programs are graded. Each probe is a program
whose attack() returns True if it succeeded.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from score_jax.rewards.sandbox.tester import Job

Run = Callable[[Sequence[Job], float], list[str]]

_HARMLESS = "import colorsys, math\ndef attack():\n    return math.comb(5, 2) == 10"
_TIMEOUT_SEC = 10.0

# {folder}, {letter}, {secret}, {port}, {pid} are made outside of the sandbox for this test. The
# probes run at the same time, so some read the letter and others write, empty or remove the secret.
_PROBES = {
    "a file was read": "return open({letter!r}).read() != ''",
    "a file was written": "open({secret!r}, 'a').write('x'); return True",
    "a file was emptied": "import os; os.truncate({secret!r}, 0); return True",
    "a file was made": "open({folder!r} + '/made', 'w').close(); return True",
    "a file was removed": "import os; os.remove({secret!r}); return True",
    "a folder was made": "import os; os.mkdir({folder!r} + '/folder'); return True",
    "rights of a file were changed": "import os; os.chmod({secret!r}, 0o777); return True",
    "times of a file were changed": "import os; os.utime({secret!r}, (0, 0)); return True",
    "the environment of the trainer was read": (
        "return open('/proc/{pid}/environ', 'rb').read(1) is not None"
    ),
    "a connection was made": (
        "import socket; socket.create_connection(('127.0.0.1', {port}), 2); return True"
    ),
    "a socket was made": "import socket; socket.socket(socket.AF_UNIX); return True",
    "a process was made": "import os; os.fork(); return True",
    "a program was run": "import os; os.execv('/bin/true', ['true']); return True",
    "a signal was sent to the trainer": "import os; os.kill({pid}, 0); return True",
    "a signal was sent to all": "import os; os.kill(-1, 0); return True",
    "2 GB were taken": "return len(bytearray(2 << 30)) > 0",
}


def holes(run: Run) -> list[str]:
    """The attacks that succeeded, or why nothing runs at all; empty if the sandbox holds."""
    with (
        tempfile.TemporaryDirectory(prefix="score_jax_probe_") as folder,
        socket.create_server(("127.0.0.1", 0)) as listener,  # unanswered connections succeed too
    ):
        os.chmod(folder, 0o777)  # no rights forbid anything, so that only the sandbox can
        files = [Path(folder) / name for name in ("letter", "secret")]
        for file in files:
            file.write_text("secret")
            file.chmod(0o666)
        values = {
            "folder": folder,
            "letter": str(files[0]),
            "secret": str(files[1]),
            "port": listener.getsockname()[1],
            "pid": os.getpid(),
        }
        attacks = [f"def attack():\n    {attack.format(**values)}" for attack in _PROBES.values()]
        jobs = [Job(program, ("assert attack()",)) for program in (_HARMLESS, *attacks)]
        harmless, *reasons = run(jobs, _TIMEOUT_SEC)
        untouched = sorted(Path(folder).iterdir()) == files and all(
            file.read_text() == "secret" for file in files
        )
    if harmless != "passed":
        return [f"a harmless program does not run ({harmless})"]
    succeeded = [name for name, reason in zip(_PROBES, reasons, strict=True) if reason == "passed"]
    return succeeded or ([] if untouched else ["files were changed"])
