"""Checkpoints of a run, written by Orbax: DIR/checkpoints/STAGE/STEP.

    Checkpoints(folder, settings, shapes)     of a run: where to resume, and params alone
    .of_stage(name)                           of one stage: save, and resume from a whole state

One checkpoint holds all that the loop cannot compute again: params, optimizer state, step, position
in the data, counters. A step's folder gets its name when it is complete; in a bucket, which
renames none, Orbax then writes a file into it (buckets/places.py). Where a run resumes:

  1. the newest checkpoint of the last stage that has one;
  2. if that one is damaged (copied in part, cut off by storage), the one before it;
  3. the beginning.

With several processes all of them call the same methods at the same points: each saves and restores
its own shards, and process 0 looks which checkpoints there are.
"""

import contextlib
import functools
import inspect
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from score_jax.buckets import places
from score_jax.config.settings import Settings
from score_jax.learner.step import TrainState
from score_jax.model.files import saved_params
from score_jax.problem import InputError, MachineGone
from score_jax.runtime import hosts
from score_jax.structs import Params

Deadline = Callable[[], AbstractContextManager]  # entered while storage or a process is waited for

# Orbax logs every save at INFO, on a terminal that shows progress; and for a save that fails in the
# background one error four times with its stack, though it is raised to who waits for the save.
logging.getLogger("absl").setLevel(logging.WARNING)
logging.getLogger("absl").addFilter(lambda record: not record.exc_info)


