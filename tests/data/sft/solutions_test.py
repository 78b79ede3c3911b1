"""Documents from the solutions that problems come with."""

import dataclasses

import numpy as np
import pytest

from score_jax.config.settings import (
    DocumentSettings,
    ModelSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    StageSettings,
)
from score_jax.data.problems import load
from score_jax.data.sft import documents, solutions
from score_jax.problem import InputError, Problem
from score_jax.rewards.answers import grade_answer
from score_jax.rewards.programs.extract import readings
from score_jax.text import prompts, templates, tokenizer
from score_jax.text.stops import Stops
from tests.data.real import REAL, needs_real_data

NO_STOPS = Stops()
PROBLEMS = [Problem(f"{n}", f"{n}+1=", str(n + 1), solution=f"{n + 1}:{n}") for n in range(6)]
TEMPLATE = templates.make(
    "plain", tokenizer.characters(), system="", prompt_format="{problem}", instruction="?"
)


def settings(**documents) -> Settings:
    """A run with a warm start of 6 steps of 2 documents."""
    rows, said = documents.pop("rows", 2), documents.pop("instruction", "?")
    warm = StageSettings(
        steps=6,
        learning_rate=1.0,
        objective="sft",
        documents_per_step=rows,
        documents=DocumentSettings(**documents),
    )
    return Settings(
        model=ModelSettings("preset:quickstart"),
        problems=ProblemSettings("jsonl", prompt_text="{problem}", instruction_text=said),
        rollout=RolloutSettings(1, 2, max_prompt_tokens=4, max_attempt_tokens=5),
        recipe=("warm",),
        stages={"warm": warm},
    )


def made(problems=PROBLEMS, stops=NO_STOPS, **documents) -> solutions.Solutions:
    return solutions.of_stages(settings(**documents), problems, TEMPLATE, stops)["warm"]


def texts(row: solutions.Row) -> list[str]:
    decode = TEMPLATE.tokenizer.decode
    return [decode(list(ids)) for ids in (row.prompt, *row.attempts)]


def test_a_document_is_a_problem_and_its_solution_as_a_first_attempt_alone():
    own = made()
    rows = [row for number in (1, 2, 3) for row in own.rows(number)]
    wanted = [[p.prompt, f"{p.solution}."] for p in PROBLEMS]
    assert sorted(map(texts, rows)) == wanted  # one pass over all
    assert {row.learned for row in rows} == {(1.0,)}
    assert own.columns(instruction=1) == 4 + 4
    assert "6 of 6 problems" in own.said and " 2 passes" in own.said


def test_the_answer_and_the_solution_are_put_where_the_text_says():
    row = made(PROBLEMS[:1], text="{answer}{solution}").rows(1)[0]
    assert texts(row) == ["0+1=", "11:0."]


def test_corrections_are_a_wrong_first_attempt_and_the_solution_which_alone_is_learned():
    own = made(corrections=1.0, rows=6)
    for row in own.rows(1):
        problem = next(p for p in PROBLEMS if p.prompt == texts(row)[0])
        wrong, right = texts(row)[1:]
        assert right == f"{problem.solution}." and wrong != right
        assert wrong.removesuffix(".") in {p.solution for p in PROBLEMS}
        assert row.learned == (0.0, 1.0)
    assert own.columns(instruction=1) == 4 + 4 + 4 + len(TEMPLATE.turn_end_ids) + 1


def test_a_correction_has_the_instruction_of_its_problem_in_a_row_as_wide_as_the_longest():
    told = [dataclasses.replace(p, instructions=("?" * n,)) for n, p in enumerate(PROBLEMS)]
    given = {"corrections": 1.0, "rows": 6, "instruction": "{n}"}
    own = made(told, **given)
    for row in own.rows(1):
        problem = next(p for p in told if p.prompt == texts(row)[0])
        said = tuple(TEMPLATE.tokenizer.encode(problem.instructions[0]))
        assert row.instructions == (said,)
    columns = own.columns(instruction=0)
    assert columns == 4 + 4 + 4 + len(TEMPLATE.turn_end_ids) + len(PROBLEMS) - 1
    batch = documents.pack(
        own.rows(1), TEMPLATE, lambda attempt: (), columns=columns, max_attempt_tokens=5
    )
    for b, row in enumerate(own.rows(1)):
        ids = [*row.prompt, *row.attempts[0], *row.instructions[0], *row.attempts[1]]
        marks = [0] * len(row.prompt), [1] * len(row.attempts[0]), [0] * len(row.instructions[0])
        assert batch.tokens[b, : batch.length[b]].tolist() == ids
        found = batch.attempt[b, : batch.length[b]].tolist()
        assert found == [*marks[0], *marks[1], *marks[2], *[2] * len(row.attempts[1])]
    long = [dataclasses.replace(told[0], instructions=("?" * 99,)), *told[1:]]
    assert made(long, **given).left_out == 1


