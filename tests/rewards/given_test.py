"""Reward functions that are Python objects: closures, lambdas, functions of a script."""

import json
import subprocess
import sys
import textwrap
import threading

import pytest

from score_jax.problem import InputError, Problem
from score_jax.rewards import functions, given, grader
from score_jax.rewards.functions import Limits, Rows
from score_jax.rewards.workers import pool

PROBLEM = Problem("p/1", "Say please.", "please")


@pytest.fixture(autouse=True)
def _ended():
    yield
    pool.close()


def of(name: str) -> list[float]:
    return grader.grade([PROBLEM], [["please", "no"]], function=name)[0][0].tolist()


def test_a_closure_earns_what_it_says_and_a_later_one_of_its_name_replaces_it():
    def made(factor: float):
        def reward(problem, texts, gold):
            return [factor * (text == gold) for text in texts]

        return reward

    name = given.named(made(2.0))
    assert name == "given:reward"
    others = list(pool._pools._found.values())
    assert of(name) == [2.0, 0.0]
    (former,) = [one for one in pool._pools._found.values() if one not in others]
    assert given.named(made(3.0)) == name
    assert of(name) == [3.0, 0.0]
    assert former._spawner.poll() is not None, "its processes have ended"
    assert former not in pool._pools._found.values()
    assert of(given.named(lambda problem, texts, gold: [0.5, 0.25])) == [0.5, 0.25]


def test_remembered_rewards_are_those_of_the_function_as_it_is_now():
    limits = Limits(remember=10)

    def paid(reward: float):
        name = given.named(lambda problem, texts, gold: [reward] * len(texts))
        ((grade,),) = functions.grade(name, Rows([PROBLEM], [["a"]]), limits)
        return grade.reward

    assert [paid(1.0), paid(1.0), paid(2.0)] == [1.0, 1.0, 2.0]


def test_a_function_of_a_module_keeps_its_name():
    assert given.named(json.dumps) == "json:dumps"
    assert given.pickled("json:dumps") == b""


def test_a_function_of_a_script_works(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            from score_jax.problem import Problem
            from score_jax.rewards import given, grader

            BONUS = 0.5

            def polite(problem, texts, gold):
                return [BONUS + (gold in text) for text in texts]

            if __name__ == "__main__":
                name = given.named(polite)
                problem = Problem("p/1", "Say please.", "please")
                print(name, *grader.grade([problem], [["please", "no"]], function=name)[0][0])
            """
        )
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["given:polite", "1.5", "0.5"]


def test_what_cannot_be_given_is_refused_with_the_way_out():
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"cannot be sent to the processes that grade .*lock"):
        given.named(lambda problem, texts, gold: [float(lock.locked())])
    with pytest.raises(InputError, match="'exact', which is not a function"):
        given.named("exact")
    with pytest.raises(InputError, match=r"this process has not got it.*FILE.py:absent"):
        of("given:absent")
