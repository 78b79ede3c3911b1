"""RESULTS.md from work directories: tables, figures and statements, nothing typed by hand.

    python -m score_jax.report.comparison.results --runs=runs/recipes --sensitivity=runs/sensitivity

Writes RESULTS.md and docs/results_*.png. A section whose runs are missing is left out. The last
part, of real weights, is kept as it is: real.py writes it.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax.console import command
from score_jax.report.comparison import claims, figures, finished, real, tables
from score_jax.report.comparison.finished import Finished
from score_jax.workdir import settings_check

EDITS = ("star_plus", "pair_sft", "multi_turn_rl", "no_shaping", "score")  # besides base
SCALED = ("base", "multi_turn_rl", "score")
VARIANTS = {"three_attempts_short": "three_attempts"}  # a run that varies a recipe -> the recipe
# What a reader must know about how runs were chosen.
NOTES = {
    "three_attempts_short": "`three_attempts_short` was added after the results of "
    "`three_attempts` on these seeds were known: all its second attempts were right, which left "
    "nothing for the third to correct.",
}
AT = "@"  # in the name of a run of a sensitivity sweep: setting@value
ROBUST = 0.05  # a value is bad if Acc@t2 is more than this below the default's


def write(runs: Sequence[Finished], varied: Sequence[Finished], target: Path, command: str) -> None:
    """Writes `target` and its figures in docs/ beside it.

    Args:
      varied: runs of a sensitivity sweep; may be empty.
      command: the command that makes the file; it is quoted there.
    """
    folder = target.parent / "docs"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [_head(runs, command), _tables(runs), _claims(runs)]
    parts += [_three_attempts(runs), _selective(runs), _scaling(runs, folder)]
    parts += [_edits(runs, folder)]
    parts += [_sensitivity(runs, varied, folder), _cost([*runs, *varied]), real.kept(target)]
    target.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _head(runs: Sequence[Finished], command: str) -> str:
    seeds = sorted({run.seed for run in runs})
    task = runs[0].config["settings"]["problems"]["name"]
    return f"""# Results

One command writes this page from the work directories of finished runs:

```bash
{command}
```

- **Task**: `{task}` (`configs/quickstart.py`), designed to show the effect within minutes on two
  cores. docs/task.md says what was built into the task; the config describes each recipe.
- **Seeds**: {", ".join(map(str, seeds))}. docs/task.md names the seeds on which settings were
  chosen. Runs with the same seed share their base model.
