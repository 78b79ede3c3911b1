"""A run that is killed anywhere, and started again by the same command, ends as an unbroken one.

One kill of each kind over one recipe first. The other tests kill in every phase of every
recipe and at random moments, and send every signal in the middle of each.
"""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from score_jax.workdir import lock
from tests.crashes import KILLED, Crashes, Kill
from tests.loop_test import metrics_of

FEW = (
    "--config.stages.base.steps=3",
    "--config.stages.base.documents_per_step=8",
    "--config.rollout.problems_per_step=8",
    "--config.rollout.samples_per_problem=2",
    "--config.rollout.turn_rows=4",
    "--config.evaluation.problems=16",
    "--config.evaluation.batch=8",
    "--config.evaluation.every=2",
    "--config.checkpoint.every=2",
    "--config.checkpoint.keep=2",
)
TWO_STAGES = ("--config.stages.stage1.steps=4", "--config.stages.stage2.steps=2")


# A base model that is right now and then: there are episodes to keep and rewards to learn from.
TRAINED = (
    "--config.stages.base.steps=100",
    "--config.stages.base.warmup_steps=10",
    "--config.checkpoint.every=50",
)


def own_problems(folder: Path, count: int, name: str = "own", first: int = 0) -> str:
    """A file of problems with levels and solutions."""
    rows = []
    for number in range(first, first + count):
        left, right = number % 9, number // 9
        digit = (left + right) % 10
        row = {"id": str(number), "problem": f"{left}+{right}=", "answer": str(digit)}
        rows.append({**row, "solution": f"{digit}:{digit}.", "level": str(1 + number % 2)})
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(name: str, folder: Path) -> list[str]:
    """Arguments of a short run."""
    quickstart = "--config=configs/quickstart.py"
    if name == "collect":
        stages = [f"--config.stages.star{i}.steps=2" for i in (1, 2, 3)]
        stages += [f"--config.stages.star{i}.collect.steps=2" for i in (1, 2, 3)]
        more = "--config.stages.base.documents_per_step=64", "--config.rollout.problems_per_step=16"
        return [f"{quickstart}:star_plus", *FEW, *TRAINED, *stages, *more]
    arguments = [quickstart, *FEW, *TWO_STAGES]
    if name == "score":
        return arguments
    own, more_of_them = own_problems(folder, 20), own_problems(folder, 30, "more", first=20)
    arguments += [*TRAINED, "--config.problems.name=jsonl", f"--config.problems.path={own}"]
    arguments += ["--config.stages.base.documents.corrections=0.5"]
    arguments += ["--config.rewards.function=examples.rewards.near_digit:near"]
    return (
        arguments
        + {
            # 20 problems of which a step takes 8: the third step begins the second epoch.
            "epochs": ["--config.memory.micro_batches=4"],
            "mixture": [
                f"--config.problems.mixture.more={{'name': 'jsonl', 'path': '{more_of_them}'}}"
            ],
            "curriculum": ["--config.problems.curriculum_steps=4"],
        }[name]
    )


@pytest.fixture(scope="module")
def crashes(tmp_path_factory) -> Iterator[Crashes]:
    with Crashes(tmp_path_factory.mktemp("crashes") / "log") as found:
        yield found


@pytest.fixture(scope="module")
def whole(tmp_path_factory, crashes):
    """What makes an unbroken run of a recipe, once: its folder and arguments."""
    made: dict[str, tuple[Path, list[str]]] = {}

    def run(name: str) -> tuple[Path, list[str]]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            argv = recipe(name, folder)
            assert crashes.run([*argv, f"--workdir={folder / 'run'}"]) == 0, crashes.said()
            made[name] = folder / "run", argv
        return made[name]

    return run


def until_done(crashes: Crashes, argv: list[str], kills: list[Kill]) -> int:
    """Runs with one kill after the other, and at last with none; how many of them were reached."""
    missed = []
    for kill in kills:
        status = crashes.run(argv, kill)
        assert status in (0, -kill.number, 75), crashes.said()[-3000:]
        if status == 0:
            missed.append(str(kill))
    assert crashes.run(argv) == 0, crashes.said()[-3000:]
    print(f"{len(kills) - len(missed)} of {len(kills)} kills survived; not reached: {missed}")
    return len(kills) - len(missed)


