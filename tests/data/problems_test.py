import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from score_jax.config.settings import ProblemSettings, SourceSettings
from score_jax.data import problems
from score_jax.data.sets import arithmetic, gsm8k, jsonl
from score_jax.problem import InputError, Problem
from tests.data.real import REAL, needs_real_data

QUESTIONS = [
    {"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
    {"question": "A house?", "answer": "Much.\n#### 1,250,000"},
    {"question": "Below zero?", "answer": "Cold.\n#### -7"},
    {"question": "Half?", "answer": "#### not yet\n#### 0.5"},
    {"question": "Für «two»?", "answer": "Only the last counts: #### 3\n#### 2"},
]
GOLDS = ["4", "1250000", "-7", "0.5", "2"]


def write(path: pathlib.Path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_gsm8k_gold_is_the_number_after_the_last_mark_without_commas(tmp_path):
    write(tmp_path / "test.jsonl", QUESTIONS)
    found = problems.load("gsm8k", str(tmp_path), "test")
    assert [problem.gold for problem in found] == GOLDS
    assert found[4].prompt == "Für «two»?" and found[4].id == "gsm8k/test/5"
    assert found[0].grader == "answer"


@pytest.mark.parametrize("answer", ["no mark 4", "####", "#### four", "#### 4 apples", "#### 1 2"])
def test_gsm8k_answer_without_a_final_number_names_file_and_line(tmp_path, answer):
    write(tmp_path / "train.jsonl", [*QUESTIONS, {"question": "?", "answer": answer}])
    with pytest.raises(InputError, match=r"train\.jsonl, line 6: .*#### N"):
        problems.load("gsm8k", str(tmp_path), "train")


def test_gsm8k_prepared_as_array_record_is_read_back_through_tfds(tmp_path, monkeypatch):
    import requests
    from tensorflow_datasets.text.gsm8k.gsm8k import Gsm8k

    rows = [*QUESTIONS[:3], *QUESTIONS[:2]]  # one mark per answer, as TFDS requires
    write(tmp_path / "rows.jsonl", [row | {"question": f"{n}¿"} for n, row in enumerate(rows)])
    local = dict.fromkeys(problems.SPLITS, tmp_path / "rows.jsonl")
    monkeypatch.setattr(
        Gsm8k,
        "_split_generators",
        lambda self, _: {split: self._generate_examples(file) for split, file in local.items()},
    )
    heads = []
    monkeypatch.setattr(requests, "head", lambda *asked, **_: heads.append(asked))

    found = gsm8k.from_tfds("train", data_dir=str(tmp_path / "tfds"))
    # TFDS stores examples in an order of its own.
    assert {problem.prompt: problem.gold for problem in found} == {
        f"{n}¿": number for n, number in enumerate(["4", "1250000", "-7", "4", "1250000"])
    }
    assert [problem.id for problem in found] == [f"gsm8k/train/{n}" for n in range(1, 6)]
    assert len(heads) == 1 and list(tmp_path.rglob("gsm8k-train.array_record-*"))

    # In an interpreter that has not imported the builder: what is prepared needs no network.
    program = (
        "import sys\n"
        "from score_jax.data.files import prepared\n"
        "from score_jax.data.sets import gsm8k\n"
        "prepared._require_network = lambda: sys.exit('asks for the network')\n"
        "print([problem.id for problem in gsm8k.from_tfds('train', sys.argv[1])])\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
        "gsm8k.from_tfds('train', sys.argv[1] + '/new')"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "tfds")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == [str([problem.id for problem in found])], done.stderr
    assert done.stderr.splitlines()[-1] == "asks for the network"


def test_gsm8k_without_prepared_files_or_network_points_to_the_jsonl_at_once(tmp_path, monkeypatch):
    import requests

    def offline(*_, **__):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "head", offline)
    monkeypatch.setattr(requests.Session, "get", offline)  # nor may TFDS get to the network
    with pytest.raises(InputError, match=r"name resolution.*--config\.problems\.path=FOLDER"):
        gsm8k.from_tfds("train", data_dir=str(tmp_path / "new"))


def test_empty_path_of_gsm8k_means_tfds(monkeypatch):
    made = [Problem("gsm8k/test/1", "1+1", "2")]
    monkeypatch.setattr(gsm8k, "from_tfds", lambda split: made if split == "test" else [])
    assert problems.load("gsm8k", "", "test") == made


@needs_real_data
def test_real_gsm8k_is_read_whole():
    train = problems.load("gsm8k", str(REAL / "gsm8k"), "train")
    test = problems.load("gsm8k", str(REAL / "gsm8k"), "test")
    assert (len(train), len(test)) == (7473, 1319)
    assert train[0].gold == "72" and test[0].gold == "18"
    assert len({problem.id for problem in train}) == 7473
    assert not any("," in problem.gold for problem in (*train, *test))


@needs_real_data
def test_real_math_is_read_as_jsonl_with_its_level_as_a_tag():
    found = problems.load("jsonl", str(REAL / "math"), "test")
    assert len(found) == 500
    assert found[0].gold == "4" and found[0].tags["level"] == "Level 1"
    assert found[0].tags["subject"] == "Algebra"


def test_jsonl_reads_ids_and_tags_and_skips_blank_lines(tmp_path):
    lines = [
        '{"problem": "1+1", "answer": "2", "id": "a", "level": 3, "subject": "sums", "x": [1]}',
        "",
        '{"problem": "1+2", "answer": "3", "id": 7, "hard": true}\r',
        '{"problem": "1+3", "answer": "4"}',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    found = problems.load("jsonl", str(tmp_path), "train")
    assert found[:2] == [
        Problem("a", "1+1", "2", tags={"level": "3", "subject": "sums"}),
        Problem("7", "1+2", "3"),
    ]
    assert found[2].id == f"{tmp_path.name}/train/4"  # the line, so that it can be looked up


def test_single_file_splits_by_text_into_disjoint_tenths_that_stay_put(tmp_path):
    rows = [{"problem": f"{n} + {n}?", "answer": str(2 * n)} for n in range(2000)]
    path = write(tmp_path / "own.jsonl", rows)
    train = problems.load("jsonl", path, "train")
    test = problems.load("jsonl", path, "test")
    texts = [{problem.prompt for problem in split} for split in (train, test)]
    assert not texts[0] & texts[1] and len(train) + len(test) == 2000
    assert 160 <= len(test) <= 240  # 200 expected, standard deviation 13
    # A problem stays in its split when lines are added, moved or repeated.
    again = write(tmp_path / "again.jsonl", [*rows[::-1], rows[0], {"problem": "?", "answer": "1"}])
    assert texts[1] <= {problem.prompt for problem in problems.load("jsonl", again, "test")}
    assert all(jsonl.held_out(f" {text}\n") for text in texts[1])  # blanks make no other problem


def test_single_file_too_small_for_a_split_says_so(tmp_path):
    path = write(tmp_path / "one.jsonl", [{"problem": "1+1", "answer": "2"}])
    empty = "train" if jsonl.held_out("1+1") else "test"
    with pytest.raises(InputError, match=r"one\.jsonl: no problem .*train\.jsonl and test\.jsonl"):
        problems.load("jsonl", path, empty)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"problem": "1+1", "answer"', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "expected a JSON object, got a list"),
        (b'{"problem": "1+1"}', "'answer' is missing.*'problem'"),
        (b'{"answer": "2"}', "'problem' is missing"),
        (b'{"problem": "1+1", "answer": true}', "'answer' must be text or a number, got True"),
        (b'{"problem": "1+1", "answer": NaN}', "'answer' must be text or a number, got nan"),
        (b'{"problem": "1+1", "answer": null}', "'answer' must be text or a number, got null"),
        (b'{"problem": null, "answer": "2"}', "'problem' must be text or .* messages, got null"),
        (b'{"problem": " ", "answer": "2"}', "'problem' is empty"),
        (
            b'{"problem": "1+1", "answer": "2", "id": []}',
            "'id' must be text or a number, got a list",
        ),
        (
            b'{"problem": "1+1", "answer": "2", "id": "a"}',
            r"id 'a' is already that of .*jsonl, line 1",
        ),
        (b'{"problem": "\\ud800", "answer": "2"}', "surrogate"),
    ],
)
def test_bad_line_names_file_and_line_number(tmp_path, line, message):
    good = b'{"problem": "0+1", "answer": "1", "id": "a"}'
    (tmp_path / "train.jsonl").write_bytes(good + b"\n\n" + line + b"\n")
    with pytest.raises(InputError, match=rf"train\.jsonl, line 3: .*{message}"):
        problems.load("jsonl", str(tmp_path), "train")


