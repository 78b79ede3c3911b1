"""--mode=try: asks a model one question and shows all its attempts, with the words that changed.

First come the question, its answer where there is one (by which attempts are then marked), and the
prompt and the instruction exactly as the model gets them, special tokens included.

    ask_latest(settings, folder, question)                 the newest checkpoint, or what is loaded
    answer(experiment, params, question) -> attempts       decoded greedily, as in an evaluation
    at_terminal(experiment, params, question="")           prints them; without a question it asks

A terminal takes control characters as commands, so they are replaced in what a model wrote.
"""

import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import jax
import numpy as np
import rich.box
import rich.columns
import rich.console
import rich.panel
import rich.text

from score_jax import grading
from score_jax import run as runs
from score_jax.config.settings import Settings
from score_jax.data import asked
from score_jax.evaluation.edits import edit_ratio, word_diff
from score_jax.experiment import GREEDY, Experiment
from score_jax.problem import InputError
from score_jax.rollout.stream import Stream
from score_jax.structs import Params

SIDE_BY_SIDE = 100  # columns; a terminal at least so wide shows attempts side by side
_COLOURS = ("blue", "dark_orange3", "magenta")  # attempt 1, attempt 2, later ones
# Control characters except tab and line feed, marks that change the text's direction, surrogates.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What the policy wrote in one turn."""

    text: str
    tokens: int
    truncated: bool
    mark: str = ""  # "right" or what is wrong with it; empty: there is no answer to grade by


def ask_latest(settings: Settings, folder: Path, question: str = "") -> None:
    """Asks the newest checkpoint a question, or those that are typed; prints all attempts.

    Without a checkpoint the loaded weights are asked.
    Raises: InputError if the question cannot be asked.
    """
    with runs.newest(settings, folder, "try", trained=False) as (run, stage, at_step, params):
        trained = run.trained_so_far(stage, at_step)
        after = f"after {stage.name}, step {at_step}" if trained else "as loaded, not trained here"
        run.log.say(f"{settings.model.source} {after}")
        weights = run.experiment.decoding_weights(params)
        at_terminal(run.experiment, weights, question, doing=run.log.doing)


def answer(experiment: Experiment, params: Params, question: str) -> list[Attempt]:
    """All attempts at a question, decoded greedily, with the template of the run's problems.

    Raises: InputError for a question that is empty, too long, or has characters without a token.
    """
    settings, encode = experiment.settings, experiment.template.first_turn
    problem = asked.of_question(question, settings.problems)
    tokens, limit = len(asked.encoded(problem, encode)), settings.rollout.max_prompt_tokens
    if tokens > limit:
        raise InputError(
            f"the question has {tokens} tokens and this run takes at most {limit}. Ask a shorter "
            "one, or train with a larger config.rollout.max_prompt_tokens."
        )
    (ended,) = Stream(
        params,
        experiment.evaluation_prompts([problem]),
        jax.random.key(0),  # greedy decoding draws nothing
        settings=experiment.episode_settings(policy=GREEDY, samples=1),
        rows=1,
        mesh=experiment.mesh,
    )
    attempt_T, truncated_A = ended.rows.attempt[0], ended.rows.truncated[0]
    own = grading.decoded(experiment, ended.rows, np.zeros(1, int), [problem])
    marks = _marks(experiment, own) if problem.gold else [""] * len(own.texts[0])
    return [
        Attempt(text, int(np.sum(attempt_T == a + 1)), bool(truncated_A[a]), marks[a])
        for a, text in enumerate(own.texts[0])
    ]


def _marks(experiment: Experiment, own: grading.OwnRows) -> list[str]:
    """What grading says of each attempt of one row; rewards are named where they are not 0 or 1."""
    grading.prepare(experiment.settings, own.problems)
    grades = grading.grade(experiment, own)
    marks = []
    for a, reason in enumerate(grades.reasons[0]):
        solved, reward = bool(grades.solved_NA[0, a]), float(grades.reward_NA[0, a])
        mark = "right" if solved else "wrong" if reason in ("unequal", "truncated") else reason
        marks.append(mark if reward == float(solved) else f"{mark}, reward {reward:g}")
    return marks


def at_terminal(
    experiment: Experiment,
    params: Params,
    question: str = "",
    *,
    stream: TextIO | None = None,
    doing: Callable[[str], object] = lambda what: None,
) -> None:
    """Answers `question`, or else each line of standard input until it ends.

    doing: is told what takes time, and "" while a question is waited for.
    Raises: InputError if `question` cannot be asked; for a typed one the error is printed.
    """
    console = rich.console.Console(file=stream, highlight=False, markup=False, emoji=False)

    def ask(question: str) -> None:
        doing("decoding the attempts")
        attempts = answer(experiment, params, question)
        doing("")
        problem = asked.of_question(question, experiment.settings.problems)
        right = f"   (right: {problem.gold})" if problem.gold else ""
        console.print(_COMMANDS.sub("\N{REPLACEMENT CHARACTER}", problem.prompt.strip() + right))
        show_sent(console, experiment.sent(problem))
        show(console, attempts)

    if question:
        ask(question)
        return
    doing("")
    for line in _typed(console):
        try:
            ask(line)
        except InputError as error:
            console.print(str(error), soft_wrap=True)


def show_sent(console: rich.console.Console, sent: Mapping[str, str]) -> None:
    """Prints the texts that the model gets around its attempts."""
    for name, text in sent.items():
        body = rich.text.Text(_COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text))
        title = rich.text.Text(f"sent: {name}")
        console.print(
            rich.panel.Panel(
                body, title=title, title_align="left", border_style="dim", box=rich.box.SQUARE
            )
        )


def show(console: rich.console.Console, attempts: list[Attempt]) -> None:
    """Prints attempts. Words that differ from the attempt before are coloured (in the first
    attempt: from the second), or in [brackets] where there are no colours."""
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
        said = [f"Attempt {a + 1}", f"{attempt.tokens} tokens"]
        said += ["truncated"] * attempt.truncated + [attempt.mark] * bool(attempt.mark)
        title = ", ".join(said)
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
    """Lines of standard input; on a terminal, a first line says how to end."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        return
    console.print("One question a line; an empty line ends.")
    while True:
        try:
            line = input("> ")
        except (EOFError, OSError, KeyboardInterrupt):  # OSError: the terminal is closed
            return
        if not line.strip():
            return
        yield line
