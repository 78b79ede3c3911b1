"""README and docs are true: links lead somewhere, commands run, messages are those of the code.

Every line of a ```bash block is a command, and each is in exactly one class: RUN, done here in
order and in small; ELSEWHERE, done by another test, or by nobody for the reason given; and the
rest, CHECKED, which take minutes, hardware or files of your own: the files, flags and settings that
they name must exist.
"""

import ast
import functools
import importlib.util
import inspect
import re
import shlex
import signal
import sys
from pathlib import Path
from unittest import mock

import jax
import pytest

import score_jax
from configs import quickstart
from score_jax import main
from score_jax.bench import __main__ as bench
from score_jax.bench import workloads
from score_jax.config import command_line, settings
from score_jax.modes.plan.chips import machine_of, slice_of
from score_jax.report.run_page import __main__ as run_page
from score_jax.runtime import compiles

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = ("README.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md")
PAGES = sorted([*(ROOT / name for name in ROOT_PAGES), *(ROOT / "docs").glob("*.md")])
MODULE = re.compile(r"python -m (score_jax[\w.]+) ")

QUICKSTART = "python -m score_jax.main --config=configs/quickstart.py --workdir=runs/quickstart"
# In this order: each finds what the one before left in the work directory. What they print.
RUN = {
    f"{QUICKSTART} --mode=evaluate": "stage2 at step 1",
    f'{QUICKSTART} --mode=try --question="3+8+6+5+6"': "Attempt 2",
    f"{QUICKSTART} --mode=export": "export",
    "python -m score_jax.report.run_page runs/quickstart": "report/index.html",
}
SMALL = (
    "--config.stages.base.steps=2",
    "--config.stages.base.documents_per_step=8",
    "--config.stages.stage1.steps=1",
    "--config.stages.stage2.steps=1",
    "--config.rollout.problems_per_step=8",
    "--config.rollout.samples_per_problem=2",
    "--config.rollout.turn_rows=4",
    "--config.evaluation.problems=16",
    "--config.evaluation.batch=8",
)
ELSEWHERE = {
    "bash launch/quickstart.sh": "makes an environment, then the training of RUN at full length",
    "bash launch/test.sh": "runs these tests",
    "bash .ci/run": "runs these tests, and the three lines below",
    "PYTHON=python3.12 bash .ci/run": "the same, where there is a Python 3.12",
    "SOAK_MINUTES=120 bash launch/test.sh --slow tests/soak_test.py": "by --slow, for 20 minutes",
    "ruff ": "by .ci/run",
    "mypy": "by .ci/run",
    "pytest ": "by .ci/run",
    "python docs/make_settings.py": "below: the settings page",
    "mkdocs build --strict": "docs_site_test.py",
    "python docs/make_pictures.py runs/quickstart": "docs_site_test.py, of another run",
    "vllm serve ": "needs vLLM; model_card_test.py checks the command of a card",
    "XLA_FLAGS=--xla_force_host_platform_device_count=2": "splits_test.py: two processes",
    "source .venv/bin/activate": "made by the scripts",
    f"until {QUICKSTART}": "train_test.py: a real SIGTERM, exit status 75, and the rest",
    "[ $? -eq 75 ] || break": "as the line before it",
    "done": "as the line before it",
    "bash launch/tpu_vm.sh": "launch/scripts_test.py, as a dry run",
    "bash launch/gke.sh": "launch/scripts_test.py, as a dry run",
    "sbatch --nodes=2": "launch/scripts_test.py, as a dry run",
    "bash launch/slurm.sbatch": "launch/scripts_test.py",
    "gcloud ": "needs an account",
    "kubectl ": "needs a cluster",
    "docker ": "needs docker, and somewhere to push to",
    "ssh-": "makes a key of one's own",
    "python make_problems.py": "own_task_test.py runs all commands of that page",
    "python -m score_jax.main --config=digits.py": "as the line before it",
    "pip install '.[cuda,hub]'": "package_test.py installs the wheel, without a network",
    "pip install '.[tpu]'": "as the line before it",
    "pip install '.[gcs]'": "as the line before it",
    "python -m examples.score_loop": "examples/score_loop_test.py",
}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands(page: Path) -> list[str]:
    """The lines of all bash blocks, continued ones joined, comments left out."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            command = re.sub(r"\s+#.*", "", line).strip()
            if command and not command.startswith("#"):
                found.append(command)
    return found


ALL = [(page.name, command) for page in PAGES for command in commands(page)]


# Links


def anchors(page: Path) -> set[str]:
    """What a heading is linked as: lower case, blanks to dashes, other marks left out."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page):
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_in_the_text_exist(page):
    named = re.findall(r"(?:score_jax|configs|launch|docs|tests)/[\w/.-]+\.\w+", text_of(page))
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


def test_the_file_map_has_every_file_and_room_of_the_package():
    (page,) = re.findall(
        r"## File map.*?```text\n(.*?)```", text_of(ROOT / "docs/architecture.md"), re.S
    )
    there = [path for path in (ROOT / "score_jax").glob("[a-z]*") if path.suffix in ("", ".py")]
    assert len(there) > 20
    names = [path.name if path.suffix else f"{path.name}/" for path in there]
    assert not [name for name in names if not re.search(rf"(?<![\w/]){re.escape(name)}", page)]


def test_the_readme_is_short_and_every_page_is_in_the_index():
    assert len((ROOT / "README.md").read_bytes()) <= 9_000
    index = text_of(ROOT / "docs" / "index.md")
    pages = [page.name for page in PAGES if page.name not in ("README.md", "index.md")]
    assert not [name for name in pages if f"{name})" not in index]


