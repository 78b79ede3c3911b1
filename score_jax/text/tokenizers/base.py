"""What a tokenizer is here, and how one is made from what its files say.

A tokenizer turns *ordinary text* into ids. It never makes a special token: "<|im_end|>" in a
problem is encoded as ten ordinary characters, so no problem can end its own turn. Special tokens
enter a row only by `encode_row`, from the text of a chat template, and as bos (templates.py).

Two files wrap two libraries: bytelevel.py the `tokenizers` package, pieces.py SentencePiece. Both
pass their functions to `complete`.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from score_jax.problem import InputError

# Tokens that frame turns. They are special in every vocabulary that has them, even if its file
# lists them as ordinary tokens (as Gemma's SentencePiece model does); else a problem could begin a
# turn. So are added tokens of such a form: <｜User｜>, [|user|], [INST].
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
_MARK = re.compile(r"<[|｜].+[|｜]>|\[\|.+\|\]|\[/?[A-Z_]+\]", re.DOTALL)
# Tokens that end a model's turn: after them the model would continue with a turn of the user.
ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>")


def is_mark(text: str) -> bool:
    """Whether an added token of this text frames turns, and so is special."""
    return text in MARKERS or bool(_MARK.fullmatch(text))


class Strips(NamedTuple):
    """Whether a special token swallows the blanks before it and those after it."""

    left: bool
    right: bool


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
    chat_template: str = ""  # the model's own, as it was shipped (Jinja)
    named: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # "bos_token", "eos_token", … -> text, as chat templates take them
    strips: Mapping[int, Strips] = dataclasses.field(default_factory=dict)  # of special tokens
    restarts: bool = True  # whether text behind a special token is encoded as if it began a row

    def encode(self, text: str, *, continued: bool = False) -> list[int]:
        """Ids of ordinary text, nothing added.

        continued: the text follows tokens that the row already has. Vocabularies like that of
        Llama 2 put a space before the first word of a text; a continued text gets none."""
        return self.encode_continued(text) if continued else self.encode_start(text)

    def encode_row(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of texts that follow each other: a chat template's own, and those put into it.

        parts: (text, own); special tokens are found in own text only. Between two special tokens
            the texts are encoded as one, as tokens may span their borders."""
        ids: list[int] = []
        text = ""

        def encode_text(stripped: str) -> None:
            if stripped:
                ids.extend(self.encode(stripped, continued=bool(ids) and not self.restarts))

        after = Strips(False, False)
        for part, own in parts:
            for piece in self.split(part) if own else (part,):
                if isinstance(piece, str):
                    text += piece
                    continue
                around = self.strips.get(piece, Strips(False, False))
                text = text.lstrip() if after.right else text
                encode_text(text.rstrip() if around.left else text)
                ids.append(piece)
                text, after = "", around
        encode_text(text.lstrip() if after.right else text)
        return ids

    def split(self, text: str) -> list[str | int]:
        """Text cut at its special tokens, which become ids. The longest wins, as in libraries."""
        return [self.special.get(piece, piece) for piece in self._mark.split(text) if piece]

    @functools.cached_property
    def _mark(self) -> re.Pattern[str]:
        texts = sorted(filter(None, self.special), key=len, reverse=True)
        return re.compile("({})".format("|".join(map(re.escape, texts))) if texts else "((?!))")

    def show(self, ids: Iterable[int]) -> str:
        """Text of ids as the model gets them, special tokens included."""
        texts = {i: text for text, i in self.special.items()}
        shown: list[str] = []
        run: list[int] = []
        for i in [*ids, None]:
            if i is not None and i not in texts:
                run.append(int(i))
                continue
            shown += [self._run(run, first=not shown), texts.get(i, "") if i is not None else ""]
            run = []
        return "".join(shown)

    def _run(self, ids: list[int], *, first: bool) -> str:
        if first or self.restarts or not ids:
            return self.decode(ids)
        # Some decoders drop a blank that begins a text; this one continues a row.
        lead = self.encode("a", continued=True)
        return self.decode([*lead, *ids])[len(self.decode(lead)) :]

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
    named: Mapping[str, str | None],
    path: pathlib.Path,
    strips: Mapping[int, Strips] | None = None,
    restarts: bool = True,
) -> Tokenizer:
    """Makes a Tokenizer from what a file says, and adds the known end tokens.

    ends: end ids that the file states, the model's own choice first; None entries are ignored.
    pad: None if the file has none; then the first end id pads. (Rows have lengths, so the choice
        has no effect.)
    named, strips, restarts: as in Tokenizer.
    Raises: InputError if there is no end token, or bos is not in the vocabulary."""
    stated = [end for end in ends if end is not None and 0 <= end < vocab_size]
    known = [special[text] for text in ENDS if text in special]
    end_ids = tuple(dict.fromkeys(stated + known))
    if not end_ids:
        raise InputError(
            f"{path} has no token that ends an answer, so every attempt would be truncated. Add "
            "eos_token to tokenizer_config.json beside it (or eos_token_id to the GGUF)."
        )
    if bos is not None and not 0 <= bos < vocab_size:
        raise InputError(
            f"{path} says that every row begins with the token {bos}, but its vocabulary has the "
            f"ids 0 to {vocab_size - 1}. Fetch the tokenizer's files again."
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
        named={name: text for name, text in named.items() if text},
        strips=strips or {},
        restarts=restarts,
    )
