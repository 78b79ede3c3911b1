"""Instructions of the problems' own, in rollouts of any schedule, against one for all problems."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from score_jax.learner.loss import token_logprobs
from score_jax.rollout import episode
from score_jax.structs import Episode, Instructions, PromptBatch
from tests.rollout import episode_test
from tests.rollout.episode_test import KEY, MODEL, PARAMS, PLAIN, PROBLEMS, prompts, roll

pytestmark = pytest.mark.usefixtures("quick_compile")

THREE = ((9,), (9, 10, 11), (4, 5, 6, 1, 2))
OF_PROBLEM = [THREE[q % 3] for q in range(PROBLEMS)]
UNASKED = dataclasses.replace(PLAIN, instruction=())
CASES = {
    "refilled": dataclasses.replace(UNASKED, slots=5, turn_rows=2),
    "siblings, moved together": dataclasses.replace(UNASKED, siblings=3, slots=6, shrink=2),
}


def own(*of_problems) -> Instructions:
    """of_problems: of each problem, the ids before each later attempt."""
    widest = max(len(ids) for one in of_problems for ids in one)
    padded = [[[*ids, *[12] * (widest - len(ids))] for ids in one] for one in of_problems]
    length = [[len(ids) for ids in one] for one in of_problems]
    return Instructions(np.array(padded, np.int32), np.array(length, np.int32))


def asking(instructions: Instructions) -> PromptBatch:
    return dataclasses.replace(prompts(), instructions=instructions)


@functools.cache
def rolled(case: str) -> Episode:
    return roll(CASES[case], asking(own(*([ids] for ids in OF_PROBLEM))))


@pytest.mark.parametrize("texts", [((9, 10, 11),), ((9, 10, 11), (4, 5, 6))])
def test_the_same_instruction_for_every_problem_is_the_fixed_one_bit_for_bit(texts):
    settings = dataclasses.replace(PLAIN, attempts=1 + len(texts), slots=5)
    fixed = roll(dataclasses.replace(settings, instructions=texts[1:] and texts))
    each = roll(dataclasses.replace(settings, instruction=()), asking(own(*[texts] * PROBLEMS)))
    jax.tree.map(np.testing.assert_array_equal, each, fixed)


@pytest.mark.parametrize("case", CASES)
def test_each_row_has_the_instruction_of_its_problem_which_the_policy_did_not_write(case):
    rows, settings, batch = rolled(case), CASES[case], prompts()
    assert rows.truncated[:, 0].any() and not rows.truncated[:, 0].all()
    for b in range(len(rows.tokens)):
        q = b // settings.samples
        fixed = dataclasses.replace(settings, instruction=OF_PROBLEM[q])
        prompt = batch.tokens[q, : batch.length[q]].tolist()
        found = episode_test.replay(fixed, prompt, rows.tokens[b])
        for value, right in zip(found, dataclasses.astuple(rows)[:2], strict=False):
            assert right[b].tolist() == value, b
        assert (rows.length[b], rows.truncated[b].tolist()) == found[2:], b
    assert np.all(rows.logp[rows.attempt == 0] == 0) and np.all(rows.logp[rows.attempt > 0] < 0)


@pytest.mark.parametrize("instruction", THREE)
def test_rows_are_sampled_as_with_their_instruction_for_all(instruction):
    rows, settings = rolled("refilled"), CASES["refilled"]
    alone = roll(dataclasses.replace(settings, instruction=instruction))
    columns = alone.tokens.shape[1]
    mine = [b for b in range(len(rows.tokens)) if OF_PROBLEM[b // settings.samples] == instruction]
    for name in ("tokens", "attempt"):
        values, right = getattr(rows, name)[mine], getattr(alone, name)[mine]
        np.testing.assert_array_equal(values[:, :columns], right, name)
    np.testing.assert_array_equal(rows.length[mine], alone.length[mine])
    np.testing.assert_allclose(rows.logp[mine, :columns], alone.logp[mine], rtol=0, atol=1e-5)


def test_the_learner_finds_the_log_probs_that_were_sampled_from():
    rows = rolled("refilled")
    where = token_logprobs.written(rows.attempt, 2 * PLAIN.max_attempt_tokens)
    settings = token_logprobs.LikelihoodSettings(MODEL, PLAIN.policy)
    logp_BN, _ = jax.jit(token_logprobs.log_probs, static_argnums=3)(
        PARAMS, rows.tokens, where, settings
    )
    sampled_BN = np.where(where.mask, where.take(rows.logp), 0.0)
    np.testing.assert_allclose(logp_BN, sampled_BN, rtol=0, atol=1e-5)


def test_rows_that_nothing_asks_for_a_second_attempt_are_refused():
    run = functools.partial(episode.run, PARAMS, key=jax.random.key(KEY), settings=UNASKED)
    with pytest.raises(ValueError, match="nothing asks for the next attempt"):
        run(prompts())
    with pytest.raises(ValueError, match=r"at least one id for each of 8 problems"):
        run(asking(own(*[[[9]]] * 7)))
    with pytest.raises(ValueError, match="smallest 0"):
        run(asking(own([[9]], *[[[]]] * 7)))
