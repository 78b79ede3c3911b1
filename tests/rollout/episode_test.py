"""Rollouts against a slow replay: rows, attempt ids, keys and log-probs, with any schedule."""

import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from score_jax.config.settings import LoraSettings
from score_jax.learner import lora
from score_jax.learner.loss import token_logprobs
from score_jax.model import transformer
from score_jax.rl.policy import Policy
from score_jax.rollout import episode, layout, prefill
from score_jax.rollout.settings import EpisodeSettings
from score_jax.runtime import sharding
from score_jax.structs import Episode, PromptBatch
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

# One layer: compiling is what takes the time here; transformer_test.py stacks layers on a cache.
MODEL = fakes.model(vocab_size=14, heads=4, kv_heads=2, head_width=4, mlp_width=24)
PLAIN = EpisodeSettings(
    model=MODEL,
    policy=Policy(),
    attempts=2,
    samples=3,
    max_attempt_tokens=5,
    instruction=(9, 10, 11),
    turn_end=(8, 3),
    end_ids=(0, 7),
    pad_id=12,
)
CASES = {
    "plain": PLAIN,
    "one attempt, cooler": dataclasses.replace(
        PLAIN, policy=Policy(temperature=0.7), attempts=1, slots=5
    ),
    "top-k, refilled, cache by row": dataclasses.replace(
        PLAIN, policy=Policy(top_k=4), turn_end=(), slots=5, turn_rows=2, cache_layout="by_row"
    ),
    "three attempts, everything at once": dataclasses.replace(
        PLAIN, policy=Policy(0.7, top_k=6, top_p=0.8), attempts=3, slots=5
    ),
    "greedy": dataclasses.replace(PLAIN, policy=Policy(temperature=0.0), slots=5, turn_rows=2),
}
PROBLEMS, PROMPT = 8, 6
KEY = 1


PARAMS = fakes.params(MODEL)


def prompts() -> PromptBatch:
    """Prompts of 1 to 6 tokens, padded with another id than the pad id, which must not matter."""
    rng = np.random.default_rng(0)
    return PromptBatch(
        tokens=rng.integers(0, MODEL.vocab_size, (PROBLEMS, PROMPT)).astype(np.int32),
        length=np.array([6, 1, 3, 5, 2, 6, 4, 3], np.int32),
        index=np.array([5, 0, 17, 3, 11, 2, 40, 8], np.int32),
        problems=(),
    )


def take(batch: PromptBatch, which) -> PromptBatch:
    return PromptBatch(batch.tokens[which], batch.length[which], batch.index[which], ())


def mesh_of(data: int, fsdp: int, tensor: int) -> Mesh:
    devices = np.array(jax.devices()[: data * fsdp * tensor]).reshape(data, fsdp, tensor)
    return Mesh(devices, ("data", "fsdp", "tensor"))


def on(mesh: Mesh | None, params):
    """The params as a run with this mesh splits them."""
    if mesh is None:
        return params
    return jax.device_put(params, sharding.params_shardings(mesh, transformer.AXES, params))


def roll(settings: EpisodeSettings, batch: PromptBatch | None = None, key=KEY, mesh=None):
    placed, batch = on(mesh, PARAMS), batch or prompts()
    return jax.device_get(
        episode.run(placed, batch, jax.random.key(key), settings=settings, mesh=mesh)
    )


def counted_run(settings: EpisodeSettings):
    """The rows and the work that was done, fetched."""
    laid_out = layout.laid_out(PARAMS, settings=settings)
    arguments = episode.call_arguments(laid_out, prompts(), jax.random.key(KEY), settings=settings)
    return jax.device_get(episode.compiled(*arguments, settings=settings, mesh=None))


@functools.cache
def rolled(case: str) -> Episode:
    return roll(CASES[case])


@functools.cache
def forward_logits(case: str) -> np.ndarray:
    """[B, T, V]: of every row in one pass, without a cache."""
    return np.asarray(
        jax.jit(functools.partial(transformer.logits, MODEL))(PARAMS, rolled(case).tokens)
    )


