"""Writes the page and the plots of work directories; their runs may be in progress.

python -m score_jax.report.run_page DIR …
"""

import argparse
from collections.abc import Sequence

from score_jax.buckets import places
from score_jax.console import command
from score_jax.report.run_page import page, plots
from score_jax.workdir import spool


def main(arguments: Sequence[str]) -> None:
    """Writes them and prints their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m score_jax.report.run_page", description="The run page and its plots."
    )
    parser.add_argument("workdir", nargs="+", help="work directory of a run")
    for workdir in parser.parse_args(arguments).workdir:
        with spool.opened(workdir, to_show=True) as folder:
            for path in (page.write(folder), *plots.write(folder)):
                places.upload(path)
                print(places.shown(str(path)))


if __name__ == "__main__":
    command.run(main)
