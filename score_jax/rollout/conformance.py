"""Whether an engine keeps the contract of a rollout (engine.py): for authors of engines.

    python -m score_jax.rollout.conformance FOLDER --write             makes a small model there
    python -m score_jax.rollout.conformance FOLDER --engine=socket:PATH
    python -m score_jax.rollout.conformance FOLDER --engine=FILE.py:NAME   NAME(FOLDER) -> Engine

    for result in check(engine, Model.load(folder)): …                     the same from Python

The engine has the weights of FOLDER: that small model, or any Hugging Face folder. It is asked for
episodes in several settings. contract.py checks their rows; here the model itself says, by a
forward pass of whole rows, whether log-probs are those of its weights, and draws those of the
log-probs. Each finding is a line with its rule's name. Exit status: 0 none, 1 findings, 2 no check.
"""

import argparse
import collections
import dataclasses
import functools
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from score_jax.console import command
from score_jax.model import rope, transformer, weights
from score_jax.model.families import ModelConfig
from score_jax.problem import InputError
from score_jax.rl.policy import Policy, allow, distort, log_prob_and_entropy
from score_jax.rollout import contract, episode, remote, small_model
from score_jax.rollout.contract import Fault
from score_jax.rollout.engine import Engine
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import compiles
from score_jax.structs import Episode, Instructions, Params, PromptBatch
from score_jax.text import stops, tokenizer
from score_jax.text.tokenizers.base import Tokenizer

TOLERANCE = 1e-3  # nats, in float32
CHANCE = 1e-6  # of a right engine to be found wrong by its draws
_PROBLEMS, _WIDTH, _DRAWS = 4, 12, 1024
_COLUMNS = 64  # of all rows that are checked
_BLOCK, _ROWS = 8, 32  # rows of a forward pass, and of all in a case, at most


@dataclasses.dataclass(frozen=True)
class Model:
    """The weights that the engine is to have, and their tokenizer."""

    config: ModelConfig
    params: Params
    text: Tokenizer

    @classmethod
    def load(cls, folder: str) -> "Model":
        """Raises: InputError if there is no model with a tokenizer."""
        compiles.set_matmul_precision("float32")
        text = tokenizer.load(folder)
        config, params = weights.load(folder)
        return cls(rope.for_rows(config, _COLUMNS), params, text)


class Case(NamedTuple):
    """One question to the engine."""

    name: str
    prompts: PromptBatch
    settings: EpisodeSettings
    needed: bool = True  # else an engine may refuse it


class Result(NamedTuple):
    """What came of a case."""

    case: str
    faults: list[Fault]
    refused: str = ""  # why the engine did not try, where it need not


def check(engine: Engine, model: Model, tolerance: float = TOLERANCE) -> Iterator[Result]:
    """Each case's result in turn. tolerance: of log-probs, in nats."""
    plain = _plain(model)
    # Our own rows of the first case: what texts there are, and how often they can be spelled so.
    ours = jax.device_get(
        episode.run(model.params, plain.prompts, jax.random.key(99), settings=plain.settings)
    )
    for number, case in enumerate([plain, *_cases(plain, model, ours)]):

        def ask(seed: int, case=case) -> Episode:
            key = jax.random.key(seed)
            return jax.device_get(engine(case.prompts, key, settings=case.settings))

        try:
            rows = ask(number)
        except InputError as error:
            wrong = [Fault("refused", str(error))] if case.needed else []
            yield Result(case.name, wrong, str(error))
            continue
        faults = contract.faults(rows, case.prompts, case.settings)
        if not any(fault.rule == "shape" for fault in faults):
            faults += _by_weights(rows, case, model, tolerance)
            faults += _draws(rows, case, model)
            if case is plain:
                again = ask(98)
                if np.array_equal(again.tokens, rows.tokens):
                    faults.append(Fault("key", "two keys gave the same samples"))
                if _respelled(ours, model) >= 8 and not _respelled(rows, model):
                    what = "all attempts are as the tokenizer spells them: decoded and encoded?"
                    faults.append(Fault("ids", what))
        first = {fault.rule: fault for fault in reversed(faults)}
        yield Result(case.name, [*reversed(first.values())])


def _plain(model: Model) -> Case:
    draw, text = np.random.default_rng(0), model.text
    ids = np.array([i for i, spelled in enumerate(text.token_bytes()) if spelled])
    length_Q = draw.integers(2, _WIDTH + 1, _PROBLEMS).astype(np.int32)
    tokens_QP = draw.choice(ids, (_PROBLEMS, _WIDTH)).astype(np.int32)
    tokens_QP[np.arange(_WIDTH) >= length_Q[:, None]] = text.pad_id
    known = text.vocab_size
    settings = EpisodeSettings(
        model=model.config,
        policy=Policy(vocabulary=known if known < model.config.vocab_size else 0),
        attempts=2,
        samples=4,
        max_attempt_tokens=12,
        instruction=tuple(draw.choice(ids, 3).tolist()),
        turn_end=tuple(draw.choice(ids, 2).tolist()),
        end_ids=text.end_ids,
        pad_id=text.pad_id,
    )
    prompts = PromptBatch(tokens_QP, length_Q, np.arange(_PROBLEMS, dtype=np.int32), ())
    return Case("two attempts", prompts, settings)


