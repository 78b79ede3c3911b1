"""What a step learned from, saved when a number of it is not finite, for --mode=replay.

    DIR/diagnosis/STAGE-STEP.json   what was not finite, metrics, norms, key, settings, versions
    DIR/diagnosis/STAGE-STEP.npz    the batch, and the trained params up to PARAMS_BYTES

Plain arrays and JSON: a bug report can carry both files, and reading them runs no code of theirs.
"""

import dataclasses
import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import jsonfiles
from score_jax.buckets import sources
from score_jax.buckets.client import is_url
from score_jax.problem import InputError, expanded
from score_jax.runtime import hosts
from score_jax.structs import Batch, Params, SampledLogProbs
from score_jax.workdir.runlog import package_versions

PARAMS_BYTES = 2**30  # more is not copied: a replay then takes the newest checkpoint


# Metrics of an update that has been made; where they alone are not finite, the params are not.
OVERFLOWS = ("update_norm/", "param_norm/")


class NotFinite(ValueError):
    """A number of a step is not finite; `batch` is what the step was to learn from."""

    def __init__(self, what: str, batch: Batch):
        super().__init__(what)
        self.batch = batch


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `write` saved."""

    facts: dict[str, Any]
    batch: Batch  # numpy
    params: Params | None  # numpy; None: they were too large


def first_bad(metrics: Mapping[str, Any]) -> str:
    """The first metric that is not finite, causes before what follows from them; "": none.

    A metric of attempt 1 is NaN if the reference wrote all first attempts; that is no fault.
    """
    order = ("reward/", "logp_gap", "kl/", "loss", "grad_norm", *OVERFLOWS)
    bad = [key for key, value in metrics.items() if not math.isfinite(value)]
    given = bool(bad) and math.isnan(metrics.get("length/attempt1", 0.0))
    for prefix in order:
        for key in bad:
            if key.startswith(prefix) and not (given and key.endswith("/attempt1")):
                return key
    return ""


def write(folder: Path, name: str, batch: Batch, params: Params, facts: Mapping[str, Any]) -> Path:
    """Saves a step as folder/name.json and .npz; every process must call it.

    Returns: the path of the JSON file.
    """
    batch, leaves = hosts.whole(_without_hidden(batch)), _flat("params", params)
    small = sum(x.nbytes for x in leaves.values()) <= PARAMS_BYTES
    norms = {key: float(jax.numpy.linalg.norm(x.ravel())) for key, x in leaves.items()}
    arrays = _flat("batch", batch) | (hosts.whole(leaves) if small else {})
    path = folder / f"{name}.json"
    if hosts.is_lead():
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.{os.getpid()}.npz"
        try:
            np.savez(part, **{key: np.asarray(value) for key, value in arrays.items()})  # type: ignore[arg-type]
            os.replace(part, path.with_suffix(".npz"))
        finally:
            part.unlink(missing_ok=True)
        own = {"norms": {k: _said(v) for k, v in norms.items()}, "versions": package_versions()}
        jsonfiles.write(path, {**facts, **own})
    return path


def at_hand(name: str) -> Path:
    """The JSON file that `name` means; both files of a step in a bucket are fetched."""
    if not is_url(name):
        return expanded(name)
    stem = name.removesuffix(".npz").removesuffix(".json")
    sources.local(f"{stem}.npz")
    return Path(sources.local(f"{stem}.json"))


def read(path: Path) -> Diagnosis:
    """What `write` saved, from either file. Raises: InputError if one is missing or damaged."""
    try:
        facts = jsonfiles.read(path.with_suffix(".json"))
        facts["settings"], facts["stage"], facts["step"], facts["metrics"]
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        fields = {k.removeprefix("batch/"): v for k, v in arrays.items() if k.startswith("batch/")}
        known = {k.removeprefix("logprobs/"): fields.pop(k) for k in [*fields] if "/" in k}
        batch = Batch(**fields, logprobs=SampledLogProbs(**known) if known else None)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a saved step ({type(error).__name__}: {error}). A run that stops "
            "because a number is not finite writes DIR/diagnosis/STAGE-STEP.json and .npz: name "
            "one of them, with the other beside it."
        ) from error
    params: dict[str, Any] = {}
    for key, value in arrays.items():
        *groups, leaf = key.split("/")
        if groups[:1] == ["params"]:
            inner = params
            for group in groups[1:]:
                inner = inner.setdefault(group, {})
            inner[leaf] = value
    return Diagnosis(facts, batch, params or None)


def plain_metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Metrics for JSON, which has no NaN: what is not finite is its name, "nan" or "inf"."""
    return {key: _said(float(value)) for key, value in metrics.items()}


def _said(value: float) -> Any:
    return value if math.isfinite(value) else str(value)


def _without_hidden(batch: Batch) -> Batch:
    """Hidden states are large, and a replay computes them again."""
    known = batch.logprobs
    return batch if known is None else batch.replace(logprobs=known.replace(hidden=None))


def _flat(name: str, tree: Any) -> dict[str, Any]:
    """{"name/group/leaf": array} of a tree of dicts and dataclasses."""
    return {
        "/".join([name, *(str(getattr(k, "key", getattr(k, "name", k))) for k in path)]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def settings_of(path: Path) -> Mapping[str, Any]:
    """The settings of the run that saved a step. Raises: InputError."""
    try:
        return dict(json.loads(path.with_suffix(".json").read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not a saved step ({type(error).__name__}: {error})."
        ) from error
