"""What the small files beside a tokenizer say: begin, end and padding tokens, chat template.

These files are read if they exist: tokenizer_config.json, special_tokens_map.json,
generation_config.json, config.json, chat_template.jinja and chat_template.json. If several state a
value, the first in this order wins (but chat_template.jinja before tokenizer_config.json, as in
transformers). A byte order mark, which editors on Windows write, is passed over.
"""

import dataclasses
import json
import pathlib
import re
from typing import Any

from score_jax.problem import InputError

_NAMES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """Every field may be empty: a folder need not have these files."""

    bos: str | None
    eos: str | None
    pad: str | None
    named: dict[str, str]  # all of _NAMES that are stated
    end_ids: tuple[int, ...]  # in the order of eos_token_id
    add_bos: bool | None  # whether rows begin with bos; None if not stated
    chat_template: str


def read(folder: pathlib.Path) -> Sidecar:
    """Reads the files beside a tokenizer. Raises: InputError if one of them is not JSON."""
    config = _json(folder / "tokenizer_config.json")
    names = _json(folder / "special_tokens_map.json") | {
        key: value for key, value in config.items() if value is not None
    }
    ends = _json(folder / "config.json") | _json(folder / "generation_config.json")
    end_ids = ends.get("eos_token_id")
    end_ids = end_ids if isinstance(end_ids, list) else [end_ids]
    end_ids = [end for end in end_ids if end is not None]
    if not all(type(end) is int for end in end_ids):
        raise InputError(
            f"{folder}: eos_token_id is {end_ids} in generation_config.json or config.json, but "
            "must be one or more token ids. Download the files again."
        )

    def token(name: str) -> str | None:
        stated = names.get(name)
        # Written as its text, or as an object that has it under "content".
        text = stated.get("content") if isinstance(stated, dict) else stated
        if text is not None and not _is_text(text):
            raise InputError(
                f"{folder}: {name} is {stated!r} in tokenizer_config.json or "
                "special_tokens_map.json, but must be text. Download the files again."
            )
        return text

    named = {name: text for name in _NAMES if (text := token(name)) is not None}
    return Sidecar(
        bos=named.get("bos_token"),
        eos=named.get("eos_token"),
        pad=named.get("pad_token"),
        named=named,
        end_ids=tuple(end_ids),
        add_bos=config.get("add_bos_token"),
        chat_template=_chat_template(folder, config.get("chat_template")),
    )


def _chat_template(folder: pathlib.Path, stated: Any) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        try:
            return jinja.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{jinja} cannot be read ({error}). Download it again.") from error
    if stated is None:  # processors of models that also see keep it in a file of its own
        stated = _json(folder / "chat_template.json").get("chat_template")
    if isinstance(stated, list):  # several with names; conversations use "default"
        entries = [e for e in stated if isinstance(e, dict) and _is_text(e.get("name"))]
        of = {e["name"]: e.get("template") for e in entries}
        if len(of) > 1 and "default" not in of:
            raise InputError(
                f"{folder}: tokenizer_config.json has the chat templates {', '.join(of)} and none "
                "named default. Write the one you want into chat_template.jinja beside it."
            )
        stated = of.get("default", next(iter(of.values()), None))
    if stated is not None and not _is_text(stated):
        raise InputError(
            f"{folder}: chat_template in tokenizer_config.json is not text. Download it again."
        )
    return stated or ""


def _is_text(value: Any) -> bool:
    """Whether it can be tokenised: JSON can write half of a surrogate pair."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}). Download it again.") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path} holds a {type(value).__name__}, not a JSON object. Download it again."
        )
    return value
