"""Published reference programs pass their tests in the sandbox, and empty ones do not.

The files are expected beside the repository, in ../shared/data.
"""

import gzip
import json
from pathlib import Path

import pytest

from score_jax.problem import Grade
from score_jax.rewards.programs import grade as programs
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def _ended():
    sandboxes.need_any()
    yield
    start.close()
    sandboxes.close()


def lines(name: str) -> list[dict[str, str]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there (MBPP and HumanEval as published, jsonl files)")
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.splitlines()]


def mbpp(program: str | None = None) -> list[Job]:
    return [
        Job(
            row["code"] if program is None else program.format(name=_name(row)),
            tuple(row["test_list"]),
            row["test_setup_code"],
        )
        for row in lines("mbpp/mbpp.jsonl")
    ]


def _name(row) -> str:
    return row["test_list"][0].split("(")[0].removeprefix("assert ").strip(" (") or "f"


def humaneval(body: str | None = None) -> list[Job]:
    return [
        Job(
            row["prompt"] + (row["canonical_solution"] if body is None else body),
            (row["test"], f"check({row['entry_point']})"),
        )
        for row in lines("humaneval/HumanEval.jsonl.gz")
    ]


def passed(grades: list[Grade]) -> list[int]:
    return [number for number, grade in enumerate(grades) if grade.reward]


def not_passed(grades: list[Grade]) -> dict[int, str]:
    return {number: grade.reason for number, grade in enumerate(grades) if not grade.reward}


def test_all_references_of_humaneval_pass():
    grades = programs.grade_programs(humaneval(), 20.0)
    assert not_passed(grades) == {}
    assert len(grades) == 164


def test_a_sample_of_references_of_mbpp_passes():
    assert not_passed(programs.grade_programs(mbpp()[::8], 20.0)) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_all_references_of_mbpp_pass(kind):
    sandboxes.of_kind(kind)
    start.configure(kind)
    programs.forget()
    grades = programs.grade_programs(mbpp(), 20.0)
    start.configure("auto")
    assert not_passed(grades) == {}
    assert len(grades) == 974


def test_programs_that_return_none_pass_no_problem_of_humaneval():
    assert passed(programs.grade_programs(humaneval("    return None\n"), 20.0)) == []


def test_programs_that_return_none_pass_no_problem_of_a_sample_of_mbpp():
    none = "def {name}(*args, **kwargs): return None"
    assert passed(programs.grade_programs(mbpp(none)[::8], 20.0)) == []


def test_empty_programs_pass_nothing():
    assert passed(programs.grade_programs(humaneval("")[:20] + mbpp("pass")[::50], 20.0)) == []


@pytest.mark.slow
def test_references_pass_no_other_problem():
    jobs = mbpp()
    moved = [
        Job(one.program, other.tests, other.setup)
        for one, other in zip(jobs, jobs[1:] + jobs[:1], strict=True)
    ]
    assert passed(programs.grade_programs(moved, 20.0)) == []
