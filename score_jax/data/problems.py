"""Problem sets by name: config.problems -> the problems to train on and those to evaluate on.

This file only says where problems come from; pipeline.py tokenises and batches them, schedule.py
orders and mixes them. A user's own problems are rows with fields to be named (own_rows.py): files
(jsonl, parquet), "hf:NAME" (hub.py) and "tfds:NAME" (own_tfds.py).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from score_jax.buckets import sources
from score_jax.config.settings import ProblemSettings, SourceSettings
from score_jax.data.asked import asked
from score_jax.data.pipeline import Prompts
from score_jax.data.repair import attempts
from score_jax.data.sets import (
    arithmetic,
    gsm8k,
    hub,
    humaneval,
    jsonl,
    math_problems,
    mbpp,
    own_tfds,
    parquet,
    running_total,
)
from score_jax.data.sft.solutions import Solutions
from score_jax.problem import InputError, Problem, nearest
from score_jax.rewards import golds
from score_jax.text import prompts
from score_jax.text.prompts import PROMPTS

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Training:
    """The problems to train on: those of all sets of a mixture, one set after the other."""

    problems: list[Problem]
    parts: tuple[tuple[int, float], ...]  # (problems, weight) of each set
    prompts: Prompts | None = None  # their tokens, once a template has made them
    documents: Mapping[str, Solutions] = dataclasses.field(default_factory=dict)  # by SFT stage


def for_training(settings: ProblemSettings, seed: int) -> Training:
    """The problems to train on. Raises: InputError, as `load`, and for prompts that do not fit."""
    s = settings
    first = SourceSettings(s.name, s.path, s.split, fields=s.fields, solutions=s.solutions)
    sources = {"config.problems": dataclasses.replace(first, weight=s.weight)}
    sources |= {f"config.problems.mixture.{key}": value for key, value in s.mixture.items()}
    found = [_source(s, source, "train", seed, path) for path, source in sources.items()]
    problems = [problem for part in found for problem in part]
    weights = [source.weight for source in sources.values()]
    parts = tuple(zip(map(len, found), weights, strict=True))
    return Training(_checked(problems, "config.problems"), parts)


def for_evaluation(settings: ProblemSettings, seed: int) -> list[Problem]:
    """The problems to evaluate on: those of config.problems.test, or the own test split."""
    return _test_set(settings, settings.test, seed, "config.problems.test")


def further_tests(settings: ProblemSettings, seed: int) -> dict[str, list[Problem]]:
    """The problems of each of config.problems.tests, by its name."""
    return {
        key: _test_set(settings, source, seed, f"config.problems.tests.{key}")
        for key, source in settings.tests.items()
    }


def _test_set(
    settings: ProblemSettings, source: SourceSettings, seed: int, path: str
) -> list[Problem]:
    """A set to evaluate on; without a name it is another part of the training set."""
    if not source.name:
        path = path if source.fields else "config.problems"
        source = dataclasses.replace(
            source,
            name=settings.name,
            path=source.path or settings.path,
            fields=source.fields or settings.fields,
            solutions=source.solutions or settings.solutions,
        )
    return _source(settings, source, "test", seed, path)


def load(
    name: str,
    path: str,
    split: str,
    *,
    seed: int = 0,
    fields: Mapping[str, str] | None = None,
    setting: str = "config.problems",
) -> list[Problem]:
    """Problems of one split of a problem set, in a fixed order.

    Args:
      name: a key of PROBLEM_SETS or OWN_SETS, "hf:NAME" or "tfds:NAME".
      path: a file or folder; empty for the set's own source (TFDS, or generated).
      split: "train" or "test", or another split that the set has.
      seed: for generated sets; the others ignore it.
      fields: for a user's own problems: which field is the problem, the answer, …
      setting: the group of settings that says all this, for messages.
    Raises: InputError if the set is unknown, cannot be read, is empty or repeats an id.
    """
    what, path = f"problem set {name!r}, split {split!r}", sources.local(path)
    for prefix, module in ((own_tfds.PREFIX, own_tfds), (hub.PREFIX, hub)):
        if name.startswith(prefix):
            return _checked(module.problems(name, path, split, fields or {}, setting), what)
    if name in OWN_SETS:
        return _checked(OWN_SETS[name](path, split, fields or {}, setting), what)
    if name not in PROBLEM_SETS:
        known = (*PROBLEM_SETS, *OWN_SETS, f"{own_tfds.PREFIX}NAME", f"{hub.PREFIX}OWNER/NAME")
        raise InputError(f"unknown problem set {setting}.name={name!r}. {nearest(name, known)}")
    if fields:
        raise InputError(
            f"{setting}.fields={dict(fields)} has no meaning for {name!r}, whose fields are known. "
            f"Set it to {{}}, or set {setting}.name to {', '.join(OWN_SETS)}, {hub.PREFIX}NAME or "
            f"{own_tfds.PREFIX}NAME."
        )
    return _checked(PROBLEM_SETS[name](path, split, seed), what)


def _source(
    settings: ProblemSettings, source: SourceSettings, split: str, seed: int, path: str
) -> list[Problem]:
    """The problems of a set; they carry its prompt if it differs from the run's, or is a text.

    split: the one to take if the set names none. path: of its settings, for messages.
    """
    found = load(
        source.name,
        source.path,
        source.split or split,
        seed=seed,
        fields=source.fields,
        setting=path,
    )
    if source.solutions:
        found = [
            dataclasses.replace(
                one, gold=golds.taken_out(one.gold), solution=one.solution or one.gold
            )
            for one in found
        ]
    if len(settings.instructions) > 1 and any(one.first_attempt for one in found):
        raise InputError(
            f"{path}: the set {source.name!r} gives first attempts, and the policy samples from "
            "the second on, while config.problems.instruction_text has one text for each attempt "
            "that is sampled. Give one text for all."
        )
    text = source.prompt_text or ("" if source.prompt else settings.prompt_text)
    if text:
        at = path if source.prompt_text else "config.problems"
        return asked(found, text, source.fields, at, settings.instructions)
    if not source.prompt or source.prompt == settings.prompt:
        return found
    if source.prompt not in PROMPTS:
        raise InputError(
            f"{path}: unknown prompt {source.prompt!r}. {nearest(source.prompt, PROMPTS)}"
        )
    prompt_format, instruction = PROMPTS[source.prompt]
    _, of_run = prompts.chosen(settings.prompt, settings.prompt_text, settings.instructions)
    if of_run and of_run != [instruction]:
        raise InputError(
            f"{path}.prompt={source.prompt!r} has another instruction between the attempts than "
            f"config.problems.{'prompt' if settings.prompt else 'instruction_text'}="
            f"{settings.prompt or settings.instruction_text!r}, but a run has one instruction. "
            "Choose two prompts with the same one."
        )
    return [
        problem if problem.messages else dataclasses.replace(problem, prompt_format=prompt_format)
        for problem in found
    ]


def _generated(made: ModuleType):
    """A problem set that needs no files, for the table."""

    def problems(path: str, split: str, seed: int) -> list[Problem]:
        if path:
            raise InputError(
                f"config.problems.path={path!r} has no meaning for {made.NAME!r}: its problems are "
                "generated from the seed. Leave the path empty, or set config.problems.name=jsonl."
            )
        return made.problems(split, seed)

    return problems


def _train_and_test(read: Callable[[str, str], list[Problem]]):
    """A problem set of these two splits, for the table."""

    def problems(path: str, split: str, seed: int) -> list[Problem]:
        if split not in SPLITS:
            raise InputError(f"unknown split {split!r}: a split is one of {', '.join(SPLITS)}.")
        return read(path, split)

    return problems


def _checked(problems: Sequence[Problem], what: str) -> list[Problem]:
    if not problems:
        raise InputError(f"{what}: is empty, so there is nothing to train on or evaluate.")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise InputError(
                f"{what}: id {problem.id!r} occurs twice; transcripts and paired comparisons need "
                f"one id per problem."
            )
        seen.add(problem.id)
    return list(problems)


# (path, split, seed) -> problems
PROBLEM_SETS: dict[str, Callable[[str, str, int], list[Problem]]] = {
    "arithmetic": _generated(arithmetic),
    "gsm8k": _train_and_test(gsm8k.problems),
    "humaneval": lambda path, split, seed: humaneval.problems(path, split),
    "math": lambda path, split, seed: math_problems.problems(path, split),
    "mbpp": lambda path, split, seed: mbpp.problems(path, split),
    "mbpp_repair": lambda path, split, seed: attempts.problems(path),  # a file is one set
    "running_total": _generated(running_total),
}
# (path, split, fields, setting) -> problems
OWN_SETS: dict[str, Callable[[str, str, Mapping[str, str], str], list[Problem]]] = {
    "jsonl": jsonl.problems,
    "parquet": parquet.problems,
}
