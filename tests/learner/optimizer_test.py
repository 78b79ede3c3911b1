import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.config.settings import CHOICES, OptimizerSettings, StageSettings
from score_jax.learner import optimizer
from score_jax.learner.step import Coefficients
from score_jax.model import transformer
from tests import fakes


def rates(**changes) -> np.ndarray:
    """The rate of every step of a stage of 8 steps, at a peak of 2."""
    stage = fakes.stage(steps=8, learning_rate=2.0, **changes)
    return np.array(
        [optimizer.learning_rate(jnp.int32(n), Coefficients.of(stage)) for n in range(8)]
    )


def test_a_constant_rate_is_the_peak_from_the_first_step():
    np.testing.assert_array_equal(rates(), 2.0)


def test_warm_up_is_linear_and_reaches_the_peak_at_its_last_step():
    np.testing.assert_allclose(rates(warmup_steps=4), [0.5, 1.0, 1.5, 2, 2, 2, 2, 2])


def test_linear_decay_falls_evenly_from_the_peak_towards_the_final_fraction():
    found = rates(schedule="linear", final_fraction=0.5)
    np.testing.assert_allclose(found, 2.0 - np.arange(8) / 8, rtol=1e-6)


def test_cosine_decay_by_hand_after_warm_up():
    found = rates(schedule="cosine", warmup_steps=4, final_fraction=0.0)
    half = 2.0 * 0.5 * (1 + np.cos(np.pi * np.array([0, 0.25, 0.5, 0.75])))
    np.testing.assert_allclose(found, [0.5, 1.0, 1.5, 2.0, *half], rtol=1e-6)


def test_past_its_last_step_a_stage_stays_at_the_final_fraction():
    stage = fakes.stage(steps=8, learning_rate=2.0, schedule="cosine", final_fraction=0.25)
    np.testing.assert_allclose(optimizer.learning_rate(jnp.int32(50), Coefficients.of(stage)), 0.5)


def test_a_warm_up_as_long_as_the_stage_divides_by_nothing():
    found = rates(schedule="linear", warmup_steps=8, final_fraction=0.0)
    np.testing.assert_allclose(found, np.arange(1, 9) / 4)


@pytest.mark.parametrize("schedule", CHOICES[StageSettings, "schedule"])
def test_every_schedule_of_the_settings_ends_where_it_should(schedule):
    stage = fakes.stage(steps=8, learning_rate=2.0, schedule=schedule, final_fraction=0.25)
    expected = 2.0 if schedule == "constant" else 0.5
    np.testing.assert_allclose(
        optimizer.learning_rate(jnp.int32(8), Coefficients.of(stage)), expected
    )


def slow_adam(gradients, settings: OptimizerSettings, weight: np.ndarray) -> list[np.ndarray]:
    """Update directions of successive gradients at a weight that does not move."""
    directions, m, v = [], 0.0, 0.0
    for n, g in enumerate(gradients, start=1):
        norm = np.linalg.norm(g)
        if 0 < settings.clip_norm < norm:
            g = g * settings.clip_norm / norm
        m = settings.beta1 * m + (1 - settings.beta1) * g
        v = settings.beta2 * v + (1 - settings.beta2) * g**2
        m_hat, v_hat = m / (1 - settings.beta1**n), v / (1 - settings.beta2**n)
        directions.append(
            m_hat / (np.sqrt(v_hat) + settings.epsilon) + settings.weight_decay * weight
        )
    return directions


@pytest.mark.parametrize(
    "settings",
    [
        OptimizerSettings(),  # clips both gradients below
        OptimizerSettings(clip_norm=0.0, epsilon=0.1),
        OptimizerSettings(clip_norm=2.0, epsilon=0.1, weight_decay=0.3),  # clips the second
    ],
    ids=["default", "without_clipping", "with_weight_decay"],
)
def test_directions_are_those_of_adam_by_hand(settings):
    gradients = [np.array([1.0, -0.5, 0.0, 1.0]), np.array([3.0, 0.5, -4.0, 0.0])]
    weight = np.array([1.0, -2.0, 3.0, -4.0])
    params = {"a": jnp.array(weight[:2], jnp.float32), "b": jnp.array(weight[2:], jnp.float32)}
    transformation = optimizer.make(settings)
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for g, expected in zip(gradients, slow_adam(gradients, settings, weight), strict=True):
        tree = {"a": jnp.array(g[:2], jnp.float32), "b": jnp.array(g[2:], jnp.float32)}
        direction, state = update(tree, state, params)
        np.testing.assert_allclose([*direction["a"], *direction["b"]], expected, rtol=1e-4)


def test_adafactor_keeps_a_row_and_a_column_of_a_matrix_and_descends():
    params = {"w": jnp.ones((256, 512)), "norm": jnp.ones(16)}
    factored = optimizer.make(OptimizerSettings(name="adafactor"))
    state = factored.init(params)
    assert sum(x.size for x in jax.tree.leaves(state)) < 0.02 * params["w"].size
    gradient = jax.tree.map(lambda x: 2.0 * x, params)  # of the squares' sum
    direction, _ = factored.update(gradient, state, params)
    assert all(np.all(x > 0.0) for x in jax.tree.leaves(direction))


def test_norms_are_of_groups_of_weights():
    tree = {
        "embedding": jnp.full((2, 2), 2.0),
        "head": jnp.zeros((2, 2)),
        "final_norm": jnp.full(9, 1.0),
        "layers": {
            "query_norm": jnp.full((1, 16), 1.0),  # of attention, but a norm
            "query": jnp.full((1, 3, 1, 3), 1.0),
            "value_bias": jnp.full((4, 4), -1.0),
            "down": jnp.full((1, 2), 3.0, jnp.bfloat16),
            "gate_bias": jnp.full((1, 2), 4.0),
        },
    }
    found = optimizer.norms("grad_norm", tree)
    wanted = {"embedding": 4.0, "head": 0.0, "norms": 5.0, "attention": 5.0, "mlp": 50.0**0.5}
    assert found.keys() == {f"grad_norm/{group}" for group in wanted}
    for group, value in wanted.items():
        np.testing.assert_allclose(found[f"grad_norm/{group}"], value, rtol=1e-6)


def test_norms_of_adapters_are_of_groups_of_their_own():
    adapters = {
        "output": {"down": jnp.full((1, 4), 3.0), "up": jnp.full((1, 16), 2.0)},
        "up": {"down": jnp.full((1, 1), 1.0), "up": jnp.zeros((1, 1))},
    }
    found = optimizer.norms("param_norm", adapters)
    assert found.keys() == {"param_norm/attention_adapters", "param_norm/mlp_adapters"}
    np.testing.assert_allclose(found["param_norm/attention_adapters"], 10.0)
    np.testing.assert_allclose(found["param_norm/mlp_adapters"], 1.0)


def test_every_weight_that_a_model_may_have_is_of_a_known_group():
    known = {"embedding", "head", "attention", "mlp", "norms"}
    outside = ("embedding", "head", "final_norm")
    layers = {name: jnp.ones(1) for name in transformer.AXES if name not in outside}
    found = optimizer.norms("x", {"layers": layers, **{name: jnp.ones(1) for name in outside}})
    assert found.keys() == {f"x/{group}" for group in known}
