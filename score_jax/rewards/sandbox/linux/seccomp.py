"""The system calls that a model's program may make: a filter that the kernel applies, seccomp.

It is a list of allowed calls. All others, and those that Linux gets later, fail with "no such call"
(ENOSYS), as on an older kernel. Allowed: reading and writing open files, opening files (the file
system or Landlock decides which), memory, threads, clocks, signals to itself. Not allowed: new
processes, other programs, signals to others, connections, changes of rights, owners or times,
limits of other processes. Some calls are allowed or not by their arguments (_BY_ARGUMENTS).

Known machines: x86_64 and aarch64. On others there is no filter, so no sandbox.
Source of the numbers: Linux 6.1, asm/unistd_64.h and asm-generic/unistd.h.
"""

import ctypes
import functools
import os
import platform

from score_jax.rewards.sandbox.linux import syscalls

# name:number on x86_64:number on aarch64, where it has one
_ALLOWED = """
    read:0:63 write:1:64 readv:19:65 writev:20:66 pread64:17:67 pwrite64:18:68 preadv:295:69
    pwritev:296:70 lseek:8:62 close:3:57 close_range:436:436 dup:32:23 dup2:33: dup3:292:24
    pipe:22: pipe2:293:59 flock:73:32 fsync:74:82 fdatasync:75:83 ftruncate:77:46
    fadvise64:221:223 stat:4: fstat:5:80 lstat:6: newfstatat:262:79 statx:332:291 statfs:137:43
    fstatfs:138:44 access:21: faccessat:269:48 faccessat2:439:439 readlink:89: readlinkat:267:78
    getdents:78: getdents64:217:61 getcwd:79:17 chdir:80:49 fchdir:81:50 umask:95:166 mkdir:83:
    mkdirat:258:34 rmdir:84: unlink:87: unlinkat:263:35 rename:82: renameat:264:38
    renameat2:316:276 symlink:88: symlinkat:266:36 mmap:9:222 mprotect:10:226 munmap:11:215
    mremap:25:216 msync:26:227 madvise:28:233 brk:12:214 membarrier:324:283 poll:7: ppoll:271:73
    select:23: pselect6:270:72 epoll_create1:291:20 epoll_ctl:233:21 epoll_wait:232:
    epoll_pwait:281:22 eventfd2:290:19 recvfrom:45:207 shutdown:48:210 rt_sigaction:13:134
    rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigtimedwait:128:137
    rt_sigsuspend:130:133 sigaltstack:131:132 pause:34: alarm:37: getitimer:36:102
    setitimer:38:103 restart_syscall:219:128 futex:202:98 get_robust_list:274:100
    set_robust_list:273:99 set_tid_address:218:96 rseq:334:293 sched_yield:24:124
    sched_getaffinity:204:123 sched_getparam:143:121 sched_getscheduler:145:120 getcpu:309:168
    nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114
    gettimeofday:96:169 time:201: times:100:153 getrusage:98:165 getpid:39:172 getppid:110:173
    gettid:186:178 getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177
    getresuid:118:148 getresgid:120:150 getgroups:115:158 getpgid:121:155 getpgrp:111:
    getsid:124:156 getpriority:140:141 getrlimit:97:163 uname:63:160 sysinfo:99:179
    getrandom:318:278 wait4:61:260 waitid:247:95 exit:60:93 exit_group:231:94
"""

# Calls whose arguments decide.
_BY_ARGUMENTS = """
    clone:56:220 openat:257:56 open:2: fcntl:72:25 ioctl:16:29 prlimit64:302:261 socketpair:53:199
    sendto:44:206
"""

