"""What the small files beside a tokenizer say: begin, end and padding tokens, chat template.

These files are read if they exist: tokenizer_config.json, special_tokens_map.json,
generation_config.json, config.json and chat_template.jinja. If several state a value, the first in
this order wins (but chat_template.jinja before tokenizer_config.json, as in transformers).
"""

import dataclasses
import json
import pathlib
from typing import Any

from score_jax.problem import InputError


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """Every field may be empty: a folder need not have these files."""

    bos: str | None
    eos: str | None
    pad: str | None
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
    if not isinstance(end_ids, list):
        end_ids = [] if end_ids is None else [end_ids]
    if not all(type(end) is int for end in end_ids):
        raise InputError(
            f"{folder}: eos_token_id is {end_ids} in generation_config.json or config.json, but "
            "must be one or more token ids. Download the files again."
        )

    def token(name: str) -> str | None:
        stated = names.get(name)
        # Written as its text, or as an object that has it under "content".
        text = stated.get("content") if isinstance(stated, dict) else stated
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"{folder}: {name} is {stated!r} in tokenizer_config.json or "
                "special_tokens_map.json, but must be text. Download the files again."
            )
        return text

    return Sidecar(
        bos=token("bos_token"),
        eos=token("eos_token"),
        pad=token("pad_token"),
        end_ids=tuple(end_ids),
        add_bos=config.get("add_bos_token"),
        chat_template=_chat_template(folder, config.get("chat_template")),
    )


def _chat_template(folder: pathlib.Path, stated: Any) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text(encoding="utf-8")
    if isinstance(stated, list):  # several with names; conversations use "default"
        named = [entry for entry in stated if isinstance(entry, dict)]
        stated = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if stated is not None and not isinstance(stated, str):
        raise InputError(
            f"{folder}: chat_template in tokenizer_config.json is not text. Download it again."
        )
    return stated or ""


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}). Download it again.") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path} holds a {type(value).__name__}, not a JSON object. Download it again."
        )
    return value
