import pytest

from score_jax.data import problems
from score_jax.data.files import prepared
from score_jax.problem import InputError
from tests.data.real import REAL, needs_real_data

FIELDS = {"problem": "prompt", "answer": "entry_point", "id": "task_id", "level": "test"}


@pytest.fixture
def rows(monkeypatch):
    """The rows that TFDS has, to be changed."""
    made = [
        {"task_id": 4, "prompt": "1+1?", "entry_point": "2", "test": 3.5, "extra": [1]},
        {"task_id": 5, "prompt": "1+2?", "entry_point": "3", "test": 1.0, "extra": []},
    ]
    asked = []
    monkeypatch.setattr(
        prepared, "rows", lambda *given, **settings: asked.append((given, settings)) or made
    )
    yield made
    assert asked[0][0][0] == "sums"


def load(fields=FIELDS, split="validation"):
    return problems.load("tfds:sums", "folder", split, fields=fields)


def test_fields_are_mapped_and_the_rest_become_tags(rows):
    first, _ = load()
    assert (first.id, first.prompt, first.gold) == ("4", "1+1?", "2")
    assert first.tags == {"level": "3.5"} and first.grader == "answer"
    named = load({"problem": "prompt", "answer": "entry_point"})
    assert [problem.id for problem in named] == ["sums/validation/1", "sums/validation/2"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem": "promt", "answer": "test"}, r"row 1: .*no field 'promt'.*are .*prompt"),
        ({"problem": "prompt", "answer": "extra"}, r"row 1: field 'extra' .* must be text or a nu"),
        (FIELDS | {"id": "extra"}, r"row 1: field 'extra' \(the id\) must be text"),
    ],
)
def test_a_field_that_does_not_fit_names_row_and_fields(rows, fields, message):
    with pytest.raises(InputError, match=message):
        load(fields)


def test_an_empty_answer_names_the_row(rows):
    rows[1]["entry_point"] = " "
    with pytest.raises(InputError, match=r"row 2: field 'entry_point' \(the answer\) is empty"):
        load()


def test_without_a_map_the_message_shows_the_flag_to_type(rows):
    said = r"row 1: field 'problem' is missing.*--config\.problems\.fields\.problem=prompt"
    with pytest.raises(InputError, match=said):
        load({})


def test_a_map_for_a_set_whose_fields_are_known_is_refused():
    with pytest.raises(InputError, match=r"fields=.*no meaning for 'gsm8k'"):
        problems.load("gsm8k", "", "train", fields={"problem": "x"})


@needs_real_data
def test_a_prepared_set_is_read_by_its_name_alone(tmp_path):
    prepared.prepare("humaneval", str(REAL / "humaneval"), str(tmp_path))
    fields = {"problem": "prompt", "answer": "entry_point"}
    found = problems.load("tfds:humaneval", str(tmp_path), "test[:3]", fields=fields)
    assert [problem.gold for problem in found] == [
        "has_close_elements",
        "separate_paren_groups",
        "truncate_number",
    ]
    with pytest.raises(InputError, match=r"cannot get nothing_like_it from TensorFlow Datasets"):
        problems.load("tfds:nothing_like_it", str(tmp_path), "test", fields=fields)
