"""Rows with other names, numbers, nulls, messages and everything else that people put in them."""

import json

import pytest

from score_jax.data.sets import own_rows
from score_jax.problem import InputError


def one(row, fields=None, setting="config.problems"):
    (found,) = own_rows.problems([("FILE, line 1", "file/1", row)], fields or {}, setting)
    return found


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (0, "0"),
        (12, "12"),
        (12.0, "12"),
        (100, "100"),
        (0.5, "0.5"),
        (-2.50, "-2.5"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        ("12.0", "12.0"),  # text stays as it is
    ],
)
def test_a_number_is_an_answer(answer, gold):
    assert one({"problem": "?", "answer": answer}).gold == gold


@pytest.mark.parametrize(
    ("solution", "fields", "found"),
    [
        ("so 2", {}, "so 2"),
        (["a", "list"], {}, ""),  # another thing of that name
        (None, {"solution": "worked"}, "thus 2"),
    ],
)
def test_a_solution_is_text_that_sft_can_learn(solution, fields, found):
    row = {"problem": "?", "answer": 2, "solution": solution, "worked": "thus 2"}
    made = one(row, fields)
    assert made.solution == found and not made.reference


def test_a_field_that_is_named_as_the_solution_must_be_text():
    with pytest.raises(InputError, match=r"'worked' \(the solution\) must be text"):
        one({"problem": "?", "answer": 2, "worked": ["x"]}, {"solution": "worked"})


def test_an_id_that_is_null_is_none():
    assert one({"problem": "?", "answer": 1, "id": None}).id == "file/1"
    assert one({"problem": "?", "answer": 1, "id": 7.0}).id == "7"


def test_fields_are_mapped_into_objects_and_lists():
    row = {"q": {"text": "1+1?"}, "reward_model": {"ground_truth": "2"}, "a.b": "x", "list": ["y"]}
    fields = {"problem": "q.text", "answer": "reward_model.ground_truth", "dot": "a.b"}
    found = one(row, fields | {"first": "list.0"})
    assert (found.prompt, found.gold) == ("1+1?", "2")
    assert found.tags == {"dot": "x", "first": "y"}


def test_a_whole_row_reaches_the_problem_and_its_short_values_are_tags():
    row = {"problem": "?", "answer": 1, "level": 3, "rubric": ["a", {"b": 1}], "long": "x" * 201}
    found = one({**row, "flag": True, "none": None})
    assert found.fields == {**row, "flag": True, "none": None}
    assert found.tags == {"level": "3"}
    assert found.where == "FILE, line 1"


@pytest.mark.parametrize(
    ("row", "flag"),
    [
        ({"question": "?", "answer": 1}, "--config.problems.fields.problem=question"),
        ({"prompt": "?", "answer": 1}, "--config.problems.fields.problem=prompt"),
        ({"Question": "?", "answer": 1}, "--config.problems.fields.problem=Question"),
        ({"problem": "?", "solution": "1"}, "--config.problems.fields.answer=solution"),
        (
            {"problem": "?", "reward_model": {"style": "rule", "ground_truth": "1"}},
            "--config.problems.fields.answer=reward_model.ground_truth",
        ),
        ({"problem": "?", "x": 1}, "--config.problems.fields.answer=NAME"),
    ],
)
def test_a_field_of_another_name_is_answered_with_the_flag_to_type(row, flag):
    with pytest.raises(InputError) as caught:
        one(row)
    assert str(caught.value).endswith(flag)


def test_the_flag_is_that_of_the_set():
    with pytest.raises(InputError, match=r"--config\.problems\.tests\.aime\.fields\.problem=quest"):
        one({"question": "?", "answer": 1}, setting="config.problems.tests.aime")


def test_a_row_may_name_its_grader_and_hold_its_tests_as_json():
    tests = ["assert add(1, 2) == 3"]
    for answer in (tests, {"tests": tests}, json.dumps({"tests": tests})):
        found = one({"problem": "add", "grader": "program", "answer": answer})
        assert found.grader == "program" and json.loads(found.gold) == {"tests": tests}
    assert one({"problem": "?", "answer": "1", "grader": None}).grader == "answer"


def test_a_right_program_may_come_with_its_tests():
    row = {"problem": "add", "grader": "program", "answer": ["assert f() == 1"], "code": "f = 1"}
    assert one(row).reference == ""
    assert one(row, {"solution": "code"}).reference == "f = 1"
    assert one({**row, "solution": "f = 2"}).reference == "f = 2"
    assert one({"problem": "?", "answer": "1", "solution": "so it is"}).reference == ""


def test_a_prompt_may_be_messages_which_are_put_as_they_are():
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1?"}]
    found = one({"prompt": asked, "answer": 2}, {"problem": "prompt"})
    assert (found.prompt, found.system, found.prompt_format) == ("1+1?", "Be brief.", "{problem}")
    assert list(found.messages) == asked
    parts = [{"role": "user", "content": [{"type": "text", "text": "1+1?"}]}]
    plain = one({"problem": parts, "answer": 2})
    assert (plain.prompt, plain.system) == ("1+1?", "")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "user, assis"),
        ([{"role": "user", "content": "a"}] * 2, "messages of user, user"),
        ([], "messages of nobody"),
        ([{"role": "system", "content": "a"}], "messages of system"),
        ([{"role": "user"}], "without role and text"),
        (["1+1?"], "without role and text"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "without role and text"),
        ([{"role": "user", "content": " "}], "is empty"),
    ],
)
def test_messages_that_cannot_be_put_exactly_are_refused_by_name(messages, said):
    with pytest.raises(InputError, match=rf"FILE, line 1: field 'problem' .*{said}"):
        one({"problem": messages, "answer": 2})
