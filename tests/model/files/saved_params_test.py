"""A run of ours as a source: what is loaded is what was trained, and what is missing is named."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax import checkpoints, jsonfiles
from score_jax.config.settings import LoraSettings, ModelSettings
from score_jax.learner import lora, step
from score_jax.model import transformer, weights
from score_jax.model.families import PRESETS
from score_jax.model.files import saved_params
from score_jax.problem import InputError
from score_jax.structs import Params
from tests import fakes
from tests.config.settings_test import SETTINGS

MODEL = fakes.model(layers=2)
NO_LORA, LORA = LoraSettings(), LoraSettings(rank=2, alpha=6.0, targets="layers/(query|down)")


def write_run(
    folder: Path, trained: Params, *steps: tuple[str, int], lora=NO_LORA, **model
) -> Path:
    """A work directory as training leaves it, with checkpoints at (stage, step); params differ by
    a factor of the step."""
    folder.mkdir()
    settings = dataclasses.replace(SETTINGS, model=ModelSettings(**model, lora=lora))
    (folder / "config.json").write_text(json.dumps({"settings": jsonfiles.plain(settings)}))
    for stage, at_step in steps:
        params = jax.tree.map(lambda x, n=at_step: jnp.asarray(x) * n, trained)
        state = step.init(params, fakes.learner_settings(lora=lora))
        state = dataclasses.replace(state, step=state.step + at_step)
        with checkpoints.StageCheckpoints(folder / "checkpoints" / stage, keep=9) as saved:
            saved.save(state, {"data": {}})
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "published"
    weights.save(folder, MODEL, fakes.params(MODEL))
    return folder


@pytest.fixture(scope="module")
def run(source) -> Path:
    steps = [("base", 7), ("stage1", 2), ("stage1", 10)]
    return write_run(source.parent / "run", fakes.params(MODEL, seed=1), *steps, source=str(source))


def assert_loads(source: Path, expected: Params, dtype: str = "float32"):
    shape, loaded = weights.load(str(source), dtype)
    assert shape == MODEL
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)
    assert {str(x.dtype) for x in jax.tree.leaves(loaded)} == {dtype}


@pytest.mark.parametrize(
    ("named", "factor"),
    [
        ("", 10),  # the newest of the recipe's last stage that has any
        ("checkpoints", 10),
        ("checkpoints/stage1", 10),
        ("checkpoints/stage1/2", 2),
        ("checkpoints/base", 7),
    ],
)
def test_a_run_is_loaded_as_it_was_trained(run, named, factor):
    trained = jax.tree.map(lambda x: x * factor, fakes.params(MODEL, seed=1))
    assert_loads(run / named, trained)


def test_logits_of_a_loaded_run_are_those_of_what_was_trained(run):
    shape, loaded = weights.load(str(run / "checkpoints" / "base"))
    trained = jax.tree.map(lambda x: x * 7, fakes.params(MODEL, seed=1))
    tokens_BT = np.array([[1, 2, 3, 4]])
    logits = jax.jit(transformer.logits, static_argnums=0)
    np.testing.assert_array_equal(
        logits(shape, loaded, tokens_BT), logits(MODEL, trained, tokens_BT)
    )


def test_a_run_is_cast_while_it_is_read(run):
    trained = jax.tree.map(lambda x: (x * 2).astype("bfloat16"), fakes.params(MODEL, seed=1))
    assert_loads(run / "checkpoints" / "stage1" / "2", trained, "bfloat16")


def test_a_run_of_a_run_and_one_of_a_preset_have_the_shape_and_tokenizer_at_their_origin(
    run, source, tmp_path
):
    params = fakes.params(MODEL, seed=2)
    later = write_run(tmp_path / "later", params, ("stage2", 1), source=str(run))
    assert_loads(later, params)
    assert saved_params.origin(str(later)) == (str(source), str(source))
    assert saved_params.origin(str(later), "other") == (str(source), "other")

    preset = PRESETS["quickstart"]
    from_preset = write_run(
        *(tmp_path / "quickstart", fakes.params(preset), ("base", 1)),
        source="preset:quickstart",
        tokenizer="characters",
    )
    assert weights.load(str(from_preset))[0] == preset
    assert saved_params.origin(str(from_preset)) == ("preset:quickstart", "characters")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_merged_into_what_the_run_started_from(source, tmp_path, dtype):
    adapters = lora.init(jax.random.key(0), MODEL, LORA)
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    run = write_run(
        tmp_path / "run", adapters, ("stage1", 1), lora=LORA, source=str(source), dtype=dtype
    )
    _, base = weights.load(str(source), dtype)  # beside which they were trained
    base = jax.tree.map(lambda x: x.astype("float32"), base)
    expected = lora.merge(base, adapters, LORA)
    _, loaded = weights.load(str(run))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), loaded, expected)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), loaded, base)["layers"]
    assert {name for name, differs in changed.items() if differs} == {"query", "down"}


@pytest.mark.parametrize("adapted", [True, False])
def test_the_fingerprint_of_a_run_with_adapters_is_that_of_their_base_too(
    source, tmp_path, adapted
):
    base, how = shutil.copytree(source, tmp_path / "base"), LORA if adapted else NO_LORA
    trained = lora.init(jax.random.key(0), MODEL, LORA) if adapted else fakes.params(MODEL)
    run = write_run(tmp_path / "run", trained, ("stage1", 1), lora=how, source=str(base))
    before = weights.fingerprint(str(run))
    weights.save(base, MODEL, fakes.params(MODEL, seed=5))
    assert (weights.fingerprint(str(run)) != before) == adapted  # else they are read for its shape


def test_a_run_reads_one_parameter_after_the_other(run, monkeypatch):
    asked = []
    read = saved_params.Checkpoint.read
    monkeypatch.setattr(
        saved_params.Checkpoint, "read", lambda self, *a: asked.append(a[0]) or read(self, *a)
    )
    weights.load(str(run), put=lambda path, value: asked.append(value.shape))
    assert asked[:4] == ["embedding", (5, 16), "final_norm", (16,)]


def test_a_run_with_adapters_reads_what_its_checkpoint_holds_once(source, tmp_path, monkeypatch):
    adapters = lora.init(jax.random.key(0), MODEL, LORA)
    run = write_run(tmp_path / "run", adapters, ("stage1", 1), lora=LORA, source=str(source))
    asked, read = [], saved_params._shapes
    monkeypatch.setattr(saved_params, "_shapes", lambda path: asked.append(path) or read(path))
    weights.load(str(run))
    assert asked == [run / "checkpoints" / "stage1" / "1"]


# Bad input


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_a_run_without_a_complete_checkpoint_is_named(run, tmp_path):
    made = copied(run, tmp_path / "run")
    for missing in ("checkpoints/stage1/3", "checkpoints/stage2"):
        with pytest.raises(InputError, match=f"{missing}.* no such file or folder"):
            weights.load(str(made / missing))
    (made / "checkpoints" / "stage2").mkdir()
    # As a save leaves it that was killed.
    (made / "checkpoints" / "stage1" / "2").rename(
        made / "checkpoints" / "stage2" / "5.orbax-checkpoint-tmp"
    )
    with pytest.raises(InputError, match=r"stage2 holds no complete checkpoint.*Let that run"):
        weights.load(str(made / "checkpoints" / "stage2"))
    assert saved_params.find(made).path == made / "checkpoints" / "stage1" / "10"  # type: ignore[union-attr]
    shutil.rmtree(made / "checkpoints")
    with pytest.raises(InputError, match="checkpoints holds no complete checkpoint"):
        weights.load(str(made))


@pytest.mark.parametrize("lost", ["state", "state/_METADATA", "state/manifest.ocdbt", "state/d"])
def test_a_checkpoint_copied_in_part_is_named(run, tmp_path, lost):
    made = copied(run, tmp_path / "run") / "checkpoints" / "base" / "7"
    if (made / lost).is_dir():
        shutil.rmtree(made / lost)
    else:
        (made / lost).unlink()
    with pytest.raises(InputError, match=r"base/7 cannot be read .*copied only in part"):
        weights.load(str(made))


@pytest.mark.parametrize("adapted", [NO_LORA, LORA])
def test_a_run_whose_weights_are_not_finite_is_named(source, tmp_path, adapted):
    adapters = lora.init(jax.random.key(0), MODEL, adapted) if adapted.rank else None
    trained = adapters or fakes.params(MODEL)
    spoilt = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), trained)
    run = write_run(tmp_path / "run", spoilt, ("stage1", 1), lora=adapted, source=str(source))
    with pytest.raises(InputError, match=f"{run}/checkpoints/stage1/1: .+ holds NaN"):
        weights.load(str(run))


def test_weights_of_another_shape_than_the_source_has_are_listed(source, tmp_path):
    moved = copied(source, tmp_path / "published")
    made = write_run(tmp_path / "run", fakes.params(MODEL), ("base", 1), source=str(moved))
    weights.save(moved, *(lambda m: (m, fakes.params(m)))(fakes.model(layers=2, vocab_size=6)))
    with pytest.raises(InputError) as caught:
        weights.load(str(made))
    assert "does not hold the weights of" in str(caught.value)
    assert "embedding is (5, 16), should be (6, 16), head is (16, 5)" in str(caught.value)


def test_a_source_that_has_gone_and_adapters_of_a_preset_are_explained(run, tmp_path):
    gone = write_run(tmp_path / "gone", fakes.params(MODEL), ("base", 1), source="nowhere")
    with pytest.raises(
        InputError, match=r"gone/checkpoints/base/1 was trained from nowhere.*no such"
    ):
        weights.load(str(gone))
    with pytest.raises(InputError, match=r"was trained from nowhere.*no such"):
        saved_params.origin(str(gone))
    adapters = lora.init(jax.random.key(0), PRESETS["quickstart"], LORA)
    made = write_run(tmp_path / "run", adapters, ("base", 1), lora=LORA, source="preset:quickstart")
    with pytest.raises(InputError, match=r"holds adapters of the random weights.*Export that run"):
        weights.load(str(made))
    (made / "config.json").write_text(json.dumps({"settings": {"recipe": ["base"]}}))
    with pytest.raises(InputError, match=r"config.json does not say what its run started from"):
        weights.load(str(made))
    for wrong in (
        {"source": 5},
        {"source": "x", "dtype": "x"},
        {"source": "x", "lora": {"rank": None}},
        {"source": "x", "lora": {"rank": 2, "alpha": 10**400}},
        {"source": "x", "of_another_version": 1},
        ["x"],
    ):
        described = {"settings": {"recipe": ["base"], "model": wrong}}
        (made / "config.json").write_text(json.dumps(described))
        with pytest.raises(InputError, match=r"config.json does not say what its run started from"):
            weights.load(str(made))
