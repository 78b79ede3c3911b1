"""A task: problems, the texts around the attempts, and the reward.

    task = Task("sums.jsonl", prompt="{problem} =", instruction="Check your sum.", reward=f)
    task.problems[:2]          the problems to train on
    task.test_problems[:2]     those to evaluate on

Problems are a file or folder (.jsonl, .parquet), the name of a set ("gsm8k", with path= where its
files lie; "hf:OWNER/NAME"), a list of rows (dicts) or of Problems, or a `datasets.Dataset`.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.config import build
from score_jax.config.settings import ProblemSettings, RewardSettings, SourceSettings
from score_jax.data import problems as problem_sets
from score_jax.data.asked import asked
from score_jax.data.sets import own_rows
from score_jax.data.sets.jsonl import held_out
from score_jax.problem import InputError, Problem, nearest
from score_jax.rewards import given
from score_jax.text.prompts import PROMPTS

Reward = str | Callable[..., Any]
Rows = Iterable[Mapping[str, Any] | Problem]


@dataclasses.dataclass(frozen=True, repr=False)
class Task:
    """What a model is asked, and what its attempts earn.

    Args:
      problems: see above. Of one file, list or Dataset, about a tenth is for evaluation.
      prompt: the first turn with the fields of a row in braces, "{problem} ="; or the name of a
        prompt of the package ("gsm8k"; text/prompts.py).
      instruction: the text before the second attempt, with fields like the prompt if it needs any;
        or one for each later attempt; none with a named prompt, which has its own.
      reward: a function of (problem, texts, gold) that returns a number for each attempt (see
        rewards/functions.py), "module:function", or several by name; None: the answers are graded
        as mathematics, or programs by their tests.
      test: problems to evaluate on, where they are not a part of `problems`.
      path: of a named set, the folder or file that holds it.
      attempt_tokens: the limit of each attempt, its end token included.
      fields: our names -> those of the rows, as {"answer": "reward_model.ground_truth"}.
      settings: further settings of the problems (config/settings.py, ProblemSettings).
      rewards: further settings of the rewards (RewardSettings).
    Raises: InputError for what does not fit.
    """

    source: Any
    prompt: str
    instruction: str | Sequence[str]
    reward: Reward | Mapping[str, Reward] | None
    test: Any
    attempt_tokens: int
    settings: ProblemSettings  # of a list the path is empty: see `settings_in`
    rewards: RewardSettings

    def __init__(
        self,
        problems: str | Path | Rows,
        *,
        prompt: str = "{problem}",
        instruction: str | Sequence[str] = "",
        reward: Reward | Mapping[str, Reward] | None = None,
        test: str | Path | Rows | None = None,
        path: str | Path = "",
        attempt_tokens: int = 64,
        fields: Mapping[str, str] | None = None,
        rewards: Mapping[str, Any] | None = None,
        **settings: Any,
    ):
        known = [f.name for f in dataclasses.fields(ProblemSettings)]
        for name in settings.keys() - set(known):
            own = [key for key in inspect.signature(Task).parameters if key != "settings"]
            raise InputError(f"Task takes no {name!r}. {nearest(name, [*own, *known])}")
        for name, rows in (("problems", problems), ("test", test or [])):
            if not isinstance(rows, str | Path | Iterable):
                raise InputError(
                    f"Task({name}={rows!r}) is no file, name of a set, or list of rows. Give one."
                )
        listed = isinstance(instruction, Sequence) and all(isinstance(x, str) for x in instruction)
        if not isinstance(prompt, str) or not listed:
            raise InputError(
                f"Task(prompt={prompt!r}, instruction={instruction!r}): both must be texts; of "
                "instructions there may be a list, one for each later attempt."
            )
        named = prompt in PROMPTS
        texts = instruction if isinstance(instruction, str) else tuple(instruction)
        tree: dict[str, Any] = {"fields": dict(fields or {}), **settings}
        tree |= {"prompt": prompt} if named else {"prompt_text": prompt}
        tree |= {"instruction_text": texts} if texts else {}
        tree |= _where(problems, str(path))
        if test is not None:
            tree["test"] = _where(test, "") if isinstance(test, str | Path) else {}
        values = {
            "source": problems if isinstance(problems, str | Path) else list(problems),
            "prompt": prompt,
            "instruction": instruction,
            "reward": reward,
            "test": test if test is None or isinstance(test, str | Path) else list(test),
            "attempt_tokens": attempt_tokens,
            "settings": build.build(ProblemSettings, tree, "Task"),
            "rewards": build.build(RewardSettings, {**(rewards or {}), **_paid(reward)}, "rewards"),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        def shown(value: Any) -> str:
            if isinstance(value, list) and not isinstance(next(iter(value), None), str):
                return f"{len(value)} rows"
            value = str(value) if isinstance(value, Path) else value
            return getattr(value, "__name__", "") or repr(value)

        given = {"prompt": self.prompt, "instruction": self.instruction, "reward": self.reward}
        given["test"] = self.test
        values = [f"{name}={shown(value)}" for name, value in given.items() if value]
        return f"Task({', '.join([shown(self.source), *values])})"

    @functools.cached_property
    def problems(self) -> list[Problem]:
        """The problems to train on, in order."""
        return self._split("train")

    @functools.cached_property
    def test_problems(self) -> list[Problem]:
        """The problems to evaluate on, in order."""
        return self._split("test")

    def settings_in(self, folder: Path) -> ProblemSettings:
        """The settings of the problems for a run; `write` puts rows of a list into the folder."""
        settings = self.settings
        if not isinstance(self.source, str | Path):
            return dataclasses.replace(settings, name="jsonl", path=str(folder), fields={})
        if self.test is not None and not isinstance(self.test, str | Path):
            test = SourceSettings("jsonl", str(folder), "test")
            return dataclasses.replace(settings, test=test)
        return settings

    def write(self, folder: Path) -> None:
        """Writes rows of a list to `folder` for a run. Raises: InputError if others lie there."""
        own = not isinstance(self.source, str | Path)
        if own:
            _write(folder / "train.jsonl", self._rows("train"))
        if own or not isinstance(self.test, str | Path | None):
            _write(folder / "test.jsonl", self._rows("test"))

    def _split(self, split: str) -> list[Problem]:
        settings = self.settings
        own = self.test if split == "test" and self.test is not None else self.source
        if isinstance(own, str | Path):
            if split == "train":
                return problem_sets.for_training(settings, 0).problems
            return problem_sets.for_evaluation(settings, 0)
        found = _problems(own, split, settings.fields)
        if own is self.source and self.test is None:
            found = [one for one in found if held_out(one.prompt) == (split == "test")]
        if not found:
            raise InputError(
                f"no problem of this list belongs to the {split} split (a list is split by a hash "
                "of each problem's text, a tenth to test). Give more problems, or test=."
            )
        return self.asked(found)

    def asked(self, problems: Sequence[Problem]) -> list[Problem]:
        """The problems with what the model is asked, where prompt and instruction are texts.

        Raises: InputError naming the row and the field that it lacks.
        """
        s = self.settings
        if not s.prompt_text:
            return list(problems)
        return asked(problems, s.prompt_text, s.fields, "Task", s.instructions)

    def _rows(self, split: str) -> list[dict[str, Any]]:
        """The problems as rows of a file that reads back as these very problems."""
        return [
            {
                **dict(one.fields),
                "id": one.id,
                "problem": list(one.messages) or one.prompt,
                "answer": one.gold,
                "grader": one.grader,
                **({"solution": one.reference} if one.reference else {}),
            }
            for one in self._split(split)
        ]


def _where(problems: Any, path: str) -> dict[str, str]:
    """The settings that say where problems are."""
    if not isinstance(problems, str | Path):
        return {"name": "jsonl"}
    name = str(problems)
    if path or name in problem_sets.PROBLEM_SETS or name.startswith(("hf:", "tfds:")):
        return {"name": name, "path": path}
    kind = "parquet" if name.endswith(".parquet") or list(Path(name).glob("*.parquet")) else "jsonl"
    return {"name": kind, "path": name}


def _paid(reward: Reward | Mapping[str, Reward] | None) -> dict[str, Any]:
    """The settings of the rewards that say what pays."""
    if reward is None:
        return {}
    if not isinstance(reward, Mapping):
        return {"function": _name(reward)}
    return {"functions": {key: {"function": _name(one)} for key, one in reward.items()}}


def _name(reward: Reward) -> str:
    return reward if isinstance(reward, str) else given.named(reward)


def _problems(rows: Sequence[Any], split: str, fields: Mapping[str, str]) -> list[Problem]:
    """Problems of rows in memory; those that are Problems already stay as they are."""
    kinds = [isinstance(row, Problem) for row in rows]
    if all(kinds):
        return list(rows)
    if any(kinds):
        raise InputError(
            f"Task: row {kinds.index(False)} is not a Problem, and others of this list are. Give "
            "only rows, or only Problems."
        )
    named = ((f"row {n}", f"{split}/{n}", row) for n, row in enumerate(rows))
    return own_rows.problems(named, fields, "Task")


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows, unless they are there. Raises: InputError if others are."""
    text = "".join(map(jsonfiles.line, rows))
    if path.exists() and path.read_text() != text and any(path.parents[1].glob("checkpoints/*/*")):
        raise InputError(
            f"{path} holds the problems that this run was trained on, and the task has others now. "
            "Use another workdir for them."
        )
    jsonfiles.write_text(path, text)
