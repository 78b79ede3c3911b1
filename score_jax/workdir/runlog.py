"""The log of a run: files in the work directory, progress on the terminal, Weights & Biases.

One `RunLog` per run writes config.json, metrics.jsonl, tensorboard/ (events.py), evaluations/ and
transcripts/, shows progress (progress.py), and sends numbers to Weights & Biases if a setting asks
for it (wandb_run.py).

A resumed run restores its checkpoint and then calls `truncate_after`, so that metrics.jsonl has
each step once. TensorBoard itself hides the repeated steps.
Left out: checkpoints (checkpoints.py) and the report made from these files (report/).
"""

import contextlib
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from score_jax import jsonfiles
from score_jax.problem import InputError
from score_jax.workdir import spool
from score_jax.workdir.events import EventFile
from score_jax.workdir.heartbeat import Heartbeat
from score_jax.workdir.progress import Progress
from score_jax.workdir.wandb_run import WandbRun

_PACKAGES = (
    "score-jax",
    "absl-py",
    "flax",
    "gguf",
    "grain",
    "jax",
    "jaxlib",
    "libtpu",
    "math-verify",
    "ml_collections",
    "numpy",
    "optax",
    "orbax-checkpoint",
    "safetensors",
    "sentencepiece",
    "tensorflow-datasets",
    "tokenizers",
)

MADE_OF = "made_of"  # a key of evaluations/NAME.json: a digest of what it depends on
SAMPLES = "samples.jsonl"  # training samples, in the work directory
_TEXTS, _TEXT_CHARACTERS = 10, 4000  # on TensorBoard: transcripts; characters of an attempt


