"""Rollouts with stop sequences against a slow one: one token at a time, by a full forward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.bench import workloads
from score_jax.learner.loss import token_logprobs
from score_jax.model import cache as kv
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from score_jax.rollout import episode, layout, slots
from score_jax.rollout.settings import EpisodeSettings
from score_jax.structs import Episode, PromptBatch
from score_jax.text import stops
from score_jax.text.stops import Stops
from tests import fakes
from tests.rollout import episode_test
from tests.rollout.episode_test import KEY, MODEL, PARAMS, PROBLEMS, mesh_of, on, prompts
from tests.text.stops_test import kept

pytestmark = pytest.mark.usefixtures("quick_compile")

#          0    1     2     3      4     5      6       7    8    9    10    11   12   13
TOKENS = [b"", b"a", b"b", b"ab", b"c", b"ca", b"bca", b"", b"", b"d", b"bb", b"", b"e", b"dab"]
BOTH = Stops(before=("bca", "ccc", "dd", "e", "dabb"), after=("abc", "bbb", "aaab"))
PLAIN = EpisodeSettings(
    model=MODEL,
    policy=Policy(),
    attempts=2,
    samples=3,
    max_attempt_tokens=7,
    instruction=(9,),  # short: columns that were taken back are written again by attempt 2
    turn_end=(8, 3),
    end_ids=(0, 7),
    pad_id=12,
    stops=stops.compile(BOTH, TOKENS),
)
WANTED = {PLAIN.stops: BOTH} | {
    stops.compile(one, TOKENS): one for one in (Stops(BOTH.before), Stops((), BOTH.after))
}
BEFORE, AFTER = list(WANTED)[1:]
CASES = {
    "plain": PLAIN,
    "before, one attempt, refilled": dataclasses.replace(
        PLAIN, stops=BEFORE, policy=Policy(temperature=0.7), attempts=1, slots=5
    ),
    "after, top-k, turns are closed": dataclasses.replace(
        PLAIN,
        stops=AFTER,
        policy=Policy(top_k=6),
        close_stopped=True,
        slots=7,
        max_attempt_tokens=3,
    ),
    "three attempts, everything at once": dataclasses.replace(
        PLAIN,
        policy=Policy(0.8, top_k=9, top_p=0.9, vocabulary=13, forbidden=(4, 10)),
        attempts=3,
        instructions=((9, 10, 11), (11,)),
        close_stopped=True,
        slots=12,
        turn_rows=2,
        shrink=2,
        cache_layout="by_row",
    ),
    "greedy": dataclasses.replace(
        PLAIN, policy=Policy(temperature=0.0, forbidden=(13, 7)), slots=5, turn_rows=2
    ),
}
SAMPLED = [case for case in CASES if case != "greedy"]


def roll(settings: EpisodeSettings, mesh=None, batch: PromptBatch | None = None) -> Episode:
    batch = batch or prompts()
    placed, key = on(mesh, PARAMS), jax.random.key(KEY)
    return jax.device_get(episode.run(placed, batch, key, settings=settings, mesh=mesh))


@functools.cache
def rolled(case: str) -> Episode:
    return roll(CASES[case])


@functools.partial(jax.jit, static_argnums=1)
def next_logits(tokens_T, columns, length):
    del columns  # of tokens_T: one compile for each
    return transformer.logits(MODEL, PARAMS, tokens_T[None])[0, length - 1]


def log_probs(logits_V: np.ndarray, policy: Policy) -> np.ndarray:
    """As in episode_test, after tokens that may never be sampled are gone."""
    x_V = logits_V.astype(np.float64)
    never = [*policy.forbidden, *range(policy.vocabulary or len(x_V), len(x_V))]
    x_V[never] = -np.inf
    if not policy.temperature:
        return np.where(np.arange(len(x_V)) == x_V.argmax(), 0.0, -np.inf)
    return episode_test.slow_log_probs(x_V, policy)


@dataclasses.dataclass
class Slow:
    """A row, as the slow rollout writes it."""

    tokens: list[int]
    attempt: list[int]
    logp: list[float]
    truncated: list[bool] = dataclasses.field(default_factory=list)
    ended_by: list[str] = dataclasses.field(default_factory=list)
    taken: int = 0

    def add(self, ids, attempt: int = 0, logp: float = 0.0) -> None:
        for token in ids:
            self.tokens.append(int(token))
            self.attempt.append(attempt)
            self.logp.append(logp)


@functools.cache
def slow_row(s: EpisodeSettings, b: int) -> Slow:
    """Row b by the definition: no cache, no slots, no automaton."""
    batch, columns = prompts(), s.row_tokens(prompts().tokens.shape[1])
    q, g = divmod(b, s.samples)
    row = Slow([], [], [])
    row.add(batch.tokens[q, : batch.length[q]])
    for a in range(1, s.attempts + 1):
        begin, ended = len(row.tokens), ""
        sample = g - g % s.siblings if a == 1 else g
        while not ended:
            now_T = np.zeros(columns, np.int32)
            now_T[: len(row.tokens)] = row.tokens
            logp_V = log_probs(np.asarray(next_logits(now_T, columns, len(row.tokens))), s.policy)
            address = (int(batch.index[q]), sample, len(row.tokens) + row.taken)
            key = functools.reduce(jax.random.fold_in, address, jax.random.key(KEY))
            token = np.argmax(np.cumsum(np.exp(logp_V)) > float(jax.random.uniform(key)))
            row.add([token], a, float(logp_V[token]))
            written = row.tokens[begin:]
            if token in s.end_ids:
                ended = "end token"
            elif (stays := kept([TOKENS[i] for i in written], WANTED[s.stops])) is not None:
                gone = len(written) - stays
                ended = f"stop at the limit, {gone}" if len(written) == s.max_attempt_tokens else ""
                ended = ended or f"stop, {gone}" + (", empty" if not stays else "")
                for values in (row.tokens, row.attempt, row.logp):
                    del values[begin + stays :]
                row.taken += gone
            elif len(written) == s.max_attempt_tokens:
                ended = "limit"
        row.truncated.append(ended == "limit")
        row.ended_by.append(ended)
        if a < s.attempts:
            if row.truncated[-1] or (ended.startswith("stop") and s.close_stopped):
                row.add(s.turn_end)
            row.add(s.before(a + 1))
    return row


def slow_rows(s: EpisodeSettings) -> list[Slow]:
    return [slow_row(s, b) for b in range(PROBLEMS * s.samples)]


def assert_rows_equal_slow_ones(rows: Episode, s: EpisodeSettings, atol: float = 2e-6) -> None:
    for b, slow in enumerate(slow_rows(s)):
        padding = rows.tokens.shape[1] - len(slow.tokens)
        assert rows.tokens[b].tolist() == slow.tokens + [s.pad_id] * padding, b
        assert rows.attempt[b].tolist() == slow.attempt + [0] * padding, b
        assert rows.length[b] == len(slow.tokens), b
        assert rows.truncated[b].tolist() == slow.truncated, b
        np.testing.assert_allclose(rows.logp[b], slow.logp + [0.0] * padding, rtol=0, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_a_slow_rollout_with_their_log_probs(case):
    assert_rows_equal_slow_ones(rolled(case), CASES[case])


def test_the_cases_hold_every_way_an_attempt_can_end():
    found = {case: [e for row in slow_rows(CASES[case]) for e in row.ended_by] for case in CASES}
    every = [ended for case in SAMPLED for ended in found[case]]
    for gone in (0, 1, 2):
        assert f"stop, {gone}" in every
    assert any(ended.startswith("stop at the limit, ") for ended in every), "not truncated"
    assert "limit" in every and "end token" in every
    assert any(ended.endswith("empty") for ended in found["plain"])
    assert any(ended.startswith("stop") for ended in found["greedy"])
    assert len(PLAIN.instruction) < 2
    assert "stop, 2" in [row.ended_by[0] for row in slow_rows(PLAIN)], "a column is drawn twice"


def test_a_stop_sequence_begins_and_ends_within_one_attempt():
    """The prompt and the instruction of these rows hold stop sequences, and parts of some."""
    s = dataclasses.replace(PLAIN, instruction=(12, 6, 3))  # "e", "bca", "ab": "abc" may follow
    rows = roll(s)
    assert_rows_equal_slow_ones(rows, s)
    first = [row.tokens[row.attempt.index(2)] for row in slow_rows(s) if 2 in row.attempt]
    assert 4 in first, "an attempt begins with c after ab"


@pytest.mark.parametrize(
    "data, fsdp, tensor, slots, turn_rows", [(2, 1, 1, 0, 0), (1, 2, 2, 5, 3), (4, 2, 1, 2, 1)]
)
def test_rows_do_not_depend_on_mesh_slots_and_turn_rows(data, fsdp, tensor, slots, turn_rows):
    settings = dataclasses.replace(PLAIN, slots=slots, turn_rows=turn_rows)
    rows = roll(settings, mesh=mesh_of(data, fsdp, tensor))
    assert_rows_equal_slow_ones(rows, PLAIN, atol=1e-5)


@pytest.mark.parametrize("case", ["three attempts, everything at once", "greedy"])
def test_a_model_split_over_two_devices_forbids_and_stops_alike(case):
    rows = roll(CASES[case], mesh=mesh_of(1, 1, 2))
    assert_rows_equal_slow_ones(rows, CASES[case], atol=1e-5)


def test_siblings_share_an_attempt_that_was_taken_back():
    s = dataclasses.replace(PLAIN, samples=4, siblings=2)
    rows = roll(s)
    assert_rows_equal_slow_ones(rows, s)
    gone = [row.taken for row in slow_rows(s)]
    assert any(gone)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_log_probs_equal_the_learners_full_forward_pass(family):
    policy = Policy(temperature=0.8, vocabulary=13, forbidden=(2,))
    model = fakes.model_of_family(family, vocab_size=14)
    s = dataclasses.replace(PLAIN, model=model, policy=policy, attempts=3, slots=7)
    params = fakes.params(model)
    rows, work = episode.compiled(
        *episode.call_arguments(
            layout.laid_out(params, settings=s), prompts(), jax.random.key(KEY), settings=s
        ),
        settings=s,
        mesh=None,
    )
    written = int(np.sum(np.asarray(rows.attempt) > 0))
    assert written < int(np.sum(work.live_slot_steps)) - 5, "tokens were taken back"
    where = token_logprobs.written(rows.attempt, 3 * s.max_attempt_tokens)
    learner = token_logprobs.LikelihoodSettings(model, policy)
    logp_BN, _ = jax.jit(token_logprobs.log_probs, static_argnums=3)(
        params, rows.tokens, where, learner
    )
    np.testing.assert_allclose(
        logp_BN, np.where(where.mask, where.take(rows.logp), 0.0), rtol=0, atol=2e-6
    )


def test_stop_sequences_cost_a_step_at_most_two_percent_by_the_compilers_count():
    s = dataclasses.replace(workloads.named("small", shapes=True).settings, dtype="float32")
    texts = [b""] * 3 + [f"{i:x}".encode() for i in range(3, s.model.vocab_size)]
    wanted = Stops(before=("Problem:", "a" * 16), after=("I hope it is correct.", "f0e1d2"))
    cost = [
        step_cost(dataclasses.replace(s, stops=a)) for a in (None, stops.compile(wanted, texts))
    ]
    for name in ("flops", "bytes accessed"):
        assert cost[1][name] <= 1.02 * cost[0][name], name


def step_cost(s: EpisodeSettings) -> dict[str, float]:
    """Of `slots.write` with 64 slots of `small`'s rows."""
    columns = s.row_tokens(workloads.PROMPT_TOKENS)

    def state():
        cache = kv.empty(s.model, 64, workloads.PROMPT_TOKENS, s.dtype, s.cache_layout)
        prompt = (cache, jnp.zeros((64, s.model.width)), jnp.full(64, workloads.PROMPT_TOKENS))
        tokens_QP = jnp.zeros((64, workloads.PROMPT_TOKENS), jnp.int32)
        return slots.first_state(prompt, tokens_QP, jnp.arange(64), 64, settings=s)

    def decoding():
        params = transformer.init(s.model, jax.random.key(0))
        return transformer.for_decoding(s.model, params, s.dtype, untied=s.untied)

    def step(state, params, keys_2R):
        limit_RA = jnp.full((64, s.attempts), s.max_attempt_tokens)
        return slots.write(state, params=params, keys_2R=keys_2R, limit_RA=limit_RA, settings=s)

    keys_2R = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (2, 64)))
    arguments = (jax.eval_shape(state), jax.eval_shape(decoding), keys_2R)
    assert arguments[0].rows.tokens.shape == (64, columns)
    return jax.jit(step, donate_argnums=0).lower(*arguments).compile().cost_analysis()