def assert_equal(ours: Path, theirs: Path, *, more_saved: bool = False) -> None:
    """Params, moments, metrics, transcripts, evaluations and collected documents, bit for bit.

    more_saved: our run was stopped by signals, and so saved other steps beside the last ones.
    """
    assert metrics_of(ours) == metrics_of(theirs)
    for folder in ("transcripts", "evaluations", "collected"):
        names = {p.name for p in (theirs / folder).glob("*")}
        assert {p.name for p in (ours / folder).glob("*")} == names
        for name in names:
            assert (ours / folder / name).read_bytes() == (theirs / folder / name).read_bytes()
    kept = {p.relative_to(theirs) for p in theirs.glob("checkpoints/*/*")}
    mine = {p.relative_to(ours) for p in ours.glob("checkpoints/*/*")}
    if more_saved:
        last = {max(kept, key=lambda p: (p.parent == stage, int(p.name))) for stage in stages(kept)}
        assert last <= mine
        kept &= mine
    assert mine == kept or more_saved
    for path in kept:
        our_state, their_state = (
            ocp.PyTreeCheckpointHandler().restore(folder / path / "state")
            for folder in (ours, theirs)
        )
        flat, wanted = (dict(leaves(tree)) for tree in (our_state, their_state))
        assert flat.keys() == wanted.keys()
        for key, value in flat.items():
            np.testing.assert_array_equal(value, wanted[key], err_msg=f"{path}: {key}")
    assert not [p for p in ours.rglob("*") if ".part" in p.name]
    shown = {p.name for p in (theirs / "report").iterdir()}
    assert {p.name for p in (ours / "report").iterdir()} == shown and len(shown) >= 3
    assert not lock.is_held(ours)  # what a kill after the end left is in nobody's way


def stages(paths: set[Path]) -> set[Path]:
    return {path.parent for path in paths}


def leaves(tree, *keys):
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, *keys, key)
    elif tree is not None:
        yield keys, np.asarray(tree)


def with_cache(whole_run: Path, folder: Path) -> Path:
    """A work directory that has nothing but the compiled programs of another run."""
    folder.mkdir(parents=True)
    shutil.copytree(whole_run / "compile_cache", folder / "compile_cache")
    return folder


PHASES = {
    "pretraining": Kill("score_jax.learner.step:train_step", 2, "after"),
    "writing config.json": Kill("score_jax.jsonfiles:os.replace", 1),
    "half of config.json": Kill("pathlib:Path.write_text", 2, "half"),
    "prefill": Kill("score_jax.rollout.episode:run", 1, later_sec=0.005),
    "decode": Kill("score_jax.rollout.episode:run", 1, later_sec=0.03),
    "grading": Kill("score_jax.grading:grade", 1),
    "hand-over": Kill("score_jax.loop:_start_of", 1, "after"),
    "update": Kill("score_jax.learner.step:train_step", 2, later_sec=0.01),
    "log": Kill("score_jax.workdir.runlog:RunLog.log", 1, "after"),
    "save": Kill("score_jax.checkpoints:StageCheckpoints.save", 1, later_sec=0.02),
    "evaluation": Kill("score_jax.evaluation.queue:Kept.add", 1, "after"),
    "transcripts": Kill("score_jax.workdir.runlog:RunLog.write_transcripts", 1, "after"),
    "page": Kill("score_jax.report.run_page.page:write", 1),
    "plots": Kill("score_jax.report.run_page.plots:write", 1),
    "summary": Kill("score_jax.report.run_page.summary:write", 1, "after"),
}
COMPILING = {
    "compile": Kill("jax._src.compiler:backend_compile_and_load", 9, later_sec=0.05),
    "half a compiled program": Kill("pathlib:Path.write_bytes", 7, "half"),
    "a compiled program": Kill("score_jax.runtime.program_cache:WholeFiles.put", 12, "after"),
}
COLLECTING = (
    Kill("score_jax.batches.collected:_dialogues", 2),
    Kill("score_jax.batches.collected:_dialogues", 1, "after"),  # before they are kept
    Kill("score_jax.batches.collected:documents_of", 1, "after"),
)
# No step of a stage that collects samples: prompts are fed and decoded in the queue.
IN_QUEUE = {
    name: dataclasses.replace(PHASES[name], at="score_jax.rollout.stream:Stream._decoded")
    for name in ("prefill", "decode")
}
RECIPES = ("score", "collect", "epochs", "curriculum", "mixture")
RANDOM_KILLS = 12  # of each seed
DEFAULT = (  # each is reached by the run that resumes after the one before it
    Kill("pathlib:Path.write_bytes", 7, "half"),  # of a compiled program
    Kill("pathlib:Path.write_text", 1, "half"),  # of config.json
    Kill("score_jax.learner.step:train_step", 5, later_sec=0.01),  # the second of stage1
    Kill("score_jax.checkpoints:StageCheckpoints.save", 1, later_sec=0.02),
    Kill("score_jax.evaluation.queue:Kept.add", 1, "after"),
    Kill("score_jax.loop:_start_of", 1, "after"),  # stage2
    Kill("score_jax.report.run_page.plots:write", 1),
)


