import gzip
import json

import pytest

from score_jax.data import problems
from score_jax.data.sets import humaneval
from score_jax.problem import InputError
from tests.data.real import REAL, needs_real_data

pytestmark = needs_real_data
FOLDER = str(REAL / "humaneval")


def rows():
    return humaneval.examples(REAL / "humaneval" / humaneval.FILE.name, "test")


def test_all_problems_are_read_in_order_with_check_and_call():
    found = problems.load("humaneval", FOLDER, "test")
    assert [problem.id for problem in found] == [f"humaneval/{n}" for n in range(164)]
    for problem, row in zip(found, rows(), strict=True):
        [test] = json.loads(problem.gold)["tests"]
        assert row["test"].strip() in test and test.endswith(f"\ncheck({row['entry_point']})\n")
        assert problem.prompt == row["prompt"] and problem.grader == "program"


def test_reference_solutions_pass_and_empty_ones_fail():
    for row in rows():
        gold = json.loads(humaneval.problem(row).gold)

        def passes(body, gold=gold):
            space: dict = {}
            # Published code, not a model's.
            exec(f"{gold['prelude']}\n{gold['stub']}{body}\n", space)
            try:
                exec("\n".join([gold["prelude"], *gold["tests"]]), space)
            except Exception:
                return False
            return True

        assert passes(row["canonical_solution"]), row["task_id"]
        assert not passes("    return None\n"), row["task_id"]


def test_helpers_of_the_prompt_are_the_prelude_and_the_function_asked_for_is_not():
    golds = [json.loads(p.gold) for p in problems.load("humaneval", FOLDER, "test")]
    helpers = {10: "is_palindrome", 32: "poly", 38: "encode_cyclic", 50: "encode_shift"}
    for number, (gold, row) in enumerate(zip(golds, rows(), strict=True)):
        assert f"def {row['entry_point']}(" not in gold["prelude"]
        assert ("def " in gold["prelude"]) == (number in helpers)
        if number in helpers:
            assert f"def {helpers[number]}(" in gold["prelude"]
    assert golds[32]["prelude"].startswith("import math\n")


def test_there_is_nothing_to_train_on():
    with pytest.raises(InputError, match=r"evaluation only.*name=mbpp.*test\.name=humaneval"):
        problems.load("humaneval", FOLDER, "train")


def test_the_file_may_be_unpacked_and_a_damaged_one_is_named(tmp_path):
    packed = (REAL / "humaneval" / humaneval.FILE.name).read_bytes()
    (tmp_path / "HumanEval.jsonl").write_bytes(gzip.decompress(packed))
    expected = problems.load("humaneval", FOLDER, "test")
    assert problems.load("humaneval", str(tmp_path), "test") == expected
    (tmp_path / humaneval.FILE.name).write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match=r"cannot unpack .*jsonl\.gz.*download it again"):
        problems.load("humaneval", str(tmp_path), "test")


def test_a_changed_test_is_refused(tmp_path):
    changed = rows()
    changed[5] |= {"test": "def check(candidate):\n    pass\n"}
    lines = "".join(json.dumps(row) + "\n" for row in changed)
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(InputError, match=r"HumanEval\.jsonl\.gz: .*other content"):
        problems.load("humaneval", str(tmp_path), "test")
