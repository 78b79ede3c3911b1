"""What a tokenizer is here, and how one is made from what its files say.

A tokenizer turns *ordinary text* into ids. It never makes a special token: "<|im_end|>" in a
problem is encoded as ten ordinary characters, so no problem can end its own turn. Special tokens
enter a row only through `token_id`, which templates.py uses. templates.py also adds bos.

Two files wrap two libraries: bytelevel.py the `tokenizers` package, pieces.py SentencePiece. Both
pass their functions to `complete`.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping

from score_jax.problem import InputError

# Tokens that frame turns. They are special in every vocabulary that has them, even if its file
# lists them as ordinary added tokens (as Gemma's SentencePiece model does).
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
# Tokens that end a model's turn: after them the model would continue with a turn of the user.
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
    bos_id: int | None  # begins every row; None if the model takes no such token
    special: Mapping[str, int]  # special tokens by their text; `decode` leaves them out
    read_bytes: Callable[[], list[bytes]]  # see `token_bytes`
    chat_template: str = ""  # the model's own, as it was shipped (Jinja); never run

    def encode(self, text: str, *, continued: bool = False) -> list[int]:
        """Ids of ordinary text, nothing added.

        continued: the text follows tokens that the row already has. Vocabularies like that of
        Llama 2 put a space before the first word of a text; a continued text gets none."""
        return self.encode_continued(text) if continued else self.encode_start(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, without special tokens and ids outside the vocabulary."""
        return self.decode_ids([int(i) for i in ids if 0 <= i < self.vocab_size])

    def token_bytes(self) -> list[bytes]:
        """The bytes of every id's text, b"" for special tokens; joined, those of a decoded text.

        Raises: InputError for a tokenizer whose tokens have no bytes of their own."""
        return self.read_bytes()

    def token_id(self, text: str) -> int | None:
        """The id of a special token, None if the vocabulary has no such special token."""
        return self.special.get(text)


def complete(
    *,
    encode: Callable[[str], list[int]],
    encode_continued: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
    vocab_size: int,
    special: Mapping[str, int],
    token_bytes: Callable[[], list[bytes]],
    ends: Iterable[int | None],
    pad: int | None,
    bos: int | None,
    chat_template: str,
    path: pathlib.Path,
) -> Tokenizer:
    """Makes a Tokenizer from what a file says, and adds the known end tokens.

    ends: end ids that the file states, the model's own choice first; None entries are ignored.
    pad: None if the file has none; then the first end id pads. (Rows have lengths, so the choice
        has no effect.)
    Raises: InputError if there is no end token."""
    stated = [end for end in ends if end is not None and 0 <= end < vocab_size]
    known = [special[text] for text in ENDS if text in special]
    end_ids = tuple(dict.fromkeys(stated + known))
    if not end_ids:
        raise InputError(
            f"{path} has no token that ends an answer, so every attempt would be truncated. Add "
            "eos_token to tokenizer_config.json beside it (or eos_token_id to the GGUF)."
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
        read_bytes=token_bytes,
        chat_template=chat_template,
    )
