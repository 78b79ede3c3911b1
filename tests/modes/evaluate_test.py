"""--mode=evaluate and --mode=try before anything is trained."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from score_jax import jsonfiles, loop
from score_jax.evaluation.evaluate import evaluate
from score_jax.experiment import Experiment
from score_jax.model import weights
from score_jax.modes import ask
from score_jax.modes import evaluate as mode
from score_jax.problem import InputError
from score_jax.report.run_page import contents
from score_jax.rollout import programs, stream
from score_jax.workdir import runlog
from tests import fakes
from tests.loop_test import Crash, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


def without_base(**changes):
    """The quickstart without its stage base: what is loaded is the base model."""
    settings = tiny_settings(recipe=("stage1", "stage2"), **changes)
    return dataclasses.replace(settings, compile=dataclasses.replace(settings.compile, cache=False))


def read(path: Path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, quick_compile) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    mode.evaluate_latest(without_base(), folder)
    return folder


def test_weights_that_nobody_trained_get_a_summary_and_a_page(evaluated):
    summary = read(evaluated / "report" / "summary.json")
    assert list(summary["stages"]) == ["base"] and summary["stages"]["base"]["n"] == 16
    assert summary["versions"]["jax"] and summary["wall_sec"] > 0
    for name in ("base", "latest"):
        assert read(evaluated / "evaluations" / f"{name}.json") == summary["stages"]["base"]
        rows = (evaluated / "transcripts" / f"{name}.jsonl").read_text().splitlines()
        assert len(rows) == 16
    assert '"name":"base"' in (evaluated / "report" / "index.html").read_text()
    shown = contents.of(evaluated)["transcripts"]["evaluations"]
    assert [(e["name"], len(e["rows"])) for e in shown] == [("base", 16), ("latest", 16)]
    assert read(evaluated / "config.json")["settings"]["recipe"] == ["stage1", "stage2"]


@pytest.mark.parametrize("rank", [0, 2])
def test_no_weight_is_in_memory_twice_while_an_evaluation_decodes(tmp_path, monkeypatch, rank):
    settings = without_base()
    lora = dataclasses.replace(settings.model.lora, rank=rank)
    settings = dataclasses.replace(settings, model=dataclasses.replace(settings.model, lora=lora))
    sizes, all_held = [], fakes.Held()

    def admit(params, slots, *others, **how):
        for tree in (params, (slots, others)):
            arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
            sizes.append(sum(x.nbytes for x in arrays))
        sizes.append(all_held.since())
        raise Crash

    monkeypatch.setattr(programs, "admit", admit)
    with pytest.raises(Crash):
        mode.evaluate_latest(settings, tmp_path)
    weights, slots, held = sizes
    assert weights + slots <= held < 1.05 * weights + slots


def test_a_model_that_is_yet_to_be_made_stays_the_latest(tmp_path, monkeypatch):
    settings, told = tiny_settings(), list[str]()
    monkeypatch.setattr(runlog.RunLog, "doing", lambda self, what: told.append(what) or "")
    mode.evaluate_latest(settings, tmp_path)
    assert told[-1] == "evaluating latest"  # what "still at work" says meanwhile
    assert list(read(tmp_path / "report" / "summary.json")["stages"]) == ["latest"]
    assert [e["name"] for e in contents.of(tmp_path)["evaluations"]] == ["latest"]
    assert not (tmp_path / "evaluations" / "base.json").exists()


def test_training_takes_the_evaluation_over_and_other_settings_set_it_aside(evaluated, monkeypatch):
    asked = []

    def counted(experiment, params, problems, **more):
        asked.append(len(problems))
        return evaluate(experiment, params, problems, **more)

    monkeypatch.setattr(loop, "evaluate", counted)
    before = (evaluated / "transcripts" / "base.jsonl").read_text()
    calls = iter([False, True])
    stop = lambda: next(calls, True)  # noqa: E731 (stops after the first step)
    assert loop.train(without_base(), str(evaluated), stop=stop) == loop.STOPPED
    assert not asked and (evaluated / "transcripts" / "base.jsonl").read_text() == before


def test_an_evaluation_of_other_problems_sets_the_one_before_aside(tmp_path):
    mode.evaluate_latest(without_base(), tmp_path)
    fewer = without_base(evaluation=dataclasses.replace(without_base().evaluation, problems=8))
    mode.evaluate_latest(fewer, tmp_path)
    counts = [
        read(folder / "evaluations" / "base.json")["n"]
        for folder in (tmp_path, tmp_path / "before-1")
    ]
    assert counts == [8, 16]


def test_a_question_is_put_to_weights_that_nobody_trained(tmp_path, capsys):
    ask.ask_latest(without_base(), tmp_path / "new", "7+8+5")
    said = capsys.readouterr().out
    assert "preset:quickstart as loaded, not trained here" in said
    assert "Attempt 1" in said and "Attempt 2" in said


@contextlib.contextmanager
def serving(folder: Path, place: Path) -> Iterator[str]:
    """Our engine in a process of its own, with the weights of an exported folder."""
    command = [sys.executable, "-m", "score_jax.rollout.serve", str(folder), f"--socket={place}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        killer = threading.Timer(240, engine.kill)
        killer.start()
        try:
            assert engine.stdout and "serving" in engine.stdout.readline()
            yield f"socket:{place}"
        finally:
            killer.cancel()
            engine.kill()


def through(address: str, **changes):
    settings = without_base(**changes)
    rollout = dataclasses.replace(settings.rollout, engine=address)
    return dataclasses.replace(settings, rollout=rollout)


def test_an_engine_in_another_process_is_evaluated_as_this_one(evaluated, tmp_path, monkeypatch):
    opened = Experiment.open(without_base())
    weights.save(tmp_path / "model", opened.model, opened.initial_params())
    monkeypatch.setattr(stream.Stream, "__iter__", lambda self: pytest.fail("sampled here"))
    with serving(tmp_path / "model", tmp_path / "socket") as address:
        mode.evaluate_latest(through(address), tmp_path / "run")
        with pytest.raises(InputError, match=r"serves the weights .* preset:quickstart has"):
            mode.evaluate_latest(through(address, seed=7), tmp_path / "other")
    both = [
        jsonfiles.read(folder / "evaluations" / "base.json") | {"made_of": ""}  # names the engine
        for folder in (tmp_path / "run", evaluated)
    ]
    assert both[0] == both[1]
    name = "transcripts/base.jsonl"
    assert (tmp_path / "run" / name).read_text() == (evaluated / name).read_text()
    with pytest.raises(InputError, match="no engine listens"):
        mode.evaluate_latest(through(address), tmp_path / "run")
