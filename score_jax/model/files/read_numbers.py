"""Numbers of a model's description, checked one by one as they are read."""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from score_jax.problem import InputError


class Numbers:
    """Reads positive whole numbers by key; the error names the key that is missing or wrong."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = ""):
        self.values, self.where, self.prefix = values, where, prefix

    def __call__(
        self, key: str, default: int | None = None, most: int = 2**31 - 1, least: int = 1
    ) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise InputError(
                f"{self.where}: {self.prefix}{key} is missing, so the model's shape is unknown. "
                "Fetch the file again, or add the value."
            )
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not least <= value <= most:
            raise InputError(
                f"{self.where}: {self.prefix}{key} = {value!r} must be one whole number from "
                f"{least} to {most}. Fetch the file again."
            )
        return int(value)

    def real(self, key: str, value: Any, *, zero: bool = True) -> float:
        """`value` if it is a finite number of at least 0, or above 0 where `zero` is not allowed.

        Raises: InputError that names `key`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            value = None
        if value is None or not 0 <= value <= sys.float_info.max or (value == 0 and not zero):
            least = "0 or more" if zero else "above 0"
            raise InputError(
                f"{self.where}: {self.prefix}{key} must be one number, {least}. Fetch the file "
                "again."
            )
        return float(value)

    def group(self, key: str, value: Any) -> None:
        """Raises: InputError if the value is not a JSON object."""
        if not isinstance(value, Mapping):
            raise InputError(
                f"{self.where}: {self.prefix}{key} must be a JSON object, not {value!r}. Fetch the "
                "file again."
            )