def slow_log_probs(logits_V: np.ndarray, policy: Policy) -> np.ndarray:
    """Log-probs of the policy in float64, as its settings are defined: cool, cut to k, cut to p."""
    x_V = logits_V.astype(np.float64) / policy.temperature
    order = np.argsort(-x_V)
    if policy.top_k:
        x_V[order[policy.top_k :]] = -np.inf
    p_V = np.exp(x_V - x_V.max())
    p_V /= p_V.sum()
    mass = 0.0
    for token in order:
        if mass >= policy.top_p:
            p_V[token] = 0.0
        mass += p_V[token]
    with np.errstate(divide="ignore"):
        return np.log(p_V / p_V.sum())


def replay(settings: EpisodeSettings, prompt: list[int], row_T: np.ndarray | jax.Array):
    """The row that must result if the policy wrote the ids that it contains: one list per field."""
    s, tokens, marks, truncated = settings, list(prompt), [0] * len(prompt), []
    for attempt in range(1, s.attempts + 1):
        for _ in range(s.max_attempt_tokens):
            tokens.append(int(row_T[len(tokens)]))
            marks.append(attempt)
            if tokens[-1] in s.end_ids:
                break
        truncated.append(tokens[-1] not in s.end_ids)
        if attempt < s.attempts:
            turn = [*(s.turn_end if truncated[-1] else ()), *s.instruction]
            tokens += turn
            marks += [0] * len(turn)
    padding = len(row_T) - len(tokens)
    return tokens + [s.pad_id] * padding, marks + [0] * padding, len(tokens), truncated


def assert_rows_are_well_formed(rows: Episode, settings: EpisodeSettings):
    batch = prompts()
    assert rows.tokens.shape == (PROBLEMS * settings.samples, settings.row_tokens(PROMPT))
    for b in range(len(rows.tokens)):
        q = b // settings.samples
        prompt = batch.tokens[q, : batch.length[q]].tolist()
        tokens, marks, length, truncated = replay(settings, prompt, rows.tokens[b])
        assert rows.tokens[b].tolist() == tokens, b
        assert rows.attempt[b].tolist() == marks, b
        assert rows.length[b] == length, b
        assert rows.truncated[b].tolist() == truncated, b


