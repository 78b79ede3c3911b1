"""A folder of adapters in `peft`'s layout as a source: what it is an adapter of, and how scaled.

    find(path)   -> the adapter that a folder holds; None if it holds none

merged_adapters.py merges them: LoRA (arXiv 2106.09685), with the scale of every module and
rank-stabilised too (arXiv 2312.03732), DoRA (arXiv 2402.09353), and whole modules that were trained
beside them. Other kinds are refused by name, from the config alone.
Layout: github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md.
"""

import contextlib
import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.model.files import huggingface
from score_jax.problem import InputError, expanded

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_BASE = "base_model_name_or_path"
_PREFIX = "base_model.model."  # of the wrapped model's own names
_NOTHING: tuple[Any, ...] = (None, False, "", [], {})

# Keys of adapter_config.json that may have only these values: others are not merged here, or do
# not leave the base as it was published.
_FIXED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "task_type": ("CAUSAL_LM", "FEATURE_EXTRACTION", None),
    "bias": ("none", None),
    "revision": ("main", None, ""),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
} | dict.fromkeys(
    (
        *("lora_bias", "use_qalora", "layer_replication", "trainable_token_indices"),
        *("target_parameters", "alora_invocation_tokens", "use_bdlora", "arrow_config"),
        *("kasa_config", "monteclora_config"),
    ),
    _NOTHING,
)
MERGE_THERE = (
    "Merge it with peft, if it can be merged (PeftModel.from_pretrained, merge_and_unload, "
    "save_pretrained), and name the merged folder."
)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter's folder and what its config says."""

    path: Path
    described: Mapping[str, Any]
    base: str  # a folder, or what else it was trained from: a hub id

    @property
    def settings(self) -> str:
        """All that the config says of the adapter itself: where its base lies may change."""
        own = {key: value for key, value in self.described.items() if key != _BASE}
        return json.dumps(own, sort_keys=True)

    @property
    def tokenizer(self) -> str:
        """The folder, if a tokenizer was saved with the adapter; else empty: it is the base's."""
        return str(self.path) if any((self.path / n).exists() for n in _TOKENIZERS) else ""

    @contextlib.contextmanager
    def of_base(self) -> Iterator[None]:
        """Errors about the base say that this is what they are about."""
        try:
            yield
        except InputError as error:
            raise InputError(
                f"{self.path} is an adapter of {self.base} (base_model_name_or_path in {CONFIG}), "
                f"which it is merged into: {error} If the base is elsewhere, say so in {CONFIG}."
            ) from error

    def scale(self, module: str, rank: int) -> float:
        """What a module's product of factors is multiplied by. Raises: InputError."""
        own = module.removeprefix(_PREFIX)
        stated = self._of_module("rank_pattern", own, self.described.get("r"))
        alpha = self._of_module("alpha_pattern", own, self.described.get("lora_alpha"))
        numbers = all(
            isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= sys.float_info.max
            for n in (stated, alpha)
        )
        if not numbers or stated != rank:
            raise InputError(
                f"{self.path / CONFIG}: r = {stated!r} and lora_alpha = {alpha!r} for {module}, "
                f"whose factors have rank {rank}, so its scale is not known. Fetch both files of "
                "the adapter again."
            )
        return alpha / (math.sqrt(rank) if self.described.get("use_rslora") else rank)

    def _of_module(self, key: str, module: str, otherwise: Any) -> Any:
        """A module's own value: of the first pattern that matches the end of its name."""
        patterns = self.described.get(key) or {}
        try:
            for pattern, value in patterns.items():
                if re.match(rf"(.*\.)?({pattern})$", module):
                    return value
        except (AttributeError, re.error):
            raise InputError(
                f"{self.path / CONFIG}: {key} = {patterns!r} does not map patterns of modules to "
                "numbers. Fetch the file again."
            ) from None
        return otherwise


def find(path: Path) -> Adapter | None:
    """The adapter in a folder.

    Raises: InputError if it is of a kind that cannot be merged, or the folder holds a model too.
    """
    if not (path / CONFIG).is_file():
        return None
    described = _described(path)
    if any((path / name).exists() for name in (huggingface.WEIGHTS, huggingface.INDEX)):
        raise InputError(
            f"{path} holds a model and an adapter, and it is not clear whether the adapter is "
            f"merged into the model already. Move {CONFIG} and {WEIGHTS} into a folder of their "
            "own, and name the folder that is meant."
        )
    for key, values in _FIXED.items():
        if key in described and not any(described[key] is v or described[key] == v for v in values):
            raise InputError(
                f"{path / CONFIG}: adapters with {key} = {described[key]!r} are not merged here. "
                f"{MERGE_THERE}"
            )
    base = _base(path, str(described[_BASE]))
    at, passed = Path(base), [path.resolve()]
    while (at / CONFIG).is_file():  # an adapter of an adapter
        if at.resolve() in passed:
            raise InputError(
                f"{path} is an adapter of {base}, and going from base to base "
                f"(base_model_name_or_path in {CONFIG}) leads back to {at}: no model is at the "
                "end. Name the base model's folder or hub id in one of them."
            )
        passed.append(at.resolve())
        at = Path(_base(at, str(_described(at)[_BASE])))
    return Adapter(path, described, base)


def _described(path: Path) -> dict[str, Any]:
    try:
        described = jsonfiles.read(path / CONFIG)
    except (OSError, ValueError) as error:
        raise InputError(f"{path / CONFIG} is not JSON ({error}). Fetch the file again.") from None
    if not isinstance(described, dict) or not described.get(_BASE):
        raise InputError(
            f"{path / CONFIG} does not say what was adapted (base_model_name_or_path). Add the "
            "base model's folder or hub id."
        )
    return described


def _base(path: Path, named: str) -> str:
    """The base as a folder, if it is one: as named, from the adapter's folder, or beside it."""
    if expanded(named).resolve() == path.resolve():
        raise InputError(
            f"{path / CONFIG} says that this is an adapter of itself (base_model_name_or_path). "
            "Name the base model's folder or hub id there."
        )
    last = named.rstrip("/").rpartition("/")[2]
    for found in (expanded(named), path / named, path.parent / last, path / last):
        if found.exists() and found.resolve() != path.resolve():
            return str(found)
    return named
