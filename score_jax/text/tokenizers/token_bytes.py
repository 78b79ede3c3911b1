"""The bytes of every token's text, for what is matched across the borders of tokens.

A token need not be whole characters, so its text alone does not say its bytes: byte-level BPE
writes bytes as letters ("Ġ" is a blank), SentencePiece a blank as "▁" and a lone byte as "<0x0A>".
"""

import functools
import json
from typing import Any

import sentencepiece
import tokenizers

from score_jax.problem import InputError

_BLANK = "▁"


def of_backend(backend: tokenizers.Tokenizer) -> list[bytes]:
    """Of a tokenizer of the `tokenizers` package, as its decoder reads tokens.

    Raises: InputError for a decoder that does not work token by token (such as WordPiece's)."""
    kinds = _kinds(json.loads(backend.to_str())["decoder"])
    if "ByteLevel" in kinds:
        read = _of_letters
    elif kinds & {"ByteFallback", "Metaspace", "Replace"}:
        read = functools.partial(_of_piece, byte_fallback="ByteFallback" in kinds)
    else:
        raise InputError(
            f"the tokenizer's decoder is of the kind {', '.join(sorted(kinds)) or 'none'}, and "
            "stop sequences need one that turns each token into bytes (ByteLevel, ByteFallback or "
            "Metaspace). Set config.problems.stop_before and stop_after to (), and "
            "config.problems.prompt_stops to False."
        )
    special = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
    vocabulary = backend.get_vocab(with_added_tokens=True)
    found = [b""] * (max(vocabulary.values()) + 1)
    for text, i in vocabulary.items():
        if i not in special:
            found[i] = read(text)
    return found


def of_pieces(processor: sentencepiece.SentencePieceProcessor) -> list[bytes]:
    """Of a SentencePiece model; b"" also for its unknown token."""
    found = []
    for i in range(processor.get_piece_size()):
        hidden = processor.is_control(i) or processor.is_unknown(i)
        piece = "" if hidden else processor.id_to_piece(i)
        found.append(_of_piece(piece, byte_fallback=processor.is_byte(i)))
    return found


def _kinds(decoder: Any) -> set[str]:
    """The types of a decoder and of the decoders it is made of."""
    if not decoder:
        return set()
    return {decoder["type"]}.union(*map(_kinds, decoder.get("decoders", ())))


def _of_piece(piece: str, *, byte_fallback: bool) -> bytes:
    if byte_fallback and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_BLANK, " ").encode()


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones are themselves, the others follow from U+0100 on.

    Source: Radford et al. 2019, `bytes_to_unicode` of the published encoder."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(b): b for b in shown} | {chr(0x100 + i): b for i, b in enumerate(others)}


def _of_letters(text: str) -> bytes:
    letters = _byte_of_letter()
    if all(letter in letters for letter in text):
        return bytes(letters[letter] for letter in text)
    return text.encode()  # an added token is written as it reads
