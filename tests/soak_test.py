"""A training that runs for long beside rewards that hang and workers that die: nothing grows.

SOAK_MINUTES sets its length: 20 by default, two hours once for each release. The run is killed (-9)
and started again halfway.
"""

import collections
import hashlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from score_jax.workdir.runlog import read_metrics

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
LIVES = 2
LOOK_SEC = 2.0
WORK = bytes(2**20)
BASE_STEPS = 100
REWARDS = '''
import os
import random
import time


def near(problem, texts, gold):
    """Pays the right digit; once in 5,000 calls it hangs, once in 5,000 its process dies."""
    draw = random.SystemRandom().randrange(5000)
    if draw == 0:
        time.sleep(600)
    if draw == 1:
        os._exit(1)
    return [float(text[:1] == gold) for text in texts]
'''
ARGUMENTS = (
    "--config=configs/quickstart.py",
    f"--config.stages.base.steps={BASE_STEPS}",
    "--config.stages.stage1.steps=1000000",
    "--config.stages.stage1.learning_rate=1e-6",  # the work of a step stays what it is
    "--config.evaluation.every=100",
    "--config.evaluation.problems=64",
    "--config.checkpoint.every=50",
    "--config.rewards.function_timeout_sec=2",
)
Sample = collections.namedtuple("Sample", "sec bytes handles children zombies cpu_sec step pace")


def pace() -> float:
    """CPU seconds of a fixed piece of work: other programs on the same cores slow it down too."""
    began = time.process_time()
    for _ in range(16):
        hashlib.sha256(WORK).digest()
    return time.process_time() - began


def stat(process: int) -> tuple[str, int, float]:
    """(state, parent, CPU seconds) of a process; FileNotFoundError if it is gone."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    return fields[0], int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks


def descendants(process: int) -> dict[int, str]:
    """State of every process below this one."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _ = stat(int(path.name))
        except OSError:
            continue
        parents[int(path.name)] = (parent, state)
    found, below = {}, {process}
    while below:
        below = {one for one, (parent, _) in parents.items() if parent in below}
        found |= {one: parents[one][1] for one in below}
    return found


def look(process: int, workdir: Path, began: float) -> Sample:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    below = descendants(process)
    metrics = workdir / "metrics.jsonl"
    lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
    return Sample(
        time.monotonic() - began,
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(os.listdir(f"/proc/{process}/fd")),
        len(below),
        sum(state == "Z" for state in below.values()),
        stat(process)[2],
        lines,
        pace(),
    )


def one_life(workdir: Path, seconds: float, end: int) -> list[Sample]:
    """Runs for so long, with a worker killed now and then; ends the run by that signal."""
    with (
        open(workdir.parent / "log", "ab") as log,
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "score_jax.main",
                *ARGUMENTS,
                f"--workdir={workdir}",
                f"--config.rewards.function={workdir.parent / 'soaked.py'}:near",
            ],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as run,
    ):
        began, samples = time.monotonic(), []
        try:
            while time.monotonic() - began < seconds:
                time.sleep(LOOK_SEC)
                assert run.poll() is None, (workdir.parent / "log").read_text()[-3000:]
                samples.append(look(run.pid, workdir, began))
                if len(samples) % 15 == 0 and (workers := sorted(descendants(run.pid))):
                    os.kill(random.choice(workers), signal.SIGKILL)
        finally:
            run.send_signal(end)
            run.wait(120)
    assert run.returncode == (75 if end == signal.SIGTERM else -end)
    return samples


def middle(samples: list[Sample], name: str) -> float:
    return statistics.median(getattr(sample, name) for sample in samples)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(int(MINUTES * 60 + 900))
def test_nothing_grows_while_rewards_hang_and_workers_die(tmp_path):
    (tmp_path / "soaked.py").write_text(REWARDS)
    workdir = tmp_path / "run"
    for life in range(LIVES):
        end = signal.SIGTERM if life == LIVES - 1 else signal.SIGKILL
        samples = one_life(workdir, MINUTES * 60 / LIVES, end)
        # All has been compiled by then, and evaluated and saved twice.
        steps = [s for s in samples if s.step >= max(samples[0].step, BASE_STEPS) + 250]
        fifth = max(1, len(steps) // 5)
        first, last = steps[:fifth], steps[-fifth:]
        cpu = [(part[-1].cpu_sec - part[0].cpu_sec) / (part[-1].step - part[0].step)
               for part in (first, last)]  # fmt: skip
        paces = [middle(part, "pace") for part in (first, last)]
        least = [statistics.quantiles([s.bytes for s in part], n=10)[0] for part in (first, last)]
        print(
            f"life {life + 1}: {samples[-1].sec:.0f} s, steps {samples[0].step} to "
            f"{samples[-1].step}; first and last fifth: "
            f"{least[0] / 2**20:.1f} and {least[1] / 2**20:.1f} MiB or more in nine of ten looks, "
            f"{middle(first, 'handles'):.0f} and {middle(last, 'handles'):.0f} handles, "
            f"{middle(first, 'children'):.0f} and {middle(last, 'children'):.0f} processes below, "
            f"{1000 * cpu[0]:.0f} and {1000 * cpu[1]:.0f} ms of CPU a step, while a fixed piece of "
            f"work took {1000 * paces[0]:.1f} and {1000 * paces[1]:.1f} ms; zombies at most "
            f"{max(s.zombies for s in samples)}"
        )
        print(
            "MiB over time:", [round(s.bytes / 2**20) for s in steps[:: max(1, len(steps) // 40)]]
        )
        # Above these, memory is what the allocator holds between uses: it goes up and down. The
        # least of all is of a moment: a look found 510 MiB where the others found 564 to 571.
        assert least[1] <= 1.02 * least[0]
        assert middle(last, "handles") <= middle(first, "handles") + 2
        assert middle(last, "children") <= middle(first, "children") + 1
        assert middle(last, "zombies") == 0
        assert cpu[1] / paces[1] <= 1.15 * cpu[0] / paces[0]
    rows = [row for row in read_metrics(workdir) if row["stage"] == "stage1"]
    failed = collections.Counter()
    for row in rows:
        failed.update({key: value for key, value in row.items() if "failed" in key and value})
    print(f"{len(rows)} steps logged once each; failed: {dict(failed)}")
    assert len({row["step"] for row in rows}) == len(rows)
    assert failed  # rewards did hang or die
