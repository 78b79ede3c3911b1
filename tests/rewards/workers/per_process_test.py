"""One process for each key, with stubs for processes."""

import os

import pytest

from score_jax.rewards.workers.per_process import PerProcess


class Stub:
    """Records what is done to it."""

    def __init__(self):
        self.state = "runs"

    def close(self) -> None:
        self.state = "closed"

    def forget(self) -> None:
        self.state = "forgotten"


def test_there_is_one_for_each_key_until_it_is_closed():
    shared: PerProcess[Stub] = PerProcess()
    first, other = shared.get("a", Stub), shared.get("b", Stub)
    assert first is shared.get("a", Stub) and first is not other
    shared.close(first)
    assert (first.state, other.state) == ("closed", "runs")
    second = shared.get("a", Stub)
    shared.close(first)  # it has ended: its successor stays
    assert second is shared.get("a", Stub) and second.state == "runs"
    shared.close()
    assert (second.state, other.state) == ("closed", "closed")


def test_what_cannot_be_started_is_tried_again():
    shared: PerProcess[Stub] = PerProcess()

    def fail() -> Stub:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        shared.get("a", fail)
    assert shared.get("a", Stub).state == "runs"


def test_a_forked_child_has_none_and_leaves_its_parents_alone():
    shared: PerProcess[Stub] = PerProcess()
    ours = shared.get("a", Stub)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        fresh = shared.get("a", Stub)
        os.write(writer, f"{ours.state} {fresh.state} {fresh is ours}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"forgotten runs False"
    assert ours.state == "runs"
