"""What is checked once the model and its tokenizer are known."""

import dataclasses
import json

import jax
import pytest

from score_jax import experiment
from score_jax.config.settings import LoraSettings
from score_jax.experiment import Experiment
from score_jax.model.families import PRESETS
from score_jax.problem import InputError
from score_jax.run import Run
from score_jax.text import tokenizer
from tests.loop_test import tiny_settings

CHARACTERS = 16  # tokens of the quickstart's tokenizer


def open_with(monkeypatch, *, rows=CHARACTERS, text=None, **model) -> Experiment:
    """Opens the quickstart with an embedding of `rows` and another tokenizer."""
    preset = dataclasses.replace(PRESETS["quickstart"], vocab_size=rows)
    monkeypatch.setitem(PRESETS, "quickstart", preset)
    if text:
        monkeypatch.setattr(tokenizer, "load", lambda source: text)
    settings = tiny_settings()
    model = dataclasses.replace(settings.model, **model)
    return Experiment.open(dataclasses.replace(settings, model=model))


@pytest.mark.parametrize("rows", [CHARACTERS - 1, CHARACTERS + experiment.PADDING + 1])
def test_a_vocabulary_of_another_models_size_is_refused(monkeypatch, rows):
    with pytest.raises(InputError, match=rf"has 16 tokens .* {rows} rows: they do not"):
        open_with(monkeypatch, rows=rows)


def test_an_embedding_may_be_padded(monkeypatch):
    rows = CHARACTERS + experiment.PADDING
    assert open_with(monkeypatch, rows=rows).model.vocab_size == rows


def test_special_tokens_that_no_text_makes_may_lie_beyond_the_embedding(monkeypatch):
    larger = dataclasses.replace(tokenizer.characters(), vocab_size=CHARACTERS + 1)
    with pytest.raises(InputError, match="has 17 tokens"):
        open_with(monkeypatch, text=larger)
    images = dataclasses.replace(larger, special={"<image_soft_token>": CHARACTERS})
    assert open_with(monkeypatch, text=images).model.vocab_size == CHARACTERS


def test_adapters_of_no_weight_are_refused_before_anything_is_made(monkeypatch):
    lora = LoraSettings(rank=2, targets="q_proj")
    with pytest.raises(InputError, match=r"'q_proj' matches no weight .*layers/query"):
        open_with(monkeypatch, lora=lora)


def test_float32_is_multiplied_in_full_unless_the_user_said_otherwise(monkeypatch):
    def chosen(dtype: str, before: str | None) -> str | None:
        jax.config.update("jax_default_matmul_precision", before)
        experiment.set_matmul_precision(dtype)
        return jax.config.jax_default_matmul_precision

    was = jax.config.jax_default_matmul_precision
    try:
        assert chosen("float32", None) == "highest"
        assert chosen("float32", "tensorfloat32") == "tensorfloat32"
        assert chosen("bfloat16", None) is None
    finally:
        jax.config.update("jax_default_matmul_precision", was)


def test_only_where_slots_cost_time_is_a_rollout_compiled_for_fewer(monkeypatch):
    opened = open_with(monkeypatch)
    long = dataclasses.replace(opened.settings.rollout, max_attempt_tokens=64, attempts=1)
    opened = dataclasses.replace(
        opened, settings=dataclasses.replace(opened.settings, rollout=long)
    )
    for platform, shrink in (("cpu", 4), ("gpu", 0), ("tpu", 0)):
        monkeypatch.setattr(Experiment, "platform", platform)
        assert opened.episode_settings().shrink == shrink


OWN = {"prompt": "", "prompt_text": "{problem}", "instruction_text": "?+"}


def with_prompt(**changes):
    settings = tiny_settings()
    problems = dataclasses.replace(settings.problems, **(OWN | changes))
    rollout = dataclasses.replace(settings.rollout, attempts=3)
    return dataclasses.replace(settings, problems=problems, rollout=rollout)


def test_texts_of_ones_own_are_the_prompt_and_the_instruction():
    made = Experiment.open(with_prompt())
    encode = made.template.tokenizer.encode
    assert made.instructions == (tuple(encode("?+")),)
    assert made.episode_settings().instruction == tuple(encode("?+"))
    assert made.template.first_turn("1+2=") == encode("1+2=")


def test_several_instructions_are_read_and_for_now_refused(monkeypatch):
    several = with_prompt(instruction_text=("?", "+?"))
    with pytest.raises(InputError, match="has 2 texts, and the rollout puts one instruction"):
        Experiment.open(several)
    monkeypatch.setattr(experiment, "_check", lambda made: None)
    made = Experiment.open(several)
    assert made.instructions == tuple(tuple(made.template.tokenizer.encode(t)) for t in ("?", "+?"))


def test_a_prompt_that_cannot_be_is_refused_before_weights_are_looked_for(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(experiment.Experiment, "open", never)
    text = "{times}:{problem}="
    rows = [{"problem": f"{n}", "answer": "1"} for n in range(9)]
    for split in ("train", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    settings = with_prompt(name="jsonl", path=str(tmp_path), prompt_text=text)
    with pytest.raises(InputError, match=r"train\.jsonl, line 1: there is no field 'times'"):
        Run.start(settings, tmp_path / "run", None, None)
    settings = with_prompt(name="jsonl", path=str(tmp_path), prompt_text="1+2=")
    with pytest.raises(InputError, match=r"prompt_text='1\+2=' has no \{problem\}"):
        Run.start(settings, tmp_path / "run", None, None)
