"""Finished runs of recipes and seeds, as far as tables and RESULTS.md read them."""

from pathlib import Path

import numpy as np

from score_jax import jsonfiles
from score_jax.evaluation.metrics import evaluation_metrics

N = 200


def rewards(first: float, second: float, attempts: int = 2) -> np.ndarray:
    """[N, attempts]: right in that share of problems; a second attempt is right where the first is,
    as far as its share goes."""
    rows = np.zeros((N, attempts))
    rows[: round(first * N), 0] = 1
    rows[: round(second * N), 1:] = 1
    return rows


def run(
    folder: Path, name: str, seed: int, last: np.ndarray, source: str = "preset:x", **settings
) -> Path:
    """A run with a base model that is right in 30 % and 25 %, and one stage after it."""
    stages = {"base": rewards(0.30, 0.25), "trained": last}
    metrics = {}
    for stage, reward_NA in stages.items():
        changed_N = reward_NA[:, 0] != reward_NA[:, 1]
        metrics[stage] = evaluation_metrics(
            reward_NA,
            changed_N,
            np.zeros(reward_NA.shape, bool),
            edit_ratio_N=changed_N.astype(float),
        )
        lines = [
            {"id": f"p{i}", "attempts": [{"reward": float(r), "tokens": 7} for r in row]}
            for i, row in enumerate(reward_NA)
        ]
        jsonfiles.write_lines(folder / "transcripts" / f"{stage}.jsonl", lines)
    config = {
        "name": name,
        "seed": seed,
        "recipe": ["base", "trained"],
        "model": {"source": source},
        "problems": {"name": "arithmetic", "test": {"name": ""}},
        "rollout": {"samples_per_problem": 4},
        "stages": {
            "stage1": {"learning_rate": 3e-4, "kl_attempt1": 0.1, "steps": 300},
            "stage2": {"bonus": 10.0, "kl_attempt2": 0.01} | settings,
        },
    }
    jsonfiles.write(
        folder / "config.json",
        {"settings": config, "versions": {"jax": "1"}, "git_revision": "abc", "device": "cpu"},
    )
    jsonfiles.write(folder / "report" / "summary.json", {"stages": metrics, "wall_sec": 60.0})
    return folder


def study(folder: Path, above: float) -> None:
    """An inference-time study of the run's last stage, at 2 and 32 solutions."""

    def way(accuracy: float) -> dict:
        low_high = [accuracy - 0.05, accuracy + 0.05]
        difference = {"difference": above, "interval": [above - 0.02, above + 0.02]}
        return {
            "accuracy": accuracy,
            "interval": low_high,
            "tokens": 10.0,
            "above_parallel": difference,
        }

    budgets = [
        {"solutions": s, "parallel": way(0.5)}
        | dict.fromkeys(("sequential", "sequential_all"), way(0.5 + above))
        for s in (2, 32)
    ]
    jsonfiles.write(
        folder / "scaling" / "trained.json", {"n": N, "temperature": 0.7, "budgets": budgets}
    )