- **Numbers**: per cent of held-out problems, greedy decoding. Brackets hold 95 % intervals over
  seeds (Student's t), which are wide for few seeds and are limited to 0 and 100.
- **Budget**: all recipes except the base model have the same number of updates and of sampled
  episodes."""


def _tables(runs: Sequence[Finished]) -> str:
    parts = []
    for number, title, rows in (
        ("2", "Approaches (layout of the paper's Table 2)", tables.TABLE_2),
        ("4", "Ablations (layout of the paper's Table 4)", tables.TABLE_4),
    ):
        found = tables.layout(runs, rows)
        if found:
            parts.append(
                f"## {title}\n\n{tables.markdown(found)}\n\n"
                f"`python -m score_jax.report.comparison.tables --runs=… --table={number}`"
            )
    return "\n\n".join(parts)


def _claims(runs: Sequence[Finished]) -> str:
    found = claims.of(runs)
    if not found:
        return ""
    return f"""## Which claims of the paper hold here

Each claim is tested in every seed. Differences are paired by problem; "above" means that the whole
bootstrap interval over problems is above 0.

{claims.markdown(found)}"""


def _three_attempts(runs: Sequence[Finished]) -> str:
    mine = [run for run in runs if "accuracy_attempt3" in run.last]
    if not mine:
        return ""
    lines = []
    for name, kind in finished.by_name(mine).items():
        for stage in kind[0].recipe[1:]:
            found = [[run.stages[stage][f"accuracy_attempt{a}"] for a in (1, 2, 3)] for run in kind]
            rising = sum(first <= second <= third for first, second, third in found)
            gains = " ".join(f"{100 * (third - second):+.1f}" for _, second, third in found)
            lines.append(
                f"- {name}, after {stage}: Acc@t1 ≤ Acc@t2 ≤ Acc@t3 in {rising} of {len(found)} "
                f"runs; Acc@t3 − Acc@t2 {gains} points."
            )
    notes = [note for name, note in NOTES.items() if any(run.name == name for run in mine)]
    return f"""## Three attempts

{" ".join(["Stage I(a), I(b) and II with three attempts.", *notes])}

{chr(10).join(lines)}

{tables.markdown(tables.stages(mine), first="run")}"""


def _selective(runs: Sequence[Finished]) -> str:
    """Selective revision beside plain SCoRe, and what each costs."""
    named = finished.by_name(runs)
    if "selective" not in named:
        return ""
    head = ("run", "runs", "Acc@t1", "Acc@t2", "true verdicts", "kept")
    rows = []
    for name in ("score", "selective"):
        mine = named.get(name, [])
        if not mine:
            continue
        first, second = (
            " ".join(f"{100 * run.last[f'accuracy_attempt{a}']:.1f}" for run in mine)
            for a in (1, 2)
        )
        found = [run.last.get("details", {}).get("selective") for run in mine]
        verdicts, kept = (
            " ".join(f"{100 * one[key]:.1f}" for one in found) if all(found) else "–"
            for key in ("verdict_accuracy", "kept")
        )
        tokens = " ".join(f"{run.tokens():.1f}" for run in mine)
        rows.append((name, len(mine), first, second, verdicts, kept, tokens))
    return (
        "## Selective revision\n\nThe second attempt begins with a verdict on the first. If it "
        "keeps the first answer it ends there, and Acc@t2 grades that answer. `selective` has the "
        "same task and budget but another corpus, and so another base model. Values by "
        "seed:\n\n" + tables.grid((*head, "generated tokens per problem"), rows)
    )


def _scaling(runs: Sequence[Finished], folder: Path) -> str:
    parts = []
    for name in SCALED:
        studies = [
            study for run in runs if run.name == name and (study := run.scaling()) is not None
        ]
        if not studies:
            continue
        path = figures.scaling(studies, folder / f"results_scaling_{name}.png")
        n, temperature = studies[0]["n"], studies[0]["temperature"]
        parts.append(
            f"### {name}\n\n{len(studies)} runs, n={n}, temperature {temperature}. The last column "
            f"has one value per seed.\n\n{_budgets(studies)}\n\n"
            f"![Votes of {name}](docs/{path.name})"
        )
    if not parts:
        return ""
    return (
        "## More samples: in parallel, or corrected\n\nMajority votes over 2K first attempts (2K "
        "parallel), over K second attempts (K + K), and over all 2K answers of these K pairs (all "
        "2K). `--mode=scale` makes them.\n\n" + "\n\n".join(parts)
    )


def _budgets(studies: Sequence[Mapping[str, Any]]) -> str:
    """A row per budget; means over studies."""
    lines = []
    for rows in zip(*(study["budgets"] for study in studies), strict=True):

        def mean(way: str, key: str, rows=rows) -> float:
            return statistics.fmean(row[way][key] for row in rows)

        parallel, sequential, both = (
            f"{100 * mean(way, 'accuracy'):.1f}"
            for way in ("parallel", "sequential", "sequential_all")
        )
        above = " ".join(
            f"{100 * row['sequential']['above_parallel']['difference']:+.1f}" for row in rows
        )
        tokens, corrected = (f"{mean(way, 'tokens'):.0f}" for way in ("parallel", "sequential"))
        solutions = rows[0]["solutions"]
        lines.append((solutions, parallel, tokens, sequential, both, corrected, above))
    head = ("solutions", "2K parallel", "tokens", "K + K", "all 2K", "tokens")
    return tables.grid((*head, "K + K above parallel"), lines)


def _edits(runs: Sequence[Finished], folder: Path) -> str:
    key = "edit_ratio_histogram"
    histograms = {"base": [m[key] for m in finished.bases(runs) if key in m]}
    named = finished.by_name(runs)
    histograms |= {
        name: [r.last[key] for r in named.get(name, ()) if key in r.last] for name in EDITS
    }
    histograms = {name: found for name, found in histograms.items() if found}
    if not histograms:
        return ""
    path = figures.edit_ratios(histograms, folder / "results_edits.png")
    shares = ", ".join(
        f"{name} {100 * statistics.fmean(run[0] / sum(run) for run in found):.0f} %"
        for name, found in histograms.items()
    )
    return f"""## How much second attempts rewrite

Share of problems in the lowest bin (almost nothing changed): {shares}.

![Histograms of edit ratios](docs/{path.name})"""


def _sensitivity(runs: Sequence[Finished], varied: Sequence[Finished], folder: Path) -> str:
    mine = [run for run in varied if AT in run.name]
    if not mine:
        return ""
    seeds = {run.seed for run in mine}
    defaults = [run for run in runs if run.name == "score" and run.seed in seeds]
    settings: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in mine:
        setting, value = run.name.split(AT)
        settings.setdefault(setting, {}).setdefault(value, []).append(_pair(run))
    for setting, values in settings.items():
        value = default_of(setting, defaults)
        if value:
            values[value] = [_pair(run) for run in defaults]
    path = figures.sensitivity(settings, folder / "results_sensitivity.png")
    rows = {f"score (default), {len(defaults)} seeds": [run.last for run in defaults]}
    rows |= {name: [r.last for r in found] for name, found in finished.by_name(mine).items()}
    return f"""## Sensitivity

Each run changes one setting of SCoRe; seeds {", ".join(map(str, sorted(seeds)))}.

![Both attempts by setting](docs/{path.name})

{tables.markdown({k: v for k, v in rows.items() if v}, first="setting@value")}

{advice(settings, [_pair(run) for run in defaults])}"""


def default_of(setting: str, runs: Sequence[Finished]) -> str:
    """The default runs' value of a setting that a sweep varies; empty if not known."""
    if not runs:
        return ""
    settings = runs[0].config["settings"]
    stages, rollout = settings["stages"], settings["rollout"]
    known = {
        "alpha": lambda: stages["stage2"]["bonus"],
        "beta1": lambda: stages["stage2"]["kl_attempt2"],
        "beta2": lambda: stages["stage1"]["kl_attempt1"],
        "learning_rate": lambda: stages["stage1"]["learning_rate"],
        "K": lambda: rollout["samples_per_problem"],
        "stage1_steps": lambda: stages["stage1"]["steps"],
    }
    return f"{known[setting]():g}" if setting in known else ""


def advice(
    settings: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    defaults: Sequence[tuple[float, float]],
) -> str:
    """Which values keep Acc@t2 within ROBUST of the default's in every seed, and which do not."""
    if not defaults:
        return ""
    least = min(second for _, second in defaults) - ROBUST
    lines = []
    for setting, values in settings.items():
        order = sorted(values, key=float)
        good = [value for value in order if min(second for _, second in values[value]) >= least]
        bad = [value for value in order if value not in good]
        text = f"{', '.join(good) or 'no value'} kept Acc@t2 within {100 * ROBUST:.0f} points"
        if bad:
            text += f"; {', '.join(bad)} did not"
        lines.append(f"- `{setting}`: {text}.")
    return "Compared with the default's lowest seed:\n\n" + "\n".join(lines)


def _pair(run: Finished) -> tuple[float, float]:
    return run.last["accuracy_attempt1"], run.last["accuracy_attempt2"]


def _cost(runs: Sequence[Finished]) -> str:
    rows = []
    named = finished.by_name(runs)
    for name, mine in named.items():
        seconds = [run.wall_sec for run in mine]
        plain = "score" if AT in name else VARIANTS.get(name, name)
        flags = [
            f"--config=configs/quickstart.py:{plain}",
            *(_overrides(mine[0], named[plain][0]) if plain in named else ()),
        ]
        took = f"{statistics.fmean(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"
        rows.append((name, len(mine), took, f"`{' '.join(flags)}`"))
    config = runs[0].config
    versions = ", ".join(
        f"{name} {config['versions'][name]}"
        for name in ("python", "jax", "flax", "optax", "numpy")
        if name in config["versions"]
    )
    revisions = ", ".join(sorted({run.revision for run in runs}))
    return f"""## Commands, time and versions

`bash launch/sweep.sh recipes FIRST LAST` and `bash launch/sweep.sh sensitivity FIRST LAST` make the
runs, one thread each: `python -m score_jax.main --config.seed=SEED --workdir=DIR FLAGS`, with
`--base_from` for runs that start from an existing base model. The same command with `--mode=scale`
makes the votes. Wall time includes the base model, compiling, evaluations and reports.

{tables.grid(("runs", "seeds", "wall time, s", "flags"), rows)}

Device: {config["device"]}. Versions: {versions}. Revisions: {revisions}."""


def _overrides(run: Finished, plain: Finished) -> list[str]:
    """The flags that turn the settings of `plain` into those of `run`."""
    ours, theirs = (settings_check.flat(dict(one.config["settings"])) for one in (run, plain))
    return [
        f"--config.{key}={value}"
        for key, value in ours.items()
        if value != theirs.get(key, value) and key not in ("name", "seed")
    ]


def main(arguments: Sequence[str]) -> None:
    """Reads the flags and writes the file."""
    parser = argparse.ArgumentParser(description="RESULTS.md from work directories.")
    parser.add_argument(
        "--runs", action="append", required=True, help="work directories, or a folder of them"
    )
    parser.add_argument("--sensitivity", action="append", default=[], help="runs of that sweep")
    parser.add_argument("--out", default="RESULTS.md")
    given = parser.parse_args(arguments)
    varied = finished.read(given.sensitivity) if given.sensitivity else []
    command = " ".join(["python -m score_jax.report.comparison.results", *arguments])
    write(finished.read(given.runs), varied, Path(given.out), command)


if __name__ == "__main__":
    command.run(main)
