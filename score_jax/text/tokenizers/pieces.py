"""SentencePiece vocabularies: a `.model` file, or the same table inside a GGUF.

A GGUF of kind "llama" holds the pieces, scores and types of a SentencePiece BPE model, with the
same type numbers. So a SentencePiece model is made from it and run by the `sentencepiece` library;
then the algorithm is the original one, ties included.

Not handled: unigram tables in a GGUF (kind "t5"), and normalisation rules in a GGUF (the usual BPE
models have none).
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import sentencepiece
import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import decoders, models, normalizers

from score_jax.problem import InputError
from score_jax.text.tokenizers import gguf_splits, sidecar, token_bytes
from score_jax.text.tokenizers.base import MARKERS, Tokenizer, complete, is_mark

# The message classes are made when the module is imported, so type checkers cannot see them.
_Model: Any = proto.ModelProto  # type: ignore[attr-defined]
_Piece: Any = _Model.SentencePiece
_BPE = 2  # TrainerSpec.ModelType
_SPACE = "▁"


def from_model(path: pathlib.Path) -> Tokenizer:
    """Loads a SentencePiece `.model` file and the files beside it."""
    model = _Model()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise InputError(
            f"{path} is not a complete SentencePiece model ({error}). Download it again. A "
            "tokenizer.model of Llama 3 is of another kind: use its tokenizer.json."
        ) from error
    beside = sidecar.read(path.parent)
    ids = {piece.piece: i for i, piece in enumerate(model.pieces)}
    # A model file does not say whether rows begin with bos; those of Llama 2 and Gemma do.
    bos = ids.get(beside.bos or model.trainer_spec.bos_piece)
    return _complete(
        model,
        ends=[ids.get(beside.eos or model.trainer_spec.eos_piece), *beside.end_ids],
        pad=ids.get(beside.pad or model.trainer_spec.pad_piece),
        bos=None if beside.add_bos is False else bos,
        chat_template=beside.chat_template,
        named={
            "bos_token": model.trainer_spec.bos_piece,
            "eos_token": model.trainer_spec.eos_piece,
            "unk_token": model.trainer_spec.unk_piece,
            **beside.named,
        },
        path=path,
    )


def from_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> Tokenizer:
    """The SentencePiece model that a GGUF's metadata describes."""
    stated = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    return _complete(
        _model_of_gguf(metadata, path),
        ends=[stated.get("eos_token_id"), stated.get("eot_token_id")],
        pad=stated.get("padding_token_id"),
        bos=gguf_splits.begins(metadata),
        chat_template=metadata.get("tokenizer.chat_template", ""),
        named=gguf_splits.named(metadata),
        path=path,
    )


def backend_of_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> tokenizers.Tokenizer:
    """The SentencePiece model of a GGUF as a tokenizer of the `tokenizers` package.

    SentencePiece merges the neighbours whose joined piece has the best score; the package merges
    those that come first in a list. So the list holds every way to split every piece, ordered by
    score. User-defined pieces (runs of blanks, turn marks) are split off before merging begins.
    """
    model = _model_of_gguf(metadata, path)
    vocabulary = {piece.piece: i for i, piece in enumerate(model.pieces)}
    joined = [piece for piece in model.pieces if piece.type == _Piece.NORMAL]
    joined.sort(key=lambda piece: -piece.score)
    merges = [
        (piece.piece[:n], piece.piece[n:])
        for piece in joined
        for n in range(1, len(piece.piece))
        if piece.piece[:n] in vocabulary and piece.piece[n:] in vocabulary
    ]
    unknown = next(piece.piece for piece in model.pieces if piece.type == _Piece.UNKNOWN)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    prefix = model.normalizer_spec.add_dummy_prefix
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if prefix else []), normalizers.Replace(" ", _SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            *(decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    for piece in model.pieces:
        special = piece.type in (_Piece.CONTROL, _Piece.UNKNOWN) or _is_mark(piece)
        if special or piece.type == _Piece.USER_DEFINED:
            # Runs of blanks are found after blanks became "▁", the others in the original text.
            token = tokenizers.AddedToken(
                piece.piece, special=special, normalized=_SPACE in piece.piece
            )
            (backend.add_special_tokens if special else backend.add_tokens)([token])
    return backend


def _model_of_gguf(metadata: Mapping[str, Any], path: pathlib.Path) -> Any:
    stated = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    tokens, scores = stated.get("tokens", ()), stated.get("scores", ())
    kinds = list(stated.get("token_type", ()))
    if not tokens or not len(tokens) == len(scores) == len(kinds):
        raise InputError(
            f"{path} has {len(tokens)} tokens, {len(scores)} scores and {len(kinds)} token types; "
            "SentencePiece needs one of each per token. Convert the model again."
        )
    if _Piece.UNKNOWN not in kinds:  # Gemma files list it as a control token
        kinds[stated.get("unknown_token_id", 0)] = _Piece.UNKNOWN
    model = _Model()
    try:
        for token, score, kind in zip(tokens, scores, kinds, strict=True):
            # Some files write runs of blanks as blanks; SentencePiece writes "▁".
            model.pieces.add(piece=token.replace(" ", _SPACE), score=score, type=kind)
    except ValueError as error:
        raise InputError(
            f"{path} has a token of an unknown type: {error}. Download the file again."
        ) from error
    model.trainer_spec.model_type = _BPE
    model.trainer_spec.byte_fallback = _Piece.BYTE in kinds
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = stated.get("add_space_prefix", True)
    model.normalizer_spec.remove_extra_whitespaces = stated.get("remove_extra_whitespaces", False)
    return model


def _is_mark(piece: Any) -> bool:
    added = piece.type == _Piece.USER_DEFINED
    return piece.piece in MARKERS or (added and is_mark(piece.piece))


def _complete(model: Any, *, path: pathlib.Path, **stated: Any) -> Tokenizer:
    for piece in model.pieces:
        # Control pieces are never found in a text; user-defined ones are (Gemma's turn marks).
        if _is_mark(piece):
            piece.type = _Piece.CONTROL
    special = {
        piece.piece: i for i, piece in enumerate(model.pieces) if piece.type == _Piece.CONTROL
    }
    start = _processor(model, path)
    continued = start
    if model.normalizer_spec.add_dummy_prefix:
        model.normalizer_spec.add_dummy_prefix = False
        continued = _processor(model, path)
    return complete(
        encode=start.encode,
        encode_continued=continued.encode,
        decode=start.decode,
        vocab_size=len(model.pieces),
        special=special,
        token_bytes=functools.partial(token_bytes.of_pieces, start),
        path=path,
        **stated,
    )


def _processor(model: Any, path: pathlib.Path) -> sentencepiece.SentencePieceProcessor:
    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter while making the former
        raise InputError(
            f"The SentencePiece vocabulary in {path} is not usable ({error}). Download it again."
        ) from error
