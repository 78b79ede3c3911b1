"""Checkpoints of a stage: DIR/checkpoints/STAGE/STEP, written by Orbax.

One checkpoint holds everything that the loop cannot recompute: params, optimizer state, step, the
position in the data, counters. A step's folder appears under its name only when it is complete.
"""

import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from score_jax.learner.step import TrainState
from score_jax.model.files.saved_params import latest_step as latest_step
from score_jax.problem import InputError

# Orbax reports every save at INFO, on a terminal that shows progress.
logging.getLogger("absl").setLevel(logging.WARNING)


class StageCheckpoints:
    """The checkpoints of one stage; use as a context manager, which waits for the last save.

    With several processes all of them save and restore at the same points, each its own shards.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int,
        deadline: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    ):
        """Args:

        folder: DIR/checkpoints/STAGE. keep: how many of the newest to keep.
        deadline: entered while storage or the other processes are waited for.
        """
        self.folder = folder
        self._deadline = deadline
        self._kept = _NewestAndBest(keep)
        options = ocp.CheckpointManagerOptions(preservation_policy=self._kept, create=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def __enter__(self) -> "StageCheckpoints":
        return self

    def __exit__(self, *_: object) -> None:
        with self._deadline():
            self._manager.close()

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

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state and `extra` of a step; `like` gives shapes, dtypes and shardings.

        Raises: InputError if the checkpoint is damaged or of another model.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _tree(like))
        try:
            with self._deadline():
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(abstract), extra=ocp.args.JsonRestore()
                    ),
                )
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise InputError(
                f"the checkpoint {self.folder / str(step)} cannot be read as this model's state: "
                f"{str(error)[:500]}. If it was saved with other settings, use them or another "
                "--workdir; if it is damaged, delete that folder and run the same command again."
            ) from error
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
