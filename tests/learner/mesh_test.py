"""An update on eight virtual devices: the same gradient, and what they do not exchange."""

import dataclasses
import functools
import math
import re

import jax
import numpy as np
import pytest

from score_jax.learner.micro_batches import Split
from score_jax.learner.step import Choices, Coefficients
from score_jax.model import transformer
from score_jax.modes.plan import hlo
from score_jax.rl.policy import Policy
from score_jax.runtime import sharding
from tests import fakes

pytestmark = pytest.mark.usefixtures("quick_compile")

WHOLE = Policy()
BATCH = fakes.batch(problems=8, max_attempt_tokens=12, seed=3)


def arguments(
    family: str,
    estimator: str,
    sizes: tuple[int, int, int] | None,
    policy: Policy = WHOLE,
    vocab_size: int = 6,  # which does not divide by 4 or 8
):
    """Those of `fakes.loss_gradient`, on a mesh of these sizes or on one device."""
    model = fakes.model_of_family(family, vocab_size=vocab_size)
    settings = fakes.learner_settings(model, policy=policy, chunk=8, max_attempt_tokens=12)
    values = (fakes.params(model), fakes.params(model, seed=1), BATCH)
    if sizes:
        mesh = sharding.make_mesh(*sizes, jax.devices()[: np.prod(sizes)])
        params_lie = sharding.params_shardings(mesh, transformer.AXES, values[0])
        values = jax.device_put(values, (params_lie, params_lie, sharding.rows(mesh)))
        settings = dataclasses.replace(
            settings,
            likelihood=dataclasses.replace(settings.likelihood, mesh=mesh),
            split=Split(2, 2, sharding.batch_size(mesh)),
        )
    stage = fakes.stage(kl_attempt1=0.1, kl_attempt2=0.2, bonus=2.0, kl_estimator=estimator)
    return (*values, Coefficients.of(stage)), {"choices": Choices.of(stage), "settings": settings}


@functools.cache
def on_one_device(family: str, estimator: str, policy: Policy):
    values, static = arguments(family, estimator, None, policy)
    return fakes.loss_gradient(*values, **static)


@pytest.mark.parametrize(
    ("family", "estimator", "sizes", "policy"),
    [
        ("llama", "exact", (2, 2, 2), WHOLE),
        pytest.param("gemma2", "k1", (2, 2, 2), WHOLE, marks=pytest.mark.slow),
        pytest.param("gemma2", "k1", (1, 8, 1), WHOLE, marks=pytest.mark.slow),
        pytest.param("gemma2", "k1", (8, 1, 1), WHOLE, marks=pytest.mark.slow),
        ("olmo2", "k1", (2, 2, 2), WHOLE),  # norms over heads that are split
        ("gemma2", "k1", (1, 1, 2), WHOLE),  # rows are not split
        ("llama", "exact", (1, 4, 1), Policy(vocabulary=5)),  # the batch has no id 5
        ("llama", "k1", (2, 4, 1), Policy(temperature=0.7, top_k=4, top_p=0.8)),
    ],
    ids=str,
)
def test_the_gradient_is_that_of_one_device(family, estimator, sizes, policy):
    values, static = arguments(family, estimator, sizes, policy)
    ours, theirs = fakes.loss_gradient(*values, **static), on_one_device(family, estimator, policy)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = np.max(np.abs(y)) + 1e-6
        np.testing.assert_allclose(x / scale, y / scale, atol=1e-5)


def test_gradients_are_summed_and_never_activations_and_no_device_gets_the_whole_head():
    values, static = arguments("llama", "k1", (2, 4, 1), vocab_size=40)
    split = dataclasses.replace(static["settings"].split, widths=1)
    static["settings"] = dataclasses.replace(static["settings"], split=split)
    text = fakes.loss_gradient.lower(*values, **static).compile().as_text()
    sent = re.findall(r"= (.*) (all-[a-z-]+|reduce-scatter|collective-permute)\((.*)", text)
    assert {kind for _, kind, _ in sent} >= {"all-gather", "all-reduce", "all-to-all"}
    columns, head = BATCH.tokens.shape[1], values[0]["head"].shape
    for shapes, kind, rest in sent:
        arrays = [
            tuple(int(size) for size in shape.split(","))
            for shape in re.findall(r"\[([\d,]+)\]", shapes)
        ]
        for sizes in arrays:
            assert sizes != head, (shapes, kind)
            if "shard_map/while" in rest:  # of a chunk: hidden states, and numbers of each token
                assert np.prod(sizes) <= 4 * 8 * head[0], (shapes, kind)
            elif kind != "all-gather" and "shard_map/all_to_all" not in rest:  # of what is read
                assert not any(size % columns == 0 for size in sizes), (shapes, kind)


