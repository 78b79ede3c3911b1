"""Documents from the solutions that problems come with: what a warm start learns.

    own = of_stages(settings, problems, template)["warm"]      tokenised once, checked
    own.rows(number)                                           the documents of step `number`

A document is a first attempt alone: a problem and its solution, in the words that the prompt asks
for. A share of them may be corrections: a wrong first attempt, the instruction, and the solution.
The wrong attempt is the solution of another problem with another answer: right in its form, and no
error that the policy would make (for those, collect.filter "pair"). No document has two attempts
that say the same: a policy that has learned such documents repeats its first attempt, and RL finds
no second one to reward.

Which documents a step has depends on the seed, the stage and the step's number alone.
"""

import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from score_jax.config.settings import DocumentSettings, Settings
from score_jax.data import schedule
from score_jax.data.asked import encoded, instruction_limit
from score_jax.data.sets import own_rows
from score_jax.data.sft import documents
from score_jax.data.sft.documents import Row
from score_jax.problem import InputError, Problem
from score_jax.text.prompts import SOLUTIONS, VERDICTS
from score_jax.text.stops import Stops
from score_jax.text.templates import Template

_PLACE = re.compile(r"\{(solution|answer)\}")
_DRAWN, _ORDER, _CORRECTED = 11, 7, 13  # what is drawn from a stage's seed
_TRIES = 100  # for a problem with another answer


@dataclasses.dataclass(frozen=True)
class _Document:
    prompt: tuple[int, ...]
    attempt: tuple[int, ...]  # the solution, with what ends it
    shown: tuple[int, ...]  # the solution as a sampled attempt would be, before an instruction
    answer: str
    instructions: tuple[tuple[int, ...], ...]  # before a second attempt, where it has its own


@dataclasses.dataclass(frozen=True)
class Solutions:
    """The documents of an SFT stage."""

    documents: Sequence[_Document]
    order: schedule.Stream
    settings: DocumentSettings
    seed: tuple[int, int]  # of the run, of the stage
    turn_end: int  # tokens that may close an attempt before the instruction
    left_out: int  # documents that are too long
    said: str  # what they are, in a sentence

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits for the documents."""
        found = hashlib.sha256()
        for one in self.documents:
            found.update(np.array([*one.prompt, -1, *one.attempt], np.int32).tobytes())
            found.update(repr((one.answer, one.instructions)).encode())
        return found.hexdigest()[:16]

    def rows(self, number: int) -> list[Row]:
        """The documents of step `number`, counted from 1."""
        draw = np.random.default_rng([*self.seed, _CORRECTED, number])
        picked = [self.documents[i] for i in self.order.take(number - 1)]
        corrected = draw.random(len(picked)) < self.settings.corrections
        return [self._row(*both, draw) for both in zip(picked, corrected, strict=True)]

    def columns(self, instruction: int) -> int:
        """The tokens that the longest document can have. instruction: those of the run's."""
        longest = max(len(one.prompt) + len(one.attempt) for one in self.documents)
        if self.settings.corrections:
            own = [len(ids) for one in self.documents for ids in one.instructions[:1]]
            instruction = max(own, default=instruction)
            longest += max(len(one.shown) for one in self.documents) + self.turn_end + instruction
        return longest

    def _row(self, one: _Document, corrected: bool, draw: np.random.Generator) -> Row:
        if not self.settings.corrections:
            return Row(one.prompt, (one.attempt,), (False,), (1.0,))
        if not corrected:
            return Row(one.prompt, (one.attempt,), (False, False), (1.0, 0.0))
        wrong = self._other(one, draw).shown
        both = (wrong, one.attempt)
        return Row(one.prompt, both, (False, False), (0.0, 1.0), one.instructions)

    def _other(self, one: _Document, draw: np.random.Generator) -> _Document:
        for _ in range(_TRIES):
            other = self.documents[int(draw.integers(len(self.documents)))]
            if other.answer != one.answer:
                return other
        raise InputError(
            f"corrections begin with the solution of a problem with another answer, and {_TRIES} "
            f"problems drawn have the answer {one.answer!r:.80} too. Set the stage's "
            "documents.corrections to 0."
        )


def of_stages(
    settings: Settings, problems: Sequence[Problem], template: Template, stops: Stops
) -> dict[str, Solutions]:
    """The documents of all SFT stages that neither collect theirs nor have a corpus, by stage.

    stops: the stop sequences of the run.
    Raises: InputError if too few problems have a solution that fits, or a stage cannot use them.
    """
    where = (settings.problems.name, settings.problems.prompt)
    found = {}
    for index, name in enumerate(settings.recipe):
        stage = settings.stages[name]
        if stage.objective != "sft" or stage.collect.filter:
            continue
        if where not in documents.CORPORA:
            found[name] = _of_stage(settings, problems, template, stops, name, index)
        elif stage.documents != DocumentSettings():
            raise InputError(
                f"config.stages.{name}.documents says how solutions are learned, but the problem "
                f"set {where[0]!r} with the prompt {where[1]!r} has a corpus, which is generated. "
                "Leave it at its defaults."
            )
    return found


