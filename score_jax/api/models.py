"""A model to ask and to train.

    model = load("SmolLM2-135M-Instruct.Q4_1.gguf", dtype="bfloat16", lora={"rank": 16})
    print(model.attempt(task.problems[:2], task=task, samples=2))

Weights are read when they are first needed.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from score_jax import grading
from score_jax.api import settings as settings_of
from score_jax.api.task import Task
from score_jax.config import build
from score_jax.config.settings import ModelSettings
from score_jax.evaluation.queue import of_every_sample
from score_jax.experiment import GREEDY, Experiment
from score_jax.model import weights
from score_jax.model.families import PRESET
from score_jax.problem import InputError, Problem
from score_jax.rl.policy import Policy
from score_jax.structs import Params


@dataclasses.dataclass(frozen=True)
class Attempts:
    """What the model wrote for one sample of a problem, and what it earned."""

    problem: Problem
    texts: list[str]  # [A]
    rewards: list[float]  # [A]
    solved: list[bool]  # [A]
    reasons: list[str]  # [A]: "equal", "unequal", "no_answer", "truncated", …
    tokens: list[int]  # [A], end tokens included
    truncated: list[bool]  # [A]: it hit its limit


class Asked(list[Attempts]):
    """The samples of all problems, those of one problem together; prints as a transcript."""

    def __str__(self) -> str:
        lines, last = [], None
        for one in self:
            if one.problem.id != last:
                lines.append(f"{one.problem.prompt}   (right: {one.problem.gold})")
                last = one.problem.id
            for a, text in enumerate(one.texts):
                mark = "right" if one.solved[a] else one.reasons[a]
                lines.append(f"  attempt {a + 1} [{one.rewards[a]:g}, {mark}] {text!r}")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True, repr=False)
class Model:
    """A model by its settings; `load` makes it."""

    settings: ModelSettings

    def __repr__(self) -> str:
        defaults = ModelSettings(self.settings.source)
        values = ((f.name, getattr(self.settings, f.name)) for f in dataclasses.fields(defaults))
        own = "".join(f", {n}={v!r}" for n, v in values if v != getattr(defaults, n))
        return f"Model({self.settings.source!r}{own})"

    def attempt(
        self,
        problems: Sequence[Problem],
        *,
        task: Task,
        samples: int = 0,
        temperature: float = 1.0,
        seed: int = 0,
        **groups: Any,
    ) -> Asked:
        """All attempts at some problems of a task, graded by its reward.

        Args:
          samples: of each problem, at `temperature`; 0: one, decoded greedily.
          groups: further settings, as in `train`.
        Raises: InputError if model, task and settings do not fit.
        """
        several = isinstance(problems, Sequence) and all(isinstance(x, Problem) for x in problems)
        if not isinstance(task, Task) or not several or not problems:
            raise InputError(
                f"attempt({problems!r:.60}, task={task!r:.60}) needs problems of a Task: "
                "attempt(task.problems[:2], task=task)."
            )
        settings = settings_of.settings_of(self.settings, task, seed=seed, **groups)
        problems = task.asked(problems)
        grading.prepare(settings, problems)
        experiment, params = self._loaded(settings)
        policy = Policy(temperature) if samples else GREEDY
        found = of_every_sample(
            experiment,
            params,
            experiment.evaluation_prompts(problems),
            functools.partial(_records, experiment),
            settings=experiment.episode_settings(policy=policy, samples=max(1, samples)),
            key=jax.random.key(seed),
            rows=settings.evaluation.batch,
        )
        each = [problem for problem in problems for _ in range(max(1, samples))]
        return Asked(Attempts(one, **row) for one, row in zip(each, found, strict=True))

    def _loaded(self, settings) -> tuple[Experiment, Params]:
        """The experiment and its weights, which are read once for a model."""
        plain = dataclasses.replace(settings.model, lora=type(settings.model.lora)())
        experiment = Experiment.open(dataclasses.replace(settings, model=plain))
        return experiment, _weights(experiment)


def load(source: str | Path, **settings: Any) -> Model:
    """A model from a .gguf file, a folder with safetensors, a hub id, a preset or a run's folder.

    Args:
      settings: of the model (config/settings.py, ModelSettings): dtype, template, lora, …
    Raises: InputError if there is no such model, or it is of a family that is not known.
    """
    found = build.build(ModelSettings, {"source": str(source), **settings}, "load")
    if settings.get("lora") and not found.lora.rank:
        raise InputError(
            f"load(lora={settings['lora']!r}) has no rank, so there would be no adapters. Give "
            "one, such as lora={'rank': 16}, or leave lora out."
        )
    if not found.source.startswith(PRESET):
        weights.described(found.source)  # refuses what cannot be loaded; reads no weights
    return Model(found)


_kept: dict[str, Any] = {}  # the weights of the model that was asked last


def _weights(experiment: Experiment) -> Params:
    key = repr((experiment.settings.model, experiment.settings.seed))
    if key not in _kept:
        _kept.clear()  # before others are read
        _kept[key] = experiment.source_params()
    return _kept[key]


def forget() -> None:
    """Frees the weights of the model that was asked last: a training reads its own."""
    _kept.clear()


def _records(experiment: Experiment, own: grading.OwnRows) -> list[Mapping[str, Any]]:
    grades = grading.grade(experiment, own)
    attempts = range(own.rows.truncated.shape[1])
    return [
        {
            "texts": list(texts),
            "rewards": grades.reward_NA[n].tolist(),
            "solved": grades.solved_NA[n].tolist(),
            "reasons": list(grades.reasons[n]),
            "tokens": [int((own.rows.attempt[n] == a + 1).sum()) for a in attempts],
            "truncated": own.rows.truncated[n].tolist(),
        }
        for n, texts in enumerate(own.texts)
    ]