def _unless_late(print_ignored: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Leaves out what ends after a read or write beside it failed: nobody waits for it any more."""

    def hook(ignored: Any) -> None:
        closed = (
            str(ignored.exc_value) == "Event loop is closed"
        )  # Orbax's, which tensorstore calls
        if not (closed or inspect.iscoroutine(ignored.object)):
            print_ignored(ignored)

    return hook


sys.unraisablehook = _unless_late(sys.unraisablehook)


class Checkpoints:
    """The checkpoints in a work directory."""

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        shapes: Params,
        *,
        deadline: Deadline = contextlib.nullcontext,
    ):
        """Args:

        folder: the work directory.
        shapes: of the params that the run trains, with shardings; they are restored into these.
        """
        self._folder, self._settings, self._shapes = folder, settings, shapes
        self._deadline = deadline
        self._damaged: set[Path] = set()  # of these none is the newest

    def position(self) -> tuple[int, int]:
        """(index of the stage to resume in, its newest saved step); (0, 0) for a new run."""
        return tuple(hosts.lead_says(self._position))  # type: ignore[return-value]

    def latest_step(self, stage: str) -> int | None:
        """The newest complete checkpoint of a stage, or None."""
        return hosts.lead_says(lambda: self._latest_step(stage))

    def best_step(self, stage: str) -> int | None:
        """The step whose evaluation within the stage had the highest last accuracy, or None.

        Of equal ones it is the newest.
        """
        return hosts.lead_says(lambda: _best_step(self._folder, stage))

    def params(self, stage: str, at_step: int | None = None) -> Params:
        """The params of a checkpoint, and nothing else of it; by default of the stage's last step.

        Raises: InputError if it is damaged or of another model, or the last step's is missing.
        """
        if at_step is None:
            at_step = self._settings.stages[stage].steps
            if self.latest_step(stage) != at_step:
                raise InputError(
                    f"{self._of(stage)} lacks the checkpoint of the stage's last step {at_step}, "
                    "which later stages start from. Start again in another --workdir."
                )
        with self._deadline():
            return saved_params.restore(self._of(stage) / str(at_step), self._shapes)

    def is_newest(self, path: Path) -> bool:
        """Whether a checkpoint is the one that the run resumes from."""
        index, at_step = self.position()
        return path == self._of(self._settings.recipe[index]) / str(at_step)

    def skip(self, path: Path) -> bool:
        """Passes over a damaged checkpoint, from which later ones are not made.

        Returns: False if it is not the newest, or none is before it.
        """
        if not self.is_newest(path):
            return False
        self._damaged.add(path)
        return self.position() != (0, 0)

    def set_aside_damaged(self) -> bool:
        """Renames what was passed over to STEP.damaged, so that the step can be saved again.

        Returns: whether there was any.
        """
        passed, self._damaged = self._damaged, set()
        for path in sorted(passed):
            hosts.lead_says(functools.partial(_set_aside, path))
        return bool(passed)

    def of_stage(self, stage: str) -> "StageCheckpoints":
        """A stage's checkpoints, to be used as a context manager."""
        keep = self._settings.checkpoint.keep
        return StageCheckpoints(self._of(stage), keep=keep, deadline=self._deadline)

    def _of(self, stage: str) -> Path:
        return self._folder / saved_params.CHECKPOINTS / stage

    def _latest_step(self, stage: str) -> int | None:
        passed = {path.name for path in self._damaged if path.parent == self._of(stage)}
        return saved_params.latest_step(self._of(stage), passed)

    def _position(self) -> tuple[int, int]:
        for i, stage in reversed(list(enumerate(self._settings.recipe))):
            saved = self._latest_step(stage)
            if saved is not None:
                return i, saved
        return 0, 0


class StageCheckpoints:
    """The checkpoints of one stage; use as a context manager, which waits for the last save."""

    def __init__(self, folder: Path, *, keep: int, deadline: Deadline = contextlib.nullcontext):
        """Args:

        folder: DIR/checkpoints/STAGE. keep: how many of the newest to keep.
        """
        self.folder = folder
        self._deadline = deadline
        self._kept = _NewestAndBest(keep)
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, create=True)
        self._manager = ocp.CheckpointManager(places.at(folder), options=options)

    def __enter__(self) -> "StageCheckpoints":
        return self

    def __exit__(self, kind: object, error: BaseException | None, *_: object) -> None:
        if isinstance(error, MachineGone):
            return  # a save that is under way waits longer for its bucket than anybody shall
        with self._deadline():
            self._manager.close()

    def reload(self) -> None:
        """Looks again which steps there are."""
        self._manager.reload()

    def save(self, state: TrainState, extra: dict[str, Any], best: int | None = None) -> None:
        """Saves the state and JSON-able `extra` under the state's step, in the background.

        Returns when the state may be donated. Does nothing if the step is saved already.

        Args:
          best: an earlier step that is kept beside the newest, if it is still there.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self._kept.best = best
        with self._deadline():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_tree(state)), extra=ocp.args.JsonSave(extra)
                ),
            )

    def state(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state and `extra` of a step.

        Args:
          like: arrays, or shapes with shardings, that the state is restored into.

        Raises: InputError if the checkpoint is damaged or of another model.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(like))
        damaged = functools.partial(saved_params.Damaged, self.folder / str(step))
        with saved_params.reading(damaged), self._deadline():
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore()
                ),
            )
            return like.replace(**restored["state"]), restored["extra"]


class _NewestAndBest:
    """Which checkpoints stay when another one is saved; a PreservationPolicy of Orbax."""

    def __init__(self, keep: int):
        self.keep = keep
        self.best: int | None = None  # a step

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """For each checkpoint, oldest first."""
        del context
        newest = len(checkpoints) - self.keep
        return [i >= newest or found.step == self.best for i, found in enumerate(checkpoints)]


def _tree(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, "params": state.params, "opt_state": state.opt_state}


def _set_aside(path: Path) -> None:
    places.set_aside(path, path.with_name(f"{path.name}.damaged"))


def _best_step(folder: Path, stage: str) -> int | None:
    found = []
    for path in (folder / "evaluations").glob(f"{stage}-*.json"):
        step = path.stem.removeprefix(f"{stage}-")
        if step.isdigit():
            metrics = json.loads(path.read_text())
            prefix = "accuracy_attempt"
            last = max(int(key[len(prefix) :]) for key in metrics if key.startswith(prefix))
            found.append((metrics[f"{prefix}{last}"], int(step)))
    return max(found)[1] if found else None