@pytest.mark.slow
def test_kills_of_every_kind_change_nothing(tmp_path, crashes):
    argv = recipe("score", tmp_path)
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    reached = until_done(crashes, [*argv, f"--workdir={killed}"], list(DEFAULT))
    assert reached == len(DEFAULT)
    with_cache(killed, unbroken)
    assert crashes.run([*argv, f"--workdir={unbroken}"]) == 0
    assert_equal(killed, unbroken)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", RECIPES)
def test_a_kill_in_every_phase_changes_nothing(tmp_path, crashes, whole, name):
    theirs, argv = whole(name)
    ours = with_cache(theirs, tmp_path / "run")
    kills = list((PHASES | (IN_QUEUE if name == "collect" else {})).values())
    kills[3:3] = COLLECTING if name == "collect" else ()  # before stages that have collected
    reached = until_done(crashes, [*argv, f"--workdir={ours}"], kills)
    assert reached >= len(kills) - 1  # the last one may come after the end
    assert_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("seed", range(int(os.environ.get("CRASH_SEEDS", "2"))))
def test_kills_at_random_moments_change_nothing(tmp_path, crashes, whole, seed):
    draw = random.Random(seed)
    name = RECIPES[seed % len(RECIPES)]
    theirs, argv = whole(name)
    ours = with_cache(theirs, tmp_path / "run")
    argv = [*argv, f"--workdir={ours}"]
    kills = [Kill(sec=draw.uniform(1.0, 8.0)) for _ in range(RANDOM_KILLS)]
    survived = sum(crashes.run(argv, kill) == KILLED for kill in kills)
    status = crashes.run(argv)
    print(f"{name}, seed {seed}: {survived} kills survived")
    assert status == 0, crashes.said()[-3000:]
    assert_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", COMPILING)
def test_a_kill_while_programs_are_compiled_changes_nothing(tmp_path, crashes, whole, name):
    theirs, argv = whole("score")
    ours = tmp_path / "run"
    argv = [*argv, f"--workdir={ours}"]
    kills = [dataclasses.replace(COMPILING[name], call=call) for call in (2, 7, 14)]
    assert until_done(crashes, argv, kills) == len(kills)
    assert_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_kill_while_a_base_model_is_copied_changes_nothing(tmp_path, crashes, whole):
    theirs, argv = whole("score")
    made = tmp_path / "whole"
    argv = [*argv, f"--base_from={theirs}"]
    assert crashes.run([*argv, f"--workdir={made}"]) == 0
    ours = tmp_path / "run"
    kills = [
        Kill("score_jax.buckets.places:copy_folder", 1),
        Kill("score_jax.buckets.places:copy_folder", 2, "after"),
        Kill("shutil:copyfile", 3, "after"),
        Kill("pathlib:Path.rename", 1),
        Kill("pathlib:Path.rename", 1, "after"),
        Kill("score_jax.workdir.runlog:RunLog.write_config", 1),
    ]
    assert until_done(crashes, [*argv, f"--workdir={ours}"], kills) == len(kills)
    assert_equal(ours, made)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", RECIPES)
