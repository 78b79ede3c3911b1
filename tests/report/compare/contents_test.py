"""What the page that compares runs is told."""

import json

import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.evaluation.metrics import mcnemar_p
from score_jax.evaluation.sampled import bootstrap_interval
from score_jax.problem import InputError
from score_jax.report.compare import contents
from tests.report.run_page import fake_runs


def rows(*right: tuple[bool, bool], start: int = 0):
    """Transcripts of problems that are solved so, attempt by attempt."""
    return [
        fake_runs.transcript(start + i, ("a", first), ("b", second))
        for i, (first, second) in enumerate(right)
    ]


ALL = [(False, True)] * 6 + [(True, True)] * 4
FEW = [(False, True)] * 2 + [(False, False)] * 4 + [(True, True)] * 3 + [(True, False)]


@pytest.fixture
def two(tmp_path):
    """Two finished runs of the same ten problems; the second has another bonus and seed."""
    fake_runs.write(tmp_path / "one", transcripts={"stage2": rows(*FEW)})
    fake_runs.write(tmp_path / "two", transcripts={"stage2": rows(*ALL)})
    change(tmp_path / "two", seed=8, bonus=0.0)
    return [tmp_path / "one", tmp_path / "two"]


def change(folder, bonus=10.0, **settings):
    config = fake_runs.read_json(folder / "config.json")
    config["settings"] |= settings
    config["settings"]["stages"]["stage2"]["bonus"] = bonus
    jsonfiles.write(folder / "config.json", config)


def test_differences_are_paired_by_problem_with_interval_and_p(two):
    data = contents.of(two)
    place = data["places"][0]
    assert (place["name"], place["evaluations"]) == (contents.LATEST, ["stage2", "stage2"])
    (pair,) = place["pairs"]
    assert (pair["n"], pair["of"]) == (10, [10, 10])
    gain_N = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 1])  # second attempts, by hand
    assert pair["attempt2"] == [0.5, *bootstrap_interval(gain_N), mcnemar_p(5, 0)]
    assert pair["attempt1"][:3] == [0.0, 0.0, 0.0]
    assert pair["delta"] == [0.5, *bootstrap_interval(gain_N), None]
    assert [place["name"] for place in data["places"][1:]] == ["after base", "after stage1"]
    json.dumps(data, allow_nan=False)


def test_problems_are_the_same_if_id_and_text_are(tmp_path):
    other = rows(*[(False, False)] * 4, start=6)
    other[0] |= {"problem": "another text under the same id"}
    fake_runs.write(tmp_path / "one", transcripts={"stage2": rows(*ALL)})
    fake_runs.write(tmp_path / "two", transcripts={"stage2": other})
    (pair,) = contents.of([tmp_path / "one", tmp_path / "two"])["places"][0]["pairs"]
    assert (pair["n"], pair["of"]) == (3, [10, 4])
    assert pair["attempt2"][0] == -1.0


def test_runs_without_a_problem_in_common_have_no_difference(tmp_path):
    fake_runs.write(tmp_path / "one", transcripts={"stage2": rows(*ALL)})
    fake_runs.write(tmp_path / "two", transcripts={"stage2": rows(*ALL, start=50)})
    (pair,) = contents.of([tmp_path / "one", tmp_path / "two"])["places"][0]["pairs"]
    assert pair == {"n": 0, "of": [10, 10]}


def test_only_settings_that_differ_are_listed(two):
    assert contents.of(two)["settings"] == [["stages.stage2.bonus", 10.0, 0.0], ["seed", 7, 8]]


def test_a_stage_of_one_run_is_listed_by_its_differences_from_defaults(two):
    config = fake_runs.read_json(two[1] / "config.json")
    stages = config["settings"]["stages"]
    stages["multi"] = stages.pop("stage2")
    config["settings"] |= {"recipe": ["base", "stage1", "multi"], "seed": 7}
    config |= {"device": "gpu", "versions": {"jax": "1"}}
    jsonfiles.write(two[1] / "config.json", config)
    told = {path: values for path, *values in contents.of(two)["settings"]}
    assert told["stages.multi.steps"] == [None, 40]
    assert told["recipe"] == [["base", "stage1", "stage2"], ["base", "stage1", "multi"]]
    assert told["device"] == ["cpu", "gpu"] and told["jax (version)"] == ["0", "1"]
    assert "git revision" not in told and "seed" not in told


def test_a_run_in_progress_is_compared_at_what_both_have(two):
    for kind in ("evaluations/stage2.json", "transcripts/stage2.jsonl"):
        (two[1] / kind).unlink()
    places = {p["name"]: p["evaluations"] for p in contents.of(two)["places"]}
    assert places == {
        contents.LATEST: ["stage2", "stage1"],
        "after base": ["base", "base"],
        "after stage1": ["stage1", "stage1"],
    }


def test_a_run_that_has_only_begun_is_shown_without_differences(two):
    for path in [*two[1].glob("evaluations/*"), *two[1].glob("transcripts/*")]:
        path.unlink()
    data = contents.of(two)
    assert data["places"] == [] and data["runs"][1]["evaluations"] == []


def test_wrong_folders_are_refused(two, tmp_path):
    with pytest.raises(InputError, match=r"1 work directory is named, .* 2 to 6 runs"):
        contents.of(two[:1])
    with pytest.raises(InputError, match="named twice"):
        contents.of([*two, two[0] / ".." / "one"])
    with pytest.raises(InputError, match=r"7 work directories are named, .*comparison\.tables"):
        contents.of([tmp_path / str(i) for i in range(7)])
    with pytest.raises(InputError, match="Name the work directory of a run"):
        contents.of([two[0], tmp_path / "nowhere"])
    with open(two[1] / "transcripts" / "stage2.jsonl", "a", encoding="utf-8") as file:
        file.write("{not json\n")
    with pytest.raises(InputError, match="a line that is not JSON"):
        contents.of(two, transcript_characters=10)
