"""Checks and prepares a work directory before a run writes in it.

    check_same_settings(folder, settings)     refuses a folder that has other settings
    check_same_source(folder, settings)       refuses one whose `model.source` has other weights now
    sweep(folder)                             removes what a killed run was writing
    start_over(folder, settings)              sets aside a run without a checkpoint
    take_base(folder, other, settings)        copies the trained base model of another run
    check_shared(folder)                      refuses a folder that some process cannot see
    is_complete(folder, settings)             whether the run is finished

A work directory belongs to one set of settings (config.json). A run with other settings is refused
before anything is written.
"""

import contextlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.buckets import places
from score_jax.config.build import resolve
from score_jax.config.settings import Settings
from score_jax.data.sft import documents
from score_jax.model import weights
from score_jax.model.files import saved_params
from score_jax.problem import InputError
from score_jax.runtime import hosts
from score_jax.workdir import evaluations, runlog, spool

# Settings that may differ when a run resumes: they change speed, output or memory, not the result.
_FREE = (
    "name",
    "evaluation",
    "scaling",
    "problems.test",  # and problems.tests
    "problems.bad_golds",
    "checkpoint",
    "compile",
    "watchdog",
    "logging",
    "mesh",
    "memory",
    "optimizer.nonfinite",
    "rollout.slots",
    "rollout.turn_rows",
    "rollout.shrink",
    "rollout.engine",
    "rewards.sandbox",
    "rewards.allow_unsandboxed",
    # A run that stopped because its reward function failed resumes with others.
    "rewards.failed_share",
    "rewards.function_timeout_sec",
    "rewards.function_memory_gib",
    "rewards.workers",
    "rewards.retries",
    "rewards.remember",
    "rewards.environment",
)
# Of these, what the evaluation before any training depends on.
_OF_AN_EVALUATION = ("evaluation.", "problems.test")
# What a run writes, besides compiled programs, which serve any settings.
_OF_A_RUN = (
    "config.json",
    "metrics.jsonl",
    runlog.SAMPLES,
    "tensorboard",
    "checkpoints",
    "collected",
    "evaluations",
    "transcripts",
    "diagnosis",
    "scaling",
    "report",
)
# Keys of config.json: of reward functions, and of the weights in `model.source`.
REWARD_CODE, SOURCE_FILES = "reward_code", "source_files"

SEEN_SEC = 60.0  # a network file system shows a new file to other hosts within this time
# What a base model does not depend on, however it is trained.
_AFTER_BASE = ("recipe", "stages.", "problems.pass_rate")
# What one that learns given documents does not depend on either: it samples and grades nothing.
_UNSAMPLED = ("rewards.", "rollout.", "problems.curriculum_steps", "problems.weight")
# What only the instruction and the attempt before it depend on.
_BETWEEN = ("problems.instruction_text", "problems.stop_", "problems.prompt_stops")
_LIMITS = ("rollout.max_prompt_tokens", "rollout.max_attempt_tokens")


def check_same_settings(folder: Path, settings: Settings) -> None:
    """A work directory belongs to one set of settings, from its first checkpoint on.

    Raises: InputError naming what differs.
    """
    begun = saved_params.begun(folder)
    if not (folder / "config.json").exists():
        if begun:
            raise InputError(
                f"{folder} has checkpoints but no config.json, so their settings are not known. "
                "Choose another --workdir."
            )
        return
    longer = tuple(f"stages.{name}.steps" for name in settings.recipe)
    if begun and (differing := _differing(folder, settings, _FREE)):
        if not _differing(folder, settings, (*_FREE, *longer)):
            last = settings.recipe[-1]
            raise InputError(
                f"{folder} is a run with other numbers of steps, which its learning rates follow, "
                f"so they cannot be changed. Use the same numbers, or name another --workdir: to "
                f"train on there from what this run ends with, set --config.model.source={folder} "
                f"--config.recipe=\"('{last}',)\". Differing: {differing}"
            )
        raise InputError(
            f"{folder} belongs to a run with other settings, and resuming would mix the two. "
            f"Use the same settings or another --workdir. Differing: {differing}"
        )


def began_with(folder: Path) -> dict[str, Any]:
    """What the files held that settings name when a run began; empty where that is not known."""
    path = folder / "config.json"
    found = jsonfiles.read(path) if path.exists() else {}
    return {SOURCE_FILES: found.get(SOURCE_FILES, ""), REWARD_CODE: found.get(REWARD_CODE, {})}


