"""Tokenizers run by the `tokenizers` package: any tokenizer.json, and byte-level BPE inside a GGUF.

A GGUF holds the vocabulary and merges, but only the name of its pre-tokenizer ("smollm"), which
splits text before merging. `_SPLITS` has the pre-tokenizers of some names, with all their steps.
llama.cpp knows about sixty names; the others are not handled.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from score_jax.problem import InputError
from score_jax.text.tokenizers import sidecar, token_bytes
from score_jax.text.tokenizers.base import MARKERS, Tokenizer, complete

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type


def _by_pattern(pattern: str) -> pre_tokenizers.PreTokenizer:
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, _bytes(use_regex=False)])


def _bytes(use_regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


# tokenizer.ggml.pre -> how text is split. use_regex=True is GPT-2's own pattern.
_SPLITS = {
    "gpt-2": lambda: _bytes(use_regex=True),
    # Digits are split first, so blanks before a number are separate: "\n\n7" is "\n\n", "7".
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), _bytes(use_regex=True)]
    ),
    "llama-bpe": lambda: _by_pattern(_LLAMA3),
    "llama3": lambda: _by_pattern(_LLAMA3),
    "qwen2": lambda: _by_pattern(_QWEN2),
}


def from_json(path: pathlib.Path) -> Tokenizer:
    """Loads a tokenizer.json and the files beside it."""
    backend = _parsed(path, lambda: tokenizers.Tokenizer.from_file(str(path)))
    beside = sidecar.read(path.parent)
    first = backend.encode("a", add_special_tokens=False)
    continued = None
    if first.tokens and first.tokens[0][:1] in ("▁", "Ġ"):
        spec = _parsed(path, lambda: json.loads(path.read_text(encoding="utf-8")))
        continued = tokenizers.Tokenizer.from_str(json.dumps(_without_prefix(spec)))
    # The settings say whether rows begin with bos; else the file's own post-processing does.
    bos = backend.token_to_id(beside.bos or "")
    if beside.add_bos is None:
        with_special = backend.encode("a").ids
        bos = with_special[0] if with_special[:1] != first.ids[:1] else None
    elif not beside.add_bos:
        bos = None
    return _complete(
        backend,
        continued or backend,
        ends=[backend.token_to_id(beside.eos or ""), *beside.end_ids],
        pad=backend.token_to_id(beside.pad or ""),
        bos=bos,
        chat_template=beside.chat_template,
        path=path,
    )


def from_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> Tokenizer:
    """Byte-level BPE with the vocabulary and merges in a GGUF's metadata."""
    backend = backend_of_gguf(metadata, path)
    return _complete(
        backend,
        backend,
        ends=[metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")],
        pad=metadata.get("tokenizer.ggml.padding_token_id"),
        bos=metadata.get("tokenizer.ggml.bos_token_id")
        if metadata.get("tokenizer.ggml.add_bos_token")
        else None,
        chat_template=metadata.get("tokenizer.chat_template", ""),
        path=path,
    )


def backend_of_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> tokenizers.Tokenizer:
    """A tokenizer of the package that encodes as the model's published tokenizer.json does."""
    stated = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    missing = [key for key in ("tokens", "merges") if not stated.get(key)]
    if missing:
        raise InputError(
            f"{path} says it has a byte-level BPE vocabulary but lacks "
            f"{' and '.join('tokenizer.ggml.' + key for key in missing)}. Convert the model again."
        )
    split = stated.get("pre", "gpt-2")
    if split not in _SPLITS:
        raise InputError(
            f"{path} has the unknown pre-tokenizer {split!r} (tokenizer.ggml.pre). Known: "
            f"{', '.join(sorted(_SPLITS))}. Use a folder with tokenizer.json instead."
        )
    tokens = stated["tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in stated["merges"]]
    backend = _parsed(
        path,
        lambda: tokenizers.Tokenizer(
            models.BPE(
                vocab={token: i for i, token in enumerate(tokens)},
                merges=merges,
                # Words that the vocabulary has whole become one token, whatever the merges.
                ignore_merges=split in ("llama-bpe", "llama3"),
            )
        ),
    )
    backend.pre_tokenizer = _SPLITS[split]()
    backend.decoder = decoders.ByteLevel()
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    kinds = dict(zip(tokens, stated.get("token_type", ()), strict=False))
    backend.add_special_tokens([token for token, kind in kinds.items() if kind == _CONTROL])
    backend.add_tokens(
        [
            tokenizers.AddedToken(token, normalized=False)
            for token, kind in kinds.items()
            if kind == _USER_DEFINED
        ]
    )
    return backend


def _complete(
    backend: tokenizers.Tokenizer, continued: tokenizers.Tokenizer, **stated: Any
) -> Tokenizer:
    for side in (backend, continued):
        side.no_truncation()
        side.no_padding()
        side.add_special_tokens([text for text in MARKERS if side.token_to_id(text) is not None])
        side.encode_special_tokens = True  # special tokens in a text are encoded as characters
    special = {
        token.content: i for i, token in backend.get_added_tokens_decoder().items() if token.special
    }
    hidden = frozenset(special.values())
    return complete(
        encode=functools.partial(_encode, backend, continued, hidden),
        encode_continued=functools.partial(_encode, continued, continued, hidden),
        decode=functools.partial(backend.decode, skip_special_tokens=True),
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        special=special,
        token_bytes=functools.partial(token_bytes.of_backend, backend),
        **stated,
    )


def _encode(
    backend: tokenizers.Tokenizer,
    continued: tokenizers.Tokenizer,
    hidden: frozenset[int],
    text: str,
) -> list[int]:
    ids = backend.encode(text, add_special_tokens=False).ids
    if hidden.isdisjoint(ids):
        return ids
    # The merges produced a special token (possible in some converted Llama 2 files): undo them.
    spelled: list[int] = []
    for i in ids:
        if i not in hidden:
            spelled.append(i)
            continue
        for letter in backend.id_to_token(i) or "":
            spelled += continued.encode(letter, add_special_tokens=False).ids
    return [i for i in spelled if i not in hidden]


def _without_prefix(spec: Any) -> Any:
    """The settings of a tokenizer.json, without the steps that put a space before a text."""
    if isinstance(spec, list):
        kept = [_without_prefix(step) for step in spec]
        return [step for step in kept if step is not None]
    if not isinstance(spec, dict):
        return spec
    if spec.get("type") == "Prepend":
        return None
    steps = ("normalizer", "pre_tokenizer", "normalizers", "pretokenizers")
    changed = {
        key: _without_prefix(value) if key in steps else value for key, value in spec.items()
    }
    if "prepend_scheme" in spec:
        changed["prepend_scheme"] = "never"
    if "add_prefix_space" in spec:
        changed["add_prefix_space"] = False
    return changed


def _parsed(path: pathlib.Path, build: Any) -> Any:
    try:
        return build()
    except Exception as error:  # the package raises plain Exception for any error in a file
        raise InputError(
            f"{path} is not a usable tokenizer file ({error}). It may be incomplete or from a "
            "newer version: download it again, or update the `tokenizers` package."
        ) from error
