"""Writes recipes_metrics.json.gz, the metrics of finished runs that alarms are tested with.

Recipes without a run in the folder keep what was recorded.

    bash launch/sweep.sh recipes 21 28 score interleaved three_attempts selective
    python -m tests.recorded.record runs/recipes

What alarms read, with three digits: {recipe: {seed: {"steps": {stage: {metric: values, or one value
that all steps have}}, "evaluations": {name: metrics}}}}
"""

import gzip
import json
import re
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("recipes_metrics.json.gz")
RECIPES = ("score", "interleaved", "three_attempts", "selective")
_READ = re.compile(
    r"(advantage|entropy|kl|length|mixed|reward|solved|truncated|unreadable)/attempt\d"
    r"|reason/(timeout|crash)/attempt\d|changed|grad_norm|learning_rate|logp_gap"
)


def stages_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The columns of each RL stage of a run."""
    stages: dict[str, dict[str, Any]] = {}
    for line in (folder / "metrics.jsonl").open():
        row = json.loads(line)
        if row["stage"] != "base":
            for name in filter(_READ.fullmatch, row):
                values = stages.setdefault(row["stage"], {}).setdefault(name, [])
                values.append(float(f"{row[name]:.3g}"))
    return {
        stage: {
            name: values[0] if len(set(values)) == 1 else values for name, values in found.items()
        }
        for stage, found in stages.items()
    }


def evaluations_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The first attempt and the difference of every evaluation."""
    found = {}
    for path in sorted((folder / "evaluations").glob("*.json")):
        whole, names = json.loads(path.read_text()), ("accuracy_attempt1", "delta")
        found[path.stem] = {name: whole[name] for name in ("n", *names)}
        found[path.stem]["interval"] = {name: whole["interval"][name] for name in names}
    return found


def main(runs: Path) -> None:
    """Reads runs/RECIPE-SEED for every recipe and seed that is there."""
    found = json.loads(gzip.decompress(FILE.read_bytes()))
    for recipe in RECIPES:
        if folders := sorted(runs.glob(f"{recipe}-[0-9]*/")):
            found[recipe] = {
                folder.name.rpartition("-")[2]: {
                    "steps": stages_of(folder),
                    "evaluations": evaluations_of(folder),
                }
                for folder in folders
            }
    text = json.dumps(found, separators=(",", ":"))
    FILE.write_bytes(gzip.compress(text.encode(), mtime=0))
    print(FILE, {recipe: list(seeds) for recipe, seeds in found.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
