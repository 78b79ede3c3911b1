"""--help: the flags, and with a config what the config is, its settings and the names they take.

    usage(flags, settings, config) -> str

Left out: what each setting means; docs/settings.md has it.
"""

import ast
import contextlib
import dataclasses
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from score_jax.config.settings import Settings

USAGE = """SCoRe: trains a language model to correct its own first answer.

    score-jax --config=FILE[:RECIPE] --workdir=DIR [--mode=MODE] [--config.KEY=VALUE …]

`python -m score_jax.main` is the same. Every setting of a config can be overridden by its path,
e.g. --config.stages.stage2.bonus=5. Re-running the same command resumes a run.
Exit status: 0 done; 2 bad settings or input; 74 the machine lacks disk space, processes or
file handles; 75 stopped by a signal after saving; 76 ended by the
watchdog because a step hung. After 74, 75 and 76, re-running resumes."""

MODES = {
    "train": "evaluates, runs every stage of the recipe, writes the run page (the default)",
    "evaluate": "evaluates the newest checkpoint, or weights that were not trained here",
    "scale": "compares many first attempts with fewer that are corrected once",
    "export": "writes the newest checkpoint as a Hugging Face folder",
    "try": "shows all attempts at a question",
    "plan": "says whether the config fits a machine that need not be there",
    "replay": "repeats a step whose numbers were not finite",
}
COMMANDS = {
    "report.run_page DIR …": "writes the page of runs, which may be in progress",
    "report.compare DIR DIR …": "writes one page that lays runs side by side",
    "report.comparison.tables --runs=DIR": "tables over runs, seeds pooled",
    "bench rollout": "speed; also update and rewards",
}
MORE = "With --config=FILE this help also shows its recipes, its settings, and the names they take."


def usage(flags: Mapping[str, str], settings: Settings | None = None, config: str = "") -> str:
    """The text of --help.

    Args:
      flags: name -> what it is.
      settings: those of the config, overrides included; None: without a config.
      config: its file.
    """
    parts = [USAGE, _listed("Modes (--mode):", MODES), _listed("Flags:", flags, "--")]
    parts.append(_listed("Other commands, each with --help:", COMMANDS, "python -m score_jax."))
    if settings is None:
        return "\n\n".join([*parts, MORE])
    return "\n\n".join([*parts, *_of_config(settings, config)])


def _of_config(settings: Settings, config: str) -> Iterator[str]:
    from score_jax.data import problems  # takes seconds, which a bare --help need not
    from score_jax.text import forms, prompts

    with contextlib.suppress(OSError, SyntaxError):
        said = ast.get_docstring(ast.parse(Path(config).read_text(encoding="utf-8")))
        if said:
            yield f"{config}: {said}"
    yield f"Stages of this recipe: {' → '.join(settings.recipe)}"
    yield "Settings and their values here (docs/settings.md says what each means):\n" + "\n".join(
        f"  --{path}={shlex.quote(str(value))}"
        for path, value in _paths(dataclasses.asdict(settings), "config")
    )
    sets = (*problems.PROBLEM_SETS, *problems.OWN_SETS, "hf:OWNER/NAME", "tfds:NAME")
    for path, names in {
        "problems.name": sets,
        "problems.prompt": prompts.PROMPTS,
        "model.template": (*forms.NAMES, "FILE.jinja"),
    }.items():
        yield f"Names for --config.{path}:\n  {', '.join(names)}"


def _paths(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every setting by its path; an empty group is one."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _paths(inner, f"{path}.{key}")
    else:
        yield path, value


def _listed(head: str, lines: Mapping[str, str], before: str = "") -> str:
    width = max(map(len, lines)) + len(before)
    return "\n".join([head, *(f"  {before + k:<{width}}  {v}" for k, v in lines.items())])
