"""An engine behind a socket samples what this process would, or ends the run with one message."""

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax.model import weights
from score_jax.problem import InputError, MachineGone
from score_jax.rl.policy import Policy
from score_jax.rollout import episode, remote, serve, wire
from score_jax.rollout.remote import Remote
from score_jax.rollout.serve import Server, Service
from score_jax.rollout.settings import EpisodeSettings
from score_jax.structs import Episode, Instructions, PromptBatch
from score_jax.text import stops
from tests import fakes
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")
PARAMS = fakes.params()
SETTINGS = EpisodeSettings(
    model=fakes.MODEL,
    policy=Policy(forbidden=(2,)),
    attempts=2,
    samples=2,
    max_attempt_tokens=4,
    instruction=(3,),
    turn_end=(1,),
    end_ids=(fakes.END,),
    pad_id=fakes.PAD,
    stops=stops.compile(stops.Stops(("cd",)), [b"", b"a", b"b", b"c", b"d"]),
    close_stopped=True,
)
KEY = jax.random.key(7)
TOKENS = np.array([[1, 2, 0], [3, 1, 2], [4, 0, 0]], np.int32)
OWN = Instructions(np.array([[[1, 2]], [[3, 0]], [[2, 0]]], np.int32), np.array([[2], [1], [1]]))
PROMPTS = PromptBatch(TOKENS, np.array([2, 3, 1]), np.array([5, 9, 6]), tuple("abc"), OWN)


