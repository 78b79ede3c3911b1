"""A warm start on a set's own solutions, through the loop."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import batches, jsonfiles, loop
from score_jax.config.settings import DocumentSettings, ProblemSettings, Settings
from score_jax.problem import InputError
from score_jax.run import Run
from score_jax.runtime.compiles import Watch
from tests import fakes
from tests.loop_test import AfterCalls, metrics_of, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sums with a field that works them out."""
    folder = tmp_path_factory.mktemp("sums")
    for split, numbers in (("train", range(10)), ("test", range(8))):
        rows = [{"problem": f"{n}+1=", "answer": n + 1, "worked": f"{n + 1}:{n}"} for n in numbers]
        jsonfiles.write_lines(folder / f"{split}.jsonl", rows)
    return folder


def warm(folder: Path, **documents) -> Settings:
    """A warm start of four steps and nothing else."""
    tiny = tiny_settings(recipe=("base",))
    problems = ProblemSettings(
        "jsonl",
        path=str(folder),
        prompt_text="{problem}",
        instruction_text="?",
        fields={"solution": "worked"},
    )
    base = dataclasses.replace(
        tiny.stages["base"], steps=4, documents=DocumentSettings(**documents)
    )
    evaluation = dataclasses.replace(tiny.evaluation, problems=8)
    return dataclasses.replace(
        tiny, problems=problems, stages={"base": base}, evaluation=evaluation
    )


def params_of(folder: Path, settings: Settings):
    run = Run.start(settings, folder, fakes.NO_LOG, None)  # type: ignore[arg-type]
    return jax.device_get(run.checkpoints.params("base"))


def test_a_warm_start_that_is_stopped_in_the_middle_goes_on_bit_for_bit(folder, tmp_path, capsys):
    settings = warm(folder, corrections=0.5)
    assert loop.train(settings, str(tmp_path / "whole")) == loop.DONE
    assert "base: 10 of 10 problems with their solutions, 3.2 passes" in capsys.readouterr().out
    assert loop.train(settings, str(tmp_path / "stopped"), stop=AfterCalls(1)) == loop.STOPPED
    assert (tmp_path / "stopped" / "checkpoints" / "base" / "2").exists()
    assert loop.train(settings, str(tmp_path / "stopped")) == loop.DONE
    assert metrics_of(tmp_path / "stopped") == metrics_of(tmp_path / "whole")
    both = [params_of(tmp_path / name, settings) for name in ("whole", "stopped")]
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_documents_that_have_changed_since_the_stage_began_are_refused(folder, tmp_path):
    problems, settings = tmp_path / "problems", warm(folder)
    shutil.copytree(folder, problems)
    own = dataclasses.replace(settings.problems, path=str(problems))
    settings = dataclasses.replace(settings, problems=own)
    assert loop.train(settings, str(tmp_path / "run"), stop=AfterCalls(1)) == loop.STOPPED
    train = problems / "train.jsonl"
    train.write_text(train.read_text().replace('"worked": "10:9"', '"worked": "10:8"'))
    with pytest.raises(InputError, match="the stage 'base' learns have changed since it began"):
        loop.train(settings, str(tmp_path / "run"))


def test_loss_is_on_the_tokens_of_learned_attempts_alone_and_rows_are_no_wider_than_needed(
    folder, tmp_path
):
    settings = warm(folder)
    run = Run.start(settings, tmp_path, None, Watch(say=print))  # type: ignore[arg-type]
    run.log = type("Log", (), {"say": print})  # type: ignore[assignment]
    source = batches.of_stage(run, run.stages[0], None)
    source.prepare(None)  # type: ignore[arg-type]
    batch, _ = source.batch(1)
    text = run.experiment.template.tokenizer
    assert batch.tokens.shape == (8, 4 + 5) and batch.reward.shape == (8, 1)
    for tokens_T, attempt_T, length in zip(batch.tokens, batch.attempt, batch.length, strict=True):
        row_T, mark_T = np.asarray(tokens_T), np.asarray(attempt_T)
        prompt = text.decode(row_T[: int(np.argmax(mark_T))].tolist())
        learned = text.decode(row_T[mark_T == 1].tolist())
        number = int(prompt.partition("+")[0])
        assert learned == f"{number + 1}:{number}."
        assert int(length) == len(prompt) + len(learned) and not mark_T[int(length) :].any()


def test_problems_without_solutions_are_refused_before_weights_are_read(folder, tmp_path):
    settings = warm(folder)
    bare = dataclasses.replace(settings.problems, fields={})
    model = dataclasses.replace(settings.model, source="preset:nothing")
    settings = dataclasses.replace(settings, problems=bare, model=model)
    with pytest.raises(InputError, match=r"none of the 10 problems .*fields.solution=NAME"):
        loop.train(settings, str(tmp_path))
