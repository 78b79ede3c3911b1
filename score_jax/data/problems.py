"""Problem sets by name: config.problems -> the problems to train on and those to evaluate on.

This file only says where problems come from; pipeline.py tokenises and batches them, schedule.py
orders and mixes them. own_tfds.py reads "tfds:NAME": any TFDS data set without a file in sets/.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from score_jax.config.settings import ProblemSettings, SourceSettings
from score_jax.data.repair import attempts
from score_jax.data.sets import arithmetic, gsm8k, humaneval, jsonl, math_problems, mbpp, own_tfds
from score_jax.problem import InputError, Problem, nearest
from score_jax.text.prompts import PROMPTS

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Training:
    """The problems to train on: those of all sets of a mixture, one set after the other."""

    problems: list[Problem]
    parts: tuple[tuple[int, float], ...]  # (problems, weight) of each set


def for_training(settings: ProblemSettings, seed: int) -> Training:
    """The problems to train on. Raises: InputError, as `load`, and for prompts that do not fit."""
    s = settings
    found = [load(s.name, s.path, s.split or "train", seed=seed, fields=s.fields)]
    weights = [settings.weight]
    for key, source in settings.mixture.items():
        path = f"config.problems.mixture.{key}"
        found.append(_source(settings, source, source.split or "train", seed, path))
        weights.append(source.weight)
    sizes = [len(part) for part in found]
    problems = [problem for part in found for problem in part]
    return Training(_checked(problems, "config.problems"), tuple(zip(sizes, weights, strict=True)))


def for_evaluation(settings: ProblemSettings, seed: int) -> list[Problem]:
    """The problems to evaluate on: those of config.problems.test, or the own test split."""
    source = settings.test
    if not source.name:
        source = dataclasses.replace(
            source,
            name=settings.name,
            path=source.path or settings.path,
            fields=source.fields or settings.fields,
        )
    return _source(settings, source, source.split or "test", seed, "config.problems.test")


def load(
    name: str,
    path: str,
    split: str,
    *,
    seed: int = 0,
    fields: Mapping[str, str] | None = None,
) -> list[Problem]:
    """Problems of one split of a problem set, in a fixed order.

    Args:
      name: a key of PROBLEM_SETS, or "tfds:NAME".
      path: a file or folder; empty for the set's own source (TFDS, or generated).
      split: "train" or "test", or another split that the set has.
      seed: for generated sets; the others ignore it.
      fields: for "tfds:NAME" sets: which field is the problem, the answer, …
    Raises: InputError if the set is unknown, cannot be read, is empty or repeats an id.
    """
    what = f"problem set {name!r}, split {split!r}"
    if name.startswith(own_tfds.PREFIX):
        return _checked(own_tfds.problems(name, path, split, fields or {}), what)
    if name not in PROBLEM_SETS:
        known = (*PROBLEM_SETS, f"{own_tfds.PREFIX}NAME")
        raise InputError(
            f"unknown problem set config.problems.name={name!r}. {nearest(name, known)}"
        )
    if fields:
        raise InputError(
            f"config.problems.fields={dict(fields)} has no meaning for {name!r}, whose fields are "
            f"known. Set it to {{}}, or set config.problems.name to {own_tfds.PREFIX}NAME."
        )
    return _checked(PROBLEM_SETS[name](path, split, seed), what)


def _source(
    settings: ProblemSettings, source: SourceSettings, split: str, seed: int, path: str
) -> list[Problem]:
    """The problems of one more set; they carry its prompt format if it differs from the run's."""
    found = load(source.name, source.path, split, seed=seed, fields=source.fields)
    if not source.prompt or source.prompt == settings.prompt:
        return found
    for prompt in (source.prompt, settings.prompt):
        if prompt not in PROMPTS:
            raise InputError(f"{path}: unknown prompt {prompt!r}. {nearest(prompt, PROMPTS)}")
    prompt_format, instruction = PROMPTS[source.prompt]
    if instruction != PROMPTS[settings.prompt][1]:
        raise InputError(
            f"{path}.prompt={source.prompt!r} has another instruction between the attempts than "
            f"config.problems.prompt={settings.prompt!r}, but a run has one instruction. Choose "
            "two prompts with the same one."
        )
    return [dataclasses.replace(problem, prompt_format=prompt_format) for problem in found]


def _arithmetic(path: str, split: str, seed: int) -> list[Problem]:
    if path:
        raise InputError(
            f"config.problems.path={path!r} has no meaning for 'arithmetic': its problems are "
            "generated from the seed. Leave the path empty, or set config.problems.name=jsonl."
        )
    return arithmetic.problems(split, seed)


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
    "arithmetic": _arithmetic,
    "gsm8k": _train_and_test(gsm8k.problems),
    "humaneval": lambda path, split, seed: humaneval.problems(path, split),
    "jsonl": _train_and_test(jsonl.problems),
    "math": lambda path, split, seed: math_problems.problems(path, split),
    "mbpp": lambda path, split, seed: mbpp.problems(path, split),
    "mbpp_repair": lambda path, split, seed: attempts.problems(path),  # a file is one set
}
