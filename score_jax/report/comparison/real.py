"""The part "Real weights" of RESULTS.md, from work directories; the rest of the file stays.

    python -m score_jax.report.comparison.real --runs=runs/laptop --weights=runs/qwen_coder

It is the last part of the file. results.py writes the parts before it and keeps it.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from score_jax.console import command
from score_jax.report.comparison import claims, finished, loaded, tables
from score_jax.report.comparison.finished import Finished

HEADING = "## Real weights"
LAPTOP = "### Of a laptop"


def kept(target: Path) -> str:
    """That part of an existing file, from its heading on; empty if there is none."""
    text = target.read_text(encoding="utf-8") if target.exists() else ""
    _, found, rest = text.partition(f"\n{HEADING}\n")
    return f"{HEADING}\n{rest}".rstrip("\n") if found else ""


def write(
    runs: Sequence[Finished], weights: Sequence[str | Path], target: Path, command: str
) -> None:
    """Writes the part anew, behind what the file has before it.

    Args:
      weights: work directories of --mode=evaluate on weights that nobody trained here; without any,
        the table of such weights that the file has stays.
      command: the command that makes it; it is quoted there.
    """
    text = target.read_text(encoding="utf-8") if target.exists() else "# Results\n"
    before = text.partition(f"\n{HEADING}\n")[0].rstrip("\n")
    table = f"{loaded.part(weights)}\n\n" if weights else _kept_table(text)
    target.write_text(f"{before}\n\n{_part(runs, table, command)}\n", encoding="utf-8")


def _kept_table(text: str) -> str:
    """The table of loaded weights in the text of the file; empty if there is none."""
    _, found, rest = text.partition(f"\n{loaded.HEADING}\n")
    return f"{loaded.HEADING}\n{rest.partition(LAPTOP)[0].rstrip()}\n\n" if found else ""


def _part(runs: Sequence[Finished], table: str, command: str) -> str:
    settings = runs[0].config["settings"]
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    source = Path(settings["model"]["source"]).name
    minutes = [
        f"{name} {' '.join(f'{run.wall_sec / 60:.0f}' for run in mine)}"
        for name, mine in finished.by_name(runs).items()
    ]
    revisions = ", ".join(sorted({run.revision for run in runs}))
    return f"""{HEADING}

`{command}` writes this part.

{table}{LAPTOP}

`configs/laptop_smollm2_135m.py` tells the task, how it was designed, the commands, and on what its
settings were chosen.

- **Weights**: `{source}`. **Task**: `{settings["problems"]["name"]}`. **Seeds**: {seeds}.
- Per cent of held-out problems, greedy decoding, with 95 % intervals: over seeds (Student's t), or
  over problems for a single run. Runs with the same seed share their base model.
- Minutes of each run: {"; ".join(minutes)}. {runs[0].config["device"]}. Revisions: {revisions}.

{tables.markdown(tables.stages(runs), first="run")}

Differences are paired by problem; "above" means that the whole bootstrap interval is above 0.

{claims.markdown(claims.of(runs))}

Mean tokens that an episode generates: {_tokens(runs)}."""


def _tokens(runs: Sequence[Finished]) -> str:
    return ", ".join(
        f"{name} {statistics.fmean(run.tokens() for run in mine):.1f}"
        for name, mine in finished.by_name(runs).items()
    )


def main(arguments: Sequence[str]) -> None:
    """Reads the flags and writes the part."""
    parser = argparse.ArgumentParser(description='The part "Real weights" of RESULTS.md.')
    parser.add_argument(
        "--runs", action="append", required=True, help="work directories, or a folder of them"
    )
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        help="work directories of --mode=evaluate on weights that nobody trained here",
    )
    parser.add_argument("--out", default="RESULTS.md")
    given = parser.parse_args(arguments)
    command = " ".join(["python -m score_jax.report.comparison.real", *arguments])
    write(finished.read(given.runs), given.weights, Path(given.out), command)


if __name__ == "__main__":
    command.run(main)