def test_slices_exchange_gradients_and_numbers_alone():
    """Two slices of four devices: what crosses is a sum of a gradient, or of single numbers."""
    values, static = arguments("llama", "k1", (2, 4, 1), vocab_size=40)
    text = fakes.loss_gradient.lower(*values, **static).compile().as_text()
    layers = {name: x.shape[1:] for name, x in values[0]["layers"].items()}
    rest = {name: x.shape for name, x in values[0].items() if name != "layers"}
    whole = {math.prod(shape) for shape in (layers | rest).values()}
    of_gradients = whole | {size // 4 for size in whole}  # or a device's part of it
    crossing = 0
    for shapes, kind, line in re.findall(rf"= (.*?) ({'|'.join(hlo.KINDS)})\((.*)", text):
        if all(len({device // 4 for device in group}) == 1 for group in groups(line)):
            continue
        assert kind == "all-reduce", line
        for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes):
            size = math.prod(int(n) for n in sizes.split(",") if n)
            assert size in of_gradients or size <= 2, (shapes, line)  # 2: of each attempt
            crossing += size > 2
    assert crossing >= len(layers) + len(rest)


def groups(line: str) -> list[list[int]]:
    """The devices that a collective joins, from the three ways in which XLA writes them."""
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]+\})\}", line):
        return [
            [int(n) for n in some.split(",")] for some in re.findall(r"\{([\d,]+)\}", listed[1])
        ]
    if tiled := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        shape = [int(n) for n in tiled[3].split(",")]
        order = [int(n) for n in tiled[4].split(",")] if tiled[4] else range(len(shape))
        devices = np.arange(math.prod(shape)).reshape(shape).transpose(order)
        return devices.reshape(int(tiled[1]), int(tiled[2])).tolist()
    named = re.search(
        r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\]T\(([\d,]+)\)\))? \{(.*?)\}",
        line,
    )
    assert named, line
    sizes = {k: int(n) for k, n in re.findall(r"'(\w+)'=(\d+)", named[1])}
    joined = re.findall(r"'(\w+)'", named[4])
    devices = np.arange(math.prod(sizes.values()))
    if named[2]:
        shape, order = ([int(n) for n in text.split(",")] for text in (named[2], named[3]))
        devices = devices.reshape(shape).transpose(order)
    devices = devices.reshape(tuple(sizes.values()))
    last = [list(sizes).index(name) for name in joined]
    first = [axis for axis in range(devices.ndim) if axis not in last]
    members = math.prod(sizes[name] for name in joined)
    return devices.transpose(first + last).reshape(-1, members).tolist()


def test_the_gradient_of_an_embedding_in_bfloat16_is_summed():
    """XLA:CPU ends the whole process where it sums bfloat16 between devices."""
    mesh = sharding.make_mesh(2, 2, 2, jax.devices()[:8])
    embedding_VD = jax.random.normal(jax.random.key(0), (16, 8), jax.numpy.bfloat16)
    tokens_BN = jax.random.randint(jax.random.key(1), (8, 5), 0, 16)
    model = fakes.model_of_family("llama", vocab_size=16)

    def total(embedding_VD, mesh=None):
        x_BND = transformer.embed(model, {"embedding": embedding_VD}, tokens_BN, mesh=mesh)
        return jax.numpy.sum(x_BND.astype(float) ** 2)

    split = sharding.of_axes(mesh, transformer.AXES["embedding"], embedding_VD.shape)
    found = jax.jit(jax.grad(lambda x: total(x, mesh)))(jax.device_put(embedding_VD, split))
    wanted = jax.jit(jax.grad(total))(embedding_VD)
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (found, wanted)), rtol=0.02)
