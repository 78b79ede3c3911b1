"""--help says what can be typed, and typing it is no change."""

import importlib
import shlex
import sys
from pathlib import Path

import pytest

from score_jax import main
from score_jax.config import command_line
from score_jax.modes import help

ROOT = Path(__file__).resolve().parents[2]


def printed(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.chdir(ROOT)
    argv = ["score_jax", *arguments]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as ended:
        main.main(argv)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_h_is_help_and_every_mode_has_a_line(capsys, monkeypatch):
    short = printed(capsys, monkeypatch, "-h")
    assert short == printed(capsys, monkeypatch, "--help")
    assert list(help.MODES) == list(main.MODES)
    for mode, line in help.MODES.items():
        assert f"  {mode:<8}  {line}\n" in short
    assert "With --config=FILE this help also shows" in short
    assert "--config.rollout" not in short


def test_help_of_a_config_lists_settings_that_can_be_typed_as_they_are(capsys, monkeypatch):
    arguments = ["--config=configs/quickstart.py:multi_turn_rl", "--config.seed=7"]
    shown = printed(capsys, monkeypatch, *arguments, "-h")
    typed = [shlex.split(line)[0] for line in shown.splitlines() if line.startswith("  --config.")]
    assert "--config.seed=7" in typed and len(typed) > 100
    assert "--config.stages.multi_turn_rl.bonus=0.0" in typed
    settings = command_line.settings_of(arguments)
    once_more = [one for one in typed if not one.endswith("={}")]
    assert command_line.settings_of([*arguments, *once_more]) == settings
    assert "Stages of this recipe: base → multi_turn_rl" in shown


def test_help_of_a_config_names_recipes_prompts_problem_sets_and_templates(capsys, monkeypatch):
    shown = printed(capsys, monkeypatch, "--config=configs/quickstart.py", "--help")
    recipes, names = shown.split("Stages of this recipe")
    assert "star_plus       the same with right-to-right episodes too" in recipes
    for name in ("gsm8k", "hf:OWNER/NAME", "math_boxed", "chatml", "plain", "FILE.jinja"):
        assert name in names.split("Names for --config.problems.name")[1]


@pytest.mark.parametrize("name", ["quickstart", "laptop_smollm2_135m", "mbpp_qwen25_coder_05b"])
def test_a_config_describes_every_recipe_that_it_has(name):
    config = importlib.import_module(f"configs.{name}")
    lines = (config.__doc__ or "").splitlines()
    listed = {line.split()[0] for line in lines if line.startswith("    ") and line.strip()}
    assert not config.RECIPES.keys() - listed
