"""What is checked once the model and its tokenizer are known."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from score_jax import experiment
from score_jax.config.settings import LoraSettings, SourceSettings
from score_jax.experiment import Experiment
from score_jax.model.families import PRESETS, ModelConfig
from score_jax.problem import InputError, Problem
from score_jax.rl.policy import Policy
from score_jax.run import Run
from score_jax.text import tokenizer
from score_jax.text.prompts import STOPS
from score_jax.text.stops import Stops
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


def test_a_lora_reference_without_adapters_is_read_by_the_policys_program(monkeypatch):
    opened = open_with(monkeypatch)
    lora = LoraSettings(rank=3)
    model = dataclasses.replace(opened.settings.model, lora=lora)
    settings = dataclasses.replace(opened.settings, model=model)
    base = {"layers": {"query": np.ones((1, 2, 1, 2))}}
    opened = dataclasses.replace(opened, settings=settings, base=base)
    adapters = {"query": {"down": np.ones((1, 2, 3)), "up": np.ones((1, 3, 1, 2))}}
    policy, reference = opened.weights(adapters), opened.read_beside(adapters, {})
    assert jax.tree.structure(reference) == jax.tree.structure(policy)
    read = reference["layers"]["query"]
    assert read.base is base["layers"]["query"] and not np.any(read.down) and not np.any(read.up)
    own = opened.read_beside({}, adapters)["layers"]["query"]
    assert own.up is adapters["query"]["up"]


def test_settings_that_a_models_shape_refuses_do_so_before_its_weights_are_fetched(monkeypatch):
    short = dataclasses.replace(PRESETS["quickstart"], max_positions=8)
    fetched = []
    monkeypatch.setattr(experiment.weights, "described", lambda source: short)
    monkeypatch.setattr(experiment.weights, "shape", lambda source: fetched.append(source) or short)
    settings = tiny_settings()
    model = dataclasses.replace(settings.model, source="owner/name", tokenizer="characters")
    settings = dataclasses.replace(settings, model=model)
    template = experiment.template_of(settings, tokenizer.characters())
    with pytest.raises(InputError, match=r"the model's context is 8"):
        Experiment.open(settings, template)
    assert not fetched
    short = PRESETS["quickstart"]
    assert Experiment.open(settings, template).model == short
    assert fetched == ["owner/name"]


def test_only_where_slots_cost_time_is_a_rollout_compiled_for_fewer(monkeypatch):
    opened = open_with(monkeypatch)
    long = dataclasses.replace(opened.settings.rollout, max_attempt_tokens=64, attempts=1)
    opened = dataclasses.replace(
        opened, settings=dataclasses.replace(opened.settings, rollout=long)
    )
    for platform, shrink in (("cpu", 4), ("gpu", 0), ("tpu", 0)):
        monkeypatch.setattr(Experiment, "platform", platform)
        assert opened.episode_settings().shrink == shrink


def test_a_run_chooses_frequencies_that_depend_on_rows_by_its_longest(monkeypatch):
    opened = open_with(monkeypatch)
    assert opened.model.longest_row == 0
    longest = opened.columns

    def stretched(positions: int) -> Experiment:
        settings = dataclasses.asdict(opened.model) | {
            "max_positions": positions,
            "rope_scaling": (
                ("rope_type", "dynamic"),
                ("factor", 2.0),
                ("original_max_position_embeddings", positions),
            ),
        }
        return dataclasses.replace(opened, model=ModelConfig(**settings))

    assert stretched(longest - 1).model.longest_row == longest
    assert stretched(longest - 1).episode_settings().model.longest_row == longest
    with pytest.raises(InputError, match=rf"episode can be {longest} tokens .* context is 2[^0-9]"):
        stretched(1)


def test_texts_begin_with_the_fixed_beginning_of_every_attempt(monkeypatch):
    opened = open_with(monkeypatch, answer_prefix="7:")
    encode = opened.template.tokenizer.encode
    assert opened.template.tokenizer.decode(opened.template.first_turn("3+4=")) == "3+4=7:"
    assert opened.episode_settings().instruction == tuple(encode("?7:"))
    row = encode("3+4=7:" + "7." + "?7:" + "8")
    attempt = [0] * 6 + [1, 1] + [0] * 3 + [2]
    episode = types.SimpleNamespace(
        tokens=np.array([row]), attempt=np.array([attempt]), truncated=np.array([[False, True]])
    )
    assert opened.texts(episode) == [["7:7", "7:8"]]


def test_stop_sequences_are_those_of_all_prompts_in_use_and_of_the_settings():
    problems = dataclasses.replace(
        tiny_settings().problems,
        prompt="mbpp_text",
        test=SourceSettings("humaneval", prompt="humaneval_text"),
        mixture={"more": SourceSettings("mbpp", prompt="mbpp_text")},
        stop_after=("ok",),
    )
    settings = dataclasses.replace(tiny_settings(), problems=problems)
    found = experiment.stops_of(settings)
    assert set(found.before) == {*STOPS["mbpp_text"].before, *STOPS["humaneval_text"].before}
    assert found.after == ("ok",)
    off = dataclasses.replace(problems, prompt_stops=False)
    assert experiment.stops_of(dataclasses.replace(settings, problems=off)) == Stops((), ("ok",))
    assert not experiment.stops_of(tiny_settings())


def test_rollouts_of_every_kind_honour_stops_and_forbidden_tokens(monkeypatch):
    opened = open_with(monkeypatch, rows=CHARACTERS + 8)
    s = opened.settings
    plain = opened.episode_settings()
    assert (plain.stops, plain.policy.forbidden, plain.policy.vocabulary) == (None, (), CHARACTERS)
    problems = dataclasses.replace(s.problems, stop_before=("=",))
    rollout = dataclasses.replace(s.rollout, forbidden_ids=(3,))
    opened = dataclasses.replace(
        opened, settings=dataclasses.replace(s, problems=problems, rollout=rollout)
    )
    for policy in (None, experiment.GREEDY, Policy(0.3)):
        made = opened.episode_settings(policy=policy)
        assert made.stops and made.stops.span == 1
        assert (made.policy.vocabulary, made.policy.forbidden) == (CHARACTERS, (3,))
        assert made.policy.temperature == (policy or opened.policy).temperature
    assert opened.likelihood_settings(opened.policy).policy == opened.episode_settings().policy
    assert opened.learner_settings(s.stages["stage1"]).likelihood.policy == opened.policy


@pytest.mark.parametrize("ids", [(16,), (-1,), (11,)])  # 11 is the only end token
def test_forbidden_ids_must_be_tokens_and_leave_an_end(monkeypatch, ids):
    opened = open_with(monkeypatch)
    rollout = dataclasses.replace(opened.settings.rollout, forbidden_ids=ids)
    with pytest.raises(InputError, match=r"must be ids of the tokenizer, 0 to 15, and leave one"):
        dataclasses.replace(opened, settings=dataclasses.replace(opened.settings, rollout=rollout))


@pytest.mark.parametrize(
    "stops, message",
    [
        ({"stop_before": ("=<end>",)}, "'=<end>' holds '<end>', which is a special token of this"),
        ({"stop_after": ("=.",)}, "'=.' holds '.', which is a special token of this model"),
        ({"stop_after": ("x",)}, "'x' would end nothing: no attempt of .*max_attempt_tokens=7 "),
        ({"stop_before": ("12345678",)}, "'12345678' would end nothing: .* or shorten it"),
        ({"stop_before": ("1",), "stop_after": ("1",)}, "'1' is in stop_before and in stop_after"),
    ],
)
def test_stop_sequences_that_cannot_work_are_refused_when_a_run_opens(monkeypatch, stops, message):
    text = dataclasses.replace(tokenizer.characters(), special={"<end>": 5})
    opened = open_with(monkeypatch, text=text)
    problems = dataclasses.replace(opened.settings.problems, **stops)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(
            opened, settings=dataclasses.replace(opened.settings, problems=problems)
        )


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


def test_each_later_attempt_may_have_an_instruction_of_its_own():
    made = Experiment.open(with_prompt(instruction_text=("?", "+?")))
    encode = made.template.tokenizer.encode
    assert made.instructions == tuple(tuple(encode(text)) for text in ("?", "+?"))
    assert made.episode_settings().instructions == made.instructions
    one = Experiment.open(with_prompt(instruction_text="?"))
    assert one.episode_settings().instructions == ()
    assert one.episode_settings().instruction == tuple(encode("?"))


def test_an_instruction_with_fields_has_room_for_them_in_every_row():
    made = Experiment.open(with_prompt(instruction_text=("?{problem}{problem}+", "?")))
    settings = made.episode_settings()
    assert made.asks_each and settings.instruction == settings.instructions == ()
    prompt = made.settings.rollout.max_prompt_tokens
    assert made.instruction_tokens == prompt + 4  # a digit stands for a field
    assert made.columns == settings.row_tokens(prompt, prompt + 4)
    known = Experiment.open(made.settings, made.template, longest_instruction=7)
    assert known.columns == settings.row_tokens(prompt, 7)
    encode = made.template.tokenizer.encode
    asked = Problem("a", "1+2=", "3", asked="1+2=", instructions=("?1+2=", "?"))
    assert known.instructions_of(asked) == (tuple(encode("?1+2=")), tuple(encode("?")))
    assert known.sent(asked)["instruction 1"] == "?1+2="
    batch = known.evaluation_prompts([asked])
    assert batch.instructions.length.tolist() == [[5, 1]]
    long = dataclasses.replace(asked, instructions=("?" * (prompt + 5), "?"))
    with pytest.raises(InputError, match=r"problem 'a': the instruction .* Raise that by 1"):
        known.evaluation_prompts([long])
    wide = dataclasses.replace(made.settings.rollout, max_prompt_tokens=100)
    with pytest.raises(InputError, match="and the model's context is 128"):
        Experiment.open(dataclasses.replace(made.settings, rollout=wide))


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


@pytest.mark.parametrize(
    ("rows", "samples", "slots", "decoded", "shares"),
    [
        (64, 500, 0, 64, False),
        (64, 10, 0, 10, True),  # a step has 8 problems with 2 samples
        (64, 16, 0, 16, True),
        (64, 17, 0, 17, False),
        (16, 500, 0, 16, True),
        (8, 10, 0, 8, False),
        (64, 500, 5, 40, False),  # on eight devices
        (64, 0, 0, 64, False),
    ],
)
def test_an_evaluation_decodes_in_the_slots_of_a_step_where_that_is_enough(
    rows, samples, slots, decoded, shares
):
    settings = tiny_settings()
    rollout = dataclasses.replace(settings.rollout, slots=slots)
    one = Experiment.open(dataclasses.replace(settings, rollout=rollout))
    assert one.evaluation_rows(rows, samples) == decoded
    greedy = one.episode_settings(policy=experiment.GREEDY, samples=1)
    assert one.shares_rollout(greedy, rows, samples) == shares
    cooler = one.episode_settings(policy=Policy(temperature=0.7))
    more = one.episode_settings(policy=experiment.GREEDY, samples=1, attempts=3)
    assert not any(one.shares_rollout(other, rows, samples) for other in (cooler, more))
    siblings = dataclasses.replace(rollout, siblings=2)
    parted = Experiment.open(dataclasses.replace(settings, rollout=siblings))
    assert not parted.shares_rollout(greedy, rows, samples)
