"""All attempts of a batch of problems, sampled in one compiled program once prompts are fed.

    run(params, prompts, key, *, settings, mesh=None, limit_QGA=None) -> Episode

This is the whole interface to the trainer: an external engine that returns the same `Episode`
(ids as sampled, log-probs of the distribution sampled from, truncation flags) can replace it.

How it works. Every problem's prompt is prefilled once; its G samples start from copies of that
cache. A *slot* is a cache row that holds one sample. The loop alternates between

  * a burst: every writing slot samples a token and feeds it, one token per step, until enough slots
    are idle;
  * a turn-around: it serves up to `turn_rows` idle slots. A slot that ended an attempt is fed the
    instruction in one chunk and continues writing; a slot that ended its last attempt takes the
    next sample of the queue, if there are more samples than slots. Before that, the text of a stop
    sequence that does not belong to its attempt is taken back (stopping.py).

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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from score_jax.rollout.layout import laid_out
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.slots import (
    State,
    Work,
    family_of,
    first_state,
    instruct,
    keep_writing,
    move_together,
    refill,
    rewind,
    take_back,
    too_many_left,
    write,
)
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
    return compiled(*arguments, **how)[0]


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
):
    """The arguments of `compiled`, prompts fed; params: as `layout.laid_out` returns them."""
    tokens_QP, length_Q = np.asarray(prompts.tokens), np.asarray(prompts.length)
    prompt = prefill(params, tokens_QP, length_Q, settings=settings, mesh=mesh)
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
    own_QG = limit_QGA[:, firsts(np.arange(settings.samples), settings), :1]
    return np.concatenate([own_QG, limit_QGA[..., 1:]], axis=2)


def rollout(
    params,
    prompt,
    tokens_QP,
    index_Q,
    limit_QGA,
    key,
    asked: Instructions | None = None,
    *,
    settings: EpisodeSettings,
    mesh,
) -> tuple[Episode, Work]:
    """What is compiled of `run` after `prefill`; also returns the work that was done."""
    arguments = (prompt, tokens_QP, index_Q, limit_QGA, key, asked)
    specs = (PROMPT, *[BY_ROW] * 3, COPIES, BY_ROW)
    return by_shard(_serve, params, arguments, specs, BY_ROW, settings=settings, mesh=mesh)


compiled = compiles.Compiled(rollout, compiles.FEW_PASSES, static_argnames=("settings", "mesh"))

BY_ROW = PartitionSpec(sharding.BATCH_AXES)  # the first axis is split over the shards of the data
BY_DEVICE = PartitionSpec((*sharding.BATCH_AXES, "tensor"))  # each device has a part of its own
COPIES = PartitionSpec()
PROMPT = (BY_DEVICE, BY_ROW, BY_ROW)  # what `prefill` returns


def by_shard(work, params: Params, arguments, specs, out, *, settings: EpisodeSettings, mesh):
    """work(params, *arguments, settings=…) on every shard of the data.

    params: as `transformer.for_decoding` returns them. specs, out: how each of the arguments, and
    what `work` returns, is split. settings: for `work`, with a device's part of the model.
    """
    s = settings
    if mesh is None:
        return work(params, *arguments, settings=s)
    shards = sharding.decoding_shardings(mesh, transformer.AXES, params)
    if mesh.shape["tensor"] > 1:
        s = dataclasses.replace(s, model=s.model.share("tensor", mesh.shape["tensor"]))
    return jax.shard_map(
        functools.partial(work, settings=s),
        mesh=mesh,
        in_specs=(jax.tree.map(lambda shard: shard.spec, shards), *specs),
        out_specs=out,
        # The checker refuses loops whose trip count differs between shards of the data. In the loop
        # only devices that share one copy of the model communicate, and their counts are equal.
        check_vma=False,
    )(params, *arguments)


def _serve(params, prompt, tokens_QP, index_Q, limit_QGA, key, asked, *, settings: EpisodeSettings):
    """The rollout of one shard of the data, on one device or those that share the model."""
    s = settings
    problems = tokens_QP.shape[0]
    samples = problems * s.samples

    problem_R = jnp.repeat(jnp.arange(problems), s.samples)
    sample_R = jnp.tile(jnp.arange(s.samples), problems)
    of = jax.vmap(functools.partial(address, key))
    keys_2R = jnp.stack([of(index_Q[problem_R], g) for g in (firsts(sample_R, s), sample_R)])
    decode = functools.partial(
        write, params=params, keys_2R=keys_2R, limit_RA=limit_QGA.reshape(samples, -1), settings=s
    )
    families = samples // family_of(s)
    sizes = slot_counts(samples, s)
    widest = asked.tokens.shape[2] if asked else 0
    state = first_state(
        prompt, tokens_QP, problem_R, sizes[0], settings=s, instruction_tokens=widest
    )
    for slots, fewer in itertools.pairwise((*sizes, 0)):
        turn_rows = min(s.turn_rows or max(1, slots // 16), slots)
        turns = turn_arounds(params, turn_rows, asked, settings=s, rewinds=family_of(s) > 1)
        if slots == sizes[0] < families:  # later, the queue is empty
            turns.append(functools.partial(refill, prompt=prompt, of=problem_R, rows=turn_rows))
        may_write = functools.partial(keep_writing, turn_rows=turn_rows, slots=slots, fewer=fewer)
        state = jax.lax.while_loop(
            functools.partial(too_many_left, fewer=fewer),
            functools.partial(burst_then_turn, may_write, decode, turns),
            state,
        )
        if fewer:
            state = move_together(state, fewer)
    return state.rows, jax.tree.map(lambda x: x[None], state.work)


def address(key: jax.Array, index: jax.Array, sample: jax.Array) -> jax.Array:
    """The key of a sample of the problem with that index."""
    return jax.random.fold_in(jax.random.fold_in(key, index), sample)


def firsts(sample_R, settings: EpisodeSettings):
    """The samples whose uniforms these use in attempt 1: their first siblings."""
    return sample_R - sample_R % settings.siblings


def turn_arounds(
    params: Params,
    rows: int,
    asked: Instructions | None,
    *,
    settings: EpisodeSettings,
    rewinds: bool = False,
) -> list:
    """What a turn-around does with slots that keep their cache, up to `rows` at a time.

    rewinds: whether siblings are written one after the other in a slot.
    """
    s, turns = settings, []
    if s.stops and s.stops.span:
        turns.append(functools.partial(take_back, settings=s))
    if rewinds:
        turns.append(functools.partial(rewind, settings=s))
    if s.attempts > 1:
        feed = functools.partial(instruct, params=params, rows=rows, asked=asked, settings=s)
        turns.append(feed)
    return turns


def burst_then_turn(may_write, decode, turns, state: State) -> State:
    """The body of a rollout's loop."""
    state = jax.lax.while_loop(may_write, decode, state)
    for turn in turns:
        state = turn(state)
    return state


