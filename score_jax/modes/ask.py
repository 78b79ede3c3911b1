"""Asks a model one question and shows all its attempts, with the words that changed.

    answer(experiment, params, question) -> attempts       greedy, as in an evaluation
    at_terminal(experiment, params, question="")           prints them; without a question it asks

What a model wrote goes to a terminal here, where control characters are commands: they are
replaced before anything is shown.
"""

import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import TextIO

import jax
import numpy as np
import rich.box
import rich.columns
import rich.console
import rich.panel
import rich.text

from score_jax.data import pipeline
from score_jax.data.sets import arithmetic
from score_jax.evaluation.edits import edit_ratio, word_diff
from score_jax.experiment import GREEDY, Experiment
from score_jax.problem import InputError, Problem
from score_jax.rollout import episode
from score_jax.runtime import sharding
from score_jax.structs import Params

SIDE_BY_SIDE = 100  # columns of a terminal from which on attempts stand beside each other
_COLOURS = ("blue", "dark_orange3", "magenta")  # of attempt 1, 2, and those after
# Control characters but tab and line feed, marks that turn the direction of text, and surrogates.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What the policy wrote in one turn."""

    text: str
    tokens: int
    truncated: bool


def answer(experiment: Experiment, params: Params, question: str) -> list[Attempt]:
    """All attempts at a question, decoded greedily, put to the model as the run's problems are.

    Raises: InputError for a question that is empty, too long, or has characters without a token.
    """
    settings = experiment.settings
    if settings.problems.name == arithmetic.NAME:
        question = arithmetic.prompt(question)
    if not question.strip():
        raise InputError("the question is empty: nothing can be asked.")
    template = experiment.template
    tokens, limit = len(template.first_turn(question)), settings.rollout.max_prompt_tokens
    if tokens > limit:
        raise InputError(
            f"the question has {tokens} tokens and this run takes prompts of {limit}: ask a "
            "shorter one, or train with a larger config.rollout.max_prompt_tokens."
        )
    ((prompts, _),) = pipeline.evaluation_batches(
        [Problem(id="question", prompt=question, gold="")],
        template.first_turn,
        batch=sharding.batch_size(experiment.mesh),  # the same question on each device
        max_prompt_tokens=limit,
        pad_id=template.tokenizer.pad_id,
    )
    sampled = episode.run(
        params,
        prompts,
        jax.random.key(0),  # greedy decoding draws nothing
        settings=experiment.episode_settings(policy=GREEDY, samples=1),
        mesh=experiment.mesh,
    )
    attempt_T, truncated_A = np.asarray(sampled.attempt)[0], np.asarray(sampled.truncated)[0]
    return [
        Attempt(text, int(np.sum(attempt_T == a + 1)), bool(truncated_A[a]))
        for a, text in enumerate(experiment.texts(sampled)[0])
    ]


def at_terminal(
    experiment: Experiment,
    params: Params,
    question: str = "",
    *,
    stream: TextIO | None = None,
) -> None:
    """Answers `question`, or else one line of standard input after the other until it ends.

    Raises: InputError for a given question that cannot be asked; of those typed it only says so.
    """
    console = rich.console.Console(file=stream, highlight=False, markup=False, emoji=False)
    if question:
        show(console, answer(experiment, params, question))
        return
    for line in _typed(console):
        try:
            show(console, answer(experiment, params, line))
        except InputError as error:
            console.print(str(error), soft_wrap=True)


def show(console: rich.console.Console, attempts: list[Attempt]) -> None:
    """Prints attempts; coloured are the words that the one before lacks, in the first the second.

    Without colours they are in [brackets].
    """
    texts = [_COMMANDS.sub("\N{REPLACEMENT CHARACTER}", attempt.text) for attempt in attempts]
    panels = []
    for a, attempt in enumerate(attempts):
        if len(texts) == 1:
            pieces = [(texts[0], False)]
        elif a == 0:
            pieces = word_diff(texts[0], texts[1])[0]
        else:
            pieces = word_diff(texts[a - 1], texts[a])[1]
        colour = _COLOURS[min(a, len(_COLOURS) - 1)]
        body = rich.text.Text()
        for piece, changed in pieces:
            if changed and console.color_system is None:
                body.append(f"[{piece}]")
            else:
                body.append(piece, style=f"bold {colour}" if changed else "")
        title = (
            f"Attempt {a + 1}, {attempt.tokens} tokens{', cut off' if attempt.truncated else ''}"
        )
        panels.append(
            rich.panel.Panel(
                body,
                title=rich.text.Text(title, style=colour),
                title_align="left",
                border_style=colour,
                box=rich.box.SQUARE,
            )
        )
    if console.width >= SIDE_BY_SIDE:
        width = console.width // len(panels)
        console.print(rich.columns.Columns(panels, padding=0, width=width, expand=True))
    else:
        for panel in panels:
            console.print(panel)
    if len(texts) > 1:
        same = attempts[0].text.strip() == attempts[1].text.strip()
        ratio = edit_ratio(attempts[0].text, attempts[1].text)
        console.print("The second repeats the first." if same else f"Edit ratio {ratio:.2f}.")


def _typed(console: rich.console.Console) -> Iterator[str]:
    """Lines of standard input; on a terminal it is told how to end."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    console.print("One question a line; an empty line ends.")
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            return
        if not line.strip():
            return
        yield line
