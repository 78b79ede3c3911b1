"""A small model of random weights in a Hugging Face folder, for checks of an engine.

    write(folder)     config.json, model.safetensors, tokenizer.json and what belongs to them

Other libraries load it too. Its distributions are neither flat nor certain, attempts of a dozen
tokens end in every way, and many texts can be spelled by several sequences of tokens: what is
decoded and encoded again shows.
"""

from pathlib import Path

import jax
import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from score_jax import jsonfiles
from score_jax.model import transformer, weights
from score_jax.model.families import ModelConfig

SPECIAL = ("<pad>", "<end>", "<stop>", "<turn>")  # the last three end an attempt
_LETTERS = "abcdefgh"
_SPREAD = 1.5  # standard deviation of logits


def write(folder: str | Path) -> None:
    """Writes the model; the same files at every call.

    Raises: InputError if the folder cannot be written.
    """
    pairs = [(a, b) for a in _LETTERS for b in _LETTERS]
    tokens = [*SPECIAL, *_LETTERS, *map("".join, pairs)]
    config = ModelConfig(
        family="llama",
        vocab_size=len(tokens),
        layers=2,
        width=32,
        heads=2,
        kv_heads=1,
        head_width=16,
        mlp_width=32,
        max_positions=256,
    )
    ids = {"bos_token_id": None, "eos_token_id": [1, 2, 3], "pad_token_id": 0}
    weights.save(folder, config, _params(config), extra=ids)
    backend = tokenizers.Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, pairs))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([*SPECIAL])
    backend.save(str(Path(folder) / "tokenizer.json"))
    stated = {
        "eos_token": "<end>",
        "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    jsonfiles.write(Path(folder) / "tokenizer_config.json", stated)
    jsonfiles.write(Path(folder) / "generation_config.json", {k: v for k, v in ids.items() if v})


def _params(config: ModelConfig) -> dict:
    draw = np.random.default_rng(0)

    def leaf(path, x) -> np.ndarray:
        name, noise = path[-1].key, draw.normal(size=x.shape).astype(np.float32)
        if name.endswith("norm"):
            return 1.0 + 0.1 * noise
        return noise * {"embedding": 1.0, "head": _SPREAD * x.shape[0] ** -0.5}.get(
            name, x.shape[-2] ** -0.5
        )

    shapes = jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))
    return jax.tree_util.tree_map_with_path(leaf, shapes)