def slot_counts(samples: int, settings: EpisodeSettings) -> list[int]:
    """The number of slots of a device: at first, and after each `shrink`."""
    families = samples // family_of(settings)
    counts = [min(settings.slots or families, families)]
    for _ in range(settings.shrink):
        if counts[-1] > 4:  # with fewer slots a step takes no less time
            counts.append(counts[-1] // 2)
    return counts


def prefill(
    params: Params,
    tokens_QP: jax.Array | np.ndarray,
    length_Q: jax.Array | np.ndarray,
    *,
    settings: EpisodeSettings,
    mesh: Mesh | None = None,
):
    """Feeds every prompt once: (cache of contiguous rows, hidden_QD of last tokens, length_Q).

    One program of one layer serves all layers: as a part of the decode loop's program they would
    be compiled one by one.
    """
    model = settings.model
    how: dict[str, Any] = {"settings": _of_prompts(settings), "mesh": mesh}
    x_QPD = _embedded({"embedding": params["embedding"]}, tokens_QP, **how)
    cache = []
    for number, layer in enumerate(params["layers"]):
        of_layer = {
            "window": model.layer_windows[number],
            "rotates": transformer.rotations(model)[number],
        }
        x_QPD, kept = _fed({"layers": [layer]}, x_QPD, **of_layer, **how)
        cache.append(kv.numbered(kept, number))
    norm = {"final_norm": params["final_norm"]}
    hidden_QD, length_Q = _last(norm, x_QPD, length_Q, **how)
    return tuple(cache), hidden_QD, length_Q


def _of_prompts(settings: EpisodeSettings) -> EpisodeSettings:
    """What feeding prompts depends on, and nothing else: so all kinds of rollouts share it."""
    return EpisodeSettings(
        model=settings.model,
        policy=Policy(),
        attempts=1,
        samples=1,
        max_attempt_tokens=1,
        instruction=(),
        turn_end=(),
        end_ids=(),
        pad_id=0,
        dtype=settings.dtype,
        cache_layout=settings.cache_layout,
    )


def _part_of_prefill(work, out):
    """Compiles work(params, *by_row, settings=…, …) for every shard."""

    def compiled(params, *by_row, settings: EpisodeSettings, mesh: Mesh | None, **how):
        specs = [BY_ROW] * len(by_row)
        some = functools.partial(work, **how)
        return by_shard(some, params, by_row, specs, out, settings=settings, mesh=mesh)

    compiled.__name__ = f"prompts_{work.__name__.strip('_')}"  # in messages about compiling
    static = ("settings", "mesh", "window", "rotates")
    return compiles.Compiled(compiled, compiles.OLDER_EMITTER, static_argnames=static)


@functools.partial(_part_of_prefill, out=BY_ROW)
def _embedded(params, tokens_QP, *, settings: EpisodeSettings):
    return transformer.embed(settings.model, params, tokens_QP)


@functools.partial(_part_of_prefill, out=(BY_ROW, BY_DEVICE))
def _fed(params, x_QPD, *, settings: EpisodeSettings, window: int, rotates: bool):
    s, (layer,), (problems, columns, _) = settings, params["layers"], x_QPD.shape
    (cache,) = kv.empty(s.model, problems, columns, s.dtype, s.cache_layout, layers=1)
    start_Q = jnp.zeros(problems, jnp.int32)
    return transformer.feed_layer(
        s.model, layer, cache, x_QPD, start_Q, window=window, rotates=rotates
    )


@functools.partial(_part_of_prefill, out=BY_ROW)
def _last(params, x_QPD, length_Q, *, settings: EpisodeSettings):
    last_QD = x_QPD[jnp.arange(len(length_Q)), length_Q - 1]
    return transformer.final_norm(settings.model, params, last_QD), length_Q
