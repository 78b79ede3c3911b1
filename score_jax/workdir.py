"""What a work directory says of the run in it: whose settings they are, how far it came.

A work directory belongs to one set of settings (config.json); whoever comes with others is refused
before anything is written.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_jax import config
from score_jax.config import Settings
from score_jax.learner import checkpoint
from score_jax.problem import InputError

# Settings that may differ when a run goes on: they change speed, output or memory, not the result.
_FREE = (
    "evaluation",
    "problems.test",
    "checkpoint",
    "compile",
    "mesh",
    "memory",
    "rollout.slots",
    "rollout.turn_rows",
    "rollout.shrink",
    "rewards.sandbox",
    "rewards.allow_unsandboxed",
)


def check_same_settings(folder: Path, settings: Settings) -> None:
    """A work directory belongs to one set of settings. Raises: InputError naming what differs."""
    path = folder / "config.json"
    if not path.exists():
        if any(folder.glob("checkpoints/*/*")):
            raise InputError(
                f"{folder} has checkpoints and no config.json, so it cannot be told which settings "
                "they belong to. Choose another --workdir."
            )
        return
    try:
        saved = flat(json.loads(path.read_text())["settings"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); it says which settings the checkpoints beside it "
            "belong to. Choose another --workdir."
        ) from error
    ours = flat(config.to_dict(settings))
    differing = [
        f"{key}: {saved.get(key, 'absent')} there, {ours.get(key, 'absent')} now"
        for key in sorted(saved.keys() | ours.keys())
        if saved.get(key) != ours.get(key) and not key.startswith(_FREE)
    ]
    if differing:
        raise InputError(
            f"{folder} belongs to a run with other settings; going on would mix the two. "
            f"Use the same settings or another --workdir. Differing: {'; '.join(differing[:8])}"
            + (f"; and {len(differing) - 8} more." if len(differing) > 8 else ".")
        )


def is_complete(folder: Path, stages: Sequence[str], names: Sequence[str], last_step: int) -> bool:
    """Whether every stage is trained, every one of `names` evaluated, and the report written."""
    return (
        (folder / "report" / "summary.json").exists()
        and all((folder / "evaluations" / f"{name}.json").exists() for name in names)
        and checkpoint.latest_step(folder / "checkpoints" / stages[-1]) == last_step
    )


def position(folder: Path, recipe: Sequence[str]) -> tuple[int, int]:
    """(index of the stage to go on with, its newest saved step); (0, 0) for a new run."""
    for i in reversed(range(len(recipe))):
        saved = checkpoint.latest_step(folder / "checkpoints" / recipe[i])
        if saved is not None:
            return i, saved
    return 0, 0


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """A tree of settings as {"rollout.attempts": 2, …}."""
    if not isinstance(tree, dict):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}.{key}" if path else key)
    return leaves
