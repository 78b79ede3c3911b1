"""Settings: what is refused and with which words, and the way to a config tree and back."""

import dataclasses
import functools
import importlib.util
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest

from score_jax import jsonfiles
from score_jax.config.build import resolve, to_config_dict
from score_jax.config.command_line import settings_of
from score_jax.config.settings import (
    CHOICES,
    MAXIMA,
    MINIMA,
    CollectSettings,
    DocumentSettings,
    EvaluationSettings,
    LoraSettings,
    ModelSettings,
    ProblemSettings,
    RolloutSettings,
    Settings,
    SourceSettings,
    StageSettings,
)
from score_jax.problem import InputError

# Neither samples to compare nor a reference: what a stage that learns documents must say.
ALONE: dict[str, typing.Any] = {"baseline": "none", "kl_attempt1": 0.0, "kl_attempt2": 0.0}
SETTINGS = Settings(
    model=ModelSettings("preset:quickstart"),
    problems=ProblemSettings("arithmetic", prompt="arithmetic"),
    rollout=RolloutSettings(
        problems_per_step=6, samples_per_problem=4, max_prompt_tokens=10, max_attempt_tokens=7
    ),
    recipe=("base", "stage1", "stage2"),
    stages={
        "base": StageSettings(steps=1, learning_rate=1e-3, objective="sft", **ALONE),
        "stage1": StageSettings(steps=2, learning_rate=1e-4, reward_attempt1=0.0, **ALONE),
        "stage2": StageSettings(steps=3, learning_rate=1e-4, bonus=10.0),
    },
)
CONFIGS = sorted((Path(__file__).parents[2] / "configs").rglob("*.py"))


def changed(**values: typing.Any) -> dict[str, typing.Any]:
    """The config of SETTINGS with values at dotted paths, written with __ for the dots.

    A plain tree: a ConfigDict turns some wrong types into right ones before anybody sees them.
    """
    tree = dataclasses.asdict(SETTINGS)
    for path, value in values.items():
        *groups, name = path.split("__")
        functools.reduce(dict.__getitem__, groups, tree)[name] = value
    return tree


def assert_refused(*words: str, **values: typing.Any):
    with pytest.raises(InputError) as caught:
        resolve(changed(**values))
    message = str(caught.value)
    for word in words:
        assert word in message, message


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_settings_survive_the_way_to_a_config_and_back():
    assert resolve(to_config_dict(SETTINGS)) == SETTINGS
    assert resolve(dataclasses.asdict(SETTINGS)) == SETTINGS
    # config.json of a work directory is read back into the same settings.
    assert resolve(json.loads(json.dumps(jsonfiles.plain(SETTINGS)))) == SETTINGS


def test_every_setting_stands_in_the_config_so_that_flags_can_override_it():
    tree = to_config_dict(SETTINGS)
    assert tree.evaluation.batch == EvaluationSettings().batch
    tree.stages.stage2.bonus = 3.0
    tree.seed = 7
    settings = resolve(tree)
    assert (settings.stages["stage2"].bonus, settings.seed) == (3.0, 7)
    assert settings.stages["stage1"] == SETTINGS.stages["stage1"]


def test_an_unknown_setting_is_answered_with_the_nearest_name():
    assert_refused(
        "config.rollout.temprature", "Did you mean 'temperature'?", rollout__temprature=1.0
    )
    assert_refused("config.stages.stage2.bonos", "Did you mean 'bonus'?", stages__stage2__bonos=1.0)
    assert_refused("config.evalution", "Did you mean 'evaluation'?", evalution={})
    assert_refused("config.zzz", "Known: checkpoint, compile, evaluation, logging, memory", zzz=1)


def test_a_missing_setting_is_named():
    tree = dataclasses.asdict(SETTINGS)
    del tree["rollout"]["problems_per_step"]
    with pytest.raises(InputError, match=r"config\.rollout\.problems_per_step is missing"):
        resolve(tree)


