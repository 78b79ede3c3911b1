"""Logging to Weights & Biases, if config.logging.wandb names a project; needs the extra `wandb`.

It gets the scalars that TensorBoard gets. The id of the run is kept in DIR/wandb/id, so that a
resumed run continues the same one; wandb drops the steps that it has already.
`WANDB_MODE=offline` keeps the run in DIR/wandb. Left out: transcripts and checkpoints.
"""

import contextlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_jax.problem import InputError


class WandbRun:
    """One run on Weights & Biases; `start` opens it."""

    def __init__(self, project: str, workdir: Path):
        """Raises: InputError if wandb is not installed."""
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                f"config.logging.wandb={project!r} needs the package wandb, which is not "
                "installed. Install the extra (pip install '.[wandb]'), or leave the setting empty."
            ) from error
        self._wandb = wandb
        self._project, self._workdir = project, workdir
        self._run: Any = None

    def start(self, settings: Mapping[str, Any]) -> None:
        """Opens the run. Raises: InputError if wandb fails, for example without an API key."""
        wandb = self._wandb
        folder = self._workdir / "wandb"
        folder.mkdir(exist_ok=True)
        known = folder / "id"
        with contextlib.suppress(FileExistsError):
            known.touch(exist_ok=False)
            known.write_text(secrets.token_hex(4))
        try:
            self._run = wandb.init(
                project=self._project,
                name=self._workdir.resolve().name,
                id=known.read_text(),
                resume="allow",
                dir=self._workdir,
                config=dict(settings),
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.Error as error:
            raise InputError(
                f"cannot start Weights & Biases for config.logging.wandb={self._project!r}: "
                f"{str(error)[:300]}. Run `wandb login`, set WANDB_MODE=offline in the "
                "environment, or leave the setting empty."
            ) from error

    def log(self, global_step: int, values: Mapping[str, Any]) -> None:
        """Sends the numbers among `values`."""
        if self._run is not None:
            numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
            self._run.log(numbers, step=global_step)

    def close(self) -> None:
        """Waits until everything is sent or written, and ends the run."""
        if self._run is not None:
            self._run.finish()
            self._run = None
