"""The interface of a rollout, and what lets another engine stand behind it.

    engine(prompts, key, settings=…) -> Episode     an `Engine`; ours: partial(episode.run, params)
    Batches(engine, prompts, key, …)                its rows as `stream.Stream` gives ours

contract.py checks what an engine returns, conformance.py an engine as a whole (docs/engine.md).
remote.py is an engine in another process.
"""

import concurrent.futures
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from score_jax.rollout.settings import EpisodeSettings
from score_jax.rollout.stream import Ended
from score_jax.structs import Episode, PromptBatch

LOOK_SEC = 2.0  # between two looks at whether the user of `Batches` wants to stop


class Engine(Protocol):
    """Samples G episodes of A attempts for each of Q problems, with weights that it holds itself.

    prompts: `tokens`, of which each row has `length`, are fed as they are: ids, from column 0.
        `index` is a problem's number in its set. Where there are `instructions`, row q's are fed
        before its later attempts, the last of them before all further ones; else those of the
        settings are (`settings.before(a)`).
    key: draws of different keys, problems or samples are independent. Ours draws the same for the
        same (key, index, sample); that is not asked of others.
    settings: `model` says what the weights are of. Read `policy`, `attempts`, `samples`,
        `max_attempt_tokens`, `turn_end`, `end_ids`, `pad_id`, `stops` (its texts: `stops.of`),
        `close_stopped` and `siblings`; the rest is about speed. What an engine cannot do, it
        refuses with InputError.

    An attempt ends with the first of these; nothing is sampled after it:
      * an id of `end_ids`, which belongs to the attempt,
      * a stop sequence (text/stops.py says which tokens belong to the attempt),
      * `max_attempt_tokens`: the attempt is truncated.
    After it `turn_end` is fed if it was truncated (with `close_stopped`, also if a stop sequence
    ended it), then the instruction, each id once; after the last attempt nothing is.

    Returns: numpy or jax arrays, Q * G rows, row q * G + g sample g of problem q, of
    settings.row_tokens(P, N) columns for prompts of P columns and own instructions of N:
      tokens     int32; the prompt, attempt 1, what was fed, attempt 2, …: the ids as they were fed
                 and sampled, never decoded and encoded again; then pad_id
      attempt    int32; a for tokens that were sampled in attempt a, its end token included; else 0
      logp       float32; log-prob of a sampled token under the distribution that it was drawn from:
                 `policy` with its temperature, truncation and forbidden ids, given all ids before
                 it in the row; 0 where greedy, and for all other tokens
      length     int32; tokens in the row, without padding
      truncated  [Q * G, A] bool; the attempt hit its limit, and nothing else ended it
    """

    def __call__(
        self, prompts: PromptBatch, key: jax.Array, *, settings: EpisodeSettings
    ) -> Episode: ...


class Batches:
    """Iterates over the samples of an engine, a batch of whole problems at a time.

    The next batch is asked for before one is used. While none is ready, an `Ended` without rows
    comes every few seconds, so that its user can say how far it is, or stop.

    Args:
      prompts, key, settings: of all problems, as of `Engine`.
      rows: of a batch, at most; one problem has all its samples in one.
      items: which of the Q * G samples are wanted; others of their problems are dropped.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: PromptBatch,
        key: jax.Array,
        *,
        settings: EpisodeSettings,
        rows: int,
        items: Sequence[int],
    ):
        self._ask = lambda which: engine(_some(prompts, which), key, settings=settings)
        self._items, self._samples = np.asarray(items, np.int64), settings.samples
        problem_M = np.unique(self._items // settings.samples)
        per = max(1, rows // settings.samples)
        self._batches = [problem_M[i : i + per] for i in range(0, len(problem_M), per)]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Ended]:
        left = [*self._batches]
        asked = _begun(self._ask, left[0]) if left else None
        while asked:
            if not concurrent.futures.wait([asked], LOOK_SEC).done:
                yield _NONE
                continue
            rows, which = jax.device_get(asked.result()), left.pop(0)
            asked = _begun(self._ask, left[0]) if left else None
            item_N = (which[:, None] * self._samples + np.arange(self._samples)).ravel()
            (wanted_N,) = np.nonzero(np.isin(item_N, self._items))
            item_N = item_N[wanted_N]
            yield Ended(item_N, item_N, jax.tree.map(lambda x, of=wanted_N: x[of], rows))


_EMPTY: Any = np.zeros(0, np.int64)
_NONE = Ended(_EMPTY, _EMPTY, Episode(*[_EMPTY] * 5))


def _some(prompts: PromptBatch, which: np.ndarray) -> PromptBatch:
    own = prompts.instructions.of(which) if prompts.instructions else None
    arrays = (prompts.tokens[which], prompts.length[which], prompts.index[which])
    return PromptBatch(*arrays, tuple(prompts.problems[i] for i in which), own)


def _begun(work: Callable[[Any], Episode], which: Any) -> concurrent.futures.Future[Episode]:
    """work(which) in a thread that does not keep the process from ending."""
    future: concurrent.futures.Future[Episode] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work(which))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="engine", daemon=True).start()
    return future