@pytest.mark.parametrize(
    "path, value, wanted",
    [
        ("seed", "7", "int, not str"),
        ("seed", 7.0, "int, not float"),
        ("seed", True, "int, not bool"),
        ("problems__curriculum_steps", True, "int, not bool"),
        ("rollout__temperature", True, "float, not bool"),
        ("rollout__temperature", "hot", "float, not str"),
        ("problems__name", 5, "str, not int"),
        ("model", "preset:quickstart", "must be a group of settings"),
        ("stages__stage1", 3, "must be a group of settings"),
        ("recipe", "stage1", "must be a tuple of names"),
        ("recipe", ("stage1", 2), "str, not int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(path, value, wanted):
    assert_refused("config." + path.replace("__", "."), wanted, **{path: value})


def test_a_whole_number_will_do_for_a_real_one():
    settings = resolve(changed(rollout__temperature=2, stages__stage2__bonus=10))
    assert settings.rollout.temperature == 2.0
    assert type(settings.rollout.temperature) is float
    assert type(settings.stages["stage2"].bonus) is float


# Choices that only go together with other settings.
COLLECTING = {"stages__stage1__objective": "sft", "stages__stage1__collect__steps": 1}
COMPANIONS = {
    "sibling": {"rollout__siblings": 2, "stages__stage2__baseline": "sibling"},
    "penalty": {"stages__stage1__overlong_tokens": 2},
    "star": COLLECTING,
    "pair": COLLECTING,
    "first": COLLECTING,
}


@pytest.mark.parametrize("cls, name", CHOICES)
def test_a_choice_outside_the_list_is_answered_with_the_list(cls, name):
    groups = {type_: name for name, type_ in typing.get_type_hints(Settings).items()}
    groups |= {StageSettings: "stages__stage1", CollectSettings: "stages__stage1__collect"}
    known = CHOICES[cls, name]
    path = f"{groups[cls]}__{name}"
    nearest = next(choice for choice in known if choice)
    assert_refused(f"Did you mean '{nearest}'?", *known, **{path: nearest + "x"})
    # Each of them is a value that settings may have.
    for choice in known:
        resolve(changed(**COMPANIONS.get(choice, {}), **{path: choice}))


@pytest.mark.parametrize("cls, name", MINIMA)
def test_a_number_below_its_minimum_is_refused(cls, name):
    groups = {type_: name for name, type_ in typing.get_type_hints(Settings).items()}
    groups |= {SourceSettings: "problems__test", LoraSettings: "model__lora"}
    groups |= {DocumentSettings: "stages__stage1__documents"}
    path = f"{groups.get(cls, 'stages__stage1')}__{name}"
    least = MINIMA[cls, name]
    kind = typing.get_type_hints(cls)[name]
    below = kind(least - 1)
    assert_refused(f"config.{path.replace('__', '.')}={below} must be at least", **{path: below})
    if kind is float:
        for no_float in (float("nan"), 10**400, 10**5000):
            assert_refused("must be a finite number", **{path: no_float})


def test_numbers_of_numpy_and_paths_are_values():
    numbers = {"seed": np.int64(3), "rollout__temperature": np.float32(0.5)}
    settings = resolve(changed(**numbers, problems__path=Path("a/b")))
    assert settings.seed == 3 and type(settings.seed) is int
    assert settings.rollout.temperature == 0.5 and settings.problems.path == "a/b"


def test_a_number_above_its_maximum_is_refused():
    assert_refused(
        "config.rollout.slots=2147483648 must be at most 2147483647", rollout__slots=2**31
    )
    assert_refused("config.watchdog.save=10000000.0 must be at most 1000000", watchdog__save=1e7)


def test_the_table_of_limits_names_settings_that_exist():
    for cls, name in [*CHOICES, *MINIMA, *MAXIMA]:
        assert name in {field.name for field in dataclasses.fields(cls)}


@pytest.mark.parametrize(
    "values, words",
    [
        ({"recipe": ()}, ["config.recipe is empty", "config.stages"]),
        ({"recipe": ("base", "stagee1")}, ["'stagee1'", "lacks", "Did you mean 'stage1'?"]),
        ({"recipe": ("stage1", "stage1")}, ["names a stage twice", "another name"]),
        ({"recipe": ("stage1", "base")}, ["'base'", "must be the first"]),
        (
            {"memory__micro_batches": 5},
            ["6 problems x 4 samples = 24 rows", "micro_batches=5", "divisor of 24"],
        ),
        ({"rollout__engine": "vllm"}, ["config.rollout.engine='vllm'", "socket:PATH"]),
        ({"rollout__top_p": 1.5}, ["config.rollout.top_p=1.5", "at most 1"]),
        ({"problems__pass_rate": (0.5,)}, ["config.problems.pass_rate=(0.5,)", "(0.1, 0.9)"]),
        ({"problems__pass_rate": (0.9, 0.1)}, ["the smallest and the largest share"]),
        (
            {"problems__pass_rate": (0.1, 0.9), "recipe": ("base",)},
            ["no stage of config.recipe=('base',) samples there"],
        ),
        (
            {"stages__base__documents__share": 0.5, "stages__base__documents__epochs": 2.0},
            ["share=0.5 and epochs=2", "fix one by the other"],
        ),
        ({"stages__base__documents__share": 1.5}, ["both are shares, of at most 1"]),
        (
            {"stages__base__documents__corrections": 0.5, "rollout__attempts": 1},
            ["documents with a second attempt", "config.rollout.attempts to 2"],
        ),
        (
            {"stages__stage1__documents__text": "{solution}"},
            ["config.stages.stage1.documents says", "objective='rl'"],
        ),
        (
            {"problems__tests": {"a.b": {"name": "gsm8k"}}},
            ["config.problems.tests has a set named 'a.b'", "Use letters, digits"],
        ),
        (
            {"problems__mixture": {"more": {"weight": 2.0}}},
            ["config.problems.mixture.more.name is empty", "remove the entry"],
        ),
        (
            {"problems__mixture": {"more": {"name": "gsm8k"}}, "problems__curriculum_steps": 5},
            ["config.problems.mixture cannot be compared", "Set curriculum_steps to 0"],
        ),
        (
            {"rollout__temperature": 0.0},
            ["config.rollout.temperature=0", "config.stages.stage1", "above 0"],
        ),
        (
            {"rollout__samples_per_problem": 1},
            ["config.stages.stage2.baseline='leave_one_out'", "samples_per_problem=1", "2 or more"],
        ),
        (
            {"stages__stage2__attempts": 1},
            ["config.stages.stage2.bonus=10.0", "only one", "attempts to 2"],
        ),
        (
            {"stages__stage2__standardize": True},
            ["config.stages.stage2.standardize", "cancels the bonus of 10", "Set standardize"],
        ),
        (
            {"model__lora__targets": "layers/("},
            [
                "config.model.lora.targets='layers/('",
                "not a valid regular expression",
                "unterminated",
            ],
        ),
        ({"rollout__attempts": 1}, ["config.stages.stage2.bonus=10.0", "only one"]),
        (
            {"stages__stage2__standardize": True},
            ["config.stages.stage2.standardize", "cancels the bonus of 10", "to False"],
        ),
        (
            {"stages__base__kl_attempt2": 0.1},
            ["config.stages.base trains on documents", "nor a reference", "kl_attempt2 to 0"],
        ),
        (
            {"stages__base__baseline": "leave_one_out"},
            ["config.stages.base trains on documents", "baseline to 'none'"],
        ),
        (
            {"stages__base__documents_per_step": 7, "memory__micro_batches": 6},
            ["config.stages.base.documents_per_step=7", "micro_batches=6 equal parts"],
        ),
        ({"stages__stage1__discount": 1.5}, ["config.stages.stage1.discount=1.5", "0 and 1"]),
        (
            {"rewards__function": "mine.reward"},
            ["config.rewards.function='mine.reward'", "'module:function' or 'file.py:function'"],
        ),
        (
            {"rewards__functions": {"style": {"function": "built"}}},
            ["config.rewards.functions.style.function='built'", "or builtin"],
        ),
        (
            {"rewards__functions": {"a/b": {"function": "builtin"}}},
            ["'a/b'", "part of a metric's"],
        ),
        (
            {"rewards__function": "m:f", "rewards__functions": {"function": {"function": "m:g"}}},
            ["term of that name too", "another name"],
        ),
        (
            {"rewards__functions": {"a": {"function": "m:f"}, "b": {"function": "m:g"}}},
            ["the terms a, b, of which none decide", "solves=True for one"],
        ),
        (
            {"stages__stage1__attempts": 3},
            ["config.stages.stage1.attempts=3", "config.rollout.attempts=2", "Raise the latter"],
        ),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_a_contradiction_says_what_why_and_what_to_set(values, words):
    assert_refused(*words, **values)


def test_what_contradicts_only_a_stage_of_samples_is_allowed_for_documents():
    tree = changed(recipe=("base",), rollout__temperature=0.0, rollout__samples_per_problem=1)
    assert resolve(tree).recipe == ("base",)


@pytest.mark.parametrize("function", ["mine:reward", "a.b:c", "mine.py:reward", "/a b/mine.py:r"])
def test_reward_functions_are_named_by_module_or_file(function):
    own = {"function": function, "weight": 0.5, "solves": True}
    terms = {"own": own, "right": {"function": "builtin"}}
    named = resolve(changed(rewards__functions=terms)).rewards.functions
    assert named["own"].function == function and named["own"].solves
    assert resolve(changed(rewards__function=function)).rewards.function == function


def test_a_stage_outside_the_recipe_is_not_checked_against_the_rest():
    assert resolve(changed(recipe=("base", "stage1"), stages__stage2__attempts=1))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_resolves_and_says_how_to_run_it(path):
    module = load(path)
    recipes = [(), *((name,) for name in getattr(module, "RECIPES", ()))]
    for recipe in recipes:
        settings = resolve(module.get_config(*recipe))
        assert settings == resolve(to_config_dict(settings))
    command = f"python -m score_jax.main --config={path.relative_to(path.parents[1]).as_posix()}"
    assert command in re.sub(r"\s+", " ", module.__doc__)


OF_PUBLISHED_WEIGHTS = [p for p in CONFIGS if p.stem.startswith(("gsm8k_", "math_", "mbpp_"))]


@pytest.mark.parametrize("path", OF_PUBLISHED_WEIGHTS, ids=lambda path: path.stem)
def test_a_config_of_a_published_model_names_source_licence_and_memory(path):
    module = load(path)
    assert re.fullmatch(r"[\w-]+/[\w.-]+", resolve(module.get_config()).model.source)
    assert re.search(r"Memory[:,] .*\bGB\b|\bGiB\s+on\s+each\s+chip", module.__doc__, re.DOTALL)
    assert re.search(r"Weights: .+(Apache|License|Terms)", module.__doc__)


def test_a_config_finds_what_it_shares_with_others_wherever_the_command_is_run(tmp_path):
    root = Path(__file__).parents[2]
    code = f"""
import sys
sys.path = [path for path in sys.path if path not in ("", {str(root)!r})]
sys.path.insert(0, {str(tmp_path)!r})
from score_jax.config import command_line
print(command_line.settings_of(["--config={root}/configs/gsm8k_qwen3_06b.py"]).model.source)
"""
    (tmp_path / "score_jax").symlink_to(root / "score_jax")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.stdout == "Qwen/Qwen3-0.6B\n", done.stderr


def test_entries_of_a_mapping_are_added_on_the_command_line():
    given = settings_of(
        [
            "--config=configs/quickstart.py",
            "--config.problems.fields.problem=question",
            "--config.problems.fields.answer=reward_model.ground_truth",
            "--config.problems.tests.more={'name': 'jsonl', 'path': 'x'}",
        ]
    )
    wanted = {"problem": "question", "answer": "reward_model.ground_truth"}
    assert given.problems.fields == wanted
    assert given.problems.tests == {"more": SourceSettings("jsonl", "x")}


def test_values_of_a_chat_template_are_of_any_plain_type():
    config = to_config_dict(SETTINGS)
    config.model.template_arguments = {"date_string": "1 May", "tools": False, "effort": 3}
    found = resolve(config).model.template_arguments
    assert found == {"date_string": "1 May", "tools": False, "effort": 3}
    config.model.template_arguments = {"tools": ["a"]}
    with pytest.raises(InputError, match=r"arguments\.tools=.*of type bool \| int \| float"):
        resolve(config)


OWN = {"problems__prompt": "", "problems__prompt_text": "Q: {problem}"}


def test_a_prompt_is_named_or_a_text_with_its_instruction_never_both():
    resolve(changed(**OWN, problems__instruction_text="Again."))
    resolve(changed(**OWN, rollout__attempts=1, stages__stage2__bonus=0.0))
    both = {"problems__prompt_text": "{problem}", "problems__instruction_text": "Again."}
    assert_refused("config.problems.prompt='arithmetic'", "add --config.problems.prompt=", **both)
    assert_refused("problems.instruction_text is a text", problems__instruction_text="Again.")
    assert_refused("the config has no prompt", problems__prompt="")
    assert_refused("nothing asks for the second attempt", **OWN)
    assert_refused("nothing asks", **OWN, problems__instruction_text=("Once.", ""))
    test = {"name": "jsonl", "prompt": "math", "prompt_text": "{problem}"}
    assert_refused("config.problems.test has both a prompt, 'math'", problems__test=test)


def test_an_instruction_is_one_text_or_one_for_each_later_attempt():
    for said in ("Again.", ("Again.",), ("Again.", "Once more.")):
        settings = resolve(changed(**OWN, problems__instruction_text=said, rollout__attempts=3))
        assert settings.problems.instructions == ((said,) if isinstance(said, str) else said)
        assert resolve(json.loads(json.dumps(jsonfiles.plain(settings)))) == settings
    assert_refused(
        "has 2 texts, and with 2 attempts the number of later ones is 1",
        **OWN,
        problems__instruction_text=("Again.", "Once more."),
    )
    assert_refused("must be a text, or a tuple of texts", **OWN, problems__instruction_text=(1,))


@pytest.mark.parametrize(
    "typed, instructions",
    [
        ("Look again. (Is it right?)", ("Look again. (Is it right?)",)),
        ("(Is it right?) Look again.", ("(Is it right?) Look again.",)),
        ("('Again.', 'Once more.')", ("Again.", "Once more.")),
    ],
)
def test_texts_of_a_prompt_are_given_on_the_command_line(typed, instructions):
    path = Path(__file__).parents[2] / "configs" / "gsm8k_smollm2_135m.py"
    settings = settings_of(
        [
            f"--config={path}",
            "--config.problems.prompt=",
            "--config.problems.prompt_text=Line one,\n{context}: {problem}",
            f"--config.problems.instruction_text={typed}",
            f"--config.rollout.attempts={len(instructions) + 1}",
        ]
    )
    assert settings.problems.prompt_text == "Line one,\n{context}: {problem}"
    assert settings.problems.instructions == instructions
