"""Looks up the packages of config.rewards.packages, where the trainer runs.

Apart from packages.py, as importlib.metadata would make the processes larger that are forked.
"""

import importlib.util
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from score_jax.problem import InputError
from score_jax.rewards.sandbox.packages import Packages


def find(names: Sequence[str]) -> Packages:
    """Looks up packages, and what they require. Raises: InputError for one that is missing."""
    paths: dict[str, None] = {}
    of_module = metadata.packages_distributions()
    for name in names:
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        origins = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        if not origins or not origins[0]:
            raise InputError(
                f"config.rewards.packages names {name!r}, which cannot be imported here, so no "
                "program could use it. Give the name that programs import, and install it with "
                "pip where the trainer runs."
            )
        paths[origins[0]] = None
        for distribution in _required(of_module.get(name, [])[:1]):
            for file in distribution.files or ():
                if file.parts[0] not in ("..", "__pycache__") and file.suffix != ".pth":
                    paths[str(distribution.locate_file(file.parts[0]))] = None
    modules = {Path(path).name.partition(".")[0] for path in paths}
    return Packages(tuple(names), tuple(sorted(modules)), tuple(paths))


def _required(names: list[str]) -> list[metadata.Distribution]:
    """Distributions, and all that they require and that are installed."""
    found: dict[str, metadata.Distribution] = {}
    while names:
        name = re.sub(r"[-_.]+", "-", names.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for requirement in found[name].requires or ():
            needed = re.match(r"[\w.-]+", requirement)
            if needed and "extra ==" not in requirement:
                names.append(needed[0])
    return list(found.values())
