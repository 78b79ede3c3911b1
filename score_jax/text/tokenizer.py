"""Text to token ids and back: what a tokenizer is here, the quickstart's own, and `load`.

A tokenizer turns *ordinary text* into ids. It never makes a special token: "<|im_end|>" in a
problem is ten characters like any others, so no problem can end its own turn. Special tokens enter
a row only through `token_id`, which templates.py uses. No bos is added either; templates do that.

The libraries differ, the result does not: bytelevel.py covers whatever the `tokenizers` package
reads, pieces.py covers SentencePiece; both hand their functions to `complete`.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping

from score_jax.problem import InputError

CHARACTERS = "0123456789=.?:+ "  # the quickstart's vocabulary; an id is a position in it

# Tokens that frame turns. They are special wherever a vocabulary has them, also where the file
# lists them as ordinary added tokens (Gemma's SentencePiece model does).
MARKERS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
)
# Those that end what a model says: sampling on after them yields a conversation with itself.
ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """Ids of a text and text of ids; made by `load`. Can be pickled."""

    encode_start: Callable[[str], list[int]]
    encode_continued: Callable[[str], list[int]]
    decode_ids: Callable[[list[int]], str]
    vocab_size: int  # ids are 0 .. vocab_size - 1; a model's embedding may have more rows
    pad_id: int
    end_ids: tuple[int, ...]  # any of them ends an attempt; the first is the model's own choice
    bos_id: int | None  # what every row begins with; None if the model takes no such token
    special: Mapping[str, int]  # special tokens by their text; `decode` leaves them out
    chat_template: str = ""  # the model's own, as it was shipped (Jinja); never run

    def encode(self, text: str, *, continued: bool = False) -> list[int]:
        """Ids of ordinary text, nothing added.

        continued: the text goes on in a row that already has tokens. Vocabularies of the Llama 2
        kind put a space before the first word of a text; a continued text gets none."""
        return self.encode_continued(text) if continued else self.encode_start(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens and ids beyond the vocabulary left out."""
        return self.decode_ids([int(i) for i in ids if 0 <= i < self.vocab_size])

    def token_id(self, text: str) -> int | None:
        """The id of a special token, None if the vocabulary has no such special token."""
        return self.special.get(text)


def load(source: str) -> Tokenizer:
    """Loads the tokenizer that `source` names.

    source: "characters"; a folder with tokenizer.json or tokenizer.model (as published on the hub);
        a SentencePiece `.model` file; or a `.gguf` file.
    Raises: InputError if nothing is there, or it is incomplete or of an unknown kind."""
    # Imported here because these modules import this one; it also spares the quickstart their cost.
    from score_jax.text.tokenizers import bytelevel, gguf_metadata, pieces

    if source == "characters":
        return characters()
    path = pathlib.Path(source).expanduser()
    if path.is_dir() and (path / "tokenizer.json").exists():
        return bytelevel.from_json(path / "tokenizer.json")
    if path.is_dir() and (path / "tokenizer.model").exists():
        return pieces.from_model(path / "tokenizer.model")
    if path.is_dir():
        present = sorted(entry.name for entry in path.iterdir())
        raise InputError(
            f"No tokenizer in {path}: it has neither tokenizer.json nor tokenizer.model, only "
            f"{', '.join(present[:12]) or 'nothing'}. Copy the model's tokenizer files there."
        )
    if path.suffix == ".model" and path.exists():
        return pieces.from_model(path)
    if path.suffix != ".gguf" or not path.exists():
        raise InputError(
            f"No tokenizer at {source!r}: nothing of use there. Name a folder with tokenizer.json "
            "or tokenizer.model, a .model file, a .gguf file, or the preset 'characters'."
        )
    metadata = gguf_metadata.read(path)
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        return bytelevel.from_gguf(metadata, path)
    if kind == "llama":
        return pieces.from_gguf(metadata, path)
    raise InputError(
        f"{path} has a tokenizer of kind {kind!r} (tokenizer.ggml.model); known kinds are 'gpt2' "
        "(byte-level BPE) and 'llama' (SentencePiece). Use a folder with tokenizer.json instead."
    )


def characters() -> Tokenizer:
    """One id per character of the quickstart; '.' ends an attempt, a blank pads."""
    return Tokenizer(
        encode_start=_character_ids,
        encode_continued=_character_ids,
        decode_ids=_character_text,
        vocab_size=len(CHARACTERS),
        pad_id=CHARACTERS.index(" "),
        end_ids=(CHARACTERS.index("."),),
        bos_id=None,
        special={},
    )


def complete(
    *,
    encode: Callable[[str], list[int]],
    encode_continued: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
    vocab_size: int,
    special: Mapping[str, int],
    ends: Iterable[int | None],
    pad: int | None,
    bos: int | None,
    chat_template: str,
    path: pathlib.Path,
) -> Tokenizer:
    """Makes a Tokenizer of what a file says, adding the known end tokens.

    ends: end ids that the file states, the model's own choice first; None entries are passed over.
    pad: None if the file names none; then the first end id pads (rows carry their lengths, so the
        choice is never seen)."""
    stated = [end for end in ends if end is not None and 0 <= end < vocab_size]
    known = [special[text] for text in ENDS if text in special]
    end_ids = tuple(dict.fromkeys(stated + known))
    if not end_ids:
        raise InputError(
            f"{path} names no token that ends an answer, so every attempt would run to its limit. "
            "Add eos_token to tokenizer_config.json beside it (or eos_token_id to the GGUF)."
        )
    return Tokenizer(
        encode_start=encode,
        encode_continued=encode_continued,
        decode_ids=decode,
        vocab_size=vocab_size,
        pad_id=end_ids[0] if pad is None else pad,
        end_ids=end_ids,
        bos_id=bos,
        special=dict(special),
        chat_template=chat_template,
    )


@functools.cache
def _character_id() -> dict[str, int]:
    return {character: i for i, character in enumerate(CHARACTERS)}


def _character_ids(text: str) -> list[int]:
    ids = _character_id()
    try:
        return [ids[character] for character in text]
    except KeyError as error:
        raise InputError(
            f"The character tokenizer has no {error.args[0]!r}, which stands in {text[:60]!r}. It "
            f"knows the {len(CHARACTERS)} characters {CHARACTERS!r} of the arithmetic task; for "
            "others set config.model.source to a model with a tokenizer of its own."
        ) from None


def _character_text(ids: list[int]) -> str:
    return "".join(CHARACTERS[i] for i in ids)
