"""The packages of config.rewards.packages: what programs and tests may import beside the library.

installed.py looks them up where the trainer runs. allow() then lets a process of the sandbox import
them, with the packages that they need, and no other: whatever else is installed stays hidden, so
programs and tests meet the same modules on every machine.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

# A BLAS with threads would keep the forkserver from entering namespaces, and crowd the cores.
ENVIRONMENT = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)


@dataclasses.dataclass(frozen=True)
class Packages:
    """Packages that were found."""

    names: tuple[str, ...] = ()  # as the settings name them
    modules: tuple[str, ...] = ()  # all modules that may be imported for them
    paths: tuple[str, ...] = ()  # their files and folders

    def to_text(self) -> str:
        """For of_text, in a process of the sandbox."""
        return json.dumps(dataclasses.astuple(self))

    @classmethod
    def of_text(cls, text: str) -> "Packages":
        """What to_text wrote."""
        return cls(*map(tuple, json.loads(text)))

    @property
    def folders(self) -> list[str]:
        """The folders that hold `paths`."""
        return list(dict.fromkeys(str(Path(path).parent) for path in self.paths))


class _Only:
    """Refuses the import of all packages but the allowed ones and Python's own."""

    def __init__(self, modules: Sequence[str]):
        self._modules = {*modules, *sys.stdlib_module_names, *sys.builtin_module_names}

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> None:
        """Raises: ModuleNotFoundError for what is not allowed; leaves the rest to Python."""
        if path is None and name.partition(".")[0] not in self._modules:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def allow(packages: Packages) -> None:
    """Lets this process and its forks import the packages."""
    sys.path.extend(packages.folders)
    sys.meta_path.insert(0, _Only([*packages.modules, "score_jax"]))  # type: ignore[arg-type]
