"""TensorFlow Datasets builders of MATH, MBPP and HumanEval; they need no TensorFlow.

A builder turns the published files into ArrayRecord files, once per machine or file system; after
that `prepared.rows` reads them through `tfds.data_source`. The published files are downloaded from
their authors' address, or from the folder or URL given to `take_from`. math_problems.py, mbpp.py
and humaneval.py check and split them; their order is kept.
"""

import pathlib
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

from score_jax.data.files import published
from score_jax.data.files.published import Published
from score_jax.data.sets import humaneval, math_problems, mbpp

_SOURCES: dict[str, str] = {}  # builder name -> a folder, or the URL of one
_TEXT = tfds.features.Text()
_MBPP = {
    "task_id": tfds.features.Scalar(np.int64),
    "text": _TEXT,
    "code": _TEXT,
    "test_setup_code": _TEXT,
    "test_list": tfds.features.Sequence(_TEXT),
    "challenge_test_list": tfds.features.Sequence(_TEXT),
}


def take_from(name: str, source: str) -> None:
    """Sets the folder (or its URL) from which a builder takes the published files."""
    _SOURCES[name] = source


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Prepares a problem set from the published file of each split."""

    VERSION = tfds.core.Version("1.0.0")
    SET: Any  # its module in sets/
    FILES: dict[str, Published]  # by split
    FEATURES: dict[str, Any]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.SET.__doc__ or "",
            features=tfds.features.FeaturesDict(self.FEATURES),
            disable_shuffling=True,  # so ids and order are the same as when read from the files
        )

    def _split_generators(self, manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path_of = {file: self._fetch(manager, file) for file in set(self.FILES.values())}
        return {
            split: iter(enumerate(self.SET.examples(path_of[file], split)))
            for split, file in self.FILES.items()
        }

    def _fetch(self, manager: tfds.download.DownloadManager, file: Published) -> pathlib.Path:
        """A published file on this machine."""
        source = _SOURCES.get(self.name, "")
        if source and not published.is_url(source):
            return published.find(source, file)
        url = f"{source.rstrip('/')}/{file.name}" if source else file.url
        return pathlib.Path(manager.download(url))

    def _generate_examples(self, **_: Any) -> None:
        raise NotImplementedError("the split generators yield the examples")


class Math(_Builder):
    """MATH, Lightman et al.'s split."""

    SET = math_problems
    FILES = math_problems.FILES
    FEATURES = dict.fromkeys(math_problems.FIELDS, _TEXT)


class Mbpp(_Builder):
    """MBPP in its four splits."""

    SET = mbpp
    FILES = dict.fromkeys(mbpp.SPLITS, mbpp.FILE)
    FEATURES = _MBPP


class Humaneval(_Builder):
    """HumanEval, one split."""

    SET = humaneval
    FILES = dict.fromkeys(["test"], humaneval.FILE)
    FEATURES = dict.fromkeys(humaneval.FIELDS, _TEXT)
