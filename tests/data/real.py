"""Where the published benchmark files lie for tests: beside the repository, in ../shared/data."""

import pathlib

import pytest

REAL = pathlib.Path(__file__).parents[2].parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no benchmark data in {REAL}")
