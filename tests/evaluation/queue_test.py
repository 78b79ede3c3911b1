"""Records of an evaluation are kept as they are made; what is done is not done again."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from score_jax import grading, jsonfiles
from score_jax.data.sets import arithmetic
from score_jax.evaluation import evaluate, queue
from score_jax.evaluation.queue import Countdown, Kept, of_every_sample
from score_jax.experiment import GREEDY, Experiment
from score_jax.rollout import stream
from score_jax.runtime.hosts import Interrupted
from score_jax.structs import Episode
from tests import fakes
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")
PROBLEMS = arithmetic.problems("test", count=40)


@pytest.fixture(scope="module")
def opened() -> Experiment:
    settings = tiny_settings()
    evaluation = dataclasses.replace(settings.evaluation, batch=4)
    return Experiment.open(dataclasses.replace(settings, evaluation=evaluation))


def stops_after(calls: int):
    """A question that is answered with yes from that call on."""
    left = iter([False] * calls)
    return lambda: next(left, True)


def test_a_stopped_evaluation_goes_on_and_grades_nothing_twice(opened, tmp_path, monkeypatch):
    graded: list[str] = []
    grade = grading.grade

    def noting(experiment, own, **how):
        graded.extend(problem.id for problem in own.problems)
        return grade(experiment, own, **how)

    params = fakes.params(opened.model)
    whole = evaluate.evaluate(opened, params, PROBLEMS)
    monkeypatch.setattr(grading, "grade", noting)

    def go(stop):
        kept = evaluate.kept_in(
            tmp_path, "base", evaluate.digest_of(opened, PROBLEMS), weights="base"
        )
        found = evaluate.evaluate(opened, params, PROBLEMS, kept=kept, stop=stop)
        kept.remove()
        return found

    for calls in (0, 2):
        with pytest.raises(Interrupted):
            go(stops_after(calls))
    file = tmp_path / "evaluations" / "base.part.jsonl"
    assert 0 < len(graded) < len(PROBLEMS)
    assert len(file.read_text().splitlines()) == 1 + len(graded)
    found = go(lambda: False)
    assert sorted(graded) == sorted(problem.id for problem in PROBLEMS)
    assert found.transcripts == whole.transcripts and found.metrics == whole.metrics
    assert not file.exists()


def test_a_torn_line_and_what_follows_it_are_done_again(tmp_path):
    path = tmp_path / "x.part.jsonl"
    kept = Kept(path, {"weights": "base"})
    kept.add("greedy", [3, 1], [{"a": 1}, {"a": 2}])
    with open(path, "a") as file:
        file.write('{"part": "greedy", "item": 7, "rec')
    again = Kept(path, {"weights": "base"})
    assert again.of("greedy") == {3: {"a": 1}, 1: {"a": 2}} and again.of("sampled") == {}
    again.add("greedy", [7], ["whole"])
    assert Kept(path, {"weights": "base"}).of("greedy")[7] == "whole"


@pytest.mark.parametrize("line", [b"\xff", b"[]", b'{"part": "greedy"}', b'{"part": []}'])
def test_a_damaged_line_is_as_a_torn_one(tmp_path, line):
    path = tmp_path / "x.part.jsonl"
    Kept(path, {"weights": "base"}).add("greedy", [3], [{"a": 1}])
    path.write_bytes(path.read_bytes() + line + b"\n")
    assert Kept(path, {"weights": "base"}).of("greedy") == {3: {"a": 1}}


def test_a_complete_file_that_was_cut_is_set_aside_and_that_is_told(tmp_path):
    path, said = tmp_path / "star.jsonl", []
    assert queue.whole(path, said.append) is None
    jsonfiles.write_counted(path, [{"a": 1}, {"a": 2}])
    assert queue.whole(path, said.append) == [{"a": 1}, {"a": 2}] and not said
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    assert queue.whole(path, said.append) is None and not path.exists()
    assert said == [
        f"{path} cannot be read (1 rows are left of more). It is set aside as star.jsonl.damaged."
    ]


def test_records_of_other_weights_are_dropped(tmp_path):
    path = tmp_path / "x.part.jsonl"
    Kept(path, {"weights": "base"}).add("greedy", [0], [1])
    assert Kept(path, {"weights": "stage1"}).of("greedy") == {}
    assert json.loads(path.read_text()) == {"of": {"weights": "stage1"}}
    path.write_text("not JSON\n")
    assert Kept(path, {"weights": "stage1"}).of("greedy") == {}


def test_it_says_how_far_it_is_and_stops_before_the_first_row_has_ended(opened, monkeypatch):
    monkeypatch.setattr(stream, "_FEWEST_STEPS", 1)
    monkeypatch.setattr(stream, "_MOST_STEPS", 1)
    said = []
    with pytest.raises(Interrupted):
        of_every_sample(
            opened,
            fakes.params(opened.model),
            opened.evaluation_prompts(PROBLEMS),
            lambda own: pytest.fail("no row has ended"),
            settings=opened.episode_settings(policy=GREEDY, samples=1),
            key=jax.random.key(0),
            rows=4,
            stop=stops_after(0),
            countdown=Countdown(said.append, "evaluating base", every_sec=0.0),
        )
    assert said == ["evaluating base 0/40"]


def test_what_an_evaluation_depends_on_tells_evaluations_apart(opened, tmp_path, monkeypatch):
    def first_line(problems, weights="base", experiment=opened):
        digest = evaluate.digest_of(experiment, problems)
        evaluate.kept_in(tmp_path, "x", digest, weights)
        return (tmp_path / "evaluations" / "x.part.jsonl").read_text()

    base = first_line(PROBLEMS)
    assert first_line(PROBLEMS) == base

    def sampled_by(engine: str):
        rollout = dataclasses.replace(opened.settings.rollout, engine=engine)
        settings = dataclasses.replace(opened.settings, rollout=rollout)
        return first_line(PROBLEMS, experiment=dataclasses.replace(opened, settings=settings))

    with monkeypatch.context() as patched:
        patched.setattr(grading, "reward_code", lambda settings: {"mine.py:f": "2"})
        assert first_line(PROBLEMS) != base
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "fingerprint", lambda source: "others")
        assert first_line(PROBLEMS) != base
    workers = dataclasses.replace(opened.settings.rewards, workers=7)
    faster = dataclasses.replace(opened.settings, rewards=workers)
    assert first_line(PROBLEMS, experiment=dataclasses.replace(opened, settings=faster)) == base
    assert sampled_by("socket:a") == sampled_by("socket:b") != base
    assert first_line(PROBLEMS) == base
    asked = dataclasses.replace(
        opened.settings.problems, prompt="", prompt_text="{problem}", instruction_text="+?"
    )
    other = dataclasses.replace(
        opened, settings=dataclasses.replace(opened.settings, problems=asked)
    )
    others = (first_line(PROBLEMS[1:]), first_line(PROBLEMS, "stage1"))
    assert len({base, *others, first_line(PROBLEMS, experiment=other)}) == 4


def test_records_are_made_of_at_least_so_many_rows_at_a_time(opened):
    sizes = []

    def make(own):
        sizes.append(len(own.problems))
        return [problem.id for problem in own.problems]

    found = of_every_sample(
        opened,
        fakes.params(opened.model),
        opened.evaluation_prompts(PROBLEMS),
        make,
        settings=opened.episode_settings(policy=GREEDY, samples=1),
        key=jax.random.key(0),
        rows=4,
        together=12,
    )
    assert found == [problem.id for problem in PROBLEMS]
    assert sum(sizes) == 40 and all(size >= 12 for size in sizes[:-1]) and len(sizes) >= 2


def test_the_rest_is_told_every_few_seconds(monkeypatch):
    now, said = [0.0], []
    monkeypatch.setattr(queue.time, "monotonic", lambda: now[0])
    countdown = Countdown(said.append, "evaluating base", every_sec=10.0)
    for at, done in ((3.0, 4), (8.0, 14), (13.0, 24), (14.0, 26), (33.0, 64), (90.0, 500)):
        now[0] = at
        countdown.show(done, 500)
    assert said == ["evaluating base 24/500, 3:58 left", "evaluating base 64/500, 3:38 left"]

    # Until the first that began together have ended, how long one takes is not known.
    said.clear()
    now[0] = 95.0
    countdown = Countdown(said.append, "evaluating base", every_sec=10.0)
    for at, done in ((100.0, 0), (120.0, 1), (140.0, 63), (150.0, 80)):
        now[0] = at
        countdown.show(done, 164, 64)
    assert said == [
        *["evaluating base 1/164", "evaluating base 63/164", "evaluating base 80/164, 0:52 left"]
    ]


def test_samples_of_a_problem_come_in_their_order(opened):
    found = of_every_sample(
        opened,
        fakes.params(opened.model),
        opened.evaluation_prompts(PROBLEMS[:3]),
        lambda own: own.row_N,
        settings=opened.episode_settings(samples=4),
        key=jax.random.key(0),
        rows=5,
    )
    np.testing.assert_array_equal(found, np.arange(12))


def test_the_rows_of_an_engine_are_kept_batch_by_batch_and_asked_for_once(opened, tmp_path):
    """A fake one: rows of one token, the problem's number."""
    prompts = opened.evaluation_prompts(PROBLEMS[:6])
    settings = opened.episode_settings(policy=GREEDY, samples=1)
    asked: list[int] = []

    def engine(prompts, key, *, settings):
        asked.extend(prompts.index.tolist())
        at = (prompts.index[:, None] == prompts.index) & True
        marks_BT = np.pad(at[:, :1] | ~at[:, :1], ((0, 0), (0, 3))).astype(np.int32)
        zero_BT = np.zeros(marks_BT.shape, np.int32)
        return Episode(zero_BT, marks_BT, 0.0 * zero_BT, marks_BT.sum(1), zero_BT[:, :2] > 0)

    def go(stop):
        return of_every_sample(
            opened,
            {},  # no weights
            prompts,
            lambda own: [problem.id for problem in own.problems],
            settings=settings,
            key=jax.random.key(0),
            rows=2,
            engine=engine,
            kept=Kept(tmp_path / "x.part.jsonl"),
            stop=stop,
        )

    with pytest.raises(Interrupted):
        go(lambda: len(asked) > 2)
    assert go(lambda: False) == [problem.id for problem in PROBLEMS[:6]]
    once = [index for index in prompts.index.tolist() if asked.count(index) == 1]
    assert set(asked) == set(prompts.index.tolist()) and once
