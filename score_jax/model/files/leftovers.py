"""Tensors that stand beside a language model's own and that it does not need: named and left out.

Only kinds that are known to change nothing about the next token's distribution. Every other tensor
that the model does not have is refused by weights.py.
"""

import functools
import re
from pathlib import Path

from absl import logging

from score_jax.model.files.stored import StoredTensor, listed

# What a message calls them -> their names; a layer is not a head, whatever it is called.
_KINDS = {
    "rotary tables, which are computed": re.compile(
        r"(.+\.)?(rotary_emb|rotary_pos_emb)\.(original_)?(inv_freq|cos_cached|sin_cached)"
        r"|blk\.\d+\.attn_rot_embd(\.weight)?"
    ),
    "attention masks, which are computed": re.compile(r"(.+\.)?(masked_bias|causal_mask)"),
    "heads of a reward or value model": re.compile(
        r"(?!.*layers\.)(.+\.)?(v_head|value_head|reward_head|score|classifier)\..+"
    ),
    "heads that predict several tokens": re.compile(
        r"(.+\.)?(mtp|mtp_layers|mtp_heads?|medusa_heads?)\..+"
    ),
    "parts that see or hear": re.compile(
        r"(.+\.)?(vision_tower|vision_model|visual|multi_modal_projector|mm_projector|audio_tower"
        r"|embed_vision|embed_audio)\..+"
    ),
}
# What marks a layer that predicts the token after the next, as in DeepSeek-V3, GLM 4.5 and others:
# it stands among the layers, behind the last one.
_NEXT_LAYER = re.compile(
    r"((.+\.)?layers\.(\d+)\.)(eh_proj|enorm|hnorm|shared_head|embed_tokens)\..+"
)


def without(tensors: dict[str, StoredTensor], layers: int, path: Path) -> dict[str, StoredTensor]:
    """The tensors that the model may need; the others are named in one line of the log.

    layers: of the model; only a layer behind them can be one that predicts further tokens.
    """
    kinds = dict(_KINDS)
    marked = {
        m[1] for name in tensors if (m := _NEXT_LAYER.fullmatch(name)) and int(m[3]) >= layers
    }
    if marked:
        began = "|".join(map(re.escape, sorted(marked)))
        kinds["layers that predict a further token"] = re.compile(f"({began}).+")
    found: dict[str, list[str]] = {}
    for name in tensors:
        kind = next((kind for kind, known in kinds.items() if known.fullmatch(name)), None)
        if kind:
            found.setdefault(kind, []).append(name)
    if found:
        named = "; ".join(f"{kind} ({listed(names)})" for kind, names in found.items())
        say(f"{path}: left out, as the language model does not use them: {named}.")
    left_out = {name for names in found.values() for name in names}
    return {name: tensor for name, tensor in tensors.items() if name not in left_out}


@functools.cache  # a run opens its files more than once
def say(text: str) -> None:
    """Logs a line, once."""
    logging.warning("%s", text)
