"""Eight virtual devices: meshes, the table of axes, and that a split model is the same model."""

from typing import Any

import jax
import numpy as np
import pytest

from score_jax.config.settings import LoraSettings
from score_jax.learner import lora
from score_jax.model import transformer
from score_jax.problem import InputError
from score_jax.runtime import sharding
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

MODEL = fakes.model(vocab_size=14, layers=2, heads=4, kv_heads=2, head_width=4)


@pytest.mark.parametrize(
    "sizes, shape",
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ((2, -1, 1), (2, 4, 1)),
        ((1, 1, -1), (1, 1, 8)),
        ((8, 1, 1), (8, 1, 1)),
        ((-1, 4, 2), (1, 4, 2)),
    ],
)
def test_a_mesh_covers_all_devices(sizes, shape):
    mesh = sharding.make_mesh(*sizes)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert mesh.devices.shape == shape
    assert set(mesh.devices.ravel()) == set(jax.devices())
    assert sharding.batch_size(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (-1, 3, 1), (2, 2, 1), (-1, -1, 1), (0, 1, 1), (-1, 0, 1), (16, 1, 1)]
)
def test_a_mesh_that_does_not_cover_the_devices_is_refused(sizes):
    shape = "data={} x fsdp={} x tensor={}".format(*sizes)
    with pytest.raises(InputError, match=f"mesh {shape} does not cover 8 devices.*Set one of"):
        sharding.make_mesh(*sizes)


def test_an_axis_is_split_as_the_table_says():
    mesh = sharding.make_mesh(2, 2, 2)
    of = lambda axes, shape: sharding.of_axes(mesh, axes, shape).spec  # noqa: E731
    assert of(("vocab", "width"), (14, 16)) == jax.P("tensor", "fsdp")
    assert of(("layers", "width", "kv_heads", None), (3, 16, 2, 4)) == jax.P(
        None, "fsdp", "tensor", None
    )
    assert of(("batch", None), (8, 3)) == jax.P(("data", "fsdp"), None)
    whole = sharding.make_mesh(8, 1, 1)
    assert sharding.of_axes(whole, ("vocab", "width"), (13, 7)).is_fully_replicated


def test_an_axis_that_does_not_divide_is_refused_with_its_size():
    mesh = sharding.make_mesh(1, 2, 4)
    with pytest.raises(
        InputError,
        match=r"'kv_heads' of 2 cannot be split over 4 devices.*mesh\.tensor that divides 2",
    ):
        sharding.of_axes(mesh, ("layers", "width", "kv_heads", None), (3, 16, 2, 4))
    with pytest.raises(InputError, match="axis 'batch' of 7 cannot be split over 2 devices"):
        sharding.of_axes(mesh, ("batch",), (7,))


def test_an_array_is_not_split_twice_over_one_mesh_axis():
    mesh = sharding.make_mesh(1, 4, 2)
    with pytest.raises(ValueError, match=r"over the mesh axis 'tensor' twice, by 'heads' and by"):
        sharding.of_axes(mesh, ("heads", "mlp"), (4, 8))
    with pytest.raises(ValueError, match=r"sizes \(8, 4\).*'fsdp' twice"):
        sharding.of_axes(mesh, ("batch", "width"), (8, 4))


def test_only_rows_may_be_split_between_slices():
    class Chip:
        platform = "tpu"

        def __init__(self, number: int):
            self.slice_index = number // 4

    chips: Any = [Chip(i) for i in range(8)]
    with pytest.raises(InputError, match=r"mesh\.data=1 cannot be split over 2 slices of 4"):
        sharding.make_mesh(1, 4, 2, chips)


