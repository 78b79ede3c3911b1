"""Programs that try what else the kernel offers: each returns the sum only if it succeeded.

attacks.py calls Python's own functions. Here a system call is made by its number on x86_64, or by
the C library. On other machines the numbers are other calls, refused or harmless.
"""
# ruff: noqa: E501

from tests.rewards.sandbox.attacks import WRONG, in_call


def _call(number: int, *arguments: str) -> str:
    """A system call that must not succeed."""
    words = ", ".join(f"ctypes.c_long({one})" for one in (str(number), *arguments))
    return in_call(f"import ctypes\nif ctypes.CDLL(None).syscall({words}) >= 0: return a + b")


def _library(call: str) -> str:
    """A call of the C library that must not succeed."""
    return in_call(f"import ctypes\nlib = ctypes.CDLL(None)\nif lib.{call} >= 0: return a + b")


REACHING = {
    "writes its own memory through /proc": in_call("open('/proc/self/mem', 'r+b'); return a + b"),
    "its own program": in_call("if open('/proc/self/exe', 'rb').read(1): return a + b"),
    "the system's settings": in_call("import os\nif os.listdir('/sys'): return a + b"),
    "the machine's memory": in_call("open('/dev/mem', 'rb'); return a + b"),
    "the terminal": in_call("open('/dev/tty', 'w').write('x'); return a + b"),
    "shared memory folder": in_call("open('/dev/shm/left', 'w').write('x'); return a + b"),
    "is traced": _library("ptrace(0, 0, 0, 0)"),
    "reads another's memory": _call(310, "{pid}", "0", "0", "0", "0", "0"),
    "io_uring": _call(425, "4", "0"),
    "userfaultfd": _call(323, "1"),
    "a key in the kernel": _call(250, "0", "-3", "1"),
    "a program in the kernel": _call(321, "5", "0", "0"),
    "performance counters": _call(298, "0", "0", "-1", "-1", "0"),
    "watches files": _library("inotify_init1(0)"),
    "watches all files": _library("fanotify_init(0, 0)"),
    "a memory file by number": _call(319, "0", "0"),
    "a secret memory file": _call(447, "0"),
    "a handle of the trainer": _call(434, "{pid}", "0"),
    "a file by its handle": _call(304, "3", "0", "0"),
    "a process by vfork": in_call(
        "import ctypes, os\nif ctypes.CDLL(None).syscall(58) == 0: os._exit(0)\n"
    ),
    "a process by clone3": _call(435, "0", "0"),
    "a session of its own": in_call(
        "import os\nos.setsid()\nif os.fork() == 0:\n  os.setsid()\n  if os.fork(): os._exit(0)\nreturn a + b"
    ),
    "runs an open file": _call(322, "-100", "0", "0", "0", "0"),
    "stops all": in_call("import os, signal\nos.kill(-1, signal.SIGSTOP); return a + b"),
    "stops its thread's process": in_call(
        "import signal, threading\nsignal.pthread_kill(threading.get_ident(), 19); return a + b"
    ),
    "semaphores": _library("semget(7, 1, 0o1666)"),
    "shared segments": _library("shmget(7, 4096, 0o1666)"),
    "a named semaphore": in_call(
        "import multiprocessing\nmultiprocessing.Semaphore(); return a + b"
    ),
    "a named queue": _library("mq_open(b'/left', 0o102, 0o666, 0)"),
    "a sparse terabyte": in_call("open('/tmp/x', 'wb').truncate(1 << 40); return a + b"),
    "a terabyte by seeking": in_call(
        "f = open('/tmp/x', 'wb'); f.seek(1 << 40); f.write(b'x'); f.close(); return a + b"
    ),
    "thousands of files": in_call(
        "for n in range(5000): open('/tmp/%d' % n, 'x').close()\nreturn a + b"
    ),
    "a link to a secret": in_call(
        "import os\nos.symlink({secret!r}, '/tmp/x')\nif open('/tmp/x').read(): return a + b"
    ),
    "a hard link to a secret": in_call("import os\nos.link({secret!r}, '/tmp/x'); return a + b"),
    "a link in place of a folder": in_call(
        "import os\nos.mkdir('/tmp/d'); os.rmdir('/tmp/d'); os.symlink({folder!r}, '/tmp/d')\n"
        "open('/tmp/d/left', 'w').write('x'); return a + b"
    ),
    "a device of its own": in_call("import os\nos.mknod('/tmp/x', 0o60666, 256); return a + b"),
    "a set-uid file": in_call(
        "import os\nos.close(os.open('/tmp/x', os.O_CREAT | os.O_WRONLY, 0o4777))\n"
        "os.chmod('/tmp/x', 0o4777); return a + b"
    ),
    "a library of its own": in_call(
        "import ctypes, glob, shutil\nfor path in glob.glob('/lib/*/libm.so.6') + glob.glob('/usr/lib*/libm.so.6'):\n"
        "  shutil.copyfile(path, '/tmp/m.so'); ctypes.CDLL('/tmp/m.so'); return a + b"
    ),
    "packages": in_call("import numpy\nreturn a + b"),
    "this project's tester": in_call("from score_jax.rewards.sandbox import tester\nreturn a + b"),
    "a virtual socket": in_call("import socket\nsocket.socket(40, 1); return a + b"),
    "a kernel socket": in_call("import socket\nsocket.socket(16, 3, 0); return a + b"),
    "an internet socket pair": in_call(
        "import socket\nsocket.socketpair(socket.AF_INET); return a + b"
    ),
    "sends a descriptor": in_call(
        "import socket\nl, r = socket.socketpair()\nsocket.send_fds(l, [b'x'], [0]); return a + b"
    ),
    "a larger pipe": in_call(
        "import fcntl, os\nfcntl.fcntl(os.pipe()[1], 1031, 1 << 20); return a + b"
    ),
    "sets the clock": in_call(
        "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time()); return a + b"
    ),
    "names the host": in_call("import socket\nsocket.sethostname('x'); return a + b"),
    "runs before others": in_call("import os\nos.nice(-5); return a + b"),
    "runs in real time": in_call(
        "import os\nos.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)); return a + b"
    ),
    "locks memory": _library("mlockall(1)"),
    "reads the kernel's log": _library("klogctl(10, 0, 0)"),
    "another filter": _library("prctl(22, 0, 0, 0, 0)"),
    "does not die with its parent": _library("prctl(1, 0, 0, 0, 0)"),
    "old segments": _call(154, "0", "0", "0"),
    "leaves through an open folder": in_call(
        "import os\nfd = os.open('/', os.O_RDONLY)\nos.chroot('/tmp'); os.fchdir(fd); return a + b"
    ),
}