def test_the_transcript_of_the_readme_is_a_wrong_attempt_and_a_right_one():
    """What it shows is what the quickstart writes: last digits, and the working behind them."""
    shown = text_of(ROOT / "README.md").split("```")[1]
    question = re.search(r"\d+(?:\+\d+)+", shown)[0]
    first, second = re.findall(r"Attempt \d.*?\n.*?\[?(\d)\]?:(\d+)", shown)
    running = [str(sum(map(int, question.split("+")[:n])) % 10) for n in range(2, 6)]
    assert first[1] == second[1] == "".join(running)
    assert first[0] != running[-1] == second[0]
    assert any(f'--question="{question}"' in command for command in commands(ROOT / "README.md"))


def test_python_in_the_pages_calls_what_the_package_has():
    """Each `sj.NAME(…)` is a name of the package that takes those arguments."""
    calls = []
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", text_of(page), re.MULTILINE | re.DOTALL):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("sj."):
                    called = getattr(score_jax, ast.unparse(node.func).removeprefix("sj."))
                    names = [keyword.arg for keyword in node.keywords if keyword.arg]
                    inspect.signature(called).bind(*node.args, **dict.fromkeys(names))
                    calls.append(called)
    assert len(calls) >= 8


def test_expected_results_of_recipes_are_those_measured():
    """Each figure with an interval stands in RESULTS.md; no recipe or config is left out."""
    page, results = text_of(ROOT / "docs/recipes.md"), text_of(ROOT / "RESULTS.md")
    figures = re.findall(r"[+-]?\d+\.\d \[[^\]]+\]", page)
    assert len(figures) >= 36 and not [figure for figure in figures if figure not in results]
    described = re.findall(r"`(\w+)`", page)
    assert not [recipe for recipe in quickstart.RECIPES if recipe not in described]
    named = set(re.findall(r"^\| `(\w+\.py)`", page, re.MULTILINE))
    own = {"gsm8k.py", "laptop_smollm2_135m.py", "quickstart.py"}  # a base, and in the text
    assert named == {path.name for path in (ROOT / "configs").glob("*.py")} - own


# Commands


def kind(command: str) -> list[str]:
    """The classes that a command falls into."""
    classes = ["run"] if command in RUN else []
    classes += ["elsewhere"] if command.startswith(tuple(ELSEWHERE)) else []
    return classes or ["checked" if MODULE.match(command) else "unknown"]


CHECKED = sorted({command for _, command in ALL if kind(command) == ["checked"]})


def test_every_command_is_in_one_class_and_no_class_has_others():
    assert not [(page, c) for page, c in ALL if len(kind(c)) != 1 or kind(c) == ["unknown"]]
    written = {command for _, command in ALL}
    assert set(RUN) <= written
    assert not [start for start in ELSEWHERE if not any(c.startswith(start) for c in written)]


@pytest.mark.usefixtures("quick_compile")
def test_the_commands_of_a_first_hour_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    jax.clear_caches()  # what an earlier test compiled would not be written to compile_cache
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        for command, printed in {QUICKSTART: "The run page: runs/quickstart/", **RUN}.items():
            module, arguments = MODULE.match(f"{command} ")[1], shlex.split(command)[3:]
            if module == "score_jax.report.run_page":
                run_page.main(arguments)
            else:
                argv = ["score_jax", *arguments, *SMALL]
                with mock.patch.object(sys, "argv", argv):
                    assert main.main(argv) == 0
            assert printed in capsys.readouterr().out
    finally:
        compiles.keep_in(None)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    left = {path.name for path in (tmp_path / "runs" / "quickstart").iterdir()}
    page = text_of(ROOT / "docs/running.md")
    told = re.search(r"What a run leaves behind\n\n```text\n(.*?)```", page, re.S)
    names = {re.split(r"[/ ]", line)[0] for line in told[1].splitlines()}
    assert left == names - {"wandb", "collected", "scaling", "diagnosis", "profile"}


@pytest.mark.parametrize("command", CHECKED)
def test_other_commands_name_files_flags_and_settings_that_exist(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    module, arguments = MODULE.match(command)[1], shlex.split(command)[3:]
    if module == "score_jax.main":
        given = main._flags()
        argv = ["score_jax", *arguments]
        with mock.patch.object(sys, "argv", argv):
            assert isinstance(command_line.parse(given, argv), settings.Settings)
        assert given.mode in main.MODES
        if given.mode == "plan":
            named = slice_of(given.topology) if given.topology else None
            assert (named or machine_of(given.device, given.memory)).chips
        else:
            assert given.workdir
    elif module == "score_jax.bench":
        given = bench.parser().parse_args(arguments)
        assert given.what in bench.BENCHMARKS and given.workload in workloads.SHAPES
    else:
        assert importlib.util.find_spec(module), module


# Texts that repeat what the code says


def test_the_settings_page_is_what_the_settings_say():
    spec = importlib.util.spec_from_file_location("make", ROOT / "docs" / "make_settings.py")
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    stands = text_of(made.PAGE)
    assert stands == made.page(), "run: python docs/make_settings.py"


@functools.cache
def said_by_the_code() -> list[str]:
    """Every text in the package, with … where a value is put in."""
    texts = []
    for path in (ROOT / "score_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                texts.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_messages_that_are_explained_are_those_of_the_code():
    messages = re.findall(r"^> (.*)$", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    assert len(messages) > 25
    unknown = []
    for message in messages:
        pieces = [
            re.escape(piece.strip()) for piece in message.split("…") if len(piece.strip()) > 2
        ]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        if not any(pattern.search(text) for text in said_by_the_code()):
            unknown.append(message)
    assert not unknown