def _cases(plain: Case, model: Model, ours: Episode) -> Iterator[Case]:
    """The further cases."""
    s, prompts, text = plain.settings, plain.prompts, model.text
    draw = np.random.default_rng(1)
    said = tuple(tuple(draw.permutation(s.instruction + s.turn_end)[:n].tolist()) for n in (4, 2))
    own = Instructions(
        draw.choice(prompts.tokens[:, 0], (_PROBLEMS, 2, 4)).astype(np.int32),
        draw.integers(1, 5, (_PROBLEMS, 2)).astype(np.int32),
    )

    def policy(**changes) -> EpisodeSettings:
        return dataclasses.replace(s, policy=dataclasses.replace(s.policy, **changes))

    short = dataclasses.replace(policy(temperature=0.7), attempts=3, max_attempt_tokens=3)
    yield Case("three attempts", prompts, dataclasses.replace(short, instructions=said))
    asked = dataclasses.replace(prompts, instructions=own)
    yield Case("own instructions", asked, dataclasses.replace(short, instruction=()), False)
    yield Case("greedy", prompts, policy(temperature=0.0))
    common = _common(ours, text)
    if len(common) == 2:
        wanted = stops.Stops(before=common[:1], after=common[1:])
        automaton = stops.compile(wanted, text.token_bytes())
        stopped = dataclasses.replace(s, stops=automaton, close_stopped=True)
        yield Case("stop sequences", prompts, stopped)
    few = policy(temperature=1.3, top_k=9, top_p=0.8, forbidden=(int(prompts.tokens[0, 0]),))
    yield Case("top-k, top-p, forbidden ids", prompts, few, False)
    many = dataclasses.replace(
        policy(temperature=0.7), attempts=1, samples=_DRAWS, max_attempt_tokens=1
    )
    yield Case("first tokens", prompts.part(slice(0, 1)), many)


def _written(rows: Episode) -> Iterator[list[int]]:
    """The ids of every attempt."""
    for tokens_T, mark_T in zip(rows.tokens, rows.attempt, strict=True):
        for a in range(1, rows.truncated.shape[1] + 1):
            yield tokens_T[mark_T == a].tolist()


def _common(rows: Episode, text: Tokenizer) -> tuple[str, ...]:
    """The two pairs of characters that are most often in what was written."""
    found = collections.Counter(
        spelled[i : i + 2]
        for ids in _written(rows)
        for spelled in [text.decode_ids(ids)]
        for i in range(len(spelled) - 1)
        if spelled[i : i + 2].isascii() and spelled[i : i + 2].isprintable()
    )
    return tuple(pair for pair, _ in found.most_common(2))


def _respelled(rows: Episode, model: Model) -> int:
    """How many attempts the tokenizer spells in other ids."""
    ends, text = set(model.text.end_ids), model.text
    plain = [[i for i in ids if i not in ends] for ids in _written(rows)]
    return sum(text.encode(text.decode_ids(ids), continued=True) != ids for ids in plain)


@functools.partial(jax.jit, static_argnums=0)
def _logits(config: ModelConfig, params: Params, tokens_BT) -> jax.Array:
    return transformer.logits(config, params, tokens_BT)


