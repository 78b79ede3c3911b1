"""The params in checkpoints of our own runs: the only reader of them.

    restore(path, shapes)   -> a checkpoint's params, on the devices; nothing else of it is read
    find(path)              -> the checkpoint that a path means; None if it is not a run's
    origin(source)          -> the published files, or the preset, that a source started from

A run is a source of weights for another run or tool. Its checkpoint has params and no model
config, so the run's config.json says what it started from. That may be a run again; the chain ends
at published files or a preset, which give the config and the tokenizer. A checkpoint of a run with
LoRA has adapters, which are merged into the weights that the run started from. Then params are
read one by one.

Not handled: a run with LoRA over a preset, whose random weights are in no file.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from score_jax import jsonfiles
from score_jax.buckets import places, sources
from score_jax.buckets.client import is_away
from score_jax.config.build import build
from score_jax.config.settings import ModelSettings
from score_jax.model import lowrank
from score_jax.model.families import PRESET, ModelConfig
from score_jax.model.files import adapters, locate, stored, tensor_names
from score_jax.model.files.tensor_names import Place
from score_jax.problem import InputError
from score_jax.structs import Params

CHECKPOINTS = "checkpoints"


def restore(path: Path, shapes: Params) -> Params:
    """The params of the checkpoint DIR/checkpoints/STAGE/STEP; its optimizer state is not read.

    shapes: arrays, or shapes with shardings, that the params are restored into.
    Raises: InputError if the checkpoint is damaged or of another model.
    """
    item = {"params": jax.tree.map(ocp.utils.to_shape_dtype_struct, shapes)}
    damaged = functools.partial(Damaged, path)
    with reading(damaged):
        saved = _shapes(path)
    # Orbax would pad or cut an array that has another shape.
    for keys, leaf in _leaves(item["params"]):
        name = "/".join(keys)
        if saved.pop(name, None) != leaf.shape:
            raise damaged(ValueError(f"{name} should be {list(leaf.shape)}"))
    if saved:
        raise damaged(ValueError(f"it also has {stored.listed(list(saved))}"))
    arguments = ocp.args.PyTreeRestore(
        item=item,
        restore_args=ocp.checkpoint_utils.construct_restore_args(item),
        partial_restore=True,
    )
    with reading(damaged):
        restored = ocp.PyTreeCheckpointHandler().restore(_state(path), args=arguments)
        return restored["params"]


@contextlib.contextmanager
def reading(described: Callable[[Exception], InputError]) -> Iterator[None]:
    """Turns what Orbax raises for a damaged checkpoint, which is anything, into `described` it."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError):  # too little memory is no damage
        raise
    except Exception as error:
        if is_away(error):
            raise
        raise described(error) from error


