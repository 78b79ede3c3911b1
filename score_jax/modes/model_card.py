"""The model card of an export: README.md beside the weights, as the Hugging Face hub shows it.

    write(run, folder, …)   base and licence, data, recipe, results, both prompts, how to use it

What the card says is read from the run: its settings, its evaluations, and the files that it
started from. A licence is named only where those files state one; else the card says that it is
missing. Of paths only the last part is named.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import score_jax
from score_jax import jsonfiles
from score_jax.buckets.client import is_url
from score_jax.config.settings import (
    ModelSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
    StageSettings,
)
from score_jax.model.families import PRESET
from score_jax.model.files import saved_params
from score_jax.modes import card_use
from score_jax.problem import FULL, InputError, expanded
from score_jax.report.run_page import summary
from score_jax.run import Run
from score_jax.text.tokenizers import gguf_metadata
from score_jax.workdir import settings_check

NAME = "README.md"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PATHS = re.compile(r"(model\.source|model\.tokenizer|problems.*\.path)$")
_SHOWN = ("steps", "objective", "learning_rate", "bonus", "kl_attempt1", "kl_attempt2", "discount")


@dataclasses.dataclass(frozen=True)
class Base:
    """What training started from, as far as its files say."""

    name: str
    hub_id: str = ""
    license: str = ""


def write(
    run: Run, folder: Path, *, trained: str, hub_name: str = "", adapters: bool = False
) -> None:
    """Writes the card of an export.

    Args:
      trained: the stage and step of the exported weights, in words.
      hub_name: OWNER/NAME of the hub, if it goes there; else commands name the folder.
      adapters: whether only LoRA's adapters are exported.
    Raises: InputError if the folder cannot be written.
    """
    settings = run.settings
    base = base_of(settings.model)
    found = summary.evaluations(run.folder, settings.recipe, tuple(settings.problems.tests))
    parts = [
        _head(base, adapters),
        f"# {Path(hub_name or run.folder.resolve()).name}\n\n"
        f"{base.name}, trained by score_jax {score_jax.__version__} with SCoRe ([arXiv 2409.12917]"
        "(https://arxiv.org/abs/2409.12917)) to correct its own first answer. These are "
        f"{'the LoRA adapters' if adapters else 'the weights'} of {trained}.",
        f"## Base model\n\n{_base(base)}",
        f"## Data\n\n{_data(settings)}",
        f"## Training\n\n{_recipe(settings)}",
        f"## Results\n\n{_results(found, settings)}",
        card_use.section(
            run.experiment, hub_name or folder.name, base.hub_id or base.name, adapters
        ),
    ]
    try:
        jsonfiles.write_text(folder / NAME, "\n\n".join(parts) + "\n")
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{folder / NAME} cannot be written ({error.strerror or error}). Free space or choose "
            "another --export_dir."
        ) from None


def base_of(settings: ModelSettings) -> Base:
    """What a run started from: its name, its hub id and licence where its files state them."""
    source, _ = saved_params.origin(settings.source)
    if source.startswith(PRESET):
        return Base(f"random weights ({source})")
    path = Path(source)
    if path.suffix.lower() == ".gguf":
        said = gguf_metadata.read(path)
        url = str(said.get("general.base_model.0.repo_url") or said.get("general.source.url") or "")
        hub_id = url.removeprefix("https://huggingface.co/")
        return Base(
            path.name,
            hub_id if _HUB_ID.fullmatch(hub_id) else "",
            str(said.get("general.license") or ""),
        )
    own = is_url(settings.source) or expanded(settings.source).exists()
    hub_id = "" if own else settings.source
    return Base(hub_id or path.name, hub_id, _license(path / NAME))


def _license(card: Path) -> str:
    """The licence that a model card states in its head; empty if there is none."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    head = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    stated = re.search(r"^license:[ \t]*['\"]?([\w.-]+)", head[1], re.MULTILINE) if head else None
    return stated[1] if stated else ""


def _head(base: Base, adapters: bool) -> str:
    """What the hub reads: the keys of its model cards."""
    lines = ["---", f"library_name: {'peft' if adapters else 'transformers'}"]
    lines += [f"license: {base.license}"] if base.license else []
    lines += [f"base_model: {base.hub_id}"] if base.hub_id else []
    lines += ["pipeline_tag: text-generation", "tags: [score_jax, self-correction]", "---"]
    return "\n".join(lines)


def _base(base: Base) -> str:
    named = f"[{base.hub_id}](https://huggingface.co/{base.hub_id})" if base.hub_id else ""
    read = f"`{base.name}`" + (f", of {named}" if named and base.name != base.hub_id else "")
    if base.license:
        return f"{named if base.name == base.hub_id else read}. Licence: {base.license}."
    return (
        f"{read}. Its files state no licence: look it up, and add `license:` to the head of this "
        "file before you publish the model."
    )


def _data(settings: Settings) -> str:
    problems = settings.problems
    rows = [["use", "set", "file", "split"], ["---"] * 4]
    sets: dict[str, ProblemSettings | SourceSettings] = {"training": problems}
    sets |= {f"training, {name}": one for name, one in problems.mixture.items()}
    sets["evaluation"] = problems.test
    sets |= {f"evaluation, {name}": one for name, one in problems.tests.items()}
    for use, one in sets.items():
        path = one.path or ("" if one.name else problems.path)
        default = "train" if use.startswith("training") else "test"
        row = [use, one.name or problems.name, Path(path).name or "-", one.split or default]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _recipe(settings: Settings) -> str:
    rows = [["stage", *_SHOWN], ["---"] * (len(_SHOWN) + 1)]
    for name in settings.recipe:
        stage = settings.stages[name]
        rows.append([name, *(f"{getattr(stage, key)}" for key in _SHOWN)])
    rollout = settings.rollout
    changed = json.dumps(_changed(settings), indent=2, ensure_ascii=False)
    return (
        "\n".join(f"| {' | '.join(row)} |" for row in rows)
        + f"\n\nA step samples {rollout.samples_per_problem} episodes of {rollout.attempts} "
        f"attempts for each of {rollout.problems_per_step} problems, at temperature "
        f"{rollout.temperature}. "
        f"Seed {settings.seed}. All settings that are not the defaults of score_jax:\n\n"
        + card_use.fenced(changed, "json")
    )


def _changed(settings: Settings) -> dict[str, Any]:
    """The settings that differ from their defaults, by path; of files only their names."""
    plain = settings_check.flat(jsonfiles.plain(settings))
    stage = settings_check.flat(jsonfiles.plain(StageSettings(steps=-1, learning_rate=-1.0)))
    nothing = Settings(
        ModelSettings(""), ProblemSettings(""), RolloutSettings(0, 0, 0, 0), recipe=(), stages={}
    )
    default = settings_check.flat(jsonfiles.plain(nothing))
    default |= {f"stages.{s}.{key}": value for s in settings.stages for key, value in stage.items()}
    return {
        key: Path(value).name if _PATHS.search(key) and not _HUB_ID.fullmatch(value) else value
        for key, value in plain.items()
        if (key not in default or value != default[key]) and value not in ("", {}, [])
    }


def _results(found: dict[str, Any], settings: Settings) -> str:
    table = summary.markdown(found)
    if table == summary.NONE:
        return "No evaluation was run."
    decoding = "Greedy decoding" + (
        f", protocol {settings.evaluation.protocol}" * (settings.evaluation.protocol != "correct")
    )
    return (
        f"{table}\n\n{decoding}; shares of all n problems with their 95 % intervals. Acc@t1 and "
        "Acc@t2 are the accuracies of the first and second attempt, Δ their difference, i→c and "
        "c→i the shares that the second attempt put right and wrong; `base` is before training."
    )