def test_the_share_of_corrections_holds_and_the_others_have_the_shape_of_two_attempts():
    own = made(corrections=0.25, rows=6)
    rows = [row for number in range(1, 201) for row in own.rows(number)]
    corrected = [len(row.attempts) == 2 for row in rows]
    assert 0.21 < np.mean(corrected) < 0.29
    alone = rows[corrected.index(False)]
    assert alone.learned == (1.0, 0.0) and len(alone.attempts) == 1
    assert len(alone.truncated) == 2


def test_a_wrong_attempt_before_an_instruction_ends_as_a_sampled_one_would():
    one = dataclasses.replace(PROBLEMS[0], solution="1:0=")
    other = dataclasses.replace(PROBLEMS[1], solution="2:1=")
    own = made([one, other], Stops(before=("=",)), corrections=1.0)
    row = next(row for row in own.rows(1) if texts(row)[0] == one.prompt)
    # Under "plain" nothing closes an attempt that a stop sequence ended.
    assert texts(row)[1:] == ["2:1", "1:0=."]
    whole = made([one, other], Stops(after=("=",)), corrections=1.0)
    row = next(row for row in whole.rows(1) if texts(row)[0] == one.prompt)
    assert texts(row)[1:] == ["2:1=", "1:0=."]


def test_documents_depend_on_seed_and_step_alone():
    one, again = made(corrections=0.5), made(corrections=0.5)
    assert [again.rows(n) for n in (9, 2)] == [one.rows(n) for n in (9, 2)]
    other = dataclasses.replace(settings(corrections=0.5), seed=1)
    other = solutions.of_stages(other, PROBLEMS, TEMPLATE, Stops())["warm"]
    assert [other.rows(n) for n in range(1, 9)] != [one.rows(n) for n in range(1, 9)]


def learned(own: solutions.Solutions, steps: int = 6) -> list[str]:
    return [texts(row)[0] for number in range(1, steps + 1) for row in own.rows(number)]


def test_share_and_epochs_say_how_many_problems_are_learned():
    half = learned(made(share=0.5, rows=3))
    assert len(set(half)) == 3 and {half.count(one) for one in half} == {6}
    thrice = learned(made(epochs=3.0))  # 6 steps of 2 are 3 passes over 4
    assert len(set(thrice)) == 4 and {thrice.count(one) for one in thrice} == {3}
    few = learned(made(PROBLEMS[:1]))  # a step is filled by repetition
    assert few == ["0+1="] * 12


def test_what_is_too_long_or_has_no_solution_is_left_out_and_said():
    bare = [dataclasses.replace(one, solution="") for one in PROBLEMS[:2]]
    long = dataclasses.replace(PROBLEMS[2], solution="12345")  # six with the end token
    wide = dataclasses.replace(PROBLEMS[3], prompt="10+11=")
    own = made([*bare, long, wide, *PROBLEMS[4:]])
    assert set(learned(own)) == {"4+1=", "5+1="}
    assert "2 have no solution, 2 are too long" in own.said
    with pytest.raises(InputError, match="none of the 2 problems"):
        made(bare)
    with pytest.raises(InputError, match="must hold 6 and 4 tokens"):
        made([wide])
    with pytest.raises(InputError, match="at most 3, or epochs to at least 2"):
        made(epochs=1.0)
    with pytest.raises(InputError, match="have the answer '1' too"):
        made(PROBLEMS[:1], corrections=1.0).rows(1)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "prompt"), [("gsm8k", "gsm8k"), ("math", "math_boxed"), ("math", "math_text")]
)
def test_published_solutions_are_graded_right_as_their_prompt_asks_for_them(name, prompt):
    for problem in load(name, str(REAL / name), "test")[:25]:
        said = {"solution": problem.solution, "answer": problem.gold}
        text = solutions.written(prompts.SOLUTIONS[prompt], said)
        assert grade_answer(text, problem.gold).solved, text
        assert "<<" not in text or name != "gsm8k"


@needs_real_data
@pytest.mark.parametrize("prompt", ["mbpp", "mbpp_chat", "mbpp_text"])
def test_published_programs_are_found_in_the_form_that_is_learned(prompt):
    for problem in load("mbpp", str(REAL / "mbpp"), "test")[:25]:
        text = solutions.written(prompts.SOLUTIONS[prompt], {"solution": problem.solution})
        (first, *_) = readings(text)
        assert [block.strip() for block in first] == [problem.solution]
