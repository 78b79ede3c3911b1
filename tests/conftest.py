"""Eight virtual CPU devices for every test. Set before jax is imported: it reads them only then.

TEST_PLATFORM=cuda,cpu (or tpu,cpu) runs them there instead, in full float32: docs/operations.md.
"""

import gc
import importlib.metadata
import os
import signal
import sys
from pathlib import Path

_FLAGS = ["--xla_force_host_platform_device_count=8"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Halves the time to compile. XLA ends the process on a flag it does not know.
    _FLAGS.append("--xla_cpu_use_fusion_emitters=false")

_PLATFORM = os.environ.get("TEST_PLATFORM", "cpu")
os.environ["JAX_PLATFORMS"] = _PLATFORM
if _PLATFORM != "cpu":
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"  # by default they round float32
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()

from collections.abc import Iterator  # noqa: E402

import pytest  # noqa: E402

from tests.emulator import Emulator  # noqa: E402

# Tests start programs and send them these signals. Under nohup, or in the background of a script,
# the programs would inherit that they are ignored.
for _number, _handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_runtest_setup() -> None:
    """The TPU compiler makes this process ignore SIGHUP, which programs that it starts inherit."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def quick_compile():
    """For modules that compile many programs and run each once: a third of the time to compile."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


# Each compiled program takes several memory mappings. Linux allows a process 65,530 of them
# (vm.max_map_count), and XLA crashes when there are no more.
_OF_MODULES, _OF_TESTS = 10_000, 30_000  # above, programs are freed after a module, and a test
_LOOK = 16  # tests of a module between two counts


def _free_programs(most: int) -> None:
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > most:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture(scope="module", autouse=True)
def _tests_so_far() -> Iterator[list[int]]:
    yield [0]
    _free_programs(_OF_MODULES)


@pytest.fixture(autouse=True)
def _few_programs(_tests_so_far: list[int]) -> Iterator[None]:
    yield
    _tests_so_far[0] += 1
    if _tests_so_far[0] % _LOOK == 0:
        _free_programs(_OF_TESTS)


# Few tests, or long ones. First, so that no worker ends with one of them while the others wait.
_LONG = (
    *("loop", "recipes", "run", "docs", "package", "configs", "notebook", "own_task", "splits"),
    *("rollout/episode", "rollout/stream", "rollout/stopping", "learner/step", "learner/mesh"),
    *("batches/episodes", "batches/pass_rates", "modes/replay", "launch/one_gpu", "api/training"),
)


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent

    def rank(item) -> int:
        name = item.path.relative_to(here).as_posix().removesuffix("_test.py")
        return _LONG.index(name) if name in _LONG else len(_LONG)

    items.sort(key=rank)


@pytest.fixture(scope="module")
def store() -> Iterator[Emulator]:
    """A store of buckets on this machine; skips where there is none."""
    with Emulator() as found:
        yield found
