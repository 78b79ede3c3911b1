"""What the small files beside a tokenizer say: begin, end and padding tokens, chat template.

Read: tokenizer_config.json, special_tokens_map.json, generation_config.json, config.json and
chat_template.jinja, each if it is there; the first that answers a question wins, in that order
(chat_template.jinja before tokenizer_config.json, as transformers does).
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
    end_ids: tuple[int, ...]  # as the generation settings list them
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
    if end_ids is None:
        end_ids = []
    return Sidecar(
        bos=_text(names.get("bos_token")),
        eos=_text(names.get("eos_token")),
        pad=_text(names.get("pad_token")),
        end_ids=tuple(end_ids if isinstance(end_ids, list) else [end_ids]),
        add_bos=config.get("add_bos_token"),
        chat_template=_chat_template(folder, config.get("chat_template")),
    )


def _chat_template(folder: pathlib.Path, stated: Any) -> str:
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        return jinja.read_text(encoding="utf-8")
    if isinstance(stated, list):  # several by name; conversations use "default"
        by_name = {entry.get("name"): entry.get("template", "") for entry in stated}
        return by_name.get("default", "")
    return stated or ""


def _text(token: Any) -> str | None:
    """A token is written as its text, or as an object that has it under "content"."""
    return token.get("content") if isinstance(token, dict) else token


def _json(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}). Fetch the file again."
        ) from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path} holds a {type(value).__name__}, not a JSON object. Fetch it again."
        )
    return value
