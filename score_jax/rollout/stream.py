"""Any number of prompts through a few slots: rows come out as they end.

    for ended in Stream(params, prompts, key, settings=settings, rows=32):
        ended.item_N, ended.rows

episode.py samples a batch, and returns when its last row has ended. Here the host calls two of its
programs (programs.py) in turn:

    admit    idle slots take the next prompts
    decode   bursts and turn-arounds, until enough slots are idle again

So no slot waits for the slowest row of a batch, a set of any size needs one compiled shape, and
what has ended is graded and written while the device decodes on. Rows are those of `episode.run`:
the same addresses of the same draws. Which rows share a product can change the last bits of a
log-prob, as with another number of slots.

On a mesh, every shard of the data has slots of its own, and the host serves all shards at once.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from score_jax.rollout import episode, programs
from score_jax.rollout.layout import laid_out
from score_jax.rollout.prefill import prefill
from score_jax.rollout.programs import Held
from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.slots import WAITING, WRITING, State
from score_jax.runtime import compiles, hosts, sharding
from score_jax.structs import Episode, Params, PromptBatch

LOOK_SEC = 5.0  # how long the device decodes before the host looks, about
_FEWEST_STEPS, _MOST_STEPS = 16, 256
_STEP = 32  # widths of prompts are multiples of it
_MANY = 16  # slots; with fewer, a step takes no less time
_ONE_WIDTH = 128  # of sets of shorter prompts; a second program would not pay


@dataclasses.dataclass(frozen=True)
class Ended:
    """Rows that have ended, in the order of their numbers: sample g of problem q is q * G + g."""

    item_M: np.ndarray  # the numbers of all of them
    item_N: np.ndarray  # of those that belong to this process
    rows: Episode  # [N, T] numpy, these


class Stream:
    """Iterates over rows as they end; every process of a run must iterate alike, and once.

    Siblings decode their first attempt each, by the same draws: in bfloat16 rounding can part them,
    which `episode.run` rules out. Evaluations have none.

    Args:
      params: as in transformer.py, or as `layout.laid_out` returns them.
      prompts: all Q problems.
      key: with problem index, sample and column, addresses every draw.
      settings: as of `episode.run`; `slots` is not read, and `shrink` says whether the last rows
        move into a quarter of the slots.
      rows: rows decoded together, on all devices; rounded up to a multiple of the shards.
      items: which of the Q * G samples are wanted, in this order; None: all.
      limit_QGA: as of `episode.run`.
      prompt_tokens: the longest prompt of all sets that are to share the compiled programs; 0: the
        longest of these.
      looks: whether to return whenever the host has looked, also where no row has ended: then its
        user can say how far it is, or stop.
    """

    def __init__(
        self,
        params: Params,
        prompts: PromptBatch,
        key: jax.Array,
        *,
        settings: EpisodeSettings,
        rows: int,
        mesh: Mesh | None = None,
        items: Sequence[int] | None = None,
        limit_QGA: np.ndarray | None = None,
        prompt_tokens: int = 0,
        looks: bool = False,
    ):
        samples = len(prompts.tokens) * settings.samples
        self._items = np.asarray(range(samples) if items is None else items, np.int64)
        self._shards = sharding.batch_size(mesh) if mesh else 1
        # Not fewer where few items are left: that would be another shape to compile.
        slots = max(1, -(-rows // self._shards))
        self._settings = dataclasses.replace(settings, slots=slots)
        self._admitted = min(settings.turn_rows or max(1, slots // 32), slots)  # at a time
        self._fewer = slots // 4 if settings.shrink and slots >= _MANY else 0  # slots for the last
        self._prompts, self._mesh = prompts, mesh
        lengths = np.asarray(prompts.length)
        longest = max(prompt_tokens, int(lengths.max()))
        self._columns = settings.row_tokens(longest, prompts.instruction_tokens)
        self._widths = widths(lengths, longest, self._columns)
        self._params = laid_out(params, settings=self._settings, mesh=mesh)
        self._keys_B2 = _addresses(key, prompts, settings)
        self._asked = episode.instructions(prompts, settings)
        self._limit_BA = episode.limits(prompts, settings, limit_QGA).reshape(samples, -1)
        self._begun = 0  # items
        self._looks = looks
        self.work: dict[str, int] = {}  # of slots.Work, summed over this process's shards, so far

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Ended]:
        item_R = np.full(self._shards * self._settings.slots, -1)  # the item in each slot
        held = self._empty()
        self._decoded(held, _FEWEST_STEPS, compiles.ahead)  # while prompts' programs are compiled
        held = self._filled(held, item_R)
        steps, ended = _FEWEST_STEPS, None
        while (item_R >= 0).any():
            began, before = time.perf_counter(), self.work.get("decode_steps", 0)
            held = self._decoded(held, steps)
            if ended and (self._looks or len(ended.item_M)):
                yield ended  # used while the device decodes
            ended = self._ended(held[0].state, item_R)  # waits for the device
            step_sec = (time.perf_counter() - began) / max(1, self.work["decode_steps"] - before)
            fit = int(np.clip(LOOK_SEC / step_sec, _FEWEST_STEPS, _MOST_STEPS))
            steps = hosts.lead_says(functools.partial(int, fit))
            held = self._together(self._filled(held, item_R), item_R)
        if ended and len(ended.item_M):
            yield ended

    def _empty(self) -> Held:
        return programs.empty(
            key_words=self._keys_B2.shape[2:],
            columns=self._columns,
            asked=self._asked.tokens.shape[1:] if self._asked else (),
            settings=self._settings,
            mesh=self._mesh,
        )

    def _filled(self, held: Held, item_R: np.ndarray) -> Held:
        """Idle slots take the next items, a few of each shard in one call."""
        s = self._settings
        of_shard = item_R.reshape(self._shards, -1)
        while self._begun < len(self._items) and (item_R < 0).any():
            item_DW = np.full((self._shards, self._admitted), -1, np.int32)
            slot_DW = np.full_like(item_DW, s.slots)  # past the end: none
            for place in np.ndindex(self._admitted, self._shards):  # one for each shard in turn
                (idle,) = np.nonzero(of_shard[place[1]] < 0)
                if len(idle) and self._begun < len(self._items):
                    slot_DW[place[::-1]] = idle[0]
                    item_DW[place[::-1]] = of_shard[place[1], idle[0]] = self._items[self._begun]
                    self._begun += 1
            tokens_WP, length_W, *addressed = self._of_items(item_DW.ravel())
            prompt = prefill(self._params, tokens_WP, length_W, settings=s, mesh=self._mesh)
            by_row = (slot_DW.ravel(), tokens_WP, *addressed)
            held = self._called(programs.admit, held, by_row, (), (prompt,), settings=s)
        return held

    def _of_items(self, item_W: np.ndarray) -> tuple[Any, ...]:
        """Tokens, lengths, keys, limits and instructions; where there is no item, anything."""
        item_W = np.where(item_W >= 0, item_W, item_W.max())
        problem_W = item_W // self._settings.samples
        length_W = np.asarray(self._prompts.length, np.int32)[problem_W]
        width = next(width for width in self._widths if width >= length_W.max())
        tokens_QP = np.asarray(self._prompts.tokens)
        tokens_WP = np.zeros((len(item_W), width), np.int32)
        used = min(width, tokens_QP.shape[1])
        tokens_WP[:, :used] = tokens_QP[problem_W, :used]
        asked = self._asked.of(problem_W) if self._asked else None
        return tokens_WP, length_W, self._keys_B2[item_W], self._limit_BA[item_W], asked

    def _together(self, held: Held, item_R: np.ndarray) -> Held:
        """Moves the last rows into fewer slots, once they are few."""
        most = int((item_R.reshape(self._shards, -1) >= 0).sum(axis=1).max())
        if self._begun < len(self._items) or not most <= self._fewer:
            return held
        self._settings = dataclasses.replace(self._settings, slots=self._fewer)
        self._fewer = 0
        return self._called(programs.move, held, settings=self._settings)

    def _decoded(self, held: Held, steps: int, call=compiles.call) -> Held:
        slots = self._settings.slots
        fewer = slots - self._admitted if self._begun < len(self._items) else self._fewer
        settings, how_long = programs.decoding(
            self._settings, slots, fewer=fewer, steps=steps, shared=programs.are_shared()
        )
        how = {"settings": settings, "mesh": self._mesh}
        return call(programs.decode, self._params, held, (), how_long, **how)

    def _called(self, program: programs.Program, held: Held, *arguments, settings) -> Held:
        return program(self._params, held, *arguments, settings=settings, mesh=self._mesh)

    def _ended(self, state: State, item_R: np.ndarray) -> Ended:
        """The rows that have ended; their slots are idle from now on."""
        slots, own_S = hosts.own_rows((state.status, state.row))
        rows, own_N = hosts.own_rows(state.rows)
        work, _ = hosts.own_rows(state.work)
        self.work = {name: int(np.sum(count)) for name, count in vars(work).items()}
        status_S, row_S = np.array(hosts.in_order(own_S, np.stack(slots, axis=1).tolist())).T
        first_S = np.arange(len(row_S)) // self._settings.slots * (len(item_R) // self._shards)
        over_R = item_R >= 0
        over_R[(first_S + row_S)[(status_S == WRITING) | (status_S == WAITING)]] = False
        (mine_N,) = np.nonzero(over_R[own_N])
        mine_N = mine_N[np.argsort(item_R[own_N[mine_N]])]
        item_M, item_N = np.sort(item_R[over_R]), item_R[own_N[mine_N]]
        item_R[over_R] = -1
        return Ended(item_M, item_N, jax.tree.map(lambda x: x[mine_N], rows))


def widths(length_Q: np.ndarray, longest: int, columns: int) -> tuple[int, ...]:
    """The widths that prompts of these lengths are fed in, the largest last: `longest` fits there.

    Two where the set is long and half of it is at most half as long as its longest prompt.
    columns: of the rows; no width is larger.
    """
    most, middle = (-(-int(n) // _STEP) * _STEP for n in (longest, np.median(length_Q)))
    most = min(most, columns)
    return (middle, most) if most > _ONE_WIDTH and middle <= most // 2 else (most,)


@functools.cache
def _shape_of_words(kind: Any) -> jax.ShapeDtypeStruct:
    """Of a key; kind: its dtype. Each eval_shape leaves a traced function in memory for good."""
    return jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct((), kind))


def _addresses(key: jax.Array, prompts: PromptBatch, settings: EpisodeSettings) -> np.ndarray:
    """The words of the keys of every sample, [Q * G, 2, …]: of attempt 1 and of later ones."""
    if settings.policy.temperature == 0:  # nothing is drawn, so nothing is compiled for it
        words = _shape_of_words(key.dtype)
        return np.zeros((len(prompts.index) * settings.samples, 2, *words.shape), words.dtype)
    index_B = np.repeat(np.asarray(prompts.index), settings.samples)
    sample_B = np.tile(np.arange(settings.samples), len(prompts.index))
    return np.asarray(_words(key, index_B, programs.firsts(sample_B, settings), sample_B))


_words = jax.jit(programs.words)