@contextlib.contextmanager
def listening(path: Path, answer) -> Iterator[str]:
    """A server in a thread, with answer(header, arrays) -> (header, arrays)."""
    service = Service.__new__(Service)
    service.answer = answer
    with Server(str(path), service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"socket:{path}"
        server.shutdown()
        thread.join(60)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    weights.save(folder / "model", fakes.MODEL, PARAMS)
    with listening(folder / "socket", Service(str(folder / "model")).answer) as address:
        yield address


def test_its_rows_are_those_of_this_process(served):
    engine, here = Remote(served, wait_sec=300), dataclasses.replace(SETTINGS, untied=True)
    own = episode.run(PARAMS, PROMPTS, KEY, settings=here)
    assert len(set(map(tuple, np.asarray(own.tokens).tolist()))) > 1
    # First all problems, then one of them, which takes no program of its own.
    for prompts, rows in ((PROMPTS, slice(0, 6)), (PROMPTS.part(slice(1, 2)), slice(2, 4))):
        found = engine(prompts, KEY, settings=SETTINGS)
        for name in ("tokens", "attempt", "length", "truncated"):
            expected = np.asarray(getattr(own, name))[rows]
            np.testing.assert_array_equal(getattr(found, name), expected, name)
        np.testing.assert_allclose(found.logp, np.asarray(own.logp)[rows], atol=1e-5)


def test_other_weights_are_refused_and_both_are_said(served):
    engine = Remote(served)
    engine.check_weights(PARAMS, "base")
    other = fakes.params(seed=1)
    with pytest.raises(InputError) as refused:
        engine.check_weights(other, "stage2 at step 40")
    said = str(refused.value)
    for digest in (weights.digest(PARAMS, "float32"), weights.digest(other, "float32")):
        assert digest in said
    assert "stage2 at step 40" in said and "--mode=export" in said


def test_an_export_in_bfloat16_is_of_the_weights_that_it_rounds(tmp_path):
    weights.save(tmp_path, fakes.MODEL, PARAMS, dtype="bfloat16")
    service = Service(str(tmp_path))
    assert service.dtype == "bfloat16" and service.digest == weights.digest(PARAMS, "bfloat16")


def test_another_dtype_than_it_was_first_asked_in_is_refused(served):
    engine = Remote(served)
    engine(PROMPTS, KEY, settings=SETTINGS)
    half = dataclasses.replace(SETTINGS, dtype="bfloat16")
    with pytest.raises(InputError, match="decodes in float32"):
        engine(PROMPTS, KEY, settings=half)


def test_settings_come_over_as_they_are():
    said, arrays = wire.described(SETTINGS)
    assert wire.settings_of(said, arrays, fakes.MODEL) == SETTINGS
    assert wire.settings_of(said, arrays, fakes.MODEL).stops.of == SETTINGS.stops.of
    plain = dataclasses.replace(SETTINGS, stops=None, instructions=((1, 2), (3,)))
    assert wire.settings_of(*wire.described(plain), fakes.MODEL) == plain
    with pytest.raises(wire.Garbled, match="settings"):
        wire.settings_of({**said, "unknown": 1}, arrays, fakes.MODEL)


def known(header, arrays):
    return {"digest": "0", "dtype": "float32"}, {}


@pytest.fixture
def place(tmp_path) -> Path:
    return tmp_path / "socket"


def ask(address: str, wait_sec: float = 60.0) -> Episode:
    return Remote(address, wait_sec)(PROMPTS, KEY, settings=SETTINGS)


def test_where_nobody_listens_it_is_said_how_to_start_one(place):
    with pytest.raises(InputError, match=r"no engine listens.*score_jax.rollout.serve FOLDER"):
        Remote(f"socket:{place}")
    with listening(place, known):
        pass
    assert not place.exists()


def test_an_engine_that_dies_ends_the_run_as_a_machine_that_gives_out(place):
    with listening(place, known) as address:
        engine = Remote(address)
    with pytest.raises(MachineGone, match=r"is gone .*What has ended is kept"):
        engine(PROMPTS, KEY, settings=SETTINGS)


def raw(place: Path, reply: bytes, holds: float = 0.0) -> threading.Thread:
    """Answers one question with these bytes, and hangs up after so long."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(place))
    server.listen()

    def run():
        with server, server.accept()[0] as sock:
            wire.receive(sock, 60)
            sock.sendall(reply)
            time.sleep(holds)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_an_engine_that_hangs_is_not_waited_for_longer_than_a_rollout_may_take(place):
    raw(place, b"scor", holds=30.0)
    began = time.monotonic()
    with pytest.raises(MachineGone, match=r"not answered for 0.3 s \(config.watchdog.rollout\)"):
        Remote(f"socket:{place}", 0.3)
    assert time.monotonic() - began < 10


def packed(text: bytes) -> bytes:
    return wire.MAGIC + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (b"HTTP/1.1 400 Bad Request", "a message begins with"),
        (wire.MAGIC + b"\xff\xff\xff\xff", "a message begins with"),
        (packed(b"{"), "cannot be read"),
        (packed(b"[]"), "cannot be read"),
        (packed(b'{"arrays": [["x", "object", [1]]]}'), "arrays that cannot be"),
        (packed(b'{"arrays": [["x", "int32", [-1]]]}'), "arrays that cannot be"),
        (packed(b'{"arrays": [["x", "int32", [1000000, 1000000]]]}'), "arrays that cannot be"),
        (packed(b'{"arrays": []}'), "'dtype' of its weights"),
    ],
)
def test_what_is_no_engine_is_named_and_nothing_of_it_is_read(place, reply, says):
    raw(place, reply)
    with pytest.raises(InputError, match=says):
        Remote(f"socket:{place}", 60)


def test_a_reply_that_ends_in_the_middle_is_a_dead_engine(place):
    raw(place, packed(b'{"arrays": [["x", "int32", [5]]]}') + b"1234")
    with pytest.raises(InputError, match=r"no engine listens.*closed in a message"):
        Remote(f"socket:{place}", 60)


def test_what_it_refuses_and_where_it_fails_is_handed_on(place):
    def answer(header, arrays):
        if header["ask"] == "weights":
            return known(header, arrays)
        if arrays["index"][0] == 5:
            raise RuntimeError("out of memory")
        raise InputError("not with this")

    with listening(place, answer) as address:
        with pytest.raises(MachineGone, match="failed: RuntimeError: out of memory"):
            ask(address)
        with pytest.raises(InputError, match="refuses: not with this"):
            Remote(address)(PROMPTS.part(slice(1, 2)), KEY, settings=SETTINGS)
        assert Remote(address)  # it serves on


def test_rows_that_break_the_contract_are_not_used(place):
    columns = SETTINGS.row_tokens(3, 2)

    def answer(header, arrays):
        rows = {
            "tokens": np.ones((6, columns), np.int32),
            "attempt": np.ones((6, columns), np.int32),
            "logp": np.zeros((6, columns), np.float32),
            "length": np.ones(6, np.int32),
        }
        whole = {**rows, "truncated": np.zeros((6, 2), bool)}
        return known(header, arrays)[0], whole if arrays.get("key") is not None else {}

    for answers, says in (
        (answer, r"does not begin with the ids.*\(prompt\)"),
        (known, "lacks attempt, length, logp, tokens, truncated"),
    ):
        with listening(place, answers) as address, pytest.raises(InputError, match=says):
            ask(address)


def test_a_question_that_cannot_be_read_is_refused_and_the_next_one_answered(served):
    path = served.removeprefix(remote.SOCKET)
    for header, arrays in (
        ({"ask": "episodes"}, {}),
        ({"ask": "episodes", "settings": {}, "key": "x"}, {"key": np.zeros(2)}),
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            with contextlib.suppress(BrokenPipeError):  # it may refuse before it has read all
                wire.send(sock, header, arrays, 60)
            said, _ = wire.receive(sock, 60)
        assert "refused" in said
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert "refused" in wire.receive(sock, 60)[0]
    assert Remote(served)


def test_a_place_that_is_taken_or_impossible_is_refused_and_a_dead_one_is_free(place, tmp_path):
    with listening(place, known):
        assert place.stat().st_mode & 0o077 == 0  # its owner's alone
        with pytest.raises(InputError, match="another engine listens"):
            Server(str(place), Service.__new__(Service))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(place))
    with listening(place, known) as address:  # whose process is gone
        assert Remote(address)
    for impossible in (tmp_path / "no" / "socket", tmp_path / ("x" * 120)):
        with pytest.raises(InputError, match="cannot be made"):
            Server(str(impossible), Service.__new__(Service))


def test_the_command_refuses_a_folder_without_a_model(tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        serve.main([str(tmp_path), f"--socket={tmp_path / 's'}"])


def test_a_run_of_several_processes_or_without_an_engine_has_none(monkeypatch):
    settings = tiny_settings()
    assert remote.connected(settings) is None
    rollout = dataclasses.replace(settings.rollout, engine="socket:/none")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(InputError, match="for one process, and this run has 4"):
        remote.connected(dataclasses.replace(settings, rollout=rollout))