def test_signals_in_the_middle_of_everything_save_and_change_nothing(
    tmp_path, crashes, whole, name
):
    theirs, argv = whole(name)
    ours = with_cache(theirs, tmp_path / "run")
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    places = [
        Kill("score_jax.learner.step:train_step", 2),
        Kill("score_jax.evaluation.queue:Kept.add", 1),
        Kill("score_jax.grading:grade", 2),
        Kill("score_jax.checkpoints:StageCheckpoints.save", 1, "after"),
        *(COLLECTING if name == "collect" else ()),
    ]
    sent = [
        dataclasses.replace(place, number=kinds[i % 4], later_sec=0.0)
        for i, place in enumerate(places)
    ]
    before = len(crashes.said())
    stopped = until_done(crashes, [*argv, f"--workdir={ours}"], sent)
    said = crashes.said()[before:]
    ends = said.count("re-running resumes."), said.count("anything new to save; the same command")
    assert stopped >= 3 and sum(ends) == stopped and ends[0] >= 3
    assert "Traceback" not in said
    assert_equal(ours, theirs, more_saved=True)


def size_of(folder: Path) -> int:
    """Bytes of its files in pages of 4096, as a tmpfs counts them."""
    return sum(-(-p.stat().st_size // 4096) * 4096 + 4096 for p in folder.rglob("*"))


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """A mount, which only root can make."""
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("mounting needs root")
    folder.mkdir(exist_ok=True)
    if subprocess.run(["mount", *arguments, str(folder)], check=False).returncode:
        pytest.skip("this machine does not let root mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_disk_that_is_full_at_any_write_loses_nothing(tmp_path, crashes, whole):
    theirs, argv = whole("score")
    cache = size_of(theirs / "compile_cache")
    rest = size_of(theirs) - cache
    small = f"size={cache + 2**16}"
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", small, "tmpfs") as disk:
        ours = with_cache(theirs, disk / "run")
        argv = [*argv, f"--workdir={ours}"]
        statuses = []
        for part in range(1, 16):
            larger = f"remount,size={cache + 2**16 + rest * part // 12}"
            subprocess.run(["mount", "-o", larger, str(disk)], check=True)
            before = len(crashes.said())
            statuses.append(crashes.run(argv))
            said = crashes.said()[before:]
            assert "Traceback" not in said, said
            if statuses[-1] == 0:
                break
            assert said.count(f"no space is left in {ours} (") == 1, said
        print("exit statuses:", statuses)
        assert statuses[-1] == 0 and set(statuses[:-1]) == {74} and len(statuses) > 3
        assert_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_that_cannot_be_written_is_asked_evaluated_and_exported(tmp_path, crashes, whole):
    theirs, argv = whole("score")
    before = {p: p.stat().st_mtime_ns for p in theirs.rglob("*")}
    argv = [*argv, f"--workdir={theirs}"]
    with mounted(theirs, "--bind", str(theirs)):
        subprocess.run(["mount", "-o", "remount,ro,bind", theirs], check=True)
        for mode in (
            ["--mode=try", "--question=3+8+6"],
            ["--mode=evaluate"],
            ["--mode=export", f"--export_dir={tmp_path / 'exported'}"],
            ["--config.checkpoint.every=3"],  # it is finished, and says so
        ):
            assert crashes.run([*argv, *mode]) == 0, crashes.said()[-3000:]
        assert crashes.run([*argv, "--mode=scale"]) == 2
    assert (tmp_path / "exported" / "model.safetensors").exists()
    assert {p: p.stat().st_mtime_ns for p in theirs.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_folder_that_moved_and_a_clock_that_jumped_change_nothing(tmp_path, crashes, whole):
    theirs, argv = whole("score")
    first = with_cache(theirs, tmp_path / "first")
    assert crashes.run([*argv, f"--workdir={first}"], DEFAULT[2]) == KILLED
    ours = first.rename(tmp_path / "second")
    for path in ours.rglob("*"):  # as files of a clock that ran ahead
        os.utime(path, (2**32, 2**32))
    assert crashes.run([*argv, f"--workdir={ours}"], PHASES["hand-over"]) == KILLED
    assert until_done(crashes, [*argv, f"--workdir={ours}"], []) == 0
    assert_equal(ours, theirs)