def check_same_source(folder: Path, settings: Settings) -> None:
    """Refuses to go on if `model.source` holds other weights now and they are read again.

    Raises: InputError.
    """
    source, adapted = settings.model.source, settings.model.lora.rank > 0
    if not saved_params.begun(folder) or not (adapted or settings.recipe[0] != "base"):
        return
    before = began_with(folder)[SOURCE_FILES]
    if before and before != weights.fingerprint(source):
        whose = "the frozen weights of its adapters" if adapted else "the reference of its KL terms"
        raise InputError(
            f"the files of config.model.source={source} have changed since the run in {folder} "
            f"began, and they are {whose}. Restore them, or use another --workdir."
        )


def not_applied(folder: Path, settings: Settings) -> str:
    """What evaluations would depend on and differs from the folder's, as a sentence."""
    return _differing(folder, settings, ("",), _OF_AN_EVALUATION)


def sweep(folder: Path) -> None:
    """Removes what a killed run was writing: nobody reads it, and compiled programs are large.

    Call it while the folder is locked. `try` may then lose a program, which it compiles again.
    """
    left = [*folder.glob(".*.part"), *folder.glob("*/.*.part")]
    for kind, suffix in (("evaluations", ".json"), ("collected", ".jsonl")):
        for part in folder.glob(f"{kind}/*.part.jsonl"):
            name = part.name.removesuffix(".part.jsonl")
            # The latest checkpoint is evaluated again and again.
            if name.split(".")[0] != "latest" and part.with_name(name + suffix).exists():
                left.append(part)
    for path in left:
        path.unlink(missing_ok=True)


def start_over(folder: Path, settings: Settings) -> None:
    """Sets aside what a run of other, or unknown, settings left that failed before a checkpoint.

    Its files go to DIR/before-1 (or the next number): its evaluations and metrics would else be
    taken for those of the new settings.
    """
    if not (folder / "config.json").exists() or saved_params.begun(folder):
        return
    with contextlib.suppress(InputError):  # no checkpoint needs settings that cannot be read
        if not _differing(folder, settings, _FREE, _OF_AN_EVALUATION):
            return
    number = 1
    while (aside := folder / f"before-{number}").exists():
        number += 1
    aside.mkdir()
    for name in reversed(_OF_A_RUN):  # config.json last: until then, a killed start is repeated
        if (folder / name).exists():
            (folder / name).rename(aside / name)


def take_base(folder: Path, other: Path, settings: Settings) -> None:
    """Starts a run in `folder` with the finished stage `base` of a run in `other`.

    So runs of several recipes and one seed share a base model that is trained once. Its last
    checkpoint, its steps in metrics.jsonl and its compiled programs are copied; the base model is
    evaluated again. Does nothing if the run in `folder` has a checkpoint.
    Raises: InputError if `other` has no finished stage `base`, or made it with other settings.
    """
    if saved_params.begun(folder):
        return
    if "base" not in settings.recipe:
        raise InputError(
            f"--base_from={other} needs a recipe with a stage 'base', and config.recipe="
            f"{settings.recipe} has none. Leave it out."
        )
    last = str(settings.stages["base"].steps)
    made = other / "checkpoints" / "base" / last
    if made not in places.checkpoints_in(made.parents[1]):
        raise InputError(
            f"--base_from={other}: there is no {made}, the last checkpoint of the stage 'base'. "
            "Train that run further, or name another."
        )
    if not (other / "metrics.jsonl").exists():
        raise InputError(
            f"--base_from={other}: {other / 'metrics.jsonl'} is missing, which has the steps of "
            "its base model. Put it back, name another run, or leave --base_from out."
        )
    rows = [row for row in runlog.read_metrics(other) if row["stage"] == "base"]
    left_out = any(row.get("documents_left_out") for row in rows)
    free, but = _of_base(settings, left_out)
    differing = _differing(other, settings, free, but)
    if differing:
        raise InputError(
            f"--base_from={other} trained its base model with other settings. Differing: "
            f"{differing}"
        )
    before = began_with(other)[SOURCE_FILES]
    if before and before != weights.fingerprint(settings.model.source):
        raise InputError(
            f"--base_from={other} made its base model from other files than there are now in "
            f"config.model.source={settings.model.source}. Restore them, or train it anew."
        )
    jsonfiles.write_lines(folder / "metrics.jsonl", rows)
    if (other / "compile_cache").exists():
        _make_writable(folder / "compile_cache")
        places.copy_folder(other / "compile_cache", folder / "compile_cache")
    # The checkpoint appears last and whole, beside its settings: whatever ends this before, the
    # next start copies again.
    part, target = folder / "base_from.part", folder / "checkpoints" / "base" / last
    settings_file = {"settings": jsonfiles.plain(settings)}
    if places.url_of(target):
        jsonfiles.write(folder / "config.json", settings_file)
        spool.uploaded(folder)
        places.copy(made, target)
        return
    if part.exists():
        _make_writable(part)
        shutil.rmtree(part)
    places.copy(made, part)
    jsonfiles.write(folder / "config.json", settings_file)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.rename(target)


