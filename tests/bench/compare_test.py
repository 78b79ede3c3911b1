"""The comparison of programs: what is run where, and the tables."""

import json
import os
import re
import sys

import pytest

from score_jax.bench import __main__ as bench
from score_jax.bench import compare
from score_jax.bench.compare import OURS, Figure
from score_jax.problem import InputError

# A program whose speed is the number of its cores, and that says how it was called.
PROGRAM = (
    "import json, os, sys; print('noise'); "
    "print(json.dumps({sys.argv[1]: len(os.sched_getaffinity(0)), 'update_tok_s': 8.0}))"
)


def fake(*arguments: str) -> str:
    return f'{sys.executable} -c "{PROGRAM.replace("{", "{{").replace("}", "}}")}" ' + " ".join(
        arguments
    )


def test_programs_run_in_turn_on_the_cores_that_are_named():
    programs = {OURS: fake("tokens_per_sec", "{what}"), "other": fake("rollout_tok_s")}
    most = len(os.sched_getaffinity(0))
    found = list(compare.measure(programs, ["small"], [1, most], rounds=2, reps=1))
    assert [f[:5] for f in found if f.what == "rollout"] == [
        (name, "small", "rollout", cores, number)
        for number in (1, 2)
        for cores in (1, most)
        for name in (OURS, "other")
    ]
    assert all(f.tokens_per_sec == f.cores for f in found if f.what == "rollout")
    assert {f.tokens_per_sec for f in found if f.program == "other" and f.what == "update"} == {8.0}


def test_a_program_that_fails_has_no_figure_and_its_reason_is_shown():
    programs = {
        "crash": f"{sys.executable} -c \"import sys; sys.exit('no such workload: {{workload}}')\"",
        "silent": f"{sys.executable} -c pass",
        "other words": fake("tokens"),
        "missing": "nowhere/python x.py",
    }
    found = list(compare.measure(programs, ["group"], [1], rounds=1, reps=1))
    failures = {(f.program, f.what): f.failure for f in found}
    assert failures["crash", "rollout"] == failures["crash", "update"] == "no such workload: group"
    assert "no JSON object" in failures["silent", "rollout"]
    assert failures["other words", "rollout"] == "no rollout_tok_s in its last line"
    assert failures["other words", "update"] == ""
    assert "nowhere/python" in failures["missing", "rollout"]
    text = compare.tables(found)
    assert "crash, group, 1 cores, update: no such workload: group" in text
    assert "| `group` | 1 | – | – | 8 | – |" in text


def test_a_table_has_medians_ranges_and_the_median_of_the_rounds_ratios():
    ours, theirs = (100.0, 200.0, 150.0), (50.0, 50.0, 100.0)
    rows = [
        Figure(name, "small", "rollout", 2, number, speed)
        for name, speeds in ((OURS, ours), ("other", theirs))
        for number, speed in enumerate(speeds, start=1)
    ]
    assert "| `small` | 2 | 150 [100, 200] | 50 [50, 100] (2.00) |" in compare.tables(rows)
    rows[-1] = rows[-1]._replace(tokens_per_sec=None, failure="killed")  # of the third round
    assert "| 50 [50, 50] (3.00) |" in compare.tables(rows)


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["--program=python x.py"], "is not of the form NAME=COMMAND"),
        (["--program=a=python x.py {size}"], "'size'. Known: {workload}"),
        (["--cores=1,none"], "0 is not a number of cores"),
        (["--cores=5000"], "5000 is not a number of cores"),
        (["--rounds=0"], "--rounds=0 measures nothing"),
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(arguments, wanted):
    with pytest.raises(InputError, match=re.escape(wanted)):
        bench.main(["compare", "--workloads=small", *arguments])


def test_figures_are_kept_in_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare, "_COMMAND", fake("tokens_per_sec", "{what}"))
    out = tmp_path / "runs.jsonl"
    arguments = ["--workloads=small", "--cores=1", "--rounds=1", f"--out={out}"]
    bench.main(["compare", *arguments])
    assert [json.loads(line)["what"] for line in out.read_text().splitlines()] == list(
        compare.WHATS
    )
    assert "| `small` | 1 | 1 |" in capsys.readouterr().out


def test_a_name_without_a_command_is_refused():
    with pytest.raises(InputError):
        compare.programs_of(["=python x.py"])
