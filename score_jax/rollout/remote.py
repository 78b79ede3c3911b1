"""An engine in another process, behind a Unix socket (serve.py); config.rollout.engine names it.

    engine = connected(settings)                  before any weights are read; None: none is named
    engine.check_weights(params, "stage2 at step 40")
    engine(prompts, key, settings=…) -> Episode   engine.Engine

What comes back is held against the contract (contract.py). An engine that dies or hangs ends the
run as a machine that gives out does: what has ended is kept, and the same command goes on later.
"""

import contextlib
import socket

import jax
import numpy as np

from score_jax.config.settings import Settings
from score_jax.model import weights
from score_jax.problem import InputError, MachineGone
from score_jax.rollout import contract, wire
from score_jax.rollout.settings import EpisodeSettings
from score_jax.structs import Episode, Params, PromptBatch

SOCKET = "socket:"
_FIELDS = ("tokens", "attempt", "logp", "length", "truncated")  # of Episode, in order


class Remote:
    """An engine at `socket:PATH`.

    wait_sec: for an answer; 0: for ever.
    Raises: InputError if none listens there, or it speaks another protocol.
    """

    def __init__(self, address: str, wait_sec: float = 0.0):
        self.address, self._wait_sec = address, wait_sec
        try:
            self._serves, _ = self._ask({"ask": "weights"}, {})
            self._kind, self._digest = self._serves["dtype"], self._serves["digest"]
        except _Unreachable as error:
            raise InputError(
                f"no engine listens at {address} ({error}). Start it (python -m "
                f"score_jax.rollout.serve FOLDER --socket={address.removeprefix(SOCKET)}), or "
                "leave out config.rollout.engine: then this process samples itself."
            ) from None
        except KeyError as error:
            raise self._garbled(f"it does not say the {error} of its weights") from None

    def check_weights(self, params: Params, whose: str) -> None:
        """Raises: InputError if the engine serves other weights than these, all of a model."""
        own = weights.digest(params, self._kind)
        if own != self._digest:
            raise InputError(
                f"the engine at {self.address} serves the weights {self._digest} "
                f"({self._serves.get('source')}, {self._kind}), and {whose} has {own}: it would "
                "sample another model. Export these (--mode=export), start the engine with that "
                "folder, and run the same command again."
            )

    def __call__(
        self, prompts: PromptBatch, key: jax.Array, *, settings: EpisodeSettings
    ) -> Episode:
        """Raises: InputError if the engine refuses or breaks the contract; MachineGone."""
        described, arrays = wire.described(settings)
        arrays |= {"tokens": prompts.tokens, "length": prompts.length, "index": prompts.index}
        arrays["key"] = np.asarray(jax.random.key_data(key))
        if own := prompts.instructions:
            arrays |= {"instructions": own.tokens, "instruction_length": own.length}
        asked = {"ask": "episodes", "key": str(jax.random.key_impl(key)), "settings": described}
        try:
            _, found = self._ask(asked, arrays)
        except _Unreachable as error:
            raise MachineGone(
                f"the engine at {self.address} is gone ({error}). What has ended is kept. Start "
                "the engine again with the same weights."
            ) from None
        if missing := set(_FIELDS) - set(found):
            raise self._garbled(f"its answer lacks {', '.join(sorted(missing))}")
        arrays_: list = [found[name] for name in _FIELDS]
        episode = Episode(*arrays_)
        if faults := contract.faults(episode, prompts, settings):
            raise InputError(
                f"the engine at {self.address} returned what no rollout may: {faults[0].what} "
                f"({faults[0].rule}). Nothing of it is used. python -m "
                "score_jax.rollout.conformance checks an engine (docs/engine.md)."
            )
        return episode

    def _ask(self, header: wire.Header, arrays: wire.Arrays) -> tuple[wire.Header, wire.Arrays]:
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
                sock.settimeout(self._wait_sec or None)
                sock.connect(self.address.removeprefix(SOCKET))
                with contextlib.suppress(BrokenPipeError):  # it may refuse before it has read all
                    wire.send(sock, header, arrays, self._wait_sec)
                said, found = wire.receive(sock, self._wait_sec)
        except TimeoutError:
            raise MachineGone(
                f"the engine at {self.address} has not answered for {self._wait_sec:g} s "
                "(config.watchdog.rollout): it hangs, or serves others. What has ended is kept. "
                "End the engine and start it again."
            ) from None
        except OSError as error:
            raise _Unreachable(error.strerror or str(error)) from None
        except wire.Garbled as error:
            raise self._garbled(str(error)) from None
        if "failed" in said:
            raise MachineGone(
                f"the engine at {self.address} failed: {said['failed']}. What has ended is kept. "
                "What it printed says more."
            )
        if "refused" in said:
            raise InputError(f"the engine at {self.address} refuses: {said['refused']}")
        return said, found

    def _garbled(self, why: str) -> InputError:
        return InputError(
            f"what listens at {self.address} is no engine of this version: {why}. Start one with "
            "python -m score_jax.rollout.serve, from the same score_jax."
        )


class _Unreachable(Exception):
    """Nobody listens, or whoever did is gone."""


def connected(settings: Settings) -> Remote | None:
    """The engine that a run names. Raises: InputError if it cannot be used."""
    address = settings.rollout.engine
    if not address:
        return None
    if jax.process_count() > 1:
        raise InputError(
            f"config.rollout.engine={address} is for one process, and this run has "
            f"{jax.process_count()}. Leave it out, or run on one host."
        )
    return Remote(address, settings.watchdog.rollout)
