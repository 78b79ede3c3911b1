"""All attempts of a batch of problems.

    run(params, prompts, key, *, settings, mesh=None, limit_QGA=None) -> Episode

This is the whole interface to the trainer: an external engine that returns the same `Episode`
(ids as sampled, log-probs of the distribution sampled from, truncation flags) can replace it.

How it works. Every problem's prompt is prefilled once; its G samples start from copies of that
cache. A *slot* is a cache row that holds one sample. A loop (programs.py) alternates between bursts
of single tokens and turn-arounds, in which slots that ended an attempt are fed the instruction and
slots that ended their last attempt take the next sample, if there are more samples than slots.

So no row waits for the slowest row before attempt 2, the cache of attempt 1 carries over, and
nothing is decoded to text or tokenised again. When the queue is empty and few samples are still
being written, they move into fewer slots (`shrink`), so that steps no longer compute empty slots.
Shapes are static; no step communicates with the host. slots.py has the state of a slot and its
transitions.

On a mesh, every shard of the data runs its own loop, which ends when its own rows end. Weights are
laid out once per rollout, before it: cast, gathered over `fsdp`, and split over `tensor` by heads,
MLP and vocabulary. In the loop only devices that share one copy of the model communicate, and no
weight moves.

Randomness is addressed: the uniform for the token at a column comes from (key, problem index,
sample, column); tokens that were taken back count as columns. So samples do not depend on the
number of slots, devices or turn_rows. In float32, that is: in bfloat16 the sum of a product depends
on which rows share it and on where a row lies in the ring, and now and then rounding picks another
token.

Siblings are samples that share their first attempt. It is written once, by the first of them: when
that one has ended its last attempt, its slot goes back to the end of attempt 1 (`rewind`), where
the next sibling begins attempt 2 in the same cache. So a family has one slot, and its first attempt
is the same in every bit whatever the dtype.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from score_jax.rollout import programs
from score_jax.rollout.layout import laid_out
from score_jax.rollout.prefill import prefill
from score_jax.rollout.programs import BY_ROW, COPIES, PROMPT, Program, by_shard
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.slots import Work, family_of
from score_jax.runtime import compiles, sharding
from score_jax.structs import Episode, Instructions, Params, PromptBatch


def run(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    limit_QGA: np.ndarray | None = None,
) -> Episode:
    """Samples G episodes of A attempts for each of Q problems.

    Args:
      params: as in transformer.py, with stacked layers; laid out for decoding once per call.
      prompts: Q problems; with a mesh, Q must be a multiple of its data-parallel size. Where they
        have instructions of their own, these are fed and not those of the settings.
      key: with problem index, sample and column, addresses every draw; consumed.
      limit_QGA: tokens each attempt may have, its end token included, 1 to max_attempt_tokens;
        None: max_attempt_tokens for all. Attempt 1 of siblings has the limit of the first of them.

    Returns: Episode of B = Q * G rows; row q * G + g is sample g of problem q.
    """
    how: dict[str, Any] = {"settings": settings, "mesh": mesh}
    params = laid_out(params, **how)
    arguments = call_arguments(params, prompts, key, limit_QGA=limit_QGA, **how)
    sample = rollout if programs.are_shared() else compiled
    return sample(*arguments, **how)[0]


def check(episode: Episode) -> None:
    """Refuses episodes whose behaviour log-probs are missing or wrong; fetches them.

    For external engines: with zeros as log-probs a trainer would train on the wrong objective.
    Raises: ValueError.
    """
    logp_N = np.asarray(episode.logp)[np.asarray(episode.attempt) > 0]
    bad = int(np.sum(~np.isfinite(logp_N) | (logp_N > 0.0)))
    if bad:
        raise ValueError(
            f"{bad} of {logp_N.size} sampled tokens have a log-prob that is not finite or above 0. "
            "The rollout must return log-probs under the distribution that it drew from."
        )
    if logp_N.size and not np.any(logp_N):
        raise ValueError(
            f"All {logp_N.size} sampled tokens have log-prob 0, so probably none was stored. "
            "The rollout must return log-probs under the distribution that it drew from."
        )


def call_arguments(
    params: Params,
    prompts: PromptBatch,
    key: jax.Array,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
    limit_QGA: np.ndarray | None = None,
    call: Callable[..., Any] = compiles.call,
):
    """The arguments of `compiled`, prompts fed; params, call: as of `layout.laid_out`."""
    tokens_QP, length_Q = np.asarray(prompts.tokens), np.asarray(prompts.length)
    prompt = prefill(params, tokens_QP, length_Q, settings=settings, mesh=mesh, call=call)
    limit_QGA, asked = limits(prompts, settings, limit_QGA), instructions(prompts, settings)
    return params, prompt, tokens_QP, np.asarray(prompts.index), limit_QGA, key, asked


def instructions(prompts: PromptBatch, settings: EpisodeSettings) -> Instructions | None:
    """The problems' own instructions, checked; None if the rollout needs none of them.

    Raises: ValueError if neither they nor the settings say what comes before the next attempt.
    """
    s, own = settings, prompts.instructions
    if s.attempts == 1:
        return None
    if own is None:
        if all(s.before(attempt) for attempt in range(2, s.attempts + 1)):
            return None
        raise ValueError(
            "nothing asks for the next attempt: neither PromptBatch.instructions nor "
            "EpisodeSettings.instruction has ids. The problems of a run whose instruction has "
            "fields need their rows' (data/asked.py)."
        )
    length_QC = np.asarray(own.length)
    if length_QC.shape[:1] != prompts.length.shape or length_QC.min() < 1:
        raise ValueError(
            f"PromptBatch.instructions has lengths of shape {length_QC.shape}, smallest "
            f"{length_QC.min()}: there must be at least one id for each of "
            f"{len(prompts.length)} problems."
        )
    return own


def limits(
    prompts: PromptBatch, settings: EpisodeSettings, limit_QGA: np.ndarray | None
) -> np.ndarray:
    """limit_QGA of `run`, checked; its default where it is None."""
    shape = (len(prompts.tokens), settings.samples, settings.attempts)
    if limit_QGA is None:
        limit_QGA = np.full(shape, settings.max_attempt_tokens, np.int32)
    limit_QGA = np.asarray(limit_QGA, np.int32)
    if limit_QGA.shape != shape:
        raise ValueError(f"limit_QGA has shape {limit_QGA.shape} and must have {shape}")
    own_QG = limit_QGA[:, programs.firsts(np.arange(settings.samples), settings), :1]
    return np.concatenate([own_QG, limit_QGA[..., 1:]], axis=2)


def rollout(
    params: Params, *arguments, settings: EpisodeSettings, mesh: Mesh | None
) -> tuple[Episode, Work]:
    """What `run` does after `prefill`, a program at a time; also returns the work that was done.

    params, arguments: as `call_arguments` returns them.
    """
    how: dict[str, Any] = {"settings": settings, "shards": sharding.batch_size(mesh) if mesh else 1}
    held, *_ = sampled(functools.partial(_called, params, mesh), *arguments, **how, shared=True)
    return held.state.rows, held.state.work


def _called(params: Params, mesh: Mesh | None, program: Program, *arguments, settings):
    return program(params, *arguments, settings=settings, mesh=mesh)


def as_one_program(
    params: Params, *arguments, settings: EpisodeSettings, mesh: Mesh | None
) -> tuple[Episode, Work]:
    """As `rollout`, to be compiled as a whole."""

    def of_shard(params, *arguments, settings):
        def call(program: Program, held, by_row, everywhere, prompt, *, settings):
            of_work = (*by_row, *everywhere, *prompt)
            return program.work(params, held, *of_work, settings=settings)

        held = sampled(call, *arguments, settings=settings, shards=1, shared=False)
        return held.state.rows, jax.tree.map(lambda x: x[None], held.state.work)

    specs = (PROMPT, *[BY_ROW] * 3, COPIES, BY_ROW)
    return by_shard(of_shard, params, arguments, specs, BY_ROW, settings=settings, mesh=mesh)


compiled = compiles.Compiled(
    as_one_program, compiles.FEW_PASSES, static_argnames=("settings", "mesh")
)


def sampled(
    call,
    prompt,
    tokens_QP,
    index_Q,
    limit_QGA,
    key: jax.Array,
    asked: Instructions | None,
    *,
    settings: EpisodeSettings,
    shards: int,
    shared: bool,
):
    """The programs of a rollout, one after the other; what the last of them returned.

    Args:
      call: call(program, held, by_row, everywhere, prompt, settings=…) as of `Program`.
      prompt, …, asked: as `call_arguments` returns them.
      shards: of these arguments.
      shared: as of `programs.decoding`.
    """
    sizes = slot_counts(len(tokens_QP) // shards * settings.samples, settings)
    how = dataclasses.replace(settings, slots=sizes[0])
    by_row = (tokens_QP, index_Q, limit_QGA, asked)
    held = call(programs.begin, None, by_row, (key,), (prompt,), settings=how)
    for slots, fewer in itertools.pairwise((*sizes, 0)):
        how, arguments = programs.decoding(settings, slots, fewer=fewer, shared=shared)
        held = call(programs.decode, held, (), arguments, (), settings=how)
        if fewer:
            how = dataclasses.replace(how, slots=fewer)
            held = call(programs.move, held, (), (), (), settings=how)
    return held


def slot_counts(samples: int, settings: EpisodeSettings) -> list[int]:
    """The number of slots of a device: at first, and after each `shrink`."""
    families = samples // family_of(settings)
    counts = [min(settings.slots or families, families)]
    for _ in range(settings.shrink):
        if counts[-1] > 4:  # with fewer slots a step takes no less time
            counts.append(counts[-1] // 2)
    return counts