def _of_stage(
    settings: Settings,
    problems: Sequence[Problem],
    template: Template,
    stops: Stops,
    name: str,
    index: int,
) -> Solutions:
    stage = settings.stages[name]
    how, rows = stage.documents, stage.documents_per_step or settings.rollout.rows
    if how.corrections and settings.problems.prompt in VERDICTS:
        raise InputError(
            f"config.stages.{name}.documents.corrections={how.corrections:g}: under the prompt "
            f"{settings.problems.prompt!r} second attempts begin with a verdict, which solutions "
            "lack. Set corrections to 0."
        )
    solved = [problem for problem in problems if problem.solution.strip()]
    if not solved:
        raise InputError(
            f"config.stages.{name} learns solutions, and none of the {len(problems)} problems of "
            f"{settings.problems.name!r} has one. gsm8k, math and mbpp have them; for your own "
            "rows name the field with --config.problems.fields.solution=NAME. Else remove the "
            f"stage from config.recipe, or let it collect documents (config.stages.{name}.collect)."
        )
    text = how.text or SOLUTIONS.get(settings.problems.prompt, "{solution}")
    made = [_document(problem, text, template, stops) for problem in solved]
    most = instruction_limit(settings, template)
    fitting = [one for one in made if _fits(one, settings, most)]
    unsolved, long = len(problems) - len(solved), len(made) - len(fitting)
    if not fitting:
        raise InputError(
            f"config.stages.{name} learns solutions, and all {len(made)} are too long: "
            "config.rollout.max_prompt_tokens and max_attempt_tokens must hold "
            f"{max(len(one.prompt) for one in made)} and "
            f"{max(len(one.attempt) for one in made)} tokens for the longest."
        )
    count = max(1, round(how.share * len(fitting)))
    if how.epochs:
        count = max(1, round(stage.steps / how.epochs)) * rows
    if count > len(fitting):
        most = int(len(fitting) / rows * how.epochs)
        raise InputError(
            f"config.stages.{name} has {stage.steps} steps of {rows} documents, which with "
            f"documents.epochs={how.epochs:g} need {count} different ones, but {len(fitting)} are "
            f"usable ({unsolved} problems have no solution, {long} are too long). Set steps to at "
            f"most {most}, or epochs to at least {stage.steps * rows / len(fitting):.3g}."
        )
    seed = (settings.seed % 2**32, index)
    pool = np.random.default_rng([*seed, _DRAWN]).permutation(len(fitting))[:count]
    return Solutions(
        documents=fitting,
        order=documents.order(np.sort(pool), rows, (*seed, _ORDER)),
        settings=how,
        seed=seed,
        turn_end=len(template.turn_end_ids),
        left_out=long,
        said=(
            f"{count} of {len(problems)} problems with their solutions, "
            f"{stage.steps * rows / count:.3g} passes"
            f"{f', {how.corrections:.0%} of them as corrections' if how.corrections else ''}; "
            f"{unsolved} have no solution, {long} are too long."
        ),
    )


def _document(problem: Problem, text: str, template: Template, stops: Stops) -> _Document:
    own_rows.check_characters(problem.solution, problem.where or f"problem {problem.id!r}")
    attempt = written(text, {"solution": problem.solution.strip(), "answer": problem.gold})
    sampled = _stopped(attempt, stops)
    shown = template.attempt_ids(attempt if sampled is None else sampled)
    if sampled is not None:  # `closing_ids` says what comes between it and the instruction
        shown = shown[: -len(template.turn_end_ids)]
    return _Document(
        prompt=tuple(encoded(problem, template.first_turn)),
        attempt=tuple(template.attempt_ids(attempt)),
        shown=tuple(shown),
        answer=problem.gold,
        instructions=tuple(tuple(template.turn(text)) for text in problem.instructions),
    )


def written(text: str, said: Mapping[str, str]) -> str:
    """What an attempt says: the text with the solution and the answer in their places."""
    return _PLACE.sub(lambda place: said[place[1]], text)


def _stopped(text: str, stops: Stops) -> str | None:
    """The attempt as sampling would leave it, if a stop sequence ends it."""
    ends = [(text.find(stop), 0) for stop in stops.before]
    ends += [(text.find(stop), len(stop)) for stop in stops.after]
    found = [at + kept for at, kept in ends if at >= 0]
    return text[: min(found)] if found else None


def _fits(one: _Document, settings: Settings, most: int) -> bool:
    """most: tokens of an instruction."""
    rollout = settings.rollout
    return (
        len(one.prompt) <= rollout.max_prompt_tokens
        and max(len(one.attempt), len(one.shown)) <= rollout.max_attempt_tokens
        and max(map(len, one.instructions), default=0) <= most
    )
