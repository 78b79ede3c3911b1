"""Eight virtual devices: meshes, the table of axes, and that a split run is the same run."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from score_jax import config, sampler, sharding, train
from score_jax.model import transformer
from score_jax.problem import InputError
from score_jax.run import Run
from tests import fakes
from tests.train_test import metrics_of, tiny_settings

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
    with pytest.raises(InputError, match=r"mesh\.data=1 cannot be split over 2 slices of 8"):
        sharding.make_mesh(1, 4, 2, chips)


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


def splits(devices: int) -> list[tuple[int, int, int]]:
    """Every data x fsdp x tensor of so many devices that divides the quickstart's four heads."""
    powers = [1, 2, 4, 8]
    return [
        (data, fsdp, devices // data // fsdp)
        for data in powers
        for fsdp in powers
        if devices % (data * fsdp) == 0 and devices // data // fsdp <= 4
    ]


@dataclasses.dataclass
class Found:
    """What a run leaves."""

    ids: list[np.ndarray]  # of every step's episodes
    metrics: list[dict]
    evaluations: dict[str, str]
    texts: list[list[str]]
    state: Any  # params and moments


def run_on(sizes: tuple[int, int, int], folder: Path) -> Found:
    """Both stages and evaluations on a mesh of the first devices."""
    settings = tiny_settings(recipe=("stage1", "stage2"), checkpoint=config.CheckpointSettings())
    stages = {
        "stage1": dataclasses.replace(settings.stages["stage1"], steps=2),
        "stage2": settings.stages["stage2"],
    }
    # Adam makes a step of any gradient, even of one that is rounding alone.
    optimizer = dataclasses.replace(settings.optimizer, epsilon=1e-3)
    mesh = config.MeshSettings(*sizes)
    settings = dataclasses.replace(settings, stages=stages, mesh=mesh, optimizer=optimizer)
    ids: list[np.ndarray] = []
    collect = sampler.Sampler.collect

    def noted(self, dispatched):
        ids.append(jax.device_get(dispatched.sampled.tokens))
        return collect(self, dispatched)

    devices = jax.devices()[: np.prod(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampler.Sampler, "collect", noted)
        made = functools.partial(sharding.make_mesh, devices=devices)
        patch.setattr(sharding, "make_mesh", made)
        assert train.train(settings, str(folder)) == train.DONE
        run = Run.start(settings, folder, None, None)
        state = run.fresh_state("stage2", run.experiment.initial_params())
        with run.checkpoints("stage2") as saved:
            state, _ = saved.restore(2, state)
    files = sorted((folder / "evaluations").iterdir())
    lines = (folder / "transcripts" / "stage2.jsonl").read_text().splitlines()
    return Found(
        ids,
        metrics_of(folder),
        {path.name: path.read_text() for path in files},
        [[attempt["text"] for attempt in row["attempts"]] for row in map(json.loads, lines)],
        jax.device_get((state.params, state.opt_state)),
    )


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory, quick_compile) -> Found:
    return run_on((1, 1, 1), tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param(sizes, marks=() if sizes == (2, 2, 2) else pytest.mark.slow)
        for devices in (2, 4, 8)
        for sizes in splits(devices)
    ],
)
def test_a_split_run_draws_the_same_ids_and_learns_the_same(on_one_device, tmp_path, sizes):
    found = run_on(sizes, tmp_path)
    for ids_BT, wanted_BT in zip(found.ids, on_one_device.ids, strict=True):
        np.testing.assert_array_equal(ids_BT, wanted_BT)
    assert found.evaluations == on_one_device.evaluations
    assert found.texts == on_one_device.texts
    for row, wanted in zip(found.metrics, on_one_device.metrics, strict=True):
        assert row.keys() == wanted.keys()
        for key, value in wanted.items():
            assert row[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key
    # Moments are sums of gradients.
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
        found.state,
        on_one_device.state,
    )