def _by_weights(rows: Episode, case: Case, model: Model, tolerance: float) -> Iterator[Fault]:
    """The largest way in which log-probs, or greedy choices, are not those of the weights."""
    policy, worst, found = case.settings.policy, tolerance, ""
    for b in range(0, min(len(rows.tokens), _ROWS), _BLOCK):
        tokens_BT, mark_BT, logp_BT = (
            np.pad(x[b : b + _BLOCK], ((0, 0), (0, _COLUMNS - x.shape[1])))
            for x in (rows.tokens, rows.attempt, rows.logp)
        )
        here_BT, got_BT = mark_BT[:, 1:] > 0, logp_BT[:, 1:]
        token_BT = jnp.clip(tokens_BT[:, 1:], 0, model.config.vocab_size - 1)
        logits_BTV = allow(_logits(model.config, model.params, tokens_BT)[:, :-1], policy)

        def log_probs(logits_BTV, drawn=token_BT) -> np.ndarray:
            return np.asarray(log_prob_and_entropy(logits_BTV, drawn)[0])

        if policy.temperature == 0.0:
            chosen_BT = jnp.take_along_axis(logits_BTV, token_BT[..., None], axis=2)[..., 0]
            own_BT = np.asarray(jnp.max(logits_BTV, axis=2) - chosen_BT)
            gap_BT = np.where(here_BT, own_BT, 0.0)
        else:
            own_BT = log_probs(distort(logits_BTV, policy, token_BT))
            gap_BT = np.where(here_BT & np.isfinite(got_BT), abs(own_BT - got_BT), 0.0)
        if gap_BT.max() <= worst:
            continue
        worst = gap_BT.max()
        n, t = np.unravel_index(np.argmax(gap_BT), gap_BT.shape)
        found = f"row {b + n}, column {t + 1}: "
        if policy.temperature == 0.0:
            found += f"the token's logit is {worst:.3g} below the largest"
            continue
        found += f"log-prob {got_BT[n, t]:.5g}, by the weights {own_BT[n, t]:.5g}"
        if np.where(here_BT, abs(log_probs(logits_BTV) - got_BT), 0.0).max() <= tolerance:
            found += "; without the temperature and truncation they agree"
    if found:
        yield Fault("logp" if policy.temperature else "greedy", found)


def _draws(rows: Episode, case: Case, model: Model) -> Iterator[Fault]:
    """Samples that are the same, or first tokens that are drawn from another distribution."""
    s = case.settings
    if s.policy.temperature == 0.0:
        return
    ids = [tuple(row[mark > 0]) for row, mark in zip(rows.tokens, rows.attempt, strict=True)]
    families = [set(ids[b : b + s.samples]) for b in range(0, len(ids), s.samples)]
    if all(len(family) == 1 for family in families):
        yield Fault("samples", f"the {s.samples} samples of each problem are the same")
    if s.samples < _DRAWS:
        return
    last = int(case.prompts.length[0]) - 1
    tokens_BT = np.zeros((_BLOCK, _COLUMNS), np.int32)
    tokens_BT[:, :_WIDTH] = case.prompts.tokens[0]
    logits_V = allow(_logits(model.config, model.params, tokens_BT)[0, last], s.policy)
    expected_V = s.samples * np.asarray(jax.nn.softmax(distort(logits_V, s.policy)))
    drawn_N = np.clip(rows.tokens[:, last + 1], 0, len(expected_V) - 1)
    counts_V = np.bincount(drawn_N, minlength=len(expected_V))
    often_V = expected_V >= 5.0
    bins = [(counts_V[often_V], expected_V[often_V])]
    if expected_V[~often_V].sum() >= 5.0:
        bins.append(
            (counts_V[~often_V].sum(keepdims=True), expected_V[~often_V].sum(keepdims=True))
        )
    counts_N, expected_N = (np.concatenate(x) for x in zip(*bins, strict=True))
    squares = float(np.sum((counts_N - expected_N) ** 2 / expected_N))
    chance = float(jax.scipy.special.gammaincc((len(counts_N) - 1) / 2, squares / 2))
    if chance < CHANCE:
        what = f"chi-square {squares:.0f} with {len(counts_N) - 1} degrees of freedom"
        yield Fault("drawn", f"first tokens do not have their probabilities ({what})")


def _engine(named: str, folder: str) -> Engine:
    if named.startswith(remote.SOCKET):
        return remote.Remote(named)
    file, _, name = named.rpartition(":")
    if not file.endswith(".py") or not Path(file).is_file():
        raise InputError(f"--engine={named} must be socket:PATH, or FILE.py:NAME of a file.")
    found = runpy.run_path(file)
    if name not in found:
        raise InputError(f"--engine={named}: {file} has no {name!r}.")
    return found[name](folder)


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    program = "python -m score_jax.rollout.conformance"
    parser = argparse.ArgumentParser(prog=program, allow_abbrev=False)
    parser.add_argument("folder", help="the model: a Hugging Face folder")
    parser.add_argument("--engine", default="", help="socket:PATH, or FILE.py:NAME")
    parser.add_argument("--write", action="store_true", help="first write a small model there")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of log-probs, in nats")
    given = parser.parse_args(argv)
    found = 0
    if not given.write and not given.engine:
        raise InputError("name what to check: --engine=socket:PATH or FILE.py:NAME.")
    if given.write:
        small_model.write(given.folder)
        print(f"{given.folder}: a small model with its tokenizer")
    if given.engine:
        engine = _engine(given.engine, given.folder)
        for case, faults, refused in check(engine, Model.load(given.folder), given.tolerance):
            found += len(faults)
            good = f"not supported: {refused}" if refused else "ok"
            for line in [f"{fault.rule}: {fault.what}" for fault in faults] or [good]:
                print(f"{case}: {line}", flush=True)
        print(f"{found or 'no'} findings")
    return 1 if found else 0


if __name__ == "__main__":
    command.run(main)