def assert_same_samples(rows: Episode, others: Episode):
    for name in ("tokens", "attempt", "length", "truncated"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(others, name), name)
    np.testing.assert_allclose(rows.logp, others.logp, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_a_row_is_prompt_attempt_instruction_attempt(case):
    assert_rows_are_well_formed(rolled(case), CASES[case])


def test_the_cases_hold_every_way_an_attempt_can_end():
    rows, limit = rolled("three attempts, everything at once"), PLAIN.max_attempt_tokens
    length_BA = np.stack([np.sum(rows.attempt == a, axis=1) for a in (1, 2, 3)], axis=1)
    for a in range(3):
        assert rows.truncated[:, a].any()
        assert (length_BA[:, a] < limit).any()
    assert ((length_BA == limit) & ~rows.truncated).any(), "an end token at the limit"


@pytest.mark.parametrize("case", [name for name in CASES if name != "greedy"])
def test_log_probs_equal_a_full_forward_pass(case):
    rows, logits_BTV, worst = rolled(case), forward_logits(case), 0.0
    for b, t in zip(*np.nonzero(rows.attempt), strict=True):
        logp_V = slow_log_probs(logits_BTV[b, t - 1], CASES[case].policy)
        worst = max(worst, abs(rows.logp[b, t] - logp_V[rows.tokens[b, t]]))
    assert worst <= 1e-5


@pytest.mark.parametrize(
    "family",
    [  # Llama is what all other tests here run; Gemma's ways are all in Gemma 2
        pytest.param(family, marks=[pytest.mark.slow] * (family in ("llama", "gemma", "mistral")))
        for family in fakes.OF_FAMILY
    ],
)
def test_log_probs_of_every_family_equal_the_learners(family):
    model, policy = fakes.model_of_family(family, vocab_size=14), Policy(temperature=0.7)
    settings = dataclasses.replace(PLAIN, model=model, policy=policy, attempts=1, samples=1)
    params = fakes.params(model)
    rows = episode.run(params, prompts(), jax.random.key(KEY), settings=settings)
    where = token_logprobs.written(rows.attempt, PLAIN.max_attempt_tokens)
    learner = token_logprobs.LikelihoodSettings(model, policy)
    logp_BN, _ = jax.jit(token_logprobs.log_probs, static_argnums=3)(
        params, rows.tokens, where, learner
    )
    assert max(model.layer_windows) < rows.length.max() - 4, "windows are crossed"
    np.testing.assert_allclose(
        logp_BN, np.where(where.mask, where.take(rows.logp), 0.0), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("case", CASES)
def test_log_probs_are_zero_where_the_policy_did_not_write(case):
    rows = rolled(case)
    assert np.all(rows.logp[rows.attempt == 0] == 0)
    if CASES[case].policy.top_p == 1.0 and case != "greedy":
        assert np.all(rows.logp[rows.attempt > 0] < 0), "and only there"


def test_greedy_writes_the_argmax_of_a_full_forward_pass_with_certainty():
    rows, logits_BTV = rolled("greedy"), forward_logits("greedy")
    b, t = np.nonzero(rows.attempt)
    np.testing.assert_array_equal(rows.tokens[b, t], logits_BTV[b, t - 1].argmax(-1))
    assert np.all(rows.logp == 0)


@pytest.mark.parametrize("case", [name for name in CASES if name != "greedy"])
def test_every_draw_is_addressed_by_problem_index_sample_and_column(case):
    rows, logits_BTV, index_Q = rolled(case), forward_logits(case), prompts().index
    b, t = np.nonzero(rows.attempt)
    uniform = jax.vmap(
        lambda i, g, column: jax.random.uniform(
            functools.reduce(jax.random.fold_in, (i, g, column), jax.random.key(KEY))
        )
    )(index_Q[b // 3], b % 3, t)
    for row, column, u in zip(b, t, np.asarray(uniform), strict=True):
        p_V = np.exp(slow_log_probs(logits_BTV[row, column - 1], CASES[case].policy))
        assert rows.tokens[row, column] == np.argmax(np.cumsum(p_V) > u), (row, column)


def test_the_samples_of_a_problem_differ_and_a_rerun_repeats_them():
    rows = rolled("plain")
    for q in range(PROBLEMS):
        assert len({tuple(row) for row in rows.tokens[3 * q : 3 * q + 3].tolist()}) == 3
    again = roll(PLAIN)
    assert_same_samples(rows, again)
    np.testing.assert_array_equal(rows.logp, again.logp)


def test_another_key_draws_other_samples():
    others = roll(PLAIN, key=KEY + 1)
    same_B = np.all(rolled("plain").tokens == others.tokens, axis=1)
    assert same_B.mean() < 0.1


def test_one_prompt_under_two_indices_is_sampled_afresh():
    batch = take(prompts(), np.zeros(PROBLEMS, int))
    rows = roll(PLAIN, dataclasses.replace(batch, index=np.arange(PROBLEMS, dtype=np.int32)))
    assert len({tuple(row) for row in rows.tokens.tolist()}) == len(rows.tokens)
    alike = roll(PLAIN, batch)
    assert len({tuple(row) for row in alike.tokens.tolist()}) == 3, "one index, one set of samples"


def test_samples_do_not_depend_on_other_problems_of_the_batch():
    rows, order = rolled("plain"), np.array([3, 6, 0, 7, 2, 1, 5, 4])
    moved = roll(PLAIN, take(prompts(), order))
    row_B = (order[:, None] * 3 + np.arange(3)).ravel()
    assert_same_samples(jax.tree.map(lambda x: x[row_B], rows), moved)

    # Problem 2 with other problems: all of them are now the first problem.
    others = roll(PLAIN, take(prompts(), np.where(np.arange(PROBLEMS) == 2, 2, 0)))
    of_problem_2 = jax.tree.map(lambda x: x[6:9], (rows, others))
    assert_same_samples(*of_problem_2)


def test_refilled_slots_feed_each_prompt_once_and_change_no_sample(monkeypatch):
    plain = rolled("plain")  # before anything is counted
    fed: dict[int, int] = {}  # tokens per row -> rows fed so, over the whole rollout
    extend, embedded = transformer.extend, prefill._embedded

    def count(rows, width):
        fed[width] = fed.get(width, 0) + int(rows)

    def counted_prompts(params, tokens_QP, **how):
        count(*tokens_QP.shape)
        return embedded(params, tokens_QP, **how)

    def counted_instructions(config, params, cache, tokens_BN, start_B):
        # Rows that only fill a turn-around up have no token yet: a real one has a prompt.
        rows = jnp.sum(start_B > 0)
        jax.debug.callback(functools.partial(count, width=tokens_BN.shape[1]), rows)
        return extend(config, params, cache, tokens_BN, start_B)

    monkeypatch.setattr(prefill, "_embedded", counted_prompts)
    monkeypatch.setattr(transformer, "extend", counted_instructions)
    slots = 5
    # No other test may compile these settings: it would count on, or this one would not count.
    settings = dataclasses.replace(PLAIN, slots=slots, turn_rows=1)
    rows, work = counted_run(settings)
    jax.effects_barrier()
    assert_same_samples(plain, rows)
    samples, (steps,) = len(rows.tokens), work.decode_steps
    # Q * P for the prompts, not Q * G * P; and the instruction once per sample.
    assert fed == {PROMPT: PROBLEMS, len(PLAIN.turn_end + PLAIN.instruction): samples}
    instructed = len(PLAIN.instruction) * samples + len(PLAIN.turn_end) * rows.truncated[:, 0].sum()
    assert work.fed_tokens.tolist() == [prompts().length.sum() + instructed]
    written_B = np.sum(rows.attempt > 0, axis=1)
    assert work.live_slot_steps.tolist() == [written_B.sum()]
    assert work.slot_steps.tolist() == [slots * steps]
    # In waves of `slots` rows, each wave would take as long as its longest row.
    waves = sum(written_B[i : i + slots].max() for i in range(0, samples, slots))
    assert written_B.sum() / slots <= steps < waves


def test_the_last_samples_move_together_into_fewer_slots():
    settings = dataclasses.replace(PLAIN, slots=12, shrink=2)
    assert episode.slot_counts(24, settings) == [12, 6, 3]
    rows, work = counted_run(settings)
    assert_same_samples(rolled("plain"), rows)
    (slot_steps,), (steps,) = work.slot_steps, work.decode_steps
    assert 3 * steps < slot_steps < 12 * steps


@pytest.mark.parametrize(
    "case",
    [
        "three attempts, everything at once",
        "greedy",
        *(pytest.param(case, marks=pytest.mark.slow) for case in list(CASES)[:3]),
    ],
)
def test_one_program_and_several_draw_the_same(case):
    rows, _ = counted_run(CASES[case])
    assert_same_samples(rolled(case), rows)


def test_a_turn_around_of_all_slots_at_once_is_lock_step():
    settings = dataclasses.replace(PLAIN, slots=6, turn_rows=6)
    rows, work = counted_run(settings)
    assert_same_samples(rolled("plain"), rows)
    length_BA = np.stack([np.sum(rows.attempt == a, axis=1) for a in (1, 2)], axis=1)
    waves = length_BA.reshape(-1, 6, 2).max(axis=1)  # each attempt lasts as long as its longest
    assert work.decode_steps.tolist() == [waves.sum()]


def test_siblings_share_their_first_attempt_and_nothing_else():
    plain = dataclasses.replace(PLAIN, samples=4)
    rows, alone = roll(dataclasses.replace(plain, siblings=2)), roll(plain)
    assert_rows_are_well_formed(rows, plain)
    texts = {
        a: [tuple(t[m == a]) for t, m in zip(rows.tokens, rows.attempt, strict=True)]
        for a in (1, 2)
    }
    first, second = texts[1], texts[2]
    assert first[::2] == first[1::2]  # within a family
    assert first[::4] != first[2::4]  # across families
    assert second[::2] != second[1::2]
    # The first of a family is the sample that it would be without siblings.
    np.testing.assert_array_equal(rows.tokens[::2], alone.tokens[::2])


@pytest.mark.parametrize(
    ("slots", "shrink", "dtype"), [(0, 2, "float32"), (0, 2, "bfloat16"), (3, 1, "float32")]
)
def test_a_family_s_first_attempt_is_written_once(dtype, slots, shrink):
    how = {"slots": slots, "turn_rows": 1, "shrink": shrink, "dtype": dtype}
    s = dataclasses.replace(PLAIN, samples=6, siblings=3, attempts=3, **how)
    rows, work = counted_run(s)
    first_BT = rows.attempt == 1
    leader_B = np.arange(len(rows.tokens)) // 3 * 3
    np.testing.assert_array_equal(first_BT, first_BT[leader_B])
    for x_BT in (rows.tokens, rows.logp):  # every bit, though rows end at other slots of the ring
        np.testing.assert_array_equal(
            np.where(first_BT, x_BT, 0), np.where(first_BT, x_BT[leader_B], 0)
        )
    np.testing.assert_array_equal(rows.truncated[:, 0], rows.truncated[leader_B, 0])
    later = int(np.sum(rows.attempt > 1))
    assert int(np.sum(work.live_slot_steps)) == int(np.sum(first_BT[::3])) + later
    if dtype == "float32":  # the draws are those of samples that write it each
        each = roll(dataclasses.replace(PLAIN, samples=6, attempts=3))
        np.testing.assert_array_equal(rows.tokens[::3], each.tokens[::3])


def test_an_attempt_stops_at_its_own_limit():
    limit_QGA = np.random.default_rng(0).integers(1, 6, (PROBLEMS, 3, 2))
    rows = jax.device_get(
        episode.run(PARAMS, prompts(), jax.random.key(KEY), settings=PLAIN, limit_QGA=limit_QGA)
    )
    limit_BA = limit_QGA.reshape(-1, 2)
    length_BA = np.stack([np.sum(rows.attempt == a, axis=1) for a in (1, 2)], axis=1)
    assert np.all(length_BA <= limit_BA)
    last_B = rows.tokens[np.arange(len(rows.tokens)), rows.length - 1]
    ended_B = np.isin(last_B, PLAIN.end_ids)
    np.testing.assert_array_equal(rows.truncated[:, 1], ~ended_B)
    assert np.all(length_BA[rows.truncated] == limit_BA[rows.truncated])
    assert (length_BA < limit_BA).any() and rows.truncated.any()


def test_limits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"limit_QGA has shape \(8, 2\) and must have \(8, 3, 2\)"):
        episode.run(
            PARAMS, prompts(), jax.random.key(KEY), settings=PLAIN, limit_QGA=np.ones((8, 2))
        )


@pytest.mark.parametrize(
    "data, fsdp, tensor, slots, turn_rows",
    [
        (2, 1, 1, 0, 0),
        (1, 2, 2, 5, 3),
        pytest.param(4, 2, 1, 2, 1, marks=pytest.mark.slow),
        (2, 2, 2, 2, 1),
        pytest.param(4, 1, 2, 0, 0, marks=pytest.mark.slow),
    ],
)
def test_samples_do_not_depend_on_mesh_slots_and_turn_rows(data, fsdp, tensor, slots, turn_rows):
    settings = dataclasses.replace(PLAIN, slots=slots, turn_rows=turn_rows)
    rows = roll(settings, mesh=mesh_of(data, fsdp, tensor))
    assert_same_samples(rolled("plain"), rows)


@pytest.mark.parametrize("case", [case for case in CASES if case != "plain"])
def test_a_model_split_over_two_devices_draws_what_the_whole_one_does(case):
    rows = roll(CASES[case], mesh=mesh_of(1, 1, 2))
    assert_same_samples(rolled(case), rows)


@pytest.mark.parametrize(
    "family",
    [  # Gemma's ways are all in Gemma 2, Llama's in all tests above
        pytest.param(family, marks=[pytest.mark.slow] * (family not in ("gemma2", "olmo2")))
        for family in fakes.OF_FAMILY
    ],
)
def test_a_model_of_every_family_can_be_split(family):
    model = fakes.model_of_family(family, vocab_size=14)
    settings, params = dataclasses.replace(PLAIN, model=model, samples=1), fakes.params(model)
    key, mesh = jax.random.key(KEY), mesh_of(1, 2, 2)
    whole = episode.run(params, prompts(), key, settings=settings)
    settings = dataclasses.replace(settings, untied=True)  # a tied model's head is split as well
    split = episode.run(on(mesh, params), prompts(), key, settings=settings, mesh=mesh)
    assert_same_samples(jax.device_get(whole), jax.device_get(split))


def collectives_in_loops(hlo: str) -> list[str]:
    """Instructions by which devices communicate, in the body of any loop and all that it calls."""
    named = dict(re.findall(r"^(?:ENTRY )?%?([\w.-]+) \(.*?\{\n(.*?)^\}", hlo, re.M | re.S))
    found, left = set(), set(re.findall(r"body=%?([\w.-]+)", hlo))
    while left:
        name = left.pop()
        if name in named and name not in found:
            found.add(name)
            left |= set(re.findall(r"%?([\w.-]+)", named[name])) & set(named)
    sends = r".* (?:all-gather|all-reduce|reduce-scatter|all-to-all|collective-\w+)(?:-start)?\(.*"
    return [line for name in found for line in re.findall(sends, named[name])]


# Adapters that change the model much, of frozen weights in bfloat16.
LORA = LoraSettings(rank=2, alpha=4.0)


def adapted(mesh: Mesh | None, *, changed: bool = True):
    base = on(mesh, jax.tree.map(lambda x: x.astype("bfloat16"), PARAMS))
    draw = np.random.default_rng(1)
    fresh = lora.init(jax.random.key(0), MODEL, LORA, mesh)
    trained = jax.tree.map(lambda x: x + 0.2 * changed * draw.normal(size=x.shape), fresh)
    return lora.attach(base, trained, LORA)


@pytest.mark.parametrize(
    "sizes", [None, pytest.param((1, 2, 1), marks=pytest.mark.slow), (1, 2, 2)], ids=str
)
def test_in_bfloat16_a_rollout_applies_adapters_as_the_learner_does(sizes):
    settings = dataclasses.replace(PLAIN, dtype="bfloat16")
    mesh = sizes and mesh_of(*sizes)
    key = jax.random.key(KEY)
    rows = jax.device_get(episode.run(adapted(mesh), prompts(), key, settings=settings, mesh=mesh))
    where = token_logprobs.written(rows.attempt, 10)
    likelihood = token_logprobs.LikelihoodSettings(MODEL, Policy(), "bfloat16")

    def gap(params) -> float:
        logp_BN, _ = token_logprobs.log_probs(params, rows.tokens, where, likelihood)
        return float(np.mean(np.abs(logp_BN - where.take(rows.logp))[where.mask]))

    assert gap(adapted(None)) < 0.01
    assert gap(adapted(None, changed=False)) > 0.1


@pytest.mark.parametrize("data, fsdp, tensor", [(2, 4, 1), (2, 2, 2)])
def test_in_loops_a_data_shard_sends_nothing_to_others_and_gathers_no_weights(data, fsdp, tensor):
    mesh = mesh_of(data, fsdp, tensor)
    laid_out = layout.laid_out(on(mesh, PARAMS), settings=PLAIN, mesh=mesh)
    for w in jax.tree.leaves(laid_out):
        assert "fsdp" not in str(w.sharding.spec), "weights are gathered, before the rollout"
    how = {"settings": PLAIN, "mesh": mesh}
    arguments = episode.call_arguments(laid_out, prompts(), jax.random.key(KEY), **how)
    hlo = episode.compiled.lower(*arguments, **how).compile().as_text()
    sent = collectives_in_loops(hlo)
    if tensor == 1:
        assert not sent
        return
    # A step: the embedding, two sums of the layer, and three small things for the draw.
    assert len(sent) == 3 + 6, "and the instruction: as a step without a draw"
    # As devices, or from jax 0.11 on as an axis of the mesh.
    sharers = ("{{0,1},{2,3},{4,5},{6,7}}", "mesh['data'=2,'fsdp'=2,'tensor'=2] {'tensor'}")
    smallest = min(x.size for x in jax.tree.leaves(PARAMS["layers"]) if x.ndim > 2) // tensor
    for line in sent:
        assert any(f"replica_groups={named}" in line for named in sharers)
        (shape,) = re.findall(r" = \w+\[([\d,]+)\]", line)
        gathers = " all-gather(" in line
        assert not gathers or math.prod(map(int, shape.split(","))) < smallest, line


def test_rows_without_behaviour_log_probs_are_refused():
    rows = rolled("plain")
    episode.check(rows)
    written_BT = np.asarray(rows.attempt) > 0
    for wrong, message in ((0.0, "log-prob 0"), (np.nan, "not finite"), (0.5, "above 0")):
        with pytest.raises(ValueError, match=message):
            episode.check(rows.replace(logp=np.where(written_BT, wrong, 0.0)))
