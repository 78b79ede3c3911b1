"""The log-prob of each token of an evaluation's attempts, which the run page shows as shades.

Greedy decoding computes no probabilities, so the first rows of an evaluation go through the model
once more, and through the base model for comparison: a few, so that this costs little beside the
decoding of all rows.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from score_jax.experiment import Experiment
from score_jax.learner.loss import token_logprobs
from score_jax.model import transformer
from score_jax.runtime import compiles, hosts, sharding
from score_jax.structs import Episode, Params

ROWS = 16  # at most, of an evaluation
SHARE = 1 / 64  # of its rows, at most
_CHUNK = 64  # tokens projected to the vocabulary at once, at most

Shading = dict[str, list[Any]]


def rows_of(problems: int) -> int:
    """How many rows an evaluation of so many problems shades: the first ones, at least one."""
    return min(ROWS, max(1, int(problems * SHARE)))


def of_rows(
    experiment: Experiment, params: Params, reference: Params | None, rows: Episode, columns: int
) -> list[list[Shading]]:
    """The shading of each attempt of some rows, the same on every process; columns: T, one shape.

    params, reference: as `transformer.hidden` takes them; where they are the same arrays, they are
    read once. The rows go through the model one by one (on a mesh, one on each shard), because an
    evaluation should not need more memory at its end than while it decodes.

        ends        characters of its text up to the end of each piece; a piece is a token, or
                    several tokens that together make one character
        logp        log-prob of each piece under the policy, at the temperature of training
        base_logp   the same under the reference, if there is one

    An end token is the last piece and has no text.
    """
    settings = experiment.likelihood_settings(experiment.policy)
    chunk = min(_CHUNK, token_logprobs.chunk_tokens(settings.chunk, settings.model))
    settings = dataclasses.replace(settings, chunk=chunk, remat="none")
    count, attempts = rows.truncated.shape
    wider = (
        (0, -count % sharding.batch_size(experiment.mesh)),
        (0, columns - rows.tokens.shape[1]),
    )
    tokens_BT, attempt_BT = np.pad(rows.tokens, wider), np.pad(rows.attempt, wider)
    limit = attempts * experiment.settings.rollout.max_attempt_tokens
    where = jax.device_get(_written(attempt_BT, limit=limit))
    found = {"logp": _log_probs(params, tokens_BT, where, settings)}
    if reference is not None:
        same = reference is params
        found["base_logp"] = (
            found["logp"] if same else _log_probs(reference, tokens_BT, where, settings)
        )
    attempt_BN, tokens_BN = where.attempt, np.asarray(where.take(tokens_BT))
    decode = experiment.template.tokenizer.decode
    ends = set(experiment.template.tokenizer.end_ids)

    def shading(b: int, a: int) -> Shading:
        own_N = attempt_BN[b] == a
        ids = tokens_BN[b, own_N].tolist()
        values = {name: logp_BN[b, own_N].tolist() for name, logp_BN in found.items()}
        ended = bool(ids) and ids[-1] in ends
        made = pieces(ids, values, decode, ended=ended)
        # The text begins with what every attempt begins with, which has no values.
        written = ids[: len(ids) - ended]
        lead = len(experiment.template.attempt_text(written)) - len(decode(written))
        return {**made, "ends": [end + lead for end in made["ends"]]}

    return [[shading(b, 1 + a) for a in range(attempts)] for b in range(count)]


def pieces(
    ids: Sequence[int],
    values: dict[str, list[float]],
    decode: Callable[[Sequence[int]], str],
    *,
    ended: bool,
) -> Shading:
    """The shading of one attempt; a token that ends no character is added to the piece after it.

    ended: whether the last token is an end token, which is not in the text.
    """
    written = len(ids) - ended
    text = decode(ids[:written])
    made: Shading = {"ends": [], **{name: [] for name in values}}
    end, start, read = 0, 0, 0  # characters; first token of the last piece, first of the next one
    for k in range(len(ids)):
        if k < written - 1:
            # Decoded from the piece before: some vocabularies drop a leading blank.
            before, now = decode(ids[start:read]), decode(ids[start : k + 1])
            if len(now) <= len(before) or now.endswith("\N{REPLACEMENT CHARACTER}"):
                continue  # a part of a character
            end = min(end + len(now) - len(before), len(text))
        else:
            end = len(text)
        made["ends"].append(end)
        for name, logp in values.items():
            made[name].append(round(sum(logp[read : k + 1]), 3))
        start, read = read, k + 1
    return made


def _log_probs(
    params: Params,
    tokens_BT: np.ndarray,
    where: token_logprobs.Written,
    settings: token_logprobs.LikelihoodSettings,
) -> np.ndarray:
    """The log-prob of each written token, [B, N]."""
    # Layers that are apart are called one by one, as a program of all of them would take long to
    # compile.
    hidden = token_logprobs.hidden_before if transformer.is_for_decoding(params) else _hidden
    step = sharding.batch_size(settings.mesh) if settings.mesh else 1
    found = []
    for first in range(0, len(tokens_BT), step):
        rows = operator.itemgetter(slice(first, first + step))
        some_BT, of = jax.tree.map(rows, (tokens_BT, where))
        hidden_BND = hidden(params, some_BT, of, settings=settings)
        head = transformer.head(settings.model, params)
        logp_BN = _read(head, hidden_BND, of.take(some_BT), of, settings=settings)
        found.append(hosts.whole(logp_BN))
    return np.concatenate(found)


_program = functools.partial(compiles.Compiled, options=compiles.OLDER_EMITTER)
_written = _program(token_logprobs.written, static_argnames="limit")
_hidden = _program(token_logprobs.hidden_before, static_argnames="settings")


@functools.partial(_program, static_argnames="settings")
def _read(head, hidden_BND, target_BN, where, *, settings: token_logprobs.LikelihoodSettings):
    return token_logprobs.read(head, hidden_BND, target_BN, where, settings)[0]