def test_slices_of_any_devices_lie_along_data():
    here = jax.devices()
    mesh = sharding.make_mesh(-1, 2, 1, slices=2)
    assert mesh.devices.shape == (4, 2, 1)
    assert set(mesh.devices[:2].ravel()) == set(here[:4])
    assert set(mesh.devices[2:].ravel()) == set(here[4:])
    with pytest.raises(InputError, match=r"mesh\.data=1 cannot be split over 2 slices of 4"):
        sharding.make_mesh(1, 4, 2, slices=2)
    with pytest.raises(InputError, match=r"mesh\.slices=3 does not divide 8 devices"):
        sharding.make_mesh(-1, 1, 1, slices=3)


def test_every_axis_of_the_params_is_in_the_table_but_layers():
    named = {name for axes in transformer.AXES.values() for name in axes if name}
    assert named - set(sharding.RULES) == {"layers"}


def test_params_split_over_devices_give_the_same_logits():
    params, tokens_BT = fakes.params(MODEL), np.random.default_rng(0).integers(0, 14, (8, 5))
    forward = jax.jit(transformer.logits, static_argnums=0)
    whole_BTV = forward(MODEL, params, tokens_BT)
    for sizes in [(1, 8, 1), (2, 2, 2)]:
        mesh = sharding.make_mesh(*sizes)
        split = jax.device_put(params, sharding.params_shardings(mesh, transformer.AXES, params))
        up_LDF = split["layers"]["up"]
        assert up_LDF.addressable_shards[0].data.size * sizes[1] * sizes[2] == up_LDF.size
        split_BTV = forward(MODEL, split, jax.device_put(tokens_BT, sharding.rows(mesh)))
        np.testing.assert_allclose(split_BTV, whole_BTV, rtol=0, atol=1e-5)


def test_rows_are_split_and_copies_are_whole():
    mesh = sharding.make_mesh(2, 2, 2)
    x_BT = np.arange(24).reshape(8, 3)
    shards = jax.device_put(x_BT, sharding.rows(mesh)).addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 3)}
    assert jax.device_put(x_BT, sharding.replicated(mesh)).is_fully_replicated


def test_factors_of_adapters_are_split_for_decoding_as_their_weights_are():
    mesh, settings = sharding.make_mesh(2, 2, 2), LoraSettings(rank=3)
    params = fakes.params(MODEL)
    params = lora.attach(params, lora.init(jax.random.key(0), MODEL, settings), settings)
    laid_out = transformer.for_decoding(MODEL, params, "bfloat16")
    found = sharding.decoding_shardings(mesh, transformer.AXES, laid_out)["layers"][1]
    spec = jax.tree.map(lambda x: x.spec, found)
    assert spec["query"].base == jax.P(None, "tensor", None)
    assert spec["query"].down == jax.P(None, None)
    assert spec["query"].up == jax.P(None, "tensor", None)
    assert spec["output"].down == jax.P("tensor", None, None)
    assert spec["output"].up == jax.P(None, None)
    assert spec["down"].down == jax.P("tensor", None) and spec["down"].up == jax.P(None, None)


@pytest.mark.parametrize(
    ("fsdp", "tensor", "devices", "sizes"),
    [
        (16, 1, 1, (1, 1, 1)),
        (16, 1, 8, (1, 8, 1)),
        (16, 1, 24, (3, 8, 1)),
        (4, 2, 8, (1, 4, 2)),
        (3, 5, 8, (8, 1, 1)),
        (-1, 2, 6, (1, 3, 2)),
    ],
)
def test_a_mesh_that_does_not_cover_is_answered_with_the_nearest_that_does(
    fsdp, tensor, devices, sizes
):
    near = sharding.nearest_sizes(fsdp, tensor, devices)
    assert tuple(near.values()) == sizes
    assert sharding.axis_sizes(*sizes, devices) == near


def test_the_message_names_the_numbers_to_type():
    typed = r"--config\.mesh\.data=1 --config\.mesh\.fsdp=1 --config\.mesh\.tensor=1$"
    with pytest.raises(InputError, match=typed):
        sharding.axis_sizes(-1, 16, 1, 1)
