import json
import random
import shutil

import pytest

from score_jax.data import problems
from score_jax.data.sets import jsonl, math_problems
from score_jax.problem import InputError
from score_jax.rewards.answers.grade import grade_answers
from tests.data.real import REAL, needs_real_data

pytestmark = needs_real_data
FOLDER = str(REAL / "math")
# Answers that are not found in their own published solutions, and why.
REFUSED = {
    "math/train/number_theory/7115": "no_answer",  # the box is empty
    "math/train/number_theory/7117": "no_answer",  # the box is empty
}


@pytest.fixture
def copy(tmp_path):
    """A folder with the published files, to be changed: test.jsonl, as it is much smaller."""
    shutil.copytree(FOLDER, tmp_path / "math", ignore=shutil.ignore_patterns("train*"))
    file = tmp_path / "math" / "test.jsonl"
    file.chmod(0o644)
    return file


def change(file, function):
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in function(rows)), encoding="utf-8")


def load(file, split="test"):
    return problems.load("math", str(file.parent), split)


def solutions(split):
    """Id -> worked solution."""
    rows = math_problems.examples(REAL / "math" / f"{split}.jsonl", split)
    return {math_problems.problem(row).id: row["solution"] for row in rows}


def test_the_splits_are_lightmans_and_share_no_problem():
    train, test = (problems.load("math", FOLDER, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (11_999, 500)
    assert not {problem.prompt for problem in train} & {problem.prompt for problem in test}
    assert len({problem.prompt for problem in train}) == 11_999
    assert test[0].id == "math/test/algebra/1004" and test[0].gold == "4"
    assert test[0].tags == {"level": "Level 1", "subject": "Algebra"}
    levels = [problem.tags["level"] for problem in train]
    assert [levels.count(f"Level {n}") for n in (1, 2, 3, 4, 5, "?")] == [
        *(958, 2152, 2617, 2776, 3494),
        2,
    ]
    assert all(problem.gold.strip() for problem in (*train, *test))


def test_order_of_rows_and_spelling_of_levels_do_not_matter(copy):
    expected = load(copy)

    def reordered(rows):
        random.Random(0).shuffle(rows)
        return [row | {"level": int(row["level"][-1]), "more": 1} for row in rows]

    change(copy, reordered)
    assert load(copy) == expected


@pytest.fixture(scope="module")
def published_lines():
    return (REAL / "math" / "train.jsonl").read_text(encoding="utf-8").splitlines()


# Ids of before and behind the first one: which of the two is kept must not matter.
@pytest.mark.parametrize("name", ["aaa/1.json", "zzz/1.json"])
def test_a_problem_that_is_there_twice_is_kept_once(tmp_path, published_lines, name):
    expected = problems.load("math", FOLDER, "train")
    twin = json.loads(published_lines[8000]) | {"unique_id": name, "answer": " ½ "}
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join([*published_lines, json.dumps(twin)]), encoding="utf-8")
    assert len(list(jsonl.rows(file))) == 12_000
    assert load(file, "train") == expected


def test_which_of_two_equal_rows_is_kept_depends_on_their_ids_alone(tmp_path, published_lines):
    twin = json.dumps(json.loads(published_lines[8000]) | {"unique_id": "aaa/1.json"})
    file = tmp_path / "train.jsonl"
    found = []
    for lines in ([*published_lines, twin], [twin, *published_lines]):
        file.write_text("\n".join(lines), encoding="utf-8")
        found.append([problem.id for problem in load(file, "train")])
    assert found[0] == found[1] and found[0][0] == "math/aaa/1"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda rows: rows[1:], r"test\.jsonl: has 499 rows, but .* has 500"),
        (lambda rows: [*rows[1:], rows[1]], r"line 500: id '.*' is already that of line 1"),
        (
            lambda rows: [rows[0] | {"answer": "5"}, *rows[1:]],
            r"other content .*published.*name=jsonl",
        ),
        (lambda rows: [rows[0] | {"problem": "2+2"}, *rows[1:]], r"other content"),
        (lambda rows: [*rows[:2], rows[2] | {"level": 6}, *rows[3:]], r"line 3: .*'level'.*'6'"),
        (lambda rows: [{"problem": "2+2"}, *rows[1:]], r"line 1: field 'solution' is missing"),
    ],
)
def test_another_content_is_refused(copy, function, message):
    change(copy, function)
    with pytest.raises(InputError, match=message):
        load(copy)


def test_missing_file_says_what_and_where_from(tmp_path):
    with pytest.raises(InputError, match=r"train\.jsonl: no such file.*prm800k.*download"):
        problems.load("math", str(tmp_path), "train")


def test_unknown_split_names_the_splits():
    with pytest.raises(InputError, match="train, test, not 'validation'"):
        problems.load("math", FOLDER, "validation")


def refused(split, count=None):
    """Id -> reason, of answers that are not right in their own published solution."""
    solution_of = solutions(split)
    chosen = problems.load("math", FOLDER, split)
    if count:
        chosen = random.Random(1).sample(chosen, count)
    grades = grade_answers([(solution_of[problem.id], problem.gold) for problem in chosen])
    return {
        problem.id: grade.reason
        for problem, grade in zip(chosen, grades, strict=True)
        if not grade.reward
    }


def test_sample_of_the_train_answers_is_right_in_their_published_solutions():
    assert refused("train", 300).items() <= REFUSED.items()


@pytest.mark.slow
def test_all_answers_are_right_in_their_published_solutions_but_two():
    assert refused("train") == REFUSED
    assert refused("test") == {}
