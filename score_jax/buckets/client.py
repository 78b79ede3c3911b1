"""One folder in a bucket: list, read, write and delete its files, with preconditions.

    folder = Folder("gs://bucket/runs/first")
    folder.files("evaluations/")            -> {"evaluations/base.json": its generation, …}
    folder.upload("config.json", path, 0)   only if there is none: raises Changed otherwise

A generation is the store's number of a file's content; no two contents of a file have the same.
While the store cannot be reached, each call tries again for LOST_SEC and then raises MachineGone.

Left out: s3:// and others. Orbax knows whether a checkpoint is complete on gs:// alone.
"""

import base64
import contextlib
import functools
import hashlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from score_jax.problem import InputError, MachineGone

SCHEME = "gs://"
LOST_SEC = 600.0  # how long a store may be out of reach before the run ends
_PACKAGES = ("google.cloud.storage", "gcsfs")  # of the extra; the second is read by Orbax
_SAY_SEC = 5.0
# Errors of a connection, by the names of their classes: none of these libraries is imported here.
_AWAY = {
    "aiohttp.client_exceptions.ClientConnectionError",
    "aiohttp.client_exceptions.ClientPayloadError",
    "google.api_core.exceptions.RetryError",
    "google.auth.exceptions.TransportError",
    "requests.exceptions.ChunkedEncodingError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
}
_AWAY_CODES = (408, 429, 500, 502, 503, 504)  # of HTTP
_AWAY_TEXTS = ("UNAVAILABLE: ", "CURL error")  # tensorstore reports errors as texts

# Both are read when the first path is opened. Where TensorFlow is installed, etils would choose its
# file system; and gcsfs would ask another service of Google what kind of bucket each one is.
os.environ.setdefault("EPATH_USE_TF", "0")
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# It logs what it raises, with the stack.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


class Changed(MachineGone):
    """A file in a bucket is not as it was when this process last looked at it."""


class NoAccess(InputError):
    """The store refuses a request."""


def is_url(name: str) -> bool:
    """Whether a name is that of a folder or file in a bucket. Raises: InputError for other URLs."""
    scheme, separator, rest = name.partition("://")
    if not separator or scheme in ("http", "https"):
        return False
    if f"{scheme}://" != SCHEME:
        raise InputError(
            f"{name}: of buckets only gs:// is known. Copy it to a local folder, or mount the "
            "bucket and name a folder in it."
        )
    if not rest.partition("/")[0] or not rest.rstrip("/").rpartition("/")[2]:
        raise InputError(f"{name} names no folder. Write gs://BUCKET/PATH.")
    return True


def check(name: str) -> None:
    """Raises: InputError if `name` is in a bucket and the packages for it are not installed."""
    if is_url(name) and not all(map(_is_installed, _PACKAGES)):
        raise InputError(
            f"{name} is in a bucket, which needs packages that are not installed. Run: "
            "pip install 'score-jax[gcs]' (in a checkout: pip install '.[gcs]'), or name a local "
            "folder."
        )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def is_away(error: BaseException) -> bool:
    """Whether an error says that a store could not be reached."""
    names = {f"{one.__module__}.{one.__qualname__}" for one in type(error).__mro__}
    return (
        isinstance(error, ConnectionError | TimeoutError)
        or bool(names & _AWAY)
        or getattr(error, "code", None) in _AWAY_CODES
        or any(text in str(error) for text in _AWAY_TEXTS)
    )


