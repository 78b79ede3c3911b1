"""TensorFlow Datasets builders of MATH, MBPP and HumanEval; they need no TensorFlow.

A builder turns the published files into ArrayRecord files, once per machine or file system; after
that `prepared.rows` reads them through `tfds.data_source`. The published files are downloaded from
their authors' address, or from the folder or URL given to `take_from`. math_problems.py, mbpp.py
and humaneval.py check and split them; their order is kept.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

from score_jax.data.files import published
from score_jax.data.files.published import Published
from score_jax.data.sets import humaneval, math_problems, mbpp

_VERSION = "1.0.0"
_SOURCES: dict[str, str] = {}  # builder name -> a folder, or the URL of one


def take_from(name: str, source: str) -> None:
    """Sets the folder (or its URL) from which a builder takes the published files."""
    _SOURCES[name] = source


class Math(tfds.core.GeneratorBasedBuilder):
    """MATH, Lightman et al.'s split."""

    VERSION = tfds.core.Version(_VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in math_problems.FIELDS}
        return _info(self, features, math_problems.__doc__)

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            split: _numbered(math_problems.examples(_fetch(self, manager, file), split))
            for split, file in math_problems.FILES.items()
        }

    def _generate_examples(self, **_: Any) -> None:
        raise NotImplementedError("the split generators yield the examples")


class Mbpp(tfds.core.GeneratorBasedBuilder):
    """MBPP in its four splits."""

    VERSION = tfds.core.Version(_VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        text, texts = tfds.features.Text(), tfds.features.Sequence(tfds.features.Text())
        names = ("text", "code", "test_setup_code")
        features = dict.fromkeys(names, text) | {
            "task_id": tfds.features.Scalar(np.int64),
            "test_list": texts,
            "challenge_test_list": texts,
        }
        return _info(self, features, mbpp.__doc__)

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path = _fetch(self, manager, mbpp.FILE)
        return {split: _numbered(mbpp.examples(path, split)) for split in mbpp.SPLITS}

    def _generate_examples(self, **_: Any) -> None:
        raise NotImplementedError("the split generators yield the examples")


class Humaneval(tfds.core.GeneratorBasedBuilder):
    """HumanEval, one split."""

    VERSION = tfds.core.Version(_VERSION)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in humaneval.FIELDS}
        return _info(self, features, humaneval.__doc__)

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path = _fetch(self, manager, humaneval.FILE)
        return {"test": _numbered(humaneval.examples(path, "test"))}

    def _generate_examples(self, **_: Any) -> None:
        raise NotImplementedError("the split generators yield the examples")


def _info(builder: Any, features: dict[str, Any], text: str | None) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=builder,
        description=text or "",
        features=tfds.features.FeaturesDict(features),
        disable_shuffling=True,  # so ids and order are the same as when read from the files
    )


def _fetch(builder: Any, manager: tfds.download.DownloadManager, file: Published) -> pathlib.Path:
    """A published file on this machine."""
    source = _SOURCES.get(builder.name, "")
    if source and not published.is_url(source):
        return published.find(source, file)
    url = f"{source.rstrip('/')}/{file.name}" if source else file.url
    return pathlib.Path(manager.download(url))


def _numbered(rows: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    return iter(enumerate(rows))
