"""The processes of one run: how they find each other, and how they exchange values.

    join()                      at the start; does nothing if there is only one process
    leave_word(reason)          before a process ends by an error: the others end too, and say why
    await_word(error)           before that, where another process may be the reason
    is_lead()                   process 0 writes the files of a run
    exchange(value)             every process's value, on every process
    lead_says(find)             what `find` returns on the lead, on every process
    agree(stop)                 a question with the same answer on all processes
    own_rows(batch)             the rows of a batch that this process grades
    shared_out(batch)           its share of rows that all processes have
    in_order(rows, values)      the values of all processes for their rows
    whole(batch)                all rows, on every process
    taken_bytes()               what this process exchanged since the last call

Every process runs the same loop over the same mesh. What only one of them knows (a grade, a signal,
whether a file exists) it sends to the others as JSON through the coordination service of
jax.distributed, not through devices. That compiles nothing, and a process that waits for another
waits on the host, where the watchdog (watchdog.py) can report for which. With one process each of
these returns its argument or the local answer.

A process that fails leaves word there, and the others end at once. One that is killed or stands
still cannot: process 0 says so when SILENT_SEC have passed since its last sign of life. When
process 0 itself is killed, jax ends the others, with words of its own.
"""

import atexit
import contextlib
import importlib.util
import itertools
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the only way to the coordination service's key-value store
from jax.experimental import multihost_utils

from score_jax.problem import InputError, MachineGone
from score_jax.runtime.signals import Signals

T = TypeVar("T")

BEAT_SEC, SILENT_SEC = 5.0, 60.0  # between signs of life; without one for so long it is given up
HEARTBEAT_SEC = 150  # jax's own: longer, as it aborts all processes with a stack trace
LEAVE_SEC = 30  # how long a process that exits waits for the others to exit too
WORD_SEC = 3.0  # how long a process that has left word waits: with process 0 the service ends
_LISTEN_SEC, _OWN_WORD_SEC = 0.5, 1.0
_WORD = "score_jax/ended"
_ALIVE, _LEFT = "score_jax/alive/", "left"
_LOOK_SEC = 5  # a wait for another process is split into waits of this length, to notice signals

_turns = itertools.count()
_bytes = 0  # sent and received in exchanges since they were last asked for
_ending, _over = threading.Event(), threading.Event()
_waiting_for: list[str] = []  # innermost last; for the watchdog's message


