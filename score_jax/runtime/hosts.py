"""The processes of one run: how they find each other, and what they tell each other.

    join()                      at the start; does nothing where there is only one process
    is_lead()                   process 0 writes what a run leaves
    exchange(value)             every process's value, on every process
    lead_says(find)             what the lead found out, on every process
    agree(stop)                 a question that all processes answer alike
    own_rows(batch)             the rows of a batch that this process answers for
    in_order(rows, values)      what all processes found out about their rows
    whole(batch)                all rows, on every process

Every process runs the same loop over the same mesh. What one of them learns alone (a grade, a
signal, a file that is there) it tells the others as JSON through the coordination service of
jax.distributed, not through devices: that compiles nothing, and a process that waits for another
waits on the host, where the watchdog (watchdog.py) sees for whom. With one process all of these
return what they were given.
"""

import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # the only way to the coordination service's key-value store
from jax.experimental import multihost_utils

from score_jax.problem import InputError

T = TypeVar("T")

HEARTBEAT_SEC = 60  # after so long without a sign of life a process counts as dead; all end then
LEAVE_SEC = 30  # how long a process that ends waits for the others to end too
_LOOK_SEC = 5  # a wait for another process is cut into such pieces, so that signals are heard

_turns = itertools.count()
_waiting_for: list[str] = []  # innermost last; for the watchdog's message


def join(
    coordinator: str = "",
    processes: int = 0,
    process: int = -1,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Joins the other processes of this run, if there are any. Before anything else of jax.

    Args:
      coordinator, processes, process: HOST:PORT of process 0, how many there are, which of them
        this is. Left out, they are taken from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
        JAX_PROCESS_ID, or found by jax itself from SLURM's variables or on a TPU machine.
    Raises: InputError if only a part of them is given, or the others do not come.
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
            "same command on every host; what each is told is --coordinator=HOST:PORT (of process "
            "0, free and reachable), --processes=N and --process=0 to N-1."
        ) from error


def addresses(
    coordinator: str, processes: int, process: int, environment: Mapping[str, str]
) -> tuple[str, int, int] | None:
    """What is said of the processes by flags, else by the environment; None if nothing is."""
    told = {
        "coordinator": coordinator or environment.get("JAX_COORDINATOR_ADDRESS", ""),
        "processes": str(processes or environment.get("JAX_NUM_PROCESSES", "")),
        "process": str(process if process >= 0 else environment.get("JAX_PROCESS_ID", "")),
    }
    missing = [name for name, value in told.items() if not value]
    if len(missing) == len(told):
        return None
    whole = told["processes"].isdigit() and told["process"].isdigit()
    if missing or not whole or int(told["process"]) >= int(told["processes"]):
        said = ", ".join(f"{name}={value or 'nothing'}" for name, value in told.items())
        raise InputError(
            f"the processes of a run are told by three values, and here is {said}. Give "
            "--coordinator=HOST:PORT, --processes=N and --process=0 to N-1, or "
            "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; none for one process."
        )
    return told["coordinator"], int(told["processes"]), int(told["process"])


