"""The house rules that a reader of the package may rely on, checked over its source."""

import ast
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGE = _ROOT / "score_jax"

# From the ground up: a file imports lower floors and its own room only. A room is a folder or file
# of the package. Rooms of one floor do not import each other.
_FLOORS = (
    ("problem", "jsonfiles", "rl"),
    ("buckets",),
    ("structs", "config", "console", "text", "rewards"),
    ("data", "runtime"),
    ("model",),
    ("rollout", "learner"),
    ("experiment", "checkpoints"),
    ("grading", "workdir"),
    ("evaluation", "run"),
    ("batches", "report", "bench"),
    ("loop", "modes"),
    ("main", "api"),
)
_FLOOR = {room: floor for floor, rooms in enumerate(_FLOORS) for room in rooms}

_NEVER = {"torch", "tensorflow", "transformers"}  # tensorflow_datasets is another package

# Tests about more than one file of the package.
_TESTS_OF_NO_FILE = {
    "bad_input_test.py",
    "buckets_test.py",
    "configs_test.py",
    "crashes_test.py",
    "docs_site_test.py",
    "docs_test.py",
    "eight_processes_test.py",
    "notebook_test.py",
    "own_task_test.py",
    "package_test.py",
    "recipes_test.py",
    "several_processes_test.py",
    "soak_test.py",
    "splits_test.py",
    "structure_test.py",
    "config/choices_test.py",
    "data/buckets_test.py",
    "launch/gke_test.py",
    "launch/local_processes_test.py",
    "launch/one_gpu_test.py",
    "launch/scripts_test.py",
    "launch/slurm_test.py",
    "launch/tpu_life_test.py",
    "launch/tpu_vm_test.py",
    "launch/tpu_worker_test.py",
    "learner/loss/masks_test.py",
    "learner/mesh_test.py",
    "model/files/fuzz_test.py",
    "model/real_weights_test.py",
    "modes/evaluate_killed_test.py",
    "modes/lm_eval_test.py",
    "report/compare/page_browser_test.py",
    "report/run_page/page_browser_test.py",
    "rewards/sandbox/attacks_test.py",
    "rewards/answers/dresses_test.py",
    "rewards/answers/fuzz_test.py",
    "rewards/answers/hostile_test.py",
    "rewards/answers/kinds_test.py",
    "rewards/answers/real_data_test.py",
    "rewards/programs/real_programs_test.py",
    "text/laptop_test.py",
    "text/published_templates_test.py",
    "text/roundtrip_test.py",
}


