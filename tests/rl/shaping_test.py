import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.rl.shaping import Shaping, overlong, shape
from tests import fakes

# All pairs of rewards: (0, 0), (0, 1) a fix, (1, 0) a break, (1, 1).
PAIRS_BA = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]], jnp.float32)
NO_KL_BA = jnp.zeros((4, 2), jnp.float32)


def test_stage_2_multiplies_attempts_as_in_the_papers_table():
    shaped_BA = shape(PAIRS_BA, NO_KL_BA, fakes.stage(bonus=10.0))
    np.testing.assert_array_equal(shaped_BA[:, 0], [0, 0, 1, 1])  # r_1 only
    np.testing.assert_array_equal(shaped_BA[:, 1], [0, 11, -10, 1])


def test_stage_1_rewards_the_second_attempt_only():
    shaped_BA = shape(PAIRS_BA, NO_KL_BA, fakes.stage(reward_attempt1=0.0))
    np.testing.assert_array_equal(shaped_BA, [[0, 0], [0, 1], [0, 0], [0, 1]])


def test_bonus_is_zero_when_both_attempts_agree_and_never_reaches_the_first():
    with_bonus, without = (shape(PAIRS_BA, NO_KL_BA, fakes.stage(bonus=b)) for b in (7.0, 0.0))
    np.testing.assert_array_equal((with_bonus - without)[:, 0], 0.0)
    np.testing.assert_array_equal((with_bonus - without)[:, 1], [0, 7, -7, 0])


def test_each_attempt_is_charged_its_own_kl_with_its_own_coefficient():
    kl_BA = jnp.array([[2.0, 3.0]], jnp.float32)
    stage = fakes.stage(kl_attempt1=0.5, kl_attempt2=0.25, bonus=10.0)
    shaped_BA = shape(jnp.array([[1.0, 1.0]], jnp.float32), kl_BA, stage)
    np.testing.assert_array_equal(shaped_BA, [[1.0 - 0.5 * 2.0, 1.0 - 0.25 * 3.0]])


def test_a_discount_of_1_turns_the_bonus_against_being_right_first():
    # gamma = 1: attempt 1 gets (1 - alpha) r_1 + (1 + alpha) r_2, by the method's own algebra.
    shaped_BA = shape(PAIRS_BA, NO_KL_BA, fakes.stage(bonus=10.0, discount=1.0))
    np.testing.assert_array_equal(shaped_BA[:, 0], [0, 11, -9, 2])
    np.testing.assert_array_equal(shaped_BA[:, 1], [0, 11, -10, 1])


@pytest.mark.parametrize("discount", [0.0, 0.5])
def test_three_attempts_by_hand(discount):
    stage = fakes.stage(
        bonus=2.0, discount=discount, kl_attempt1=0.5, kl_attempt2=0.25, reward_attempt1=3.0
    )
    reward_BA = jnp.array([[1.0, 0.0, 1.0]], jnp.float32)
    kl_BA = jnp.array([[1.0, 2.0, 4.0]], jnp.float32)
    third = 1.0 + 2.0 * (1.0 - 0.0) - 0.25 * 4.0  # later attempts: attempt 2's weights
    second = 0.0 + 2.0 * (0.0 - 1.0) - 0.25 * 2.0
    first = 3.0 * 1.0 - 0.5 * 1.0
    expected = [
        first + discount * second + discount**2 * third,
        second + discount * third,
        third,
    ]
    for stepper in (shape, jax.jit(shape, static_argnums=2)):
        np.testing.assert_allclose(stepper(reward_BA, kl_BA, stage), [expected], rtol=1e-6)


def test_in_stage_1b_two_attempts_are_held_and_the_third_is_rewarded():
    stage = fakes.stage(early_attempts=2, reward_attempt1=0.0, kl_attempt1=0.5, kl_attempt2=0.25)
    kl_BA = jnp.array([[1.0, 2.0, 4.0]], jnp.float32)
    shaped_BA = shape(jnp.ones((1, 3), jnp.float32), kl_BA, stage)
    np.testing.assert_array_equal(shaped_BA, [[-0.5, -1.0, 1.0 - 1.0]])


def test_an_attempt_loses_up_to_1_over_the_last_tokens_before_the_limit():
    length_BA = jnp.array([[1.0, 6.0], [8.0, 10.0]])
    np.testing.assert_allclose(overlong(length_BA, 10, 4.0), [[0.0, 0.0], [0.5, 1.0]])


def test_a_single_attempt_keeps_its_reward_at_any_bonus_and_discount():
    stage = fakes.stage(bonus=10.0, discount=0.9, kl_attempt1=0.5)
    shaped_BA = shape(jnp.array([[1.0]], jnp.float32), jnp.array([[0.5]], jnp.float32), stage)
    np.testing.assert_array_equal(shaped_BA, [[0.75]])


def test_no_gradient_flows_through_shaping():
    stage = fakes.stage(bonus=10.0, discount=0.5)
    slope_BA = jax.grad(lambda kl_BA: jnp.sum(shape(PAIRS_BA, kl_BA, stage)))(NO_KL_BA)
    np.testing.assert_array_equal(slope_BA, 0.0)


def test_a_stage_and_its_shaping_give_the_same_traced_or_not():
    stage = fakes.stage(bonus=10.0, discount=0.5, kl_attempt1=0.5)
    kl_BA = jnp.array([[1.0, 2.0]] * 4)
    for given in (Shaping.of(stage, 2), jax.jit(lambda: Shaping.of(stage, 2))()):
        np.testing.assert_array_equal(shape(PAIRS_BA, kl_BA, given), shape(PAIRS_BA, kl_BA, stage))


@pytest.mark.parametrize(
    ("reward_BA", "kl_BA"),
    [
        (PAIRS_BA, NO_KL_BA[:, :1]),
        (PAIRS_BA[0], NO_KL_BA[0]),
        (PAIRS_BA.astype(jnp.int32), NO_KL_BA),
        (PAIRS_BA, NO_KL_BA > 0),
    ],
    ids=["broadcast", "rank", "int rewards", "bool KL"],
)
def test_ranks_and_dtypes_are_asserted(reward_BA, kl_BA):
    with pytest.raises(AssertionError):
        shape(reward_BA, kl_BA, fakes.stage())


def test_a_shaping_of_another_number_of_attempts_is_refused():
    with pytest.raises(AssertionError):
        shape(PAIRS_BA, NO_KL_BA, Shaping.of(fakes.stage(), 1))
