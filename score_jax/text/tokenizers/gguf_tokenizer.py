"""Writes the vocabulary inside a GGUF as tokenizer files that transformers and vLLM can read.

    write(source, folder)   -> names of the files written

The tokenizer.json must encode as the tokenizer of this package does; `write` tests it on a text and
deletes the files if it does not. What no GGUF says, such as the published class name, is missing.
"""

import json
import pathlib

from tokenizers import processors

from score_jax.text import tokenizer
from score_jax.text.prompts import PROMPTS
from score_jax.text.tokenizers import bytelevel, gguf_metadata, pieces

_PROBE = "".join(part for both in PROMPTS.values() for part in both)


def write(source: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Writes tokenizer.json, tokenizer_config.json and, if there is one, the chat template.

    Returns: the files' names; none if the written tokenizer encodes differently.
    Raises: InputError for a GGUF without a vocabulary of a known kind; OSError.
    """
    metadata = gguf_metadata.read(source)
    ours = tokenizer.load(str(source))
    of_kind = bytelevel if metadata["tokenizer.ggml.model"] == "gpt2" else pieces
    backend = of_kind.backend_of_gguf(metadata, source)

    def text(name: str) -> str | None:
        i = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return None if i is None else backend.id_to_token(i)

    named = {
        "bos_token": text("bos"),
        "eos_token": backend.id_to_token(ours.end_ids[0]),
        "unk_token": text("unknown"),
        "pad_token": backend.id_to_token(ours.pad_id),
    }
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": ours.bos_id is not None,
        "clean_up_tokenization_spaces": False,
        **{name: token for name, token in named.items() if token},
    }
    if ours.bos_id is not None:
        bos = backend.id_to_token(ours.bos_id)
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ours.bos_id)]
        )
    files = {
        "tokenizer.json": backend.to_str(),
        "tokenizer_config.json": json.dumps(described, indent=2) + "\n",
    }
    if ours.chat_template:
        files["chat_template.jinja"] = ours.chat_template
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    if tokenizer.load(str(folder)).encode(_PROBE) != ours.encode(_PROBE):
        for name in files:
            (folder / name).unlink()
        return []
    return list(files)
