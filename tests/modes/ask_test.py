"""One question to a model at a terminal."""

import dataclasses
import errno
import io
import itertools
import json
import sys
from unittest import mock

import pytest
import rich.console

from score_jax.config.settings import ProblemSettings
from score_jax.experiment import Experiment
from score_jax.modes import ask
from score_jax.modes.ask import Attempt
from score_jax.problem import InputError
from tests import fakes
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def model(quick_compile):
    """The quickstart's model, untrained."""
    experiment = Experiment.open(tiny_settings())
    return experiment, fakes.params(experiment.model)


def shown(attempts, *, width=70, **console) -> str:
    stream = io.StringIO()
    ask.show(rich.console.Console(file=stream, width=width, **console), attempts)
    return stream.getvalue()


def test_both_attempts_come_back_as_an_evaluation_would_decode_them(model):
    experiment, params = model
    attempts = ask.answer(experiment, params, "7 + 8+5")
    assert len(attempts) == 2
    limit = experiment.settings.rollout.max_attempt_tokens
    assert all(1 <= attempt.tokens <= limit for attempt in attempts)
    assert attempts == ask.answer(experiment, params, "7+8+5    =")


@pytest.mark.parametrize("question", ["", "hello", "7", "1+2+3+4+5+6", "12+3", "7+٣"])
def test_a_question_that_is_none_is_told(model, question):
    with pytest.raises(InputError, match=r"a sum of 2 to 5 one-digit numbers, such as 7\+8\+5"):
        ask.answer(*model, question)


def test_typed_questions_are_answered_one_by_one_and_a_bad_one_is_no_end(model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("3+4\n\nhello\n5+5+5\n"))
    stream = io.StringIO()
    ask.at_terminal(*model, stream=stream)
    text = stream.getvalue()
    assert text.count("Attempt 1") == text.count("Attempt 2") == 2
    assert text.count("'hello' is not a question") == 1


def test_a_terminal_that_closes_ends_the_questions(model, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", mock.Mock(side_effect=OSError(errno.EIO, "closed")))
    ask.at_terminal(*model, stream=io.StringIO())


def test_what_is_sent_comes_first_as_the_model_gets_it(model):
    stream = io.StringIO()
    ask.at_terminal(*model, "3+4", stream=stream)
    text = stream.getvalue()
    assert text.index("sent: prompt") < text.index("sent: instruction") < text.index("Attempt 1")
    assert "│ 3+4      = " in text[: text.index("sent: instruction")]
    stream = io.StringIO()
    console = rich.console.Console(file=stream, width=60)
    ask.show_sent(console, {"prompt": "<|im_start|>user\nhi [red]\x1b[31m<|im_end|>"})
    assert "<|im_start|>user" in stream.getvalue() and "hi [red]\ufffd[31m" in stream.getvalue()


def test_the_question_its_answer_and_the_marks_of_attempts_are_shown(model):
    experiment, params = model
    stream = io.StringIO()
    ask.at_terminal(experiment, params, "7+8+5", stream=stream)
    text = stream.getvalue()
    assert text.startswith("7+8+5    =   (right: 0)\n")
    for number, attempt in enumerate(ask.answer(experiment, params, "7+8+5"), start=1):
        right = not attempt.truncated and attempt.text.startswith("0")
        assert attempt.mark.startswith("right" if right else "wrong")
        assert f"Attempt {number}, {attempt.tokens} tokens" in text and attempt.mark in text
    marked = shown([Attempt("8", 1, False, "wrong"), Attempt("7", 1, False, "right, reward 0.5")])
    assert "Attempt 1, 1 tokens, wrong" in marked and "1 tokens, right, reward 0.5" in marked


def test_a_row_with_an_answer_is_marked_by_it_and_another_question_is_not(model):
    experiment, params = model
    own = ProblemSettings(name="jsonl", prompt_text="{problem}=", instruction_text="?")
    settings = dataclasses.replace(experiment.settings, problems=own)
    of_rows = Experiment.open(settings)
    plain = ask.answer(of_rows, params, "7+8")
    assert not any(attempt.mark for attempt in plain)
    row = json.dumps({"problem": "7+8", "answer": "12345"})
    graded = ask.answer(of_rows, params, row)
    assert [a.text for a in graded] == [a.text for a in plain]
    assert all(attempt.mark and "right" not in attempt.mark for attempt in graded)


def test_an_instruction_with_fields_is_sent_with_those_of_the_question(model):
    experiment, params = model
    own = ProblemSettings(name="jsonl", prompt_text="{problem}=", instruction_text="?{problem}=")
    of_rows = Experiment.open(dataclasses.replace(experiment.settings, problems=own))
    stream = io.StringIO()
    ask.at_terminal(of_rows, params, "7+8", stream=stream)
    sent = stream.getvalue().split("sent: instruction")[1]
    assert "?7+8=" in sent.splitlines()[1] and "Attempt 2" in sent


def test_changed_words_are_coloured_or_where_there_is_no_colour_in_brackets():
    attempts = [Attempt("so 3+4 is 8", 7, False), Attempt("so 3+4 is 7", 7, True)]
    plain = shown(attempts)
    assert "is [8]" in plain and "is [7]" in plain
    assert "Attempt 2, 7 tokens, truncated" in plain and "Edit ratio 0.09." in plain
    coloured = shown(attempts, force_terminal=True, color_system="256")
    assert "[8]" not in coloured and "\x1b[1;34m8" in coloured


def test_a_copy_is_called_one():
    assert "The second repeats the first." in shown([Attempt("7", 1, False)] * 2)
    assert "repeats" not in shown([Attempt("7", 1, False)])


def test_attempts_stand_beside_each_other_where_there_is_room():
    attempts = [Attempt("left", 1, False), Attempt("right", 1, False)]
    wide = shown(attempts, width=120).splitlines()
    assert any("left" in line and "right" in line for line in wide)
    assert max(map(len, wide)) <= 120
    assert not any("left" in line and "right" in line for line in shown(attempts).splitlines())


def test_control_characters_of_a_model_do_not_reach_the_terminal():
    hostile = "\x1b]0;owned\x07 \x1b[2J \r \x9b31m \u202e back \ud800 [red]text[/red]"
    text = shown([Attempt(hostile, 3, False), Attempt("b", 1, False)])
    assert not set(text) & set(map(chr, itertools.chain(range(10), range(11, 32), range(127, 160))))
    assert "\u202e" not in text and "\ud800" not in text and "[red]text[/red]" in text
    text.encode()
