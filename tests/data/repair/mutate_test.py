import ast

import numpy as np
import pytest

from score_jax.data.repair import mutate
from score_jax.data.sets import mbpp
from tests.data.real import REAL, needs_real_data


def mutants(code, seed=0):
    return list(mutate.mutants(code, np.random.default_rng(seed)))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("a < b", {"a <= b"}),
        ("a == b", {"a != b"}),
        ("a in b", {"a not in b"}),
        ("a + b", {"a - b"}),
        ("a % b", {"a // b"}),
        ("a -= b", {"a += b"}),
        ("x = 3", {"x = 4", "x = 2"}),
        ("x = True", set()),
        ("a and b", {"a or b"}),
        ("a if b else c", {"a if not b else c"}),
        ("if not a:\n    b", {"if a:\n    b"}),
        ("f(a, b)", {"f(b, a)"}),
        ("f(a)", set()),
        ("f(a, a)", set()),
        ("a < (", set()),
    ],
)
def test_each_kind_of_slip(code, expected):
    assert set(mutants(code)) == expected


def test_mutants_come_in_the_order_of_the_seed_and_each_once():
    code = "def f(a):\n    return [i for i in range(1, a + 1) if i % 2 == 0]"
    first = mutants(code)
    assert first == mutants(code) and first != mutants(code, seed=1)
    assert len(first) == len(set(first)) == len(mutants(code, seed=1)) > 5
    assert ast.unparse(ast.parse(code)) not in first


@needs_real_data
def test_nine_of_ten_reference_programs_have_mutants_that_parse():
    rows = mbpp.examples(REAL / "mbpp" / "mbpp.jsonl", "test")[:100]
    found = [mutants(row["code"]) for row in rows]
    assert sum(map(bool, found)) >= 90
    for programs in found:
        for program in programs[:3]:
            ast.parse(program)
