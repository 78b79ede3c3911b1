"""The filter of system calls for both machines, run by a small interpreter of instructions."""

import os
import re
from pathlib import Path

import pytest

from score_jax.rewards.sandbox.linux import seccomp

ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050026
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def judge(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the kernel would do with a call."""
    data = number.to_bytes(4, "little")
    data += (architecture or MACHINES[machine]).to_bytes(4, "little") + bytes(8)
    for place in range(6):
        value = arguments[place] if place < len(arguments) else 0
        data += (value & (2**64 - 1)).to_bytes(8, "little")
    word, at = 0, 0
    rules = seccomp.program(machine)
    while True:
        code, if_true, if_false, operand = rules[at]
        at += 1
        if code == 0x20:
            word = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x54:
            word &= operand
        elif code == 0x15:
            at += if_true if word == operand else if_false
        elif code == 0x25:
            at += if_true if word > operand else if_false
        else:
            assert code == 0x06
            return operand


def number(machine: str, name: str) -> int:
    known = seccomp.allowed(machine) | seccomp.by_arguments(machine)
    return known[name]


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_the_list_are_allowed_and_all_others_refused(machine):
    listed = set(seccomp.allowed(machine).values())
    others = set(seccomp.by_arguments(machine).values())
    assert not listed & others
    for one in range(600):
        if one not in others:
            assert judge(machine, one, 1, 2, 3) == (ALLOW if one in listed else REFUSE), one


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_of_another_machine_kill_and_those_of_x32_are_refused(machine):
    assert judge(machine, number(machine, "read"), architecture=0x40000003) == KILL
    assert judge(machine, 0x40000000 | number(machine, "read")) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "verdict"),
    [
        ("clone", (0x3D0F00,), ALLOW),  # as glibc makes a thread
        ("clone", (0x1200011,), REFUSE),  # as it forks
        ("clone", (0x10000 << 32,), REFUSE),
        ("openat", (-100, 1, os.O_RDONLY), ALLOW),
        ("openat", (-100, 1, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), ALLOW),
        ("openat", (-100, 1, os.O_RDONLY | os.O_TRUNC), REFUSE),
        ("openat", (-100, 1, os.O_RDONLY | os.O_TRUNC | os.O_CLOEXEC), REFUSE),
        ("fcntl", (3, 2, 1), ALLOW),  # F_SETFD
        ("fcntl", (3, 1030), ALLOW),
        ("fcntl", (3, 8, 1), REFUSE),  # F_SETOWN
        ("fcntl", (3, 10, 9), REFUSE),  # F_SETSIG
        ("fcntl", (3, 15), REFUSE),  # F_SETOWN_EX
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), REFUSE),  # TIOCSTI
        ("ioctl", (0, 0x8901), REFUSE),  # FIOSETOWN
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1234, 7), REFUSE),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (2, 1), REFUSE),
        ("sendto", (3, 1, 1, 0, 0), ALLOW),
        ("sendto", (3, 1, 1, 0, 5), REFUSE),
        ("sendto", (3, 1, 1, 0, 5 << 32), REFUSE),
    ],
)
def test_some_calls_depend_on_their_arguments(machine, name, arguments, verdict):
    assert judge(machine, number(machine, name), *arguments) == verdict


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_those_of_the_kernels_headers(machine):
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed")
    text = header.read_text()
    kernels = {m[1]: int(m[2]) for m in re.finditer(r"#define __NR(?:3264)?_(\w+) (\d+)\b", text)}
    kernels.setdefault("newfstatat", kernels.get("fstatat", -1))
    ours = seccomp.allowed(machine) | seccomp.by_arguments(machine)
    assert {name: kernels.get(name) for name in ours} == ours


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(OSError, match="riscv64"):
        seccomp.program("riscv64")
