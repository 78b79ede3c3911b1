"""Tokenizers run by the `tokenizers` package: any tokenizer.json, and byte-level BPE inside a GGUF.

A GGUF holds the vocabulary and merges, but only the name of its pre-tokenizer ("smollm"), which
splits text before merging; gguf_splits.py has those.
"""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import decoders, models

from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_splits, sidecar, token_bytes
from score_jax.text.tokenizers.base import MARKERS, Strips, Tokenizer, complete, is_mark

_CONTROL, _USER_DEFINED = 3, 4  # tokenizer.ggml.token_type


def from_json(path: pathlib.Path) -> Tokenizer:
    """Loads a tokenizer.json and the files beside it."""
    text = path.read_text(encoding="utf-8-sig")  # the package takes no byte order mark
    backend = _parsed(path, lambda: tokenizers.Tokenizer.from_str(text))
    beside = sidecar.read(path.parent)
    first = backend.encode("a", add_special_tokens=False)
    continued = None
    if first.tokens and first.tokens[0][:1] in ("▁", "Ġ"):
        continued = tokenizers.Tokenizer.from_str(json.dumps(_without_prefix(json.loads(text))))
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
        named=beside.named,
        restarts=continued is None or _restarts(backend, first.ids),
        path=path,
    )


def _restarts(backend: tokenizers.Tokenizer, first: list[int]) -> bool:
    """Whether "a" behind a special token is encoded as at the start: Llama 2's way."""
    special = [t.content for t in backend.get_added_tokens_decoder().values() if t.special]
    return (
        not special or backend.encode(f"{special[0]}a", add_special_tokens=False).ids[1:] == first
    )


def from_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> Tokenizer:
    """Byte-level BPE with the vocabulary and merges in a GGUF's metadata."""
    backend = backend_of_gguf(metadata, path)
    return _complete(
        backend,
        backend,
        ends=[metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot")],
        pad=metadata.get("tokenizer.ggml.padding_token_id"),
        bos=gguf_splits.begins(metadata),
        chat_template=metadata.get("tokenizer.chat_template", ""),
        named=gguf_splits.named(metadata),
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
    name = stated.get("pre", "gpt-2")
    if name not in gguf_splits.SPLITS:
        raise InputError(
            f"{path} has the unknown pre-tokenizer {name!r} (tokenizer.ggml.pre). Known: "
            f"{', '.join(sorted(gguf_splits.SPLITS))}. Use a folder with tokenizer.json instead."
        )
    split = gguf_splits.SPLITS[name]
    tokens = stated["tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in stated["merges"]]
    backend = _parsed(
        path,
        lambda: tokenizers.Tokenizer(
            models.BPE(
                vocab={token: i for i, token in enumerate(tokens)},
                merges=merges,
                ignore_merges=split.whole_words,
            )
        ),
    )
    backend.pre_tokenizer = split.steps()
    backend.decoder = decoders.ByteLevel()
    if split.normalizer:
        backend.normalizer = split.normalizer()
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
        side.add_special_tokens(_marks(side))
        side.encode_special_tokens = True  # special tokens in a text are encoded as characters
    added = backend.get_added_tokens_decoder().items()
    special = {token.content: i for i, token in added if token.special}
    hidden = frozenset(special.values())
    return complete(
        encode=functools.partial(_encode, backend, continued, hidden),
        encode_continued=functools.partial(_encode, continued, continued, hidden),
        decode=functools.partial(backend.decode, skip_special_tokens=True),
        vocab_size=max(backend.get_vocab(with_added_tokens=True).values()) + 1,
        special=special,
        strips={
            i: Strips(t.lstrip, t.rstrip) for i, t in added if t.special and (t.lstrip or t.rstrip)
        },
        token_bytes=functools.partial(token_bytes.of_backend, backend),
        **stated,
    )


def _marks(backend: tokenizers.Tokenizer) -> list[tokenizers.AddedToken]:
    """The tokens that frame turns and that the file does not list as special."""
    added = {t.content: t for t in backend.get_added_tokens_decoder().values()}
    found = [
        tokenizers.AddedToken(text, lstrip=t.lstrip, rstrip=t.rstrip, normalized=t.normalized)
        for text, t in added.items()
        if is_mark(text) and not t.special
    ]
    whole = [x for x in MARKERS if x not in added and backend.token_to_id(x) is not None]
    return found + [tokenizers.AddedToken(text, normalized=False) for text in whole]


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
    except BaseException as error:
        # The package raises plain Exception for any error in a file, and panics at some, which
        # Python sees as a BaseException of no known class.
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise InputError(
            f"{path} is not a usable tokenizer file ({error}). It may be incomplete or from a "
            "newer version: download it again, or update the `tokenizers` package."
        ) from error