def _imports(source: str, folder: tuple[str, ...]) -> Iterator[str]:
    """Dotted names of all modules that the source imports, those inside functions included.

    `from a import b` gives a.b, as b may be a module; folder is where the source lies, for
    relative imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = folder[: len(folder) - node.level + 1] if node.level else ()
            stem = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{stem}.{name.name}" for name in node.names)


def _imports_of(path: Path) -> Iterator[str]:
    return _imports(path.read_text(encoding="utf-8"), path.relative_to(_ROOT).parent.parts)


def _broken_rule(room: str, imported: str) -> str | None:
    """Says which rule an import of `room` breaks, if any."""
    first, *rest = imported.split(".")
    if first in _NEVER:
        return "the package never imports it"
    if room == "rewards" and first in {"jax", "jaxlib", "flax", "optax", "orbax"}:
        return "rewards/ is plain Python, so that its workers start without jax"
    if first != "score_jax" or not rest or rest[0] == room:
        return None
    other = rest[0]
    if other not in _FLOOR:
        return "it is on no floor; add it to the list"
    if _FLOOR[other] > _FLOOR[room]:
        return f"floor {_FLOOR[room]} imports floor {_FLOOR[other]}"
    if _FLOOR[other] == _FLOOR[room]:
        return f"both are on floor {_FLOOR[room]}, whose rooms do not import each other"
    return None


def _files() -> list[Path]:
    return sorted(path for path in _PACKAGE.rglob("*.py") if path != _PACKAGE / "__init__.py")


def _room(path: Path) -> str:
    return path.relative_to(_PACKAGE).parts[0].removesuffix(".py")


def test_every_file_stands_on_a_floor():
    homeless = [str(path) for path in _files() if _room(path) not in _FLOOR]
    assert not homeless, "add the file or its folder to the floors above"


def test_files_import_lower_floors_and_their_own_folder_only():
    broken = [
        f"{path.relative_to(_ROOT)} imports {imported}: {rule}"
        for path in _files()
        if _room(path) in _FLOOR
        for imported in _imports_of(path)
        if (rule := _broken_rule(_room(path), imported))
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_no_file_imports_itself_by_way_of_others():
    """An import inside a function counts: it delays a circle and does not open it."""
    modules = {
        ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in _files()
    }
    imports = {
        module: {
            found if found in modules else found.rpartition(".")[0] for found in _imports_of(path)
        }
        & modules.keys()
        for module, path in modules.items()
    }
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_the_rules_catch_what_they_forbid():
    for room, imported in [
        ("runtime", "score_jax.model.cache"),
        ("rl", "score_jax.model.transformer"),
        ("data", "score_jax.rollout"),
        ("learner", "score_jax.loop"),
        ("rollout", "score_jax.learner.step"),
        ("evaluation", "score_jax.run"),
        ("rewards", "jax.numpy"),
        ("rewards", "score_jax.structs.Batch"),
        ("text", "transformers.AutoTokenizer"),
        ("model", "torch"),
        ("loop", "score_jax.nowhere"),
    ]:
        assert _broken_rule(room, imported), f"{room} may not import {imported}"
    for room, imported in [
        ("rl", "score_jax.rl.kl"),
        ("learner", "score_jax.rl.kl"),
        ("rollout", "score_jax.structs.Batch"),
        ("data", "tensorflow_datasets"),
        ("data", "score_jax.text.tokenizer"),
        ("report", "score_jax.evaluation.metrics"),
        ("rewards", "score_jax.problem.Grade"),
    ]:
        assert not _broken_rule(room, imported), f"{room} may import {imported}"


def test_imports_are_found_wherever_they_stand():
    source = (
        "import a.b as c\ndef f():\n    from d import e\n    from . import g\n    from .h import i"
    )
    assert list(_imports(source, ("score_jax", "rl"))) == [
        "a.b",
        "d.e",
        "score_jax.rl.g",
        "score_jax.rl.h.i",
    ]


def test_grading_starts_without_jax():
    paths = [path.relative_to(_ROOT) for path in (_PACKAGE / "rewards").rglob("*.py")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert len(names) > 30  # of all folders
    code = f"import sys, {', '.join(names)}; sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "importing score_jax.rewards loaded jax"


@pytest.mark.parametrize("folder", ["", "rewards", "rewards/sandbox", "rewards/sandbox/linux"])
def test_what_starts_without_site_packages_imports_nothing_on_the_way(folder):
    tree = ast.parse((_PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    name = ".".join(["score_jax", *folder.split("/")]).rstrip(".")
    code = (
        f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n"
        f"before = {{*sys.modules}}\nimport {name}\n"
        "print(*(m for m in {*sys.modules} - before if m[:9] != 'score_jax'))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr or done.stdout


def test_every_test_file_has_the_name_of_a_package_file():
    lost = []
    for path in sorted((_ROOT / "tests").rglob("*_test.py")):
        name = path.relative_to(_ROOT / "tests")
        tested = name.with_name(name.name.replace("_test.py", ".py"))
        subject = (_ROOT if tested.parts[0] == "examples" else _PACKAGE) / tested
        if str(name) not in _TESTS_OF_NO_FILE and not subject.exists():
            lost.append(f"tests/{name} mirrors no {subject.relative_to(_ROOT)}")
    assert not lost, "\n" + "\n".join(lost)


def test_importing_the_package_imports_no_torch_on_the_way():
    """Where a library imports torch if it is installed, as it is here, importing takes seconds."""
    code = """
import importlib, pkgutil, sys, score_jax
for module in pkgutil.walk_packages(score_jax.__path__, "score_jax."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        assert not NEVER & sys.modules.keys(), f"{module.name} imports {NEVER & sys.modules.keys()}"
"""
    if not importlib.util.find_spec("torch"):
        pytest.skip("torch is not installed, so this would show nothing")
    command = [sys.executable, "-c", f"NEVER = {_NEVER}\n{code}"]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