class RunLog:
    """Log of one run; a context manager that closes the files and the progress bar.

    Only one process of a run may write. With `primary=False`, in the others, calls do nothing.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        primary: bool = True,
        writes: bool = True,
        stream: TextIO | None = None,
        wandb: str = "",
    ):
        """Makes the work directory and checks that it is writable.

        Args:
          writes: False only shows progress, and leaves the work directory alone.
          stream: progress is written there; standard output by default.
          wandb: a Weights & Biases project to log to as well; empty for none.
        Raises: InputError if the directory cannot be made or written, or wandb is not installed.
        """
        self.workdir = Path(workdir)
        self._primary = primary and writes
        self._progress = Progress(stream) if primary else None
        self._heartbeat: Heartbeat | None = None
        self._start_sec = time.monotonic()
        self._stage, self._steps_before = "", 0
        self._stamped: dict[str, Any] = {}
        self._events: EventFile | None = None
        self._wandb = WandbRun(wandb, self.workdir) if wandb and primary else None
        if self._primary:
            _check_writable(self.workdir)
            _drop_torn_tail(self.workdir / "metrics.jsonl")
            _drop_torn_tail(self.workdir / SAMPLES)
        if self._progress is not None:
            self._heartbeat = Heartbeat(self._progress.say, "reading problems and model")

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the progress bar and closes the files; may be called twice."""
        if self._heartbeat is not None:
            self._heartbeat.close()
        if self._progress is not None:
            self._progress.close()
        if self._events is not None:
            self._events.close()
            self._events = None
        if self._wandb is not None:
            self._wandb.close()

    @property
    def wall_sec(self) -> float:
        """Seconds spent on this run, including those before a resume (see `truncate_after`)."""
        return time.monotonic() - self._start_sec

    def stamp(self, **values: Any) -> None:
        """Adds values to config.json, every later row of metrics and every later evaluation.

        For facts that a reader of any of these files needs, such as the sandbox of programs.
        """
        self._stamped |= values

    def write_config(self, settings: Any, *, device: str, **facts: Any) -> None:
        """Writes config.json; call it after the checkpoint was checked against the settings.

        facts: further keys of config.json.
        """
        self._write(
            "config.json",
            {
                "settings": settings,
                "versions": package_versions(),
                "git_revision": git_revision(),
                "device": device,
                "command": _command(),
                **facts,
                **self._stamped,
            },
        )
        if self._wandb is not None:
            self._wandb.start(settings)

    def truncate_after(self, stage_order: Sequence[str], stage: str, step: int) -> None:
        """Drops the lines of metrics.jsonl and samples.jsonl after (stage, step): a resumed run
        logs them again.

        `wall_sec` continues from the last line kept. Lines that a crash left incomplete are dropped
        too. Call it before the first `log`. To start over, pass step 0 of the first stage.
        Raises: InputError for a line of a stage that is not in `stage_order`.
        """
        if not self._primary:
            return
        path = self.workdir / "metrics.jsonl"
        place = {name: i for i, name in enumerate(stage_order)}
        rows = read_metrics(self.workdir) if path.exists() else []
        for row in rows:
            if row["stage"] not in place:
                raise InputError(
                    f"{path} has steps of stage {row['stage']!r}, which is not in this recipe "
                    f"({', '.join(stage_order)}), so it belongs to another run. "
                    "Choose another --workdir, or move the file away."
                )
        last = (place[stage], step)
        kept = [row for row in rows if (place[row["stage"]], row["step"]) <= last]
        if rows:
            jsonfiles.write_lines(path, kept)
        if (samples := self.workdir / SAMPLES).exists():
            some = [r for r in read_rows(samples) if (place.get(r["stage"], -1), r["step"]) <= last]
            jsonfiles.write_lines(samples, some)
        if kept:
            self._start_sec = time.monotonic() - (kept[-1].get("wall_sec") or 0.0)

    def start_stage(self, stage: str, *, steps: int, steps_before: int = 0) -> None:
        """Starts a stage; later calls of `log` belong to it.

        Args:
          steps: number of steps in this stage, including those before a resume.
          steps_before: number of steps in all earlier stages. TensorBoard's x axis is
            `steps_before + step`, so that it grows over the stages.
        """
        self._stage, self._steps_before = stage, steps_before
        if self._progress is not None:
            self._progress.start_stage(stage, steps)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs a step of the current stage to metrics.jsonl, TensorBoard and progress.

        Numbers may be Python's, numpy's or jax's. Numbers that are not finite are written as null.
        """
        if self._progress is None or not self._primary:
            return
        row = jsonfiles.plain(
            {
                "stage": self._stage,
                "step": step,
                "wall_sec": self.wall_sec,
                **self._stamped,
                **values,
            }
        )
        with open(self.workdir / "metrics.jsonl", "a", encoding="ascii") as file:
            file.write(jsonfiles.line(row))
        global_step = self._steps_before + step
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}
        self._event_file(global_step).scalars(global_step, numbers)
        if self._wandb is not None:
            self._wandb.log(global_step, row)
        self._progress.show(step, row)
        self._spoke()
        spool.written(self.workdir)

    def write_samples(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds training samples of a step of the current stage to samples.jsonl."""
        if self._primary:
            with open(self.workdir / SAMPLES, "a", encoding="ascii") as file:
                for row in rows:
                    file.write(jsonfiles.line({"stage": self._stage, "step": step, **row}))

    def say(self, text: str) -> None:
        """Prints a line, above the progress bar if there is one."""
        if self._progress is not None:
            self._spoke()
            self._progress.say(text)

    def doing(self, what: str) -> str:
        """Sets what is being done, for when nothing else is said; returns what was before."""
        return self._heartbeat.doing(what) if self._heartbeat is not None else ""

    def _spoke(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.spoke()

    def write_evaluation(self, stage: str, metrics: Mapping[str, Any], digest: str) -> None:
        """Writes evaluations/STAGE.json; stage is `base` or a stage's name.

        digest: of what it depends on, as evaluate.digest_of.
        """
        self._write(f"evaluations/{stage}.json", {**metrics, MADE_OF: digest, **self._stamped})

    def write_transcripts(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes transcripts/NAME.jsonl, one object a line."""
        if self._primary:
            jsonfiles.write_lines(self.workdir / "transcripts" / f"{name}.jsonl", rows)

    def show_evaluation(
        self,
        global_step: int,
        metrics: Mapping[str, Any],
        transcripts: Sequence[Mapping[str, Any]],
        test: str = "",
    ) -> None:
        """Logs an evaluation to TensorBoard: its metrics, histograms of the lengths and edit ratios
        of all problems, and the first transcripts as text. Weights & Biases gets its metrics.

        Args:
          global_step: number of steps before the evaluation, in all stages.
          metrics, transcripts: as in evaluations/ and transcripts/.
          test: the name of a further test set, which is logged under its own names.
        """
        if not self._primary:
            return
        # An earlier process may have logged global_step, which must stay visible.
        events = self._event_file(global_step + 1)
        group = f"evaluation/{test}" if test else "evaluation"
        shares = {
            f"{group}/{key}": value
            for key, value in metrics.items()
            if isinstance(value, int | float)
        }
        for attempt, reasons in metrics.get("reasons", {}).items():
            shares |= {f"evaluation/reason/{name}/{attempt}": s for name, s in reasons.items()}
        events.scalars(global_step, shares)
        if self._wandb is not None:
            self._wandb.log(global_step, shares)
        lengths = [sum(a["tokens"] for a in row["attempts"]) for row in transcripts]
        edits = [row["edit_ratio"] for row in transcripts if "edit_ratio" in row]
        for name, values in (("tokens", lengths), ("edit_ratio", edits)):
            if values:
                events.histogram(global_step, f"{group}/{name}", values)
        shown = "\n\n".join(map(_as_text, transcripts[:_TEXTS]))
        events.text(global_step, f"transcripts/{test}" if test else "transcripts", shown)

    def _write(self, name: str, value: Any) -> None:
        if self._primary:
            jsonfiles.write(self.workdir / name, value)

    def _event_file(self, first_step: int) -> EventFile:
        if self._events is None:
            self._events = EventFile(self.workdir / "tensorboard", first_step)
        return self._events


def read_metrics(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first, without lines that are none, as torn ones are."""
    return read_rows(Path(workdir) / "metrics.jsonl")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl or samples.jsonl; each has `stage` and `step`."""
    _check_file(path)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    try:
        found = json.loads(f"[{','.join(lines)}]")  # at once: the rows then share their keys
    except json.JSONDecodeError:
        found = []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
    return [*filter(_is_row, found)]


def each_row(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of read_rows, one in memory at a time; none if there is no file."""
    if not path.exists():
        return
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):
                if _is_row(row := json.loads(line)):
                    yield row


def _is_row(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    return isinstance(found.get("stage"), str) and isinstance(found.get("step"), int)


def with_solved(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of metrics.jsonl with `solved/attemptA`; older runs logged rewards of 0 or 1 alone.

    Nothing is graded in SFT, whose rows have no `changed` either.
    """
    if "changed" not in row or any(key.startswith("solved/attempt") for key in row):
        return row
    rewards = {key: value for key, value in row.items() if key.startswith("reward/attempt")}
    return {**row, **{key.replace("reward", "solved"): value for key, value in rewards.items()}}


def is_solved(attempt: Mapping[str, Any]) -> bool:
    """Whether an attempt of a transcript counts as right; older runs wrote its reward alone."""
    return bool(attempt["solved"] if "solved" in attempt else attempt["reward"] >= 1)


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _command() -> str | None:
    """The command line of this process; None if it is another program that uses the package."""
    name = Path(sys.argv[0]).parts[-2:]
    if name != ("score_jax", "main.py") and name[-1:] != ("score-jax",):
        return None
    return shlex.join(["python", "-m", "score_jax.main", *sys.argv[1:]])


def git_revision() -> str | None:
    """Commit of the checkout that this package runs from, with `-dirty` if it was changed; or None.

    A copy without .git has the value of the environment variable SCORE_JAX_REVISION.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():  # installed elsewhere: an outer repository is not ours
        return os.environ.get("SCORE_JAX_REVISION") or None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude=*"]  # the commit itself, not a tag's name
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _as_text(transcript: Mapping[str, Any]) -> str:
    """A transcript as an indented block, which TensorBoard's Markdown shows unchanged."""
    lines = [f"{transcript['id']}: {transcript['problem']}"]
    for number, attempt in enumerate(transcript["attempts"], start=1):
        verdict = "right" if is_solved(attempt) else "wrong"
        reward, reason = f"{attempt['reward']:.4g}", attempt["reason"]
        lines.append(f"attempt {number} ({verdict}, reward {reward}, {reason}):")
        lines += ["  " + line for line in attempt["text"][:_TEXT_CHARACTERS].splitlines()]
    block = "\n".join("    " + line for part in lines for line in part.splitlines())
    return block.encode("utf-8", "replace").decode()  # no lone surrogates in an event file


def _check_writable(workdir: Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write to the work directory {workdir}: {error.strerror or error}. "
            "Metrics and checkpoints are kept there. Pass --workdir=DIR with a writable directory."
        ) from error


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is not a file, so a run cannot log there. Move that folder away.")


def _drop_torn_tail(path: Path) -> None:
    """Removes a last line that a crash left incomplete, so that the next line starts on its own."""
    _check_file(path)
    if path.exists():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with open(path, "r+b") as file:
                file.truncate(end)