# Each machine's name in a filter, and the place of its numbers above.
_ARCHITECTURES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}
_CLONE_THREAD = 0x10000
_WORD = 0xFFFFFFFF
# Calls that are allowed if an argument, under a mask, has one of these values.
_ALLOWED_IF = {
    "clone": (0, _CLONE_THREAD, (_CLONE_THREAD,)),  # threads, not processes
    "fcntl": (1, _WORD, (*range(8), 1030)),  # duplicate, flags, locks; no signals (F_SETOWN)
    # Is it a terminal, and of what size; bytes to read, blocking, inherited.
    "ioctl": (1, _WORD, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    "prlimit64": (0, _WORD, (0,)),  # of this process only
    "socketpair": (0, _WORD, (1,)),  # AF_UNIX: an event loop wakes itself through one
}

# Instructions: load a word, compare it, AND it with a mask, return.
_LOAD, _EQUAL, _GREATER, _AND, _RETURN = 0x20, 0x15, 0x25, 0x54, 0x06
_GROUP = 10  # numbers of calls in a group
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | 38  # 38: ENOSYS
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4

_Instruction = tuple[int, int, int, int]  # code, skip if true, skip if false, operand


def allowed(machine: str) -> dict[str, int]:
    """The calls allowed whatever their arguments: name → number on that machine."""
    return _numbers(_ALLOWED, machine)


def by_arguments(machine: str) -> dict[str, int]:
    """The calls that some arguments are allowed for: name → number on that machine."""
    return _numbers(_BY_ARGUMENTS, machine)


def _numbers(calls: str, machine: str) -> dict[str, int]:
    place = _ARCHITECTURES[machine][1]
    entries = (entry.split(":") for entry in calls.split())
    return {entry[0]: int(entry[place]) for entry in entries if entry[place]}


def program(machine: str) -> list[_Instruction]:
    """The filter for a machine. Raises: OSError where the machine is not known."""
    if machine not in _ARCHITECTURES:
        raise OSError(f"seccomp: the calls of {machine} are not known")
    rules = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, _ARCHITECTURES[machine][0]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for name, number in by_arguments(machine).items():
        body = _decide(name)
        rules += [(_EQUAL, 0, len(body), number), *body]
    # In groups that are skipped as a whole: when a filter is installed, the kernel runs it for
    # each of a thousand numbers, which would take longer than the program.
    numbers = sorted(allowed(machine).values())
    for group in (numbers[at : at + _GROUP] for at in range(0, len(numbers), _GROUP)):
        body = [rule for number in group for rule in _if_equal(number)]
        rules += [(_GREATER, len(body) + 1, 0, group[-1]), *body, _otherwise()]
    return [*rules, _otherwise()]


def _decide(name: str) -> list[_Instruction]:
    """The rules for one call whose arguments decide; they always end in a verdict."""
    if name in ("open", "openat"):
        # O_TRUNC empties a file that is opened for reading, which Landlock overlooks before ABI 3.
        opened = _masked(1 if name == "open" else 2, os.O_TRUNC | os.O_ACCMODE)
        return [*opened, *_if_equal(os.O_TRUNC, _REFUSE), _otherwise(_ALLOW)]
    if name == "sendto":  # to the other end, not to an address: both halves of the pointer are 0
        high = (_LOAD, 0, 0, 16 + 8 * 4 + 4)
        return [*_masked(4), (_EQUAL, 1, 0, 0), _otherwise(), high, *_if_equal(0), _otherwise()]
    argument, mask, values = _ALLOWED_IF[name]
    allowed_values = [rule for value in values for rule in _if_equal(value)]
    return [*_masked(argument, mask), *allowed_values, _otherwise()]


def _masked(argument: int, mask: int = _WORD) -> list[_Instruction]:
    """Loads the low half of an argument; of numbers the kernel itself reads no more."""
    load = (_LOAD, 0, 0, 16 + 8 * argument)
    return [load] if mask == _WORD else [load, (_AND, 0, 0, mask)]


def _if_equal(value: int, verdict: int = _ALLOW) -> list[_Instruction]:
    return [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, verdict)]


def _otherwise(verdict: int = _REFUSE) -> _Instruction:
    return (_RETURN, 0, 0, verdict)


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("rules", ctypes.c_void_p))


@functools.cache
def prepare() -> bytes:
    """The filter of this machine as the kernel reads it; built once, before forks need it."""
    return b"".join(
        code.to_bytes(2, "little")
        + bytes((if_true, if_false))
        + (operand & 0xFFFFFFFF).to_bytes(4, "little")
        for code, if_true, if_false, operand in program(platform.machine())
    )


def install() -> None:
    """Puts this process under the filter for good. It needs no_new_privileges."""
    packed = prepare()
    buffer = ctypes.create_string_buffer(packed, len(packed))
    filter_of = _Filter(len(packed) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    set_seccomp, mode_filter = ctypes.c_int(22), ctypes.c_ulong(2)
    none = ctypes.c_ulong(0)
    syscalls.call("prctl", set_seccomp, mode_filter, ctypes.byref(filter_of), none, none)
