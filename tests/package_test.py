"""What is installed by `pip install .`: the sdist, the wheel made of it, and its command."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import score_jax
from tests.report.run_page import fake_runs

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("score_jax", "configs", "docs", "examples", "launch", "tests")
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "requirements.txt")
NAME = f"score_jax-{score_jax.__version__}"
BUILD_SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"


def sources(folder: Path) -> set[str]:
    """Files of the package below `folder`, by their paths in it."""
    found = (folder / "score_jax").rglob("*")
    return {str(p.relative_to(folder)) for p in found if p.is_file() and p.suffix != ".pyc"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel made from it; no network is asked."""
    copy = tmp_path_factory.mktemp("source")  # building writes beside the sources
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    run([sys.executable, "-c", BUILD_SDIST], copy)
    dist = copy / "dist"
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run([sys.executable, "-m", "pip", *wheel, f"{NAME}.tar.gz"], dist)
    return dist


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A folder that the wheel is installed into; its dependencies are those of these tests."""
    folder = tmp_path_factory.mktemp("installed")
    (wheel,) = built.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    run([sys.executable, "-m", "pip", *install, str(wheel)], built)
    return folder


def run(command: list[str], where: Path, **environment: str) -> str:
    """What a command prints; an error of it fails the test."""
    done = started(command, where, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def started(command: list[str], where: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command,
        cwd=where,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_wheel_holds_the_whole_package_and_nothing_else(built):
    (path,) = built.glob("*.whl")
    assert path.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if not name.startswith(f"{NAME}.dist-info/")}
        described = wheel.read(f"{NAME}.dist-info/METADATA").decode()
    assert names == sources(ROOT)
    assert {"score_jax/py.typed", "score_jax/report/run_page/assets/page.js"} <= names
    for extra in ("tpu", "cuda", "hub", "wandb", "test"):
        assert f"Provides-Extra: {extra}\n" in described


def test_the_sdist_holds_experiments_scripts_and_tests_too(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert sources(ROOT) <= names
    assert {"configs/quickstart.py", "launch/quickstart.sh", "tests/package_test.py"} <= names
    assert "examples/rewards/conversation.py" in names


def test_the_installed_command_answers_as_the_module_does(installed, tmp_path):
    command = [str(installed / "bin" / "score-jax")]
    module = [sys.executable, "-m", "score_jax.main"]
    where = {"PYTHONPATH": str(installed)}
    found = run(
        [sys.executable, "-c", "import score_jax; print(score_jax.__file__)"], tmp_path, **where
    )
    assert Path(found.strip()) == installed / "score_jax" / "__init__.py"
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    for arguments, status, said in [
        (["--version"], 0, f"score-jax {score_jax.__version__} "),
        ([config, "--workdir=run", "--mode=trian"], 2, "Did you mean 'train'?"),
        (["--config=quickstart.py", "--workdir=run"], 2, "no config file quickstart.py"),
    ]:
        one, other = (
            started([*start, *arguments], tmp_path, **where) for start in (command, module)
        )
        assert one.returncode == other.returncode == status, one.stderr
        assert (one.stdout, one.stderr) == (other.stdout, other.stderr)
        assert said in one.stdout + one.stderr
    # A mode, which imports all of the package.
    tried = started([*command, config, "--workdir=run", "--mode=try"], tmp_path, **where)
    assert tried.returncode == 2 and "has no checkpoint" in tried.stderr


def test_the_installed_package_writes_its_page(installed, tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    command = [sys.executable, "-m", "score_jax.report.run_page.page", str(folder)]
    run(command, tmp_path, PYTHONPATH=str(installed))
    assert "</html>" in (folder / "report" / "index.html").read_text(encoding="utf-8")
