"""`load`: the tokenizer that a source names, and the quickstart's own, one id per character.

tokenizers/base.py says what a tokenizer is.
"""

from score_jax.buckets import sources
from score_jax.problem import InputError, expanded
from score_jax.text.tokenizers.base import Tokenizer

CHARACTERS = "0123456789=.?:+ "  # the quickstart's vocabulary; an id is a position in it
_ID_OF = {character: i for i, character in enumerate(CHARACTERS)}


def load(source: str) -> Tokenizer:
    """Loads the tokenizer that `source` names.

    source: "characters"; a folder with tokenizer.json or tokenizer.model (as published on the hub);
        a SentencePiece `.model` file; or a GGUF file, any of its parts or a folder with it.
    Raises: InputError if nothing is there, or it is incomplete or of an unknown kind."""
    # Imported here: the quickstart needs none of these libraries.
    from score_jax.text.tokenizers import bytelevel, gguf_files, gguf_metadata, pieces

    if source == "characters":
        return characters()
    path = expanded(sources.model(source, weights=False))
    if path.is_dir() and (path / "tokenizer.json").exists():
        return bytelevel.from_json(path / "tokenizer.json")
    if path.is_dir() and (path / "tokenizer.model").exists():
        return pieces.from_model(path / "tokenizer.model")
    gguf = gguf_files.find(path)
    if path.is_dir() and not gguf:
        present = sorted(entry.name for entry in path.iterdir())
        raise InputError(
            f"No tokenizer in {path}: it has neither tokenizer.json nor tokenizer.model, only "
            f"{', '.join(present[:12]) or 'nothing'}. Copy the model's tokenizer files there."
        )
    if path.suffix == ".model" and path.exists():
        return pieces.from_model(path)
    if not gguf:
        raise InputError(
            f"No tokenizer at {source!r}. Name a folder with tokenizer.json or tokenizer.model, a "
            ".model file, a .gguf file, or the preset 'characters'."
        )
    path = gguf
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
    """The quickstart's tokenizer: one id per character; '.' ends an attempt, a blank pads."""
    return Tokenizer(
        encode_start=_character_ids,
        encode_continued=_character_ids,
        decode_ids=_character_text,
        vocab_size=len(CHARACTERS),
        pad_id=CHARACTERS.index(" "),
        end_ids=(CHARACTERS.index("."),),
        bos_id=None,
        special={},
        read_bytes=_character_bytes,
    )


def _character_ids(text: str) -> list[int]:
    try:
        return [_ID_OF[character] for character in text]
    except KeyError as error:
        raise InputError(
            f"The character tokenizer has no {error.args[0]!r}, which is in {text[:60]!r}. It only "
            f"knows the {len(CHARACTERS)} characters {CHARACTERS!r} of the arithmetic task. For "
            "other text set config.model.source to a model with its own tokenizer."
        ) from None


def _character_text(ids: list[int]) -> str:
    return "".join(CHARACTERS[i] for i in ids)


def _character_bytes() -> list[bytes]:
    return [character.encode() for character in CHARACTERS]