def on_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether there may be other processes that jax finds by itself."""
    if "SLURM_STEP_NODELIST" in environment:
        return int(environment.get("SLURM_NTASKS", "1")) > 1
    if "tpu" not in environment.get("JAX_PLATFORMS", "tpu") or "TPU_SKIP_MDS_QUERY" in environment:
        return False
    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    return chips and importlib.util.find_spec("libtpu") is not None


def count() -> int:
    """How many processes this run has."""
    return jax.process_count()


def index() -> int:
    """Which of them this process is, from 0."""
    return jax.process_index()


def is_lead() -> bool:
    """Whether this is process 0, which writes what a run leaves."""
    return index() == 0


def exchange(value: T) -> list[T]:
    """The values of all processes, in order. Every process must call it, at the same point.

    value: what JSON can say, and comes back as (tuples as lists), if there are other processes.
    """
    if count() == 1:
        return [value]
    turn = next(_turns)
    client = _store()
    me, said = index(), json.dumps(value)
    if me:
        client.key_value_set(f"score_jax/{turn}/{me}", said)
        return json.loads(_received(f"score_jax/{turn}/all", 0))
    others = [_received(f"score_jax/{turn}/{i}", i) for i in range(1, count())]
    everything = f"[{', '.join([said, *others])}]"
    client.key_value_set(f"score_jax/{turn}/all", everything)
    # Whoever has spoken in this turn has heard all of the turn before.
    client.key_value_delete(f"score_jax/{turn - 1}/")
    return json.loads(everything)


def _store() -> Any:
    """Text under names, set by one process and read by another."""
    return distributed.global_state.client


def _received(key: str, sender: int) -> str:
    """What another process has set, or will."""
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
    """The process that this one is waiting for in an exchange; empty if for none."""
    return _waiting_for[-1] if _waiting_for else ""


def lead_says(find: Callable[[], T]) -> T:
    """What `find` returns on the lead, the only process that runs it; JSON as in `exchange`.

    Files are looked at by one process: on shared storage two may see different ones.
    Raises: InputError on every process, if `find` did.
    """
    if count() == 1:
        return find()
    said: list[Any] = [None, ""]
    if is_lead():
        try:
            said[0] = find()
        except InputError as error:
            said[1] = str(error)
    found, wrong = exchange(said)[0]
    if wrong:
        raise InputError(wrong)
    return found


class Interrupted(Exception):
    """A signal asked this run to stop, and all its processes agreed on the step."""


def agree(stop: Callable[[], bool]) -> Callable[[], bool]:
    """A question that is answered alike everywhere: yes, if any process would say yes.

    Signals reach one process before another; asked at the end of a step, all then stop behind the
    same one. JAX's own preemption notice counts as well: it names a step by this question's count.
    """
    asked = itertools.count()

    def anyone() -> bool:
        noticed = count() > 1 and multihost_utils.reached_preemption_sync_point(next(asked))
        return any(exchange(stop())) or noticed

    return anyone


def own_rows(batch: Any) -> tuple[Any, np.ndarray]:
    """(a tree of numpy arrays with the rows that this process answers for, their numbers).

    batch: arrays of equally many rows, on devices. Each row belongs to one process: of those on
    whose devices it lies, the first.
    """
    first = jax.tree.leaves(batch)[0]
    if count() == 1:
        return jax.device_get(batch), np.arange(len(first))
    (row_N,) = np.nonzero(owners(first.sharding, first.shape) == index())

    def fetch(x: jax.Array) -> np.ndarray:
        found = np.empty((len(row_N), *x.shape[1:]), x.dtype)
        for shard in x.addressable_shards:
            begin, end, _ = shard.index[0].indices(len(x))
            some = slice(*np.searchsorted(row_N, [begin, end]))
            found[some] = np.asarray(shard.data)[row_N[some] - begin]
        return found

    return jax.tree.map(fetch, batch), row_N


def owners(sharding: jax.sharding.Sharding, shape: tuple[int, ...]) -> np.ndarray:
    """[B] which process answers for each row of an array with this sharding."""
    owner_B = np.full(shape[0], np.iinfo(np.int32).max)
    device: Any
    for device, (rows, *_) in sharding.devices_indices_map(shape).items():
        owner_B[rows] = np.minimum(owner_B[rows], device.process_index)
    return owner_B


def in_order(row_N: np.ndarray, values: Sequence[T]) -> list[T]:
    """One value for each row of a batch, from whichever process knows it; JSON as in `exchange`.

    row_N: the rows that `values` are about, as `own_rows` numbers them.
    """
    if count() == 1:
        return list(values)
    known = itertools.chain(*exchange(list(zip(row_N.tolist(), values, strict=True))))
    return [value for _, value in sorted(known, key=lambda pair: pair[0])]


def whole(batch: Any) -> Any:
    """The tree as numpy arrays, all rows, on every process; every process must call it."""
    if count() == 1:
        return jax.device_get(batch)
    return multihost_utils.process_allgather(batch, tiled=True)
