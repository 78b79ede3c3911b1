"""Our own engine in a process of its own, behind a Unix socket.

    python -m score_jax.rollout.serve FOLDER --socket=PATH

FOLDER is what --mode=export wrote, or any other source of weights. They are read once, onto the
first device: after another export, start it again. It answers one question at a time; others wait.
Whoever may open the socket may ask: only its owner.
"""

import argparse
import contextlib
import dataclasses
import os
import socket
import socketserver
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_jax import jsonfiles
from score_jax.console import command, outputs
from score_jax.model import weights
from score_jax.model.cache_layouts import layout_for
from score_jax.problem import InputError, expanded
from score_jax.rollout import episode, wire
from score_jax.rollout.layout import laid_out
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles
from score_jax.structs import Instructions, Params, PromptBatch

_TALK_SEC = 60.0  # to receive a question, or send an answer


class Service:
    """Answers questions with the weights of a source."""

    def __init__(self, source: str):
        self.source, self.dtype = source, _stored_as(source)
        self.model, self._params = weights.load(source, self.dtype)
        self.digest = weights.digest(self._params, self.dtype)
        self._decodes_in = ""
        self._most: dict[Any, int] = {}  # problems of a question, of one shape

    def answer(self, header: wire.Header, arrays: wire.Arrays) -> tuple[wire.Header, wire.Arrays]:
        """The answer to a question. Raises: InputError; wire.Garbled."""
        if header.get("ask") == "weights":
            return {"digest": self.digest, "dtype": self.dtype, "source": self.source}, {}
        try:
            settings = wire.settings_of(header["settings"], arrays, self.model)
            own = None
            if "instructions" in arrays:
                own = Instructions(arrays["instructions"], arrays["instruction_length"])
            key = jax.random.wrap_key_data(jnp.asarray(arrays["key"]), impl=header["key"])
            tokens_QP, length_Q, index_Q = (arrays[x] for x in ("tokens", "length", "index"))
        except (TypeError, KeyError, ValueError) as error:
            raise wire.Garbled(f"no question that can be read ({error})") from None
        platform = jax.default_backend()
        settings = dataclasses.replace(
            settings, cache_layout=layout_for(platform), untied=platform == "cpu"
        )
        # The last questions of a set have fewer problems: they need no program of their own.
        shape = (settings, tokens_QP.shape[1], own and own.tokens.shape[1:])
        most = self._most[shape] = max(self._most.get(shape, 0), len(tokens_QP))
        like = np.minimum(np.arange(most), len(tokens_QP) - 1)
        asked = own.of(like) if own else None
        prompts = PromptBatch(tokens_QP[like], length_Q[like], index_Q[like], (), asked)
        rows = episode.run(self._laid_out(settings), prompts, key, settings=settings)
        rows_B = len(tokens_QP) * settings.samples
        return {}, {name: np.asarray(x)[:rows_B] for name, x in vars(rows).items()}

    def _laid_out(self, settings: EpisodeSettings) -> Params:
        if self._decodes_in and self._decodes_in != settings.dtype:
            raise InputError(
                f"the engine decodes in {self._decodes_in}, in which it was first asked, and this "
                f"run in {settings.dtype}. Start another one."
            )
        compiles.set_matmul_precision(settings.dtype)
        self._decodes_in = settings.dtype
        self._params = laid_out(self._params, settings=settings, frees=True)
        return self._params


class Server(socketserver.UnixStreamServer):
    """Listens at a path until it is closed.

    Raises: InputError if it cannot, or another one does.
    """

    def __init__(self, path: str, service: Service):
        self.service, self._path = service, path
        _free(path)
        before = os.umask(0o177)
        try:
            super().__init__(path, _Question)
        except OSError as error:
            raise InputError(
                f"--socket={path} cannot be made ({error.strerror or error}). Name a short path "
                "(at most 100 characters) in a folder of yours."
            ) from None
        finally:
            os.umask(before)

    def server_close(self) -> None:
        super().server_close()
        Path(self._path).unlink(missing_ok=True)


class _Question(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        try:
            header, arrays = self.server.service.answer(*wire.receive(self.request, _TALK_SEC))
        except OSError as error:
            print(f"no question came: {error}", file=sys.stderr, flush=True)
            return
        except (InputError, wire.Garbled) as error:
            header, arrays = {"refused": str(error)}, {}
        except Exception as error:  # the next question may be a better one
            header, arrays = {"failed": f"{type(error).__name__}: {error}"[:2000]}, {}
        said = header.get("refused") or header.get("failed")
        if said:
            print(said, file=sys.stderr, flush=True)
        try:
            wire.send(self.request, header, arrays, _TALK_SEC)
        except OSError as error:
            print(f"nobody took the answer: {error}", file=sys.stderr, flush=True)


def _free(path: str) -> None:
    """Removes the socket of an engine that was killed."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except OSError:
            Path(path).unlink(missing_ok=True)
            return
    raise InputError(f"another engine listens at --socket={path}. End it, or name another path.")


def _stored_as(source: str) -> str:
    """The dtype in which weights are served: that of their files."""
    config = expanded(source) / "config.json"
    stated = jsonfiles.read(config) if config.is_file() else {}
    kind = stated.get("dtype") or stated.get("torch_dtype")
    return kind if kind in weights.DTYPES else "float32"


def main(argv: Sequence[str]) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m score_jax.rollout.serve", allow_abbrev=False)
    parser.add_argument("folder", help="what --mode=export wrote, or another source of weights")
    parser.add_argument("--socket", required=True, help="path of the socket to listen at")
    given = parser.parse_args(argv)
    service = Service(given.folder)
    with Server(given.socket, service) as server, contextlib.suppress(KeyboardInterrupt):
        what = f"{service.source}, {service.dtype}, weights {service.digest}"
        print(f"serving {what} at {given.socket}", flush=True)
        outputs.go_on()
        server.serve_forever()


if __name__ == "__main__":
    command.run(main)
