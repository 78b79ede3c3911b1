"""Writes one page that lays runs side by side; they may be in progress.

python -m score_jax.report.compare DIR DIR … [--out=compare.html]
"""

import argparse
from collections.abc import Sequence

from score_jax.console import command
from score_jax.report.compare import page
from score_jax.workdir import spool


def main(arguments: Sequence[str]) -> None:
    """Writes it and prints its path."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.report.compare",
        description="One page that lays runs side by side: settings that differ, curves, paired "
        "differences with intervals, and the problems where the runs differ. The others are "
        "compared with the first. For tables over seeds: python -m "
        "score_jax.report.comparison.tables --help",
    )
    parser.add_argument("workdir", nargs="+", help="work directories of two or more runs")
    parser.add_argument("--out", default="compare.html", help="the file (default: compare.html)")
    given = parser.parse_args(arguments)
    with spool.all_opened(given.workdir) as folders:
        print(page.write(folders, given.out))


if __name__ == "__main__":
    command.run(main)
