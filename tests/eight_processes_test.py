"""Eight processes with a device each: the run of one device; nobody waits for more than grades."""

import json
import time

import pytest

from score_jax.workdir.runlog import read_metrics
from tests import splits_test
from tests.splits_test import on_one_device  # noqa: F401  (a fixture)

PROCESSES = 8
LATE_SEC = 60
# Process 3 starts late. Every row's grade takes a while, another one in every process.
CONFIG = """
import json
import time

own = next((a.removeprefix("--process=") for a in sys.argv if a.startswith("--process=")), None)
if own == "3":
    time.sleep(float(os.environ["LATE_SEC"]))
if own and (sleeps := float(os.environ.get("ROW_SEC", "0"))):
    from score_jax import grading

    grade = grading.grade

    def slow(experiment, rows, **more):
        if "step" not in more:  # of an evaluation
            return grade(experiment, rows, **more)
        began = time.monotonic()
        time.sleep(len(rows.texts) * sleeps * (1 + int(own) / 8))
        grades = grade(experiment, rows, **more)
        with open(os.environ["GRADED"], "a") as file:
            found = {"step": more["step"], "rows": len(rows.texts), "sec": time.monotonic() - began}
            print(json.dumps(found), file=file)
        return grades

    grading.grade = slow
"""


def in_eight(folder, monkeypatch, *more: str, **environment: str):
    monkeypatch.setattr(splits_test, "CONFIG", splits_test.CONFIG + CONFIG)
    began = time.monotonic()
    done = splits_test.in_processes(PROCESSES, folder, *more, **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    print(f"{time.monotonic() - began:.0f} s")
    return folder / "run"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_eight_processes_of_which_one_starts_a_minute_late_are_one_device(
    tmp_path,
    monkeypatch,
    on_one_device,  # noqa: F811
):
    run = in_eight(tmp_path, monkeypatch, LATE_SEC=str(LATE_SEC))
    splits_test.assert_same(splits_test.found_in(run), on_one_device[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_512_rows_a_process_are_graded_and_nobody_waits_for_more_than_the_slowest_grader(
    tmp_path, monkeypatch
):
    graded = tmp_path / "graded.jsonl"
    run = in_eight(
        tmp_path,
        monkeypatch,
        f"--config.rollout.problems_per_step={512 * PROCESSES // 16}",
        "--config.rollout.samples_per_problem=16",
        "--config.rollout.turn_rows=0",
        "--config.recipe=('stage1',)",
        "--config.stages.stage1.steps=3",
        LATE_SEC="0",
        ROW_SEC="0.01",
        GRADED=str(graded),
    )
    found = [json.loads(line) for line in graded.read_text().splitlines()]
    rows = read_metrics(run)
    assert len(found) == PROCESSES * len(rows) and {one["rows"] for one in found} == {512}
    for row in rows:
        slowest = max(one["sec"] for one in found if one["step"] == row["step"])
        a_row = row["exchanged_bytes"] / (512 * PROCESSES)
        print(f"grade {row['sec/grade']:.1f} s, slowest {slowest:.1f} s, {a_row:.0f} bytes a row")
        assert row["sec/grade"] <= 1.1 * slowest + 2
        assert a_row <= 1000