def join(
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this run, if there are any. Call it before anything else of jax.

    Args:
      coordinator, processes, process: HOST:PORT of process 0, the number of processes, the index
        of this one. Missing ones are read from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
        JAX_PROCESS_ID, or found by jax from SLURM's variables or on a TPU machine.
    Raises: InputError if only some of them are given, or the other processes do not connect.
    """
    given = addresses(coordinator, processes, process, environment)
    if given is None and not on_a_cluster(environment):
        return
    address, processes_in_all, own_index = given or (None, None, None)
    try:
        jax.distributed.initialize(
            address,
            processes_in_all,
            own_index,
            heartbeat_timeout_seconds=HEARTBEAT_SEC,
            shutdown_timeout_seconds=LEAVE_SEC,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes of this run did not find each other ({str(error)[:300]}). Start the "
            "same command on every host, each with --coordinator=HOST:PORT (of process 0; the port "
            "must be free and reachable), --processes=N and its own --process, 0 to N-1."
        ) from error

    listener = threading.Thread(target=_listen, daemon=True)
    listener.start()
    atexit.register(listener.join)  # called in reverse order: before jax leaves the service
    atexit.register(_over.set)


def leave_word(reason: str) -> None:
    """Tells the other processes that this one ends and why; they end too. Does nothing alone."""
    if _store() is None or jax.process_count() == 1:
        return
    _ending.set()
    word = f"process {jax.process_index()} on {socket.gethostname()} has ended: {reason}"
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
        _store().key_value_set(_WORD, word)
        time.sleep(WORD_SEC)


def await_word(error: BaseException) -> None:
    """Waits, where an error may come of another process that is gone, until its end is known.

    Then this process ends with those words. Otherwise it returns: the error is this process's own.
    """
    if _store() is None or jax.process_count() == 1:
        return
    # Out of memory is its own; what else jax raises here may be a connection that broke.
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
        seconds = SILENT_SEC + 4 * BEAT_SEC
        print(
            f"score_jax: {str(error).splitlines()[0]}: waiting up to {seconds:.0f} seconds to hear "
            "whether another process has ended …",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(seconds)


def _listen() -> None:
    """Ends this process when another one leaves word, wherever it waits then."""
    # Looks again and again: a thread that waits in the client aborts the process when it exits.
    life = _SignsOfLife()
    while not _over.wait(_LISTEN_SEC):
        try:
            life.give()
            word = _store().key_value_try_get(_WORD)
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                continue
            return  # the service has ended, which jax reports itself
        # What all of them have found, such as bad input, each of them says itself.
        if not _ending.wait(_OWN_WORD_SEC):
            print(
                f"score_jax: {word} This process ({jax.process_index()}) ends too.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(MachineGone.status)
        return
    life.leave()


class _SignsOfLife:
    """Those of this process; process 0 looks at all of them."""

    def __init__(self) -> None:
        self._given, self._next = 0, 0.0
        self._seen: dict[str, tuple[str, float]] = {}  # what each last gave, and since when

    def give(self) -> None:
        """Gives one if it is time, and on process 0 leaves word of a process that has given none.

        Raises: JaxRuntimeError if the service has ended.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._given, self._next = self._given + 1, now + BEAT_SEC
        me = distributed.global_state.process_id  # jax.process_index() would start the devices
        sign = f"{socket.gethostname()} {self._given}"
        _store().key_value_set(f"{_ALIVE}{me}", sign, allow_overwrite=True)
        for key, sign in _store().key_value_dir_get(_ALIVE) if me == 0 else ():
            seen, since = self._seen.get(key, ("", now))
            if sign != seen:
                self._seen[key] = sign, now
            elif sign != _LEFT and now - since > SILENT_SEC:
                process, host = key.rpartition("/")[2], sign.split()[0]
                word = f"process {process} on {host} was killed or stands still: it has given no "
                word += f"sign of life for {SILENT_SEC:.0f} seconds."
                with contextlib.suppress(jax.errors.JaxRuntimeError):  # another was first
                    _store().key_value_set(_WORD, word)

    @staticmethod
    def leave() -> None:
        """Says that this process gives no more, as it ends."""
        key = f"{_ALIVE}{distributed.global_state.process_id}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _store().key_value_set(key, _LEFT, allow_overwrite=True)


def addresses(
    coordinator: str, processes: int, process: int, environment: Mapping[str, str]
) -> tuple[str, int, int] | None:
    """The three values that identify the processes, from flags or else the environment.

    None if there are none. Raises: InputError if they are incomplete or contradict each other.
    """
    given = {
        "coordinator": coordinator or environment.get("JAX_COORDINATOR_ADDRESS", ""),
        "processes": str(processes or environment.get("JAX_NUM_PROCESSES", "")),
        "process": str(process if process >= 0 else environment.get("JAX_PROCESS_ID", "")),
    }
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    whole = given["processes"].isdigit() and given["process"].isdigit()
    if missing or not whole or int(given["process"]) >= int(given["processes"]):
        found = ", ".join(f"{name}={value or 'nothing'}" for name, value in given.items())
        raise InputError(
            f"a run of several processes needs three values, and these were given: {found}. Give "
            "--coordinator=HOST:PORT, --processes=N and --process=0 to N-1, or "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; none for one process."
        )
    return given["coordinator"], int(given["processes"]), int(given["process"])


def on_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether there may be other processes, which jax finds by itself."""
    if "SLURM_STEP_NODELIST" in environment:
        return int(environment.get("SLURM_NTASKS", "1")) > 1
    if "tpu" not in environment.get("JAX_PLATFORMS", "tpu") or "TPU_SKIP_MDS_QUERY" in environment:
        return False
    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return chips and importlib.util.find_spec("libtpu") is not None


def is_lead() -> bool:
    """Whether this is process 0, which writes the files of a run."""
    return jax.process_index() == 0


def exchange(value: T) -> list[T]:
    """The values of all processes, in order. Every process must call it, at the same point.

    value: must be representable in JSON. With several processes it is returned as JSON reads it,
      tuples as lists.
    """
    global _bytes
    if jax.process_count() == 1:
        return [value]
    turn = next(_turns)
    client = _store()
    me, own = jax.process_index(), json.dumps(value)
    if me:
        client.key_value_set(f"score_jax/{turn}/{me}", own)
        everything = _received(f"score_jax/{turn}/all", 0)
        _bytes += len(own) + len(everything)
        return json.loads(everything)
    others = [_received(f"score_jax/{turn}/{i}", i) for i in range(1, jax.process_count())]
    everything = f"[{', '.join([own, *others])}]"
    client.key_value_set(f"score_jax/{turn}/all", everything)
    _bytes += sum(map(len, others)) + len(everything)
    # A process that has sent its value of this turn has read all values of the turn before.
    client.key_value_delete(f"score_jax/{turn - 1}/")
    return json.loads(everything)


def taken_bytes() -> dict[str, int]:
    """Bytes that this process has exchanged since the last call, by the name of metrics.jsonl."""
    global _bytes
    taken, _bytes = _bytes, 0
    return {"exchanged_bytes": taken} if jax.process_count() > 1 else {}


def _store() -> Any:
    """The coordination service's key-value store."""
    return distributed.global_state.client


def _received(key: str, sender: int) -> str:
    """The value that another process sets; waits until it is there."""
    _waiting_for.append(f"process {sender}")
    try:
        while True:
            try:
                return _store().blocking_key_value_get(key, 1000 * _LOOK_SEC)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
    finally:
        _waiting_for.pop()


def waiting_for() -> str:
    """The process that this one waits for in an exchange; empty if there is none."""
    return _waiting_for[-1] if _waiting_for else ""


def lead_says(find: Callable[[], T]) -> T:
    """What `find` returns on the lead, the only process that runs it; JSON as in `exchange`.

    Only one process reads files: on shared storage two processes may see different files.
    Raises: InputError on every process, if `find` raised it.
    """
    if jax.process_count() == 1:
        return find()
    result: list[Any] = [None, ""]
    if is_lead():
        try:
            result[0] = find()
        except InputError as error:
            result[1] = str(error)
    found, wrong = exchange(result)[0]
    if wrong:
        raise InputError(wrong)
    return found


class Interrupted(Exception):
    """A signal asked this run to stop, and all its processes agreed on the step."""


def stop_of(signals: Signals) -> Callable[[], bool]:
    """Whether a signal asks this process to stop: what `agree` takes.

    Of several processes none ends by itself; a process alone ends at once while it is not asked.
    """
    return signals.noted() if jax.process_count() > 1 else signals.asked


def agree(stop: Callable[[], bool]) -> Callable[[], bool]:
    """A question with the same answer on all processes: yes, if the answer is yes on any.

    Signals reach processes at different times. Asked at the end of each step, all processes stop
    after the same step. JAX's own preemption notice counts as well; it identifies a step by the
    number of times this question was asked.
    """
    asked = itertools.count()

    def anyone() -> bool:
        several, turn = jax.process_count() > 1, next(asked)
        noticed = several and multihost_utils.reached_preemption_sync_point(turn)
        return any(exchange(stop())) or noticed

    return anyone


def own_rows(batch: Any) -> tuple[Any, np.ndarray]:
    """(a tree of numpy arrays with the rows that belong to this process, their indices).

    batch: arrays with the same number of rows, on devices. A row belongs to the first of the
    processes whose devices hold it.
    """
    first = jax.tree.leaves(batch)[0]
    if jax.process_count() == 1:
        return jax.device_get(batch), np.arange(len(first))
    (row_N,) = np.nonzero(owners(first.sharding, first.shape) == jax.process_index())

    def fetch(x: jax.Array) -> np.ndarray:
        found = np.empty((len(row_N), *x.shape[1:]), x.dtype)
        for shard in x.addressable_shards:
            begin, end, _ = shard.index[0].indices(len(x))
            some = slice(*np.searchsorted(row_N, [begin, end]))
            found[some] = np.asarray(shard.data)[row_N[some] - begin]
        return found

    return jax.tree.map(fetch, batch), row_N


def shared_out(batch: Any) -> tuple[Any, np.ndarray]:
    """(this process's share of rows that every process has, their indices): as `own_rows`."""
    row_N = np.arange(jax.process_index(), len(jax.tree.leaves(batch)[0]), jax.process_count())
    return jax.tree.map(lambda x: np.asarray(x)[row_N], batch), row_N


def owners(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> np.ndarray:
    """[B] the process that each row of an array with this sharding belongs to."""
    owner_B = np.full(shape[0], np.iinfo(np.int32).max)
    device: Any
    for device, (rows, *_) in sharding.devices_indices_map(shape).items():
        owner_B[rows] = np.minimum(owner_B[rows], device.process_index)
    return owner_B


def in_order(row_N: np.ndarray, values: Sequence[T]) -> list[T]:
    """One value for each row of a batch, from the process it belongs to; JSON as in `exchange`.

    row_N: the rows of `values`, by the indices of `own_rows`.
    """
    if jax.process_count() == 1:
        return list(values)
    known = itertools.chain(*exchange(list(zip(row_N.tolist(), values, strict=True))))
    return [value for _, value in sorted(known, key=lambda pair: pair[0])]


def whole(batch: Any) -> Any:
    """The tree as numpy arrays, all rows, on every process; every process must call it."""
    if jax.process_count() == 1:
        return jax.device_get(batch)
    return multihost_utils.process_allgather(batch, tiled=True)


def devices() -> str:
    """All devices of the run in words: their number and kind, and the lead's CPUs."""
    device = jax.devices()[0]
    on = f"{device.platform}, {os.cpu_count()} CPUs"
    on += f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{jax.device_count()} x {device.device_kind} ({on})"