def _make_writable(folder: Path) -> None:
    """Earlier versions copied the modes of a read-only run: nothing could be removed there."""
    for path, _, _ in os.walk(folder):
        if not os.stat(path).st_mode & stat.S_IWUSR:
            os.chmod(path, 0o755)


def _of_base(settings: Settings, left_out: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the base model's weights do not depend on, and what of that they do: prefixes of names.

    left_out: whether documents were too long for the other run's limits, so that with others the
    base model would have learned more.
    """
    base, problems = settings.stages["base"], settings.problems
    free: tuple[str, ...] = (*_FREE, *_AFTER_BASE)
    but: tuple[str, ...] = ("stages.base.",)
    if base.objective == "rl" or base.collect.filter:
        return free, but
    free += _UNSAMPLED
    if not base.documents_per_step:
        but += ("rollout.problems_per_step", "rollout.samples_per_problem")
    if base.normalizer == "constant":
        but += ("rollout.max_attempt_tokens",)
    if (problems.name, problems.prompt) not in documents.CORPORA:
        free += () if base.documents.corrections else _BETWEEN
        but += _LIMITS if left_out else ()
    return free, but


def check_shared(folder: Path) -> None:
    """Checks that every process sees what process 0 writes. Raises: InputError on all of them."""
    hosts.lead_says(lambda: spool.uploaded(folder))
    written = hosts.lead_says(lambda: (folder / "config.json").read_text())
    deadline = time.monotonic() + SEEN_SEC
    while not (seen := _reads(folder / "config.json", written)) and time.monotonic() < deadline:
        time.sleep(1.0)
    blind = [i for i, sees in enumerate(hosts.exchange(seen)) if not sees]
    if blind:
        raise InputError(
            f"processes {', '.join(map(str, blind))} do not see what process 0 writes to "
            f"--workdir={folder}, but all processes write checkpoints there. Name a folder on "
            "storage that all hosts share."
        )


def _reads(path: Path, written: str) -> bool:
    try:
        return spool.read(path) == written.encode()
    except OSError:
        return False


def is_complete(folder: Path, settings: Settings) -> bool:
    """Whether the last stage is trained, base and every stage evaluated, the report written."""
    last = settings.recipe[-1]
    found, names = folder / "evaluations", ("base", *settings.recipe)
    lost = [path for path in found.glob("*.json.damaged") if not path.with_suffix("").exists()]
    return (
        _is_summary(folder / "report" / "summary.json")
        and all((found / f"{name}.json").exists() for name in names)
        and not any(path.name.split(".")[0] in names for path in lost)
        and all(evaluations.read(path) for path in found.glob("*.json"))
        and saved_params.latest_step(folder / "checkpoints" / last) == settings.stages[last].steps
    )


def _is_summary(path: Path) -> bool:
    try:
        stages = jsonfiles.read(path)["stages"].values()
        return all({"n", "interval"} <= metrics.keys() for metrics in stages)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _differing(
    folder: Path, settings: Settings, free: tuple[str, ...], but: tuple[str, ...] = ()
) -> str:
    """The settings that differ from the folder's, as a sentence; empty if none does.

    free: prefixes of names that may differ, except names that start with one of `but`.
    """
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text())["settings"]
        with contextlib.suppress(InputError):  # newer settings, which it lacks, have their defaults
            saved = jsonfiles.plain(resolve(saved))
        saved = flat(saved)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}), so the settings of the checkpoints beside it are "
            "not known. Choose another --workdir."
        ) from error
    ours = flat(jsonfiles.plain(settings))
    found = [
        f"{key}: {saved.get(key, 'absent')} there, {ours.get(key, 'absent')} now"
        for key in sorted(saved.keys() | ours.keys())
        if saved.get(key) != ours.get(key) and (key.startswith(but) or not key.startswith(free))
    ]
    more = f"; and {len(found) - 8} more" if len(found) > 8 else ""
    return "; ".join(found[:8]) + more + "." if found else ""


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """A tree of settings as {"rollout.attempts": 2, …}."""
    if not isinstance(tree, dict):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}.{key}" if path else key)
    return leaves
