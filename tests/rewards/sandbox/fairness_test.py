"""Deadlines on a busy machine, and the order of programs that use their slices."""

import dataclasses
import os
import time

from score_jax.rewards.sandbox import fairness
from score_jax.rewards.sandbox.linux import proc


def turn(**fields) -> fairness.Turn:
    batch, pid = fairness.Batch(), os.getpid()
    began = fields.get("began", time.monotonic())
    plain = fairness.Turn(
        batch, 1.0, True, process=-1, program_pid=pid, tester_pid=pid, began=began, ends=began + 1.0
    )
    return dataclasses.replace(plain, **fields)


def test_only_waiting_for_a_core_earns_overtime(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(proc.Path, "read_text", lambda path: "100 0 3")
    assert not fairness.is_owed_time(turn(began=now - 1.1), now)
    monkeypatch.setattr(proc.Path, "read_text", lambda path: "100 600000000 3")
    # The program waited 0.6 s, and so did its tester; of 1.1 s it ran none.
    assert fairness.is_owed_time(turn(began=now - 1.1), now)
    assert not fairness.is_owed_time(turn(began=now - 2.3), now)
    assert not fairness.is_owed_time(turn(began=now - 1.1, overtime=False), now)
    monkeypatch.setattr(proc.Path, "read_text", lambda path: "100 99000000000 3")
    assert fairness.is_owed_time(turn(began=now - 3.9), now)
    assert not fairness.is_owed_time(turn(began=now - 4.1), now)


def test_being_stopped_earns_overtime(monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(proc.Path, "read_text", lambda path: "100 0 3")
    assert fairness.is_owed_time(turn(began=now - 2.0, stopped_sec=1.1), now)
    assert fairness.is_owed_time(turn(began=now - 2.0, stopped_at=now - 1.1), now)
    assert not fairness.is_owed_time(turn(began=now - 2.0, stopped_sec=0.9), now)


def test_slow_programs_of_a_crowded_batch_share_the_deadline_of_the_first():
    now = time.monotonic()
    batch = fairness.Batch(crowded=True, first_slow=now - 1.1, last_began=now - 0.6)
    late = turn(batch=batch, began=now - 0.6, ends=now + 0.4, slow=True)
    assert fairness.is_late(late, now)
    assert not fairness.is_late(turn(batch=batch, began=now - 0.6, ends=now + 0.4), now)
    batch.last_began = now - 0.4  # the last to begin has half of its deadline in any case
    assert not fairness.is_late(late, now)


def test_slow_programs_are_stopped_while_others_wait_and_continue_then(monkeypatch):
    sent = []
    monkeypatch.setattr(fairness.signal, "pidfd_send_signal", lambda _, number: sent.append(number))
    monkeypatch.setattr(fairness.os, "kill", lambda _, number: sent.append(number))
    monkeypatch.setattr(fairness.os, "setpriority", lambda *_: None)
    monkeypatch.setattr(proc.Path, "read_text", lambda path: "100 0 3")
    cores = fairness.Cores()
    now = time.monotonic()
    turns = [turn(began=now - 0.2) for _ in range(cores.number)]
    assert not cores.has_room(turns)
    cores.share(turns, now, others_wait=True)
    assert cores.has_room(turns) and not sent  # as many slow ones as cores run on
    turns.append(turn(began=now - 0.2))
    cores.share(turns, now, others_wait=True)
    assert sent == [fairness.signal.SIGSTOP] * 2 * len(turns)
    assert all(one.lowered for one in turns)
    cores.share(turns, now + 1.0, others_wait=False)
    assert sent[2 * len(turns) :] == [fairness.signal.SIGCONT] * 2 * len(turns)
    assert [one.stopped_sec for one in turns] == [1.0] * len(turns)
