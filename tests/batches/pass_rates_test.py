"""Problems that the base model solves in a range of its first attempts."""

import contextlib
import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from score_jax import loop
from score_jax.batches import pass_rates
from score_jax.config.settings import Settings
from score_jax.data import pipeline
from score_jax.problem import Grade, InputError
from score_jax.run import Run
from tests.batches.documents_test import folder, warm  # noqa: F401
from tests.loop_test import metrics_of, tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


def odd(problem, texts, gold):
    """A reward that an untrained model earns half of the time."""
    del problem, gold
    return [Grade(float(sum(map(ord, text)) % 2), "odd") for text in texts]


def filtered(sums: Path, low: float = 0.4, high: float = 0.7, **problems) -> Settings:
    """A warm start and two RL steps on problems in the range, of 8 samples."""
    settings, tiny = warm(sums), tiny_settings()
    chosen = {"pass_rate": (low, high), "pass_rate_samples": 8} | problems
    rollout = dataclasses.replace(tiny.rollout, problems_per_step=2)
    stages = {"base": settings.stages["base"], "stage2": tiny.stages["stage2"]}
    return dataclasses.replace(
        settings,
        recipe=("base", "stage2"),
        stages=stages,
        rollout=rollout,
        rewards=dataclasses.replace(settings.rewards, function=f"{__name__}:odd"),
        problems=dataclasses.replace(settings.problems, **chosen),
    )


def rates(run: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run / "collected" / "pass_rates.jsonl").open()]
    assert all(row["samples"] == 8 for row in rows)
    return {row["problem"]: row["solved"] / 8 for row in rows}


def test_rates_are_measured_once_kept_and_go_on_bit_for_bit(folder, tmp_path, capsys):  # noqa: F811
    settings, whole, stopped = filtered(folder), tmp_path / "whole", tmp_path / "stopped"
    assert loop.train(settings, str(whole)) == loop.DONE
    found = rates(whole)
    inside = [name for name, rate in found.items() if 0.4 <= rate <= 0.7]
    assert len(found) == 10 and 2 <= len(inside) < 10
    said = capsys.readouterr().out
    assert f"solves {len(inside)} of 10 problems in 0.4 to 0.7 of 8 first attempts" in said
    assert f"({1 - len(inside) / 10:.1%})" in said
    part = stopped / "collected" / "pass_rates.part.jsonl"

    def in_the_middle() -> bool:
        return part.exists() and len(part.read_text().splitlines()) > 1

    assert loop.train(settings, str(stopped), stop=in_the_middle) == loop.STOPPED
    lines = part.read_text().splitlines()
    assert 1 < len(lines) < 1 + 80 and not (part.parent / "pass_rates.jsonl").exists()
    done = json.loads(lines[1])
    assert loop.train(settings, str(stopped)) == loop.DONE
    assert rates(stopped) == found and not part.exists()
    assert metrics_of(stopped) == metrics_of(whole)

    # What is kept is not sampled again: a record that is altered stays so.
    altered = tmp_path / "altered"
    run = Run.start(settings, altered, None, None)  # type: ignore[arg-type]
    run.log = type("Log", (), {"say": print})  # type: ignore[assignment]
    part = altered / "collected" / "pass_rates.part.jsonl"
    part.parent.mkdir(parents=True)
    kept = [json.loads(line) for line in lines]
    for row in kept[1:]:
        row["record"] = not done["record"]
    part.write_text("".join(json.dumps(row) + "\n" for row in kept))
    base = jax.device_get(Run.start(settings, whole, None, None).params_of("base"))  # type: ignore[arg-type]
    run.params_of = lambda stage: base  # type: ignore[method-assign]
    run.phase = lambda *_: contextlib.nullcontext()  # type: ignore[method-assign]
    wanted = pass_rates.wanted(run)
    assert wanted is not None and rates(altered) != found


def test_only_problems_in_the_range_are_drawn_and_too_few_are_refused(folder, tmp_path):  # noqa: F811
    settings = filtered(folder)
    run = Run.start(settings, tmp_path, None, None)  # type: ignore[arg-type]
    assert run.training and run.training.prompts
    wanted = np.arange(10) % 3 == 0

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
    assert {int(i) for _ in range(6) for i in next(drawn).index} == {0, 3, 6, 9}
    assert drawn.dropped == 0  # none is too long
    with pytest.raises(InputError, match=r"needs 5 .* of 10 only 4 have a pass rate within"):
        batches(5)
    with pytest.raises(InputError, match="belongs to other data"):
        other = batches(2)
        wanted[1] = True
        batches(2).set_state(other.get_state())
