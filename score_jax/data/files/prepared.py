"""Data sets that TensorFlow Datasets has prepared as ArrayRecord files, read without TensorFlow.

A data set is downloaded and prepared at its first use. On machines without a network,

    python -m score_jax.data.files.prepared math FOLDER [--data_dir=DIR]

writes the ArrayRecord files of math, mbpp or humaneval from a FOLDER (or its URL) that holds the
published files. By default DIR is that of TFDS: TFDS_DATA_DIR, or ~/tensorflow_datasets.
"""

import argparse
import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from score_jax.console import command
from score_jax.data.files import published
from score_jax.data.files.published import Published
from score_jax.problem import InputError, expanded

_FORMAT = {"file_format": "array_record"}
_BUILDERS = "score_jax.data.files.builders"


def rows(
    name: str,
    split: str,
    *,
    module: str = "",
    data_dir: str | None = None,
    url: str = "",
    files: str = "files",
) -> list[dict[str, Any]]:
    """The examples of a split, text as str; prepares the data set first if that was not done yet.

    Args:
      name: the data set's name in TFDS.
      split: as TFDS takes it: "train", "train+validation", "train[:90%]".
      module: the module that registers the builder when imported; empty: TFDS looks for it.
      data_dir: the TFDS folder; None is TFDS's default.
      url: a folder on the web to prepare it from; empty: its authors' address.
      files: the published files that can be read instead, for the error message.
    """
    try:
        source = _open(name, split, module, data_dir, url)
        found = [{key: _plain(value) for key, value in row.items()} for row in source]
    except InputError:
        raise
    except Exception as error:  # network, disk, another file format: TFDS raises many types
        raise InputError(
            f"cannot get {name} from TensorFlow Datasets ({type(error).__name__}: "
            f"{_first_cause(error)!s:.300}). Run once with network access, or set "
            f"--config.problems.path=FOLDER to a folder with the published {files}."
        ) from error
    if not found:
        raise InputError(f"{name} in TensorFlow Datasets has no problems in its {split!r} split.")
    return found


def examples(
    name: str,
    path: str,
    split: str,
    file: Published,
    read: Callable[[pathlib.Path, str], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """The examples of a split of one of our own builders.

    path: a folder with the published file, which `read` reads; a URL; or empty for TFDS.
    """
    if path and not published.is_url(path):
        return read(published.find(path, file), split)
    return rows(name, split, url=path, module=_BUILDERS, files=file.name)


def prepare(name: str, source: str, data_dir: str | None = None) -> pathlib.Path:
    """Writes the ArrayRecord files of one of our builders, and returns their folder.

    source: a folder with the published files, or its URL.
    """
    import tensorflow_datasets as tfds

    builders = importlib.import_module(_BUILDERS)
    if not published.is_url(source) and not expanded(source).is_dir():
        raise InputError(f"{source} is neither a folder nor a URL, so {name} cannot be prepared.")
    builders.take_from(name, source)
    builder = tfds.builder(name, data_dir=data_dir, **_FORMAT)
    try:
        builder.download_and_prepare()
    except Exception as error:
        cause = _first_cause(error)
        if not isinstance(cause, InputError):
            cause = InputError(
                f"cannot prepare {name} from {source} ({type(cause).__name__}: {cause!s:.300})."
            )
        raise cause from error
    return pathlib.Path(builder.data_dir)


def _open(
    name: str, split: str, module: str, data_dir: str | None, url: str
) -> Sequence[dict[str, Any]]:
    import tensorflow_datasets as tfds

    if module:
        # TFDS's own search by name fails at the first builder that needs TensorFlow.
        importlib.import_module(module)
    if data_dir is not None:
        pathlib.Path(data_dir).mkdir(parents=True, exist_ok=True)
    builder = tfds.builder(name, data_dir=data_dir, **_FORMAT)
    if not builder.is_prepared():
        if url:
            prepare(name, url, data_dir)
        else:
            _require_network()
    return tfds.data_source(name, split=split, data_dir=data_dir, builder_kwargs=_FORMAT)


def _require_network() -> None:
    """Raises at once if there is no network; TFDS would retry for minutes."""
    import requests  # TFDS downloads with it, so proxies and certificates are the same

    requests.head("https://raw.githubusercontent.com", timeout=20)


def _first_cause(error: BaseException) -> BaseException:
    """The InputError that TFDS wrapped, or the error itself if there is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, InputError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return error


def _plain(value: Any) -> Any:
    """bytes -> str, numpy's numbers and arrays -> Python's."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def main(argv: Sequence[str]) -> None:
    """The command line of the file's head."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.data.files.prepared", description=__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", choices=("math", "mbpp", "humaneval"))
    parser.add_argument("source", help="folder or URL with the published files")
    parser.add_argument("--data_dir", default=None, help="TFDS folder to write to")
    given = parser.parse_args(argv)
    print(prepare(given.name, given.source, given.data_dir))


if __name__ == "__main__":
    command.run(main)