class Folder:
    """A folder in a bucket; it is there as soon as there is a file in it."""

    def __init__(self, url: str, patience_sec: float | None = None):
        """Args:

        patience_sec: for how long an unreachable store is asked again; by default LOST_SEC.
        Raises: InputError if the packages are not installed.
        """
        check(url)
        self.url = url.rstrip("/")
        self.bucket_name, _, path = self.url.removeprefix(SCHEME).partition("/")
        self._start = f"{path}/" if path else ""
        self._patience_sec = patience_sec

    def files(self, below: str = "") -> dict[str, int]:
        """{name: generation} of all files whose name starts with `below`, in any depth."""
        return self._asked(lambda retry: self._listed(below, retry)[0])

    def entries(self, below: str = "") -> tuple[dict[str, int], list[str]]:
        """The files directly in the folder, or in its folder `below`; and the folders there."""
        return self._asked(lambda retry: self._listed(below, retry, delimiter="/"))

    def read(self, name: str) -> tuple[bytes, int] | None:
        """Content and generation of a file; None if there is none."""

        def ask(retry: Any) -> tuple[bytes, int] | None:
            blob = self._blob(name)
            try:
                return blob.download_as_bytes(retry=retry), blob.generation
            except _errors().NotFound:
                self._bucket_must_exist(retry)
                return None

        return self._asked(ask)

    def download(self, name: str, path: Path) -> None:
        """Writes a file to a local path, which gets its name when it is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            self._asked(lambda retry: self._blob(name).download_to_filename(part, retry=retry))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)

    def upload(self, name: str, source: Path | bytes, generation: int | None = None) -> int:
        """Writes a file from a local one or from bytes; returns its new generation.

        generation: the one that it must have now, 0: there must be none; None: any.
        Raises: Changed if it has another one, and other content.
        """

        def ask(retry: Any) -> int:
            blob = self._blob(name)
            how = {"if_generation_match": generation, "retry": retry}
            try:
                if isinstance(source, bytes):
                    blob.upload_from_string(source, **how)
                else:
                    blob.upload_from_filename(source, **how)
            except _errors().PreconditionFailed as error:
                # If the answer to an upload was lost, it was made twice.
                with contextlib.suppress(_errors().NotFound):
                    blob.reload(retry=retry)
                    if blob.md5_hash == _md5(source):
                        return blob.generation
                raise Changed(
                    f"{self.url}/{name} was changed by another process, so another run is at work "
                    "there. This one ends, so that the two do not mix."
                ) from error
            return blob.generation

        return self._asked(ask)

    def copy(self, name: str, to: "Folder", new_name: str) -> None:
        """Copies a file within the store."""
        blob, bucket = self._blob(name), to._client.bucket(to.bucket_name)
        target = bucket.blob(to._start + new_name)

        def ask(retry: Any) -> None:
            token, _, _ = target.rewrite(blob, retry=retry)
            while token:
                token, _, _ = target.rewrite(blob, token=token, retry=retry)

        self._asked(ask)

    def delete(self, name: str, generation: int | None = None) -> None:
        """Deletes a file if it is there, and has the generation."""

        def ask(retry: Any) -> None:
            with contextlib.suppress(_errors().NotFound, _errors().PreconditionFailed):
                self._blob(name).delete(if_generation_match=generation, retry=retry)

        self._asked(ask)

    @functools.cached_property
    def _client(self) -> Any:
        from google.cloud import storage

        return storage.Client()

    def _blob(self, name: str) -> Any:
        return self._client.bucket(self.bucket_name).blob(self._start + name)

    def _listed(
        self, below: str, retry: Any, delimiter: str | None = None
    ) -> tuple[dict[str, int], list[str]]:
        start = self._start + below
        found = self._client.list_blobs(
            self.bucket_name, prefix=start, delimiter=delimiter, retry=retry
        )
        # A name that ends with a slash is the mark of an empty folder.
        files = {
            blob.name.removeprefix(self._start): blob.generation
            for blob in found
            if not blob.name.endswith("/")
        }
        folders = sorted(name.removeprefix(start).rstrip("/") for name in found.prefixes)
        return files, folders

    def _bucket_must_exist(self, retry: Any) -> None:
        """Raises: NotFound."""
        next(iter(self._client.list_blobs(self.bucket_name, max_results=1, retry=retry)), None)

    def _asked(self, ask: Callable[[Any], Any]) -> Any:
        """What the store answers; asked again while it is out of reach."""
        from google.api_core import exceptions
        from google.api_core.retry import Retry
        from google.auth.exceptions import DefaultCredentialsError

        began, said = time.monotonic(), False
        patience = LOST_SEC if self._patience_sec is None else self._patience_sec

        def failed(error: Exception) -> None:
            nonlocal said
            if not said and self._patience_sec is None and time.monotonic() - began >= _SAY_SEC:
                said = True
                print(
                    f"score_jax: {self.url} cannot be reached ({_short(error)}); trying again for "
                    f"{patience / 60:.3g} minutes …",
                    file=sys.stderr,
                    flush=True,
                )

        retry = Retry(is_away, 1.0, 8.0, 2.0, timeout=patience, on_error=failed)
        try:
            return ask(retry)
        except DefaultCredentialsError as error:
            raise NoAccess(
                f"{self.url}: this machine has no credentials for Google Cloud. Run `gcloud auth "
                "application-default login`, or name a local folder."
            ) from error
        except (exceptions.Forbidden, exceptions.Unauthorized) as error:
            raise NoAccess(
                f"{self.url}: the store refuses access ({_short(error)}). Give the account of this "
                "machine the roles Storage Object User and Storage Legacy Bucket Reader for the "
                "bucket, or name another folder."
            ) from error
        except exceptions.NotFound as error:
            raise InputError(
                f"{self.url}: not found ({_short(error)}). Create the bucket, or correct the name."
            ) from error
        except Exception as error:
            if isinstance(error, MachineGone) or not is_away(error):
                raise
            minutes = (time.monotonic() - began) / 60
            raise MachineGone(
                f"{self.url} could not be reached for {minutes:.3g} minutes ({_short(error)}). "
                "What is there is whole."
            ) from error


def _errors() -> Any:
    from google.api_core import exceptions

    return exceptions


def _md5(source: Path | bytes) -> str:
    if isinstance(source, bytes):
        found = hashlib.md5(source, usedforsecurity=False)
    else:
        with open(source, "rb") as file:
            found = hashlib.file_digest(file, "md5")
    return base64.b64encode(found.digest()).decode()


def _short(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    text = " ".join(str(error).split())
    if "Caused by" in text:  # urllib3 puts the reason last, in brackets
        text = text.rpartition(": ")[2].strip("\"')")
    return text[:200] or type(error).__name__