@pytest.mark.parametrize("name", ["gsm8k", "jsonl"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_data_set_is_an_input_error(tmp_path, name, content):
    (tmp_path / "test.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"test\.jsonl: holds no problem"):
        problems.load(name, str(tmp_path), "test")


@pytest.mark.parametrize("name", ["gsm8k", "jsonl"])
def test_missing_files_say_what_the_folder_must_hold(tmp_path, name):
    with pytest.raises(InputError, match=r"train\.jsonl: no such file.*train\.jsonl and test"):
        problems.load(name, str(tmp_path), "train")
    with pytest.raises(InputError, match=r"cannot read .*nowhere.*train\.jsonl and test\.jsonl"):
        problems.load(name, str(tmp_path / "nowhere"), "train")


def test_gsm8k_path_must_be_a_folder(tmp_path):
    path = write(tmp_path / "train.jsonl", QUESTIONS)
    with pytest.raises(InputError, match=r"train\.jsonl is not a folder"):
        problems.load("gsm8k", path, "train")


def test_jsonl_without_a_path_asks_for_one():
    with pytest.raises(InputError, match=r"--config\.problems\.path"):
        problems.load("jsonl", "", "train")


def test_unknown_problem_set_names_the_nearest_and_all():
    with pytest.raises(InputError, match=r"'gsm-8k'.*mean 'gsm8k'.*arithmetic, gsm8k, .*tfds:"):
        problems.load("gsm-8k", "", "train")


def test_unknown_split_names_the_splits():
    with pytest.raises(InputError, match=r"'valid'.*train, test"):
        problems.load("gsm8k", "", "valid")


def test_arithmetic_is_generated_from_the_seed_and_takes_no_path(monkeypatch):
    made = [Problem("a/1", "1+1", "2"), Problem("a/2", "1+2", "3")]
    monkeypatch.setattr(arithmetic, "problems", lambda *asked: made if asked[1] == 5 else [])
    assert problems.load("arithmetic", "", "train", seed=5) == made
    with pytest.raises(InputError, match="is empty"):
        problems.load("arithmetic", "", "train", seed=6)
    with pytest.raises(InputError, match="has no meaning for 'arithmetic'"):
        problems.load("arithmetic", "folder", "train", seed=5)


def test_an_id_given_twice_is_an_input_error(monkeypatch):
    monkeypatch.setattr(arithmetic, "problems", lambda *_: [Problem("a", "1", "1")] * 2)
    with pytest.raises(InputError, match="id 'a' occurs twice"):
        problems.load("arithmetic", "", "train")


def own(tmp_path, name, count) -> str:
    """A jsonl folder with so many problems in each split."""
    folder = tmp_path / name
    folder.mkdir()
    rows = [{"problem": f"{name} {n}?", "answer": str(n)} for n in range(count)]
    for split in problems.SPLITS:
        write(folder / f"{split}.jsonl", rows)
    return str(folder)


def test_the_sets_of_a_mixture_stand_one_after_the_other(tmp_path):
    settings = ProblemSettings(
        "jsonl",
        "math",
        own(tmp_path, "a", 3),
        weight=2.0,
        mixture={"more": SourceSettings("jsonl", own(tmp_path, "b", 5), prompt="gsm8k")},
    )
    found = problems.for_training(settings, seed=0)
    assert found.parts == ((3, 2.0), (5, 1.0))
    assert [p.prompt[0] for p in found.problems] == ["a"] * 3 + ["b"] * 5
    assert {p.prompt_format for p in found.problems[:3]} == {""}
    assert all(p.prompt_format.startswith("You are a math") for p in found.problems[3:])


def test_a_mixture_of_one_set_with_itself_is_refused(tmp_path):
    path = own(tmp_path, "a", 3)
    settings = ProblemSettings("jsonl", "math", path, mixture={"b": SourceSettings("jsonl", path)})
    with pytest.raises(InputError, match=r"config\.problems: id 'a/train/1' occurs twice"):
        problems.for_training(settings, seed=0)


def test_evaluation_is_on_the_own_test_split_or_on_another_set(tmp_path):
    settings = ProblemSettings("jsonl", "mbpp", own(tmp_path, "a", 3))
    assert problems.for_evaluation(settings, 0)[0].id == "a/test/1"
    other = ProblemSettings("gsm8k", "mbpp", test=SourceSettings("jsonl", own(tmp_path, "b", 2)))
    assert [p.id for p in problems.for_evaluation(other, 0)] == ["b/test/1", "b/test/2"]
    train = ProblemSettings("jsonl", "mbpp", settings.path, test=SourceSettings(split="train"))
    assert problems.for_evaluation(train, 0)[0].id == "a/train/1"


def test_further_sets_have_names_and_are_parts_of_the_training_set_where_they_name_none(tmp_path):
    folder = own(tmp_path, "a", 3)
    more = {"b": SourceSettings("jsonl", own(tmp_path, "b", 2)), "a": SourceSettings(split="train")}
    found = problems.further_tests(ProblemSettings("jsonl", "mbpp", folder, tests=more), 0)
    assert {name: [p.id for p in part] for name, part in found.items()} == {
        "b": ["b/test/1", "b/test/2"],
        "a": ["a/train/1", "a/train/2", "a/train/3"],
    }
    odd = {"c": SourceSettings("jsonl", folder, fields={"problem": "q"})}
    with pytest.raises(InputError, match=r"no field 'q', which config\.problems\.tests\.c\.fields"):
        problems.further_tests(ProblemSettings("jsonl", "mbpp", folder, tests=odd), 0)


def test_answers_are_taken_out_of_solutions(tmp_path):
    for split in problems.SPLITS:
        write(
            tmp_path / f"{split}.jsonl",
            [{"problem": f"{n}?", "answer": f"So it is \\boxed{{{n}}}."} for n in range(3)],
        )
    settings = ProblemSettings("jsonl", "math", str(tmp_path), solutions=True)
    for found in (
        problems.for_training(settings, 0).problems,
        problems.for_evaluation(settings, 0),
    ):
        assert [problem.gold for problem in found] == ["0", "1", "2"]


def test_another_set_is_put_by_its_own_prompt_if_the_instruction_is_the_same(tmp_path):
    test = SourceSettings("jsonl", own(tmp_path, "b", 2), prompt="humaneval")
    found = problems.for_evaluation(ProblemSettings("jsonl", "mbpp", test=test), 0)
    assert [p.prompt_format for p in found] == ["{problem}"] * 2
    with pytest.raises(InputError, match=r"problems\.test\.prompt='humaneval' has another instr"):
        problems.for_evaluation(ProblemSettings("jsonl", "math", test=test), 0)
    with pytest.raises(InputError, match=r"unknown prompt 'human'. .*Known"):
        odd = SourceSettings("jsonl", test.path, prompt="human")
        problems.for_evaluation(ProblemSettings("jsonl", "math", test=odd), 0)


@needs_real_data
def test_programs_are_trained_on_mbpp_and_tested_on_humaneval():
    settings = ProblemSettings(
        "mbpp",
        "mbpp",
        str(REAL / "mbpp"),
        split="train+validation",
        test=SourceSettings("humaneval", str(REAL / "humaneval"), prompt="humaneval"),
    )
    assert len(problems.for_training(settings, 0).problems) == 464
    assert len(problems.for_evaluation(settings, 0)) == 164


def test_given_first_attempts_go_with_one_instruction_only(monkeypatch):
    given = Problem("r/1", "Write f.", "{}", first_attempt="def f(): 1")
    monkeypatch.setitem(problems.PROBLEM_SETS, "mbpp_repair", lambda *_: [given])
    one = ProblemSettings("mbpp_repair", prompt_text="{problem}", instruction_text="Again.")
    assert problems.for_training(one, 0).problems[0].asked == "Write f."
    two = dataclasses.replace(one, instruction_text=("Again.", "Once more."))
    with pytest.raises(InputError, match="'mbpp_repair' gives first attempts, and the policy"):
        problems.for_training(two, 0)
