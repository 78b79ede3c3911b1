"""What is installed by `pip install .`: the sdist, the wheel made of it, and its command."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import score_jax
from tests.report.run_page import fake_runs

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("score_jax", "configs", "docs", "examples", "launch", "tests")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "requirements.txt")
NAME = f"score_jax-{score_jax.__version__}"
BUILD_SDIST = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"


def sources(folder: Path, name: str = "score_jax") -> set[str]:
    """Files of the package, or of another folder, by their paths below `folder`."""
    found = (folder / name).rglob("*")
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
    configs = {f"score_jax/{name}" for name in sources(ROOT, "configs")}
    assert names == sources(ROOT) | configs  # no package `configs` of its own
    assert {"score_jax/py.typed", "score_jax/report/run_page/assets/page.js"} <= names
    assert "score_jax/report/compare/assets/compare.js" in names
    assert len(configs) > 10
    for extra in ("tpu", "cuda", "hub", "wandb", "test"):
        assert f"Provides-Extra: {extra}\n" in described


def test_the_sdist_holds_experiments_scripts_and_tests_too(built):
    with tarfile.open(built / f"{NAME}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert sources(ROOT) <= names
    assert {"configs/quickstart.py", "launch/quickstart.sh", "tests/package_test.py"} <= names
    assert "examples/rewards/conversation.py" in names
    assert not [name for name in names if name.startswith("score_jax/configs")]  # one source


def test_the_citation_file_names_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    required = {"cff-version", "message", "title", "authors"}  # of the format's schema 1.2.0
    assert required <= cited.keys() and cited["version"] == score_jax.__version__
    paper = cited["preferred-citation"]
    assert {"title", "authors", "type"} <= paper.keys() and len(paper["authors"]) == 18


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
        (["--config=configs/quickstat.py", "--workdir=run"], 2, "mean 'configs/quickstart.py'?"),
    ]:
        one, other = (
            started([*start, *arguments], tmp_path, **where) for start in (command, module)
        )
        assert one.returncode == other.returncode == status, one.stderr
        assert (one.stdout, one.stderr) == (other.stdout, other.stderr)
        assert said in one.stdout + one.stderr
    # A mode, which imports all of the package.
    tried = started([*command, config, "--workdir=run", "--mode=export"], tmp_path, **where)
    assert tried.returncode == 2 and "has no checkpoint" in tried.stderr


@pytest.fixture
def anywhere(installed, tmp_path):
    """Runs the installed command in an empty directory, without the repository's own files."""
    environment = {"PYTHONPATH": str(installed), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

    def command(*arguments: str) -> subprocess.CompletedProcess:
        script = str(installed / "bin" / "score-jax")
        return started([script, *arguments, "--workdir=run"], tmp_path, **environment)

    return command


@pytest.mark.parametrize("option", ["--config=", pytest.param("--config ", marks=pytest.mark.slow)])
def test_a_shipped_config_trains_in_an_empty_directory(installed, anywhere, tmp_path, option):
    steps = [f"--config.stages.{name}.steps=1" for name in ("base", "stage1", "stage2")]
    small = ["--config.rollout.problems_per_step=8", "--config.evaluation.problems=8"]
    given = [*f"{option}configs/quickstart.py:score".split(), *steps, *small]
    done = anywhere(*given)
    assert done.returncode == 0, done.stderr
    shipped = installed / "score_jax" / "configs" / "quickstart.py"
    assert f"No configs/quickstart.py in this directory: using {shipped}." in done.stderr
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_shipped_configs_share_their_settings(anywhere, tmp_path):
    """One imports another, as `from configs import gsm8k`, though no package has that name."""
    done = anywhere("--config=configs/gsm8k_qwen3_06b.py", "--mode=export")
    assert done.returncode == 2 and "run has no checkpoint" in done.stderr
    # A config of one's own may import a shipped one.
    (tmp_path / "mine.py").write_text(
        "from configs import gsm8k\n\ndef get_config():\n"
        "    raise ValueError(gsm8k.get_config('preset:mine').model.source)\n"
    )
    done = anywhere("--config=mine.py", "--mode=evaluate")
    assert (done.returncode, done.stderr) == (
        2,
        "score_jax: mine.py, line 4: ValueError: preset:mine\n",
    )


def test_a_local_config_wins_over_a_shipped_one(anywhere, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "gsm8k_qwen3_06b.py").write_text(
        "from configs import gsm8k\n\ndef get_config():\n    raise ValueError(gsm8k.WORD)\n"
    )
    (tmp_path / "configs" / "gsm8k.py").write_text("WORD = 'from the local file'\n")
    done = anywhere("--config=configs/gsm8k_qwen3_06b.py")
    assert (done.returncode, done.stderr) == (
        2,
        "score_jax: configs/gsm8k_qwen3_06b.py, line 4: ValueError: from the local file\n",
    )


def test_the_installed_package_writes_its_page(installed, tmp_path):
    folder = fake_runs.write(tmp_path / "run")
    command = [sys.executable, "-m", "score_jax.report.run_page", str(folder)]
    run(command, tmp_path, PYTHONPATH=str(installed))
    assert "</html>" in (folder / "report" / "index.html").read_text(encoding="utf-8")
