"""What programs and tests may import: the standard library, and the packages that settings name."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import score_jax
from score_jax.problem import InputError
from score_jax.rewards.programs.grade import read_gold
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.installed import find
from score_jax.rewards.sandbox.tester import Job
from tests.rewards.sandbox import sandboxes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

TEST = ("assert f() == 3",)


@pytest.fixture(autouse=True)
def _fresh():
    yield
    start.choose()
    start.close()


def test_a_package_that_is_missing_is_refused_at_the_start():
    for name in ("nump", "numpy ", "numpy.linalg"):
        with pytest.raises(InputError, match="packages names"):
            start.configure(packages=(name,))


def test_a_package_brings_what_it_requires():
    found = find(["optax"])
    assert found.names == ("optax",)
    assert {"optax", "jax", "numpy", "absl"} <= set(found.modules)
    assert "pytest" not in found.modules


@pytest.mark.parametrize("kind", sandboxes.KINDS)
def test_programs_and_tests_import_the_packages_that_are_named_and_no_other(kind):
    sandboxes.of_kind(kind)
    start.configure(kind, packages=("numpy",))
    site = str(Path(find(["numpy"]).paths[0]).parent)
    cases = {
        "import numpy as np\ndef f(): return np.float64(3)": "passed",
        "import numpy as np\ndef f(): return np.int32(2)": "failed",
        "import numpy.linalg\ndef f(): return round(numpy.linalg.det([[1, 1], [0, 3]]))": "passed",
        "try: import pytest\nexcept ImportError: pass\ndef f(): return 3": "passed",
        "import pytest\ndef f(): return 3": "error",
        f"open({site!r} + '/numpy/a', 'w')\ndef f(): return 3": "error",
        f"open({site!r} + '/pytest/__init__.py')\ndef f(): return 3": "error",
    }
    reasons = start.run([Job(program, TEST) for program in cases], 30.0)
    assert dict(zip(cases, reasons, strict=True)) == cases
    arrays = (
        "import numpy as np\nassert f(np.arange(3)).shape == (3,)\nassert sum(f(np.ones(2))) == 4"
    )
    double = "def f(x): return x * 2"
    assert start.run([Job(double, (arrays,)), Job(double, ("import yaml\nf(1)",))], 30.0) == [
        "passed",
        "error",
    ]
    read_gold(json.dumps({"tests": ["import numpy", "assert f(1)"]}))
    start.choose()
    with pytest.raises(InputError, match="imports 'numpy'"):
        read_gold(json.dumps({"tests": ["import numpy", "assert f(1)"]}))


def test_tests_import_the_same_however_the_package_is_installed(tmp_path):
    """Beside other packages, one of them named as a standard module, and alone in a folder."""
    sandboxes.need_any()
    beside, alone = tmp_path / "site-packages", tmp_path / "alone"
    for folder in (beside, alone):
        shutil.copytree(Path(score_jax.__file__).parent, folder / "score_jax")
    for name in ("colorsys", "symtable", "other"):
        (beside / f"{name}.py").write_text("raise SystemError\n")
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from score_jax.rewards.sandbox import start\n"
        "from score_jax.rewards.sandbox.tester import Job\n"
        "tests = ['import colorsys', 'import symtable', 'import other', 'import numpy']\n"
        "jobs = [Job('def f(): return 3', (one, 'assert f() == 3')) for one in tests]\n"
        "print(start.run(jobs, 30.0))"
    )
    for folder in (alone, beside):
        command = [sys.executable, "-P", "-S", "-c", code, str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.stdout.strip() == "['passed', 'passed', 'error', 'error']", ran.stderr