HANGING = {
    "reads random numbers for ever": in_call(
        "f = open('/dev/urandom', 'rb')\nwhile True: f.read(1 << 16)"
    ),
    "waits for a lock that it has": in_call(
        "import threading\nl = threading.Lock(); l.acquire(); l.acquire()"
    ),
    "waits for a signal": in_call("import signal\nsignal.sigwait([signal.SIGUSR1])"),
    "exception that never tells": (
        "class Mine(Exception):\n    def __str__(self):\n        while True: pass\n"
        + in_call("raise Mine")
    ),
    "names that never end": (
        "class M(type):\n    def __getattribute__(cls, name):\n        while True: pass\n"
        "class add(metaclass=M): pass"
    ),
}

FORGING = {  # by what they leave running
    "threads that go on": (
        "import threading\nfor _ in range(4): threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()"
        + WRONG
    ),
    "threads that exit": (
        "import os, sys, threading\nthreading.Thread(target=sys.exit).start()\n"
        "threading.Timer(0.01, os._exit, [0]).start()" + WRONG
    ),
    "a timer": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)" + WRONG,
    "a watchdog": "import faulthandler, os\nf = open(os.devnull, 'w')\nfaulthandler.dump_traceback_later(0.01, exit=True, file=f)"
    + WRONG,
    "locks on shared files": (
        "import fcntl, os\nfcntl.flock(open(os.__file__), fcntl.LOCK_EX)\nf = open(os.__file__)"
        + WRONG
    ),
}
