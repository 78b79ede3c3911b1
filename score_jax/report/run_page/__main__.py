"""Writes the page and the plots of work directories; their runs may be in progress.

python -m score_jax.report.run_page DIR …
"""

import argparse
import sys
from collections.abc import Sequence

from score_jax.problem import InputError
from score_jax.report.run_page import page, plots


def main(arguments: Sequence[str]) -> None:
    """Writes them and prints their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.report.run_page", description="The run page and its plots."
    )
    parser.add_argument("workdir", nargs="+", help="work directory of a run")
    for workdir in parser.parse_args(arguments).workdir:
        print(page.write(workdir), *plots.write(workdir), sep="\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"score_jax: {error}")
