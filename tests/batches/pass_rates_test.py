"""Problems that the base model solves in a range of its first attempts."""

import contextlib
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import jsonfiles, loop
from score_jax.batches import pass_rates
from score_jax.config.settings import Settings
from score_jax.data import pipeline
from score_jax.problem import Grade, InputError
from score_jax.run import Run
from tests import fakes
from tests.batches.documents_test import warm
from tests.loop_test import metrics_of, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sums with a field that works them out."""
    folder = tmp_path_factory.mktemp("sums")
    numbers = [divmod(n, 4) for n in range(COUNT)]
    rows = [{"problem": f"{a}+{b}=", "answer": a + b, "worked": f"{a + b}"} for a, b in numbers]
    for split in ("train", "test"):
        jsonfiles.write_lines(folder / f"{split}.jsonl", rows)
    return folder


def odd(problem, texts, gold):
    """A reward that an untrained model earns half of the time."""
    del problem, gold
    return [Grade(float(sum(map(ord, text)) % 2), "odd") for text in texts]


def filtered(sums: Path, low: float = 0.1, high: float = 0.6, **problems) -> Settings:
    """A warm start and two RL steps on problems in the range, of 8 samples."""
    settings, tiny = warm(sums), tiny_settings()
    chosen = {"pass_rate": (low, high), "pass_rate_samples": 8} | problems
    stages = {"base": settings.stages["base"], "stage2": tiny.stages["stage2"]}
    return dataclasses.replace(
        settings,
        recipe=("base", "stage2"),
        stages=stages,
        # Long enough that an untrained model ends most attempts: others are not solved.
        rollout=dataclasses.replace(tiny.rollout, max_attempt_tokens=16),
        rewards=dataclasses.replace(settings.rewards, function=f"{__name__}:odd"),
        problems=dataclasses.replace(settings.problems, **chosen),
    )


def rates(run: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run / "collected" / "pass_rates.jsonl").open()]
    assert all(row["samples"] == 8 for row in rows)
    return {row["problem"]: row["solved"] / 8 for row in rows}


@pytest.mark.slow
def test_rates_are_measured_once_kept_and_go_on_bit_for_bit(folder, tmp_path, capsys):
    settings, whole, stopped = filtered(folder), tmp_path / "whole", tmp_path / "stopped"
    assert loop.train(settings, str(whole)) == loop.DONE
    found = rates(whole)
    inside = [name for name, rate in found.items() if 0.1 <= rate <= 0.6]
    assert len(found) == COUNT and 8 <= len(inside) < COUNT
    said = capsys.readouterr().out
    assert f"solves {len(inside)} of {COUNT} problems in 0.1 to 0.6 of 8 first attempts" in said
    assert f"({1 - len(inside) / COUNT:.1%})" in said
    part = stopped / "collected" / "pass_rates.part.jsonl"

    def in_the_middle() -> bool:
        return part.exists() and len(part.read_text().splitlines()) > 1

    assert loop.train(settings, str(stopped), stop=in_the_middle) == loop.STOPPED
    lines = part.read_text().splitlines()
    assert 1 < len(lines) < 1 + COUNT * 8 and not (part.parent / "pass_rates.jsonl").exists()
    done = json.loads(lines[1])
    assert loop.train(settings, str(stopped)) == loop.DONE
    assert rates(stopped) == found and not part.exists()
    assert metrics_of(stopped) == metrics_of(whole)

    # What is kept is not sampled again: a record that is altered stays so.
    altered = tmp_path / "altered"
    run = Run.start(settings, altered, fakes.NO_LOG, None)  # type: ignore[arg-type]
    run.log = type("Log", (), {"say": print})  # type: ignore[assignment]
    part = altered / "collected" / "pass_rates.part.jsonl"
    part.parent.mkdir(parents=True)
    kept = [json.loads(line) for line in lines]
    for row in kept[1:]:
        row["record"] = not done["record"]
    part.write_text("".join(json.dumps(row) + "\n" for row in kept))
    base = jax.device_get(Run.start(settings, whole, fakes.NO_LOG, None).params_of("base"))  # type: ignore[arg-type]
    run.params_of = lambda stage: base  # type: ignore[method-assign]
    run.phase = lambda *_: contextlib.nullcontext()  # type: ignore[method-assign]
    wanted = pass_rates.wanted(run)
    assert wanted is not None and rates(altered) != found


def test_only_problems_in_the_range_are_drawn_and_too_few_are_refused(folder, tmp_path):
    settings = filtered(folder)
    run = Run.start(settings, tmp_path, fakes.NO_LOG, None)  # type: ignore[arg-type]
    assert run.training and run.training.prompts
    wanted = np.arange(COUNT) % 3 == 0  # 14 of them

    def batches(batch: int):
        return pipeline.batches(
            run.training.problems,
            run.experiment.template.first_turn,
            batch=batch,
            max_prompt_tokens=10,
            pad_id=0,
            seed=0,
            prompts=run.training.prompts,
            wanted=wanted,
        )

    drawn = batches(2)
    assert {int(i) for _ in range(7) for i in next(drawn).index} == set(range(0, COUNT, 3))
    assert drawn.dropped == 0  # none is too long
    with pytest.raises(InputError, match=r"needs 15 .* of 40 only 14 have a pass rate within"):
        batches(15)
    with pytest.raises(InputError, match="belongs to other data"):
        other = batches(2)
        wanted[1] = True
        batches(2).set_state(other.get_state())