def _state(path: Path) -> Path:
    return places.at(path / "state")


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The params in a checkpoint, by path such as "layers/query". Raises: as Orbax does."""
    tree = ocp.PyTreeCheckpointHandler().metadata(_state(path)).tree["params"]
    return {"/".join(keys): tuple(leaf.shape) for keys, leaf in _leaves(tree)}


class Damaged(InputError):
    """A checkpoint that cannot be restored into a run's state."""

    def __init__(self, path: Path, error: Exception | str, *, needed: bool = False):
        """Args:

        error: what Orbax raised, many lines long; or its short form.
        needed: whether later checkpoints are made from this one, so that the run needs it.
        """
        cause = (error.__cause__ or error) if isinstance(error, Exception) else error
        self.path, self.why = path, " ".join(str(cause).split())[:200]
        help = (
            "If it was saved with other settings, use them or another --workdir; if it is damaged, "
            "delete that folder and run the same command again."
        )
        if needed:
            help = (
                "Later stages of the run need it: put back a copy of that folder, or start again "
                "in another --workdir."
            )
        super().__init__(
            f"the checkpoint {path} cannot be read as this model's state ({self.why}). {help}"
        )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint, and what the settings of its run say about the model."""

    path: Path  # DIR/checkpoints/STAGE/STEP
    model: ModelSettings  # the run's own: what it started from, and how

    @functools.cached_property
    def saved(self) -> dict[str, tuple[int, ...]]:
        """The params that the checkpoint holds, by path such as "layers/query"; read once."""
        with reading(self._damaged):
            return _shapes(self.path)

    def read(self, path: str, dtype: Any) -> np.ndarray:
        """One of the params."""
        wanted: Any = 0
        how: Any = ocp.RestoreArgs(restore_type=np.ndarray, dtype=dtype)
        for key in reversed(("params", *path.split("/"))):
            wanted, how = {key: wanted}, {key: how}
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=how, partial_restore=True)
        with reading(self._damaged):
            tree = ocp.PyTreeCheckpointHandler().restore(_state(self.path), args=arguments)
        ((_, value),) = _leaves(tree)
        return value

    def merged(self, place: Place, weight: np.ndarray) -> np.ndarray:
        """The weight of all layers with its adapters added in place, if it has any."""
        if f"{place.name}/down" not in self.saved:
            return weight
        down, up = (self.read(f"{place.name}/{side}", np.float32) for side in ("down", "up"))
        scale = self.model.lora.alpha / self.model.lora.rank
        for layer, factors in enumerate(zip(down, up, strict=True)):
            weight[layer] = lowrank.merged(lowrank.LowRank(weight[layer], *factors, scale))
        return weight

    def check(self, config: ModelConfig) -> None:
        """Raises: InputError naming every parameter that is not as a model of that shape has it."""
        found = self.saved
        places = {place.path: place for place in tensor_names.places(config)}
        if self.model.lora.rank:
            unfit = [name for name in found if f"layers/{name.split('/')[0]}" not in places]
        else:
            shapes = {
                path: ((config.layers,) if place.stacked else ())
                + tensor_names.shape(place, config)
                for path, place in places.items()
            }
            unfit = [
                f"{path} is {found.get(path, 'missing')}, should be {shapes.get(path, 'absent')}"
                for path in sorted(shapes.keys() | found.keys())
                if shapes.get(path) != found.get(path)
            ]
        if unfit:
            raise InputError(
                f"{self.path} does not hold the weights of {self.model.source}, from which its "
                f"run says that it started: {stored.listed(unfit)}. Put back what was there."
            )

    def _damaged(self, error: Exception) -> InputError:
        return InputError(
            f"the checkpoint {self.path} cannot be read ({type(error).__name__}: "
            f"{str(error)[:300]}), so there are no weights to start from. It may have been copied "
            "only in part: copy it again, or name another step."
        )


def find(path: Path) -> Checkpoint | None:
    """The checkpoint that a path means: DIR, DIR/checkpoints/STAGE, or a STEP in it.

    Of a work directory it is the newest of the last stage that has one, of a stage its newest.
    Raises: InputError for a work directory without a complete checkpoint.
    """
    parts = path.absolute().parts
    for depth in range(min(4, len(parts))):
        folder, below = Path(*parts[: len(parts) - depth]), parts[len(parts) - depth :]
        if not below or below[0] == CHECKPOINTS:
            settings = _settings(folder / "config.json")
            if settings:
                return _newest(folder, settings, *below[1:])
    return None


def _newest(folder: Path, settings: dict[str, Any], stage: str = "", step: str = "") -> Checkpoint:
    """The checkpoint of a work directory, of a stage there, or of a step of it."""
    described = folder / "config.json"
    try:
        stages = [stage] if stage else [str(name) for name in reversed(settings["recipe"])]
        model = build(ModelSettings, settings["model"], "model")
    except (KeyError, TypeError, InputError) as error:
        raise InputError(
            f"{described} does not say what its run started from ({error}). It is of another "
            "version of score_jax: export there, and name the exported folder."
        ) from error
    for name in stages:
        newest = step or latest_step(folder / CHECKPOINTS / name)
        path = folder / CHECKPOINTS / name / str(newest)
        if path in places.checkpoints_in(folder / CHECKPOINTS):
            return Checkpoint(path, model)
    raise InputError(
        f"{'/'.join(filter(None, (str(folder / CHECKPOINTS), stage, step)))} holds no complete "
        "checkpoint, so there are no weights to start from. Let that run train on, or name another."
    )


def origin(source: str, tokenizer: str = "") -> tuple[str, str]:
    """What a source goes back to (files or a preset), and what its tokenizer is read from.

    Adapters go back to their base, and have a tokenizer of their own if its file is with them.

    tokenizer: in place of the one that belongs to the source.
    """
    if not source.startswith(PRESET):
        path = locate.path_of(source, weights=False)
        if run := find(path):
            with of_run(run):
                return origin(run.model.source, tokenizer or run.model.tokenizer)
        if path.is_dir() and (adapter := adapters.find(path)):
            with adapter.of_base():
                return origin(adapter.base, tokenizer or adapter.tokenizer)
        source = str(path)
    return source, sources.model(tokenizer, weights=False) or source


@contextlib.contextmanager
def of_run(run: Checkpoint) -> Iterator[None]:
    """Errors about what a run started from say that this is what they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(
            f"{run.path} was trained from {run.model.source}, which its shape and tokenizer are "
            f"taken from: {error}"
        ) from error


def latest_step(folder: Path, but: Collection[str] = ()) -> int | None:
    """The newest complete checkpoint's step in DIR/checkpoints/STAGE, or None; none of `but`."""
    found = [p.name for p in places.checkpoints_in(folder.parent) if p.parent == folder]
    return max((int(n) for n in found if n.isdigit() and n not in but), default=None)


def begun(folder: Path) -> bool:
    """Whether there is a checkpoint of any kind in a work directory."""
    return bool(places.checkpoints_in(folder / CHECKPOINTS))


def _settings(described: Path) -> dict[str, Any] | None:
    """The settings that a run's config.json holds; None where it is another config.json."""
    try:
        value = jsonfiles.read(described)
    except (OSError, ValueError):
        return None
    return value.get("settings") if isinstance(value, dict) else None


def _leaves(tree: Any, *keys: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    if not isinstance(tree, dict):
        yield keys, tree
        return
    for key, value in tree.items():
        yield from _leaves(value, *keys, key)
