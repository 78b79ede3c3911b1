"""How byte-level vocabularies in GGUF files split text before merging, and whether rows have a bos.

A GGUF names its pre-tokenizer ("smollm") and may leave out whether rows begin with bos. `SPLITS`
has the steps of the published tokenizer.json behind each name; llama.cpp, whose convention the
names are, decides bos by the name too (`begins`).

Not handled: the other names that llama.cpp knows, about fifty.
Source: ggml-org/llama.cpp, src/llama-vocab.cpp; the patterns are those of the models' own files.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
# Words are split where capitals begin anew. {0}: endings such as 's.
_CASED = (
    r"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{0}"
    r"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{0}"
    r"|{1}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = _CASED.format("", r"\p{N}")
_GPT4O = _CASED.format("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}")


@dataclasses.dataclass(frozen=True)
class Split:
    """One pre-tokenizer, and what goes with it."""

    steps: Callable[[], pre_tokenizers.PreTokenizer]
    # Words that the vocabulary has whole become one token, whatever the merges.
    whole_words: bool = False
    normalizer: Callable[[], normalizers.Normalizer] | None = None
    bos: bool = False  # rows begin with bos if the file does not say


def _by_pattern(pattern: str) -> Callable[[], pre_tokenizers.PreTokenizer]:
    def steps() -> pre_tokenizers.PreTokenizer:
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated")
        return pre_tokenizers.Sequence([split, _bytes(use_regex=False)])

    return steps


def _bytes(use_regex: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return _bytes(use_regex=True)  # GPT-2's own pattern


def _digits() -> pre_tokenizers.PreTokenizer:
    # Digits are split first, so blanks before a number are separate: "\n\n7" is "\n\n", "7".
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


_OF_LLAMA3 = Split(_by_pattern(_LLAMA3), whole_words=True, bos=True)
_OF_QWEN2 = Split(_by_pattern(_QWEN2), normalizer=normalizers.NFC)
SPLITS = {  # tokenizer.ggml.pre
    "gpt-2": Split(_gpt2),
    "olmo": Split(_gpt2, normalizer=normalizers.NFC),
    "smollm": Split(_digits),
    "starcoder": Split(_digits),
    "refact": Split(_digits),  # Granite 3
    "command-r": Split(_digits, normalizer=normalizers.NFC),
    "llama-bpe": _OF_LLAMA3,
    "llama3": _OF_LLAMA3,
    "llama-v3": _OF_LLAMA3,
    "smaug-bpe": Split(_by_pattern(_LLAMA3), whole_words=True),  # SmolLM3
    "dbrx": Split(_by_pattern(_LLAMA3)),  # OLMo 2, Phi-4
    "qwen2": _OF_QWEN2,
    "deepseek-r1-qwen": _OF_QWEN2,
    "tekken": Split(_by_pattern(_TEKKEN), whole_words=True, bos=True),
    "gpt-4o": Split(_by_pattern(_GPT4O)),  # Phi-4-mini
}


def begins(metadata: Mapping[str, Any]) -> int | None:
    """The token that begins every row of a GGUF's model, as llama.cpp decides it; None: none."""
    of_pieces = metadata.get("tokenizer.ggml.model") == "llama"
    split = SPLITS.get(metadata.get("tokenizer.ggml.pre", ""))
    default = of_pieces or (split is not None and split.bos)
    if not metadata.get("tokenizer.ggml.add_bos_token", default):
        return None
    return metadata.get("tokenizer.ggml.bos_token_id", 1 if of_pieces else None)


def named(metadata: Mapping[str, Any]) -> dict[str, str | None]:
    """The texts of a GGUF's named tokens, as chat templates take them."""
    tokens = metadata.get("tokenizer.ggml.tokens", ())
    ids = {
        f"{ours}_token": metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    return {name: tokens[i] if i in range(len(tokens)) else None for name, i in ids.items()}
