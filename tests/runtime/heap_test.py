"""Pages of freed memory stay with the process."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="malloc's settings are of glibc"
)

# Faults of the second of two equal blocks, each of 24,414 pages, in a thread that is not the first.
FAULTS = """
import resource, sys, threading
from score_jax.runtime import heap
if sys.argv[1] == "kept":
    heap.keep_pages()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def fill_twice():
    bytearray(100_000_000)
    before = faults()
    bytearray(100_000_000)
    print(faults() - before)
thread = threading.Thread(target=fill_twice)
thread.start()
thread.join()
"""


def _faults(how: str, **environment: str) -> int:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    kept |= {"JAX_PLATFORMS": "cpu", **environment}
    ran = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=kept, capture_output=True, text=True, check=True
    )
    return int(ran.stdout)


def test_freed_memory_is_reused_without_page_faults():
    assert _faults("plain") > 1_000  # of 24,414, or fewer where the kernel gives huge pages
    assert _faults("kept") < 100


def test_settings_of_malloc_in_the_environment_are_kept():
    assert _faults("kept", MALLOC_TOP_PAD_="0") > 1_000
