"""What is trained here is what transformers loads from an export."""

import dataclasses
import json
import sys
import types
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from score_jax import checkpoints, jsonfiles, main
from score_jax.config import command_line
from score_jax.experiment import Experiment
from score_jax.learner import step
from score_jax.model import transformer, weights
from score_jax.modes import export
from score_jax.problem import InputError
from score_jax.text import tokenizer
from score_jax.text.tokenizers import gguf_tokenizer
from tests import fakes
from tests.model import fake_checkpoints
from tests.text.tokenizers import pieces_test

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = ["<end_of_turn>", "<bos>", "<start_of_turn>"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant'"
    " else m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


@pytest.fixture
def source(tmp_path) -> Path:
    """A checkpoint folder: a tiny Gemma 3, a vocabulary of bytes, and the files beside it."""
    folder = tmp_path / "source"
    text = tokenizers.Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    text.add_special_tokens(SPECIAL)
    text.add_tokens(sorted(pre_tokenizers.ByteLevel.alphabet()))
    shape = fakes.model_of_family(
        "gemma3_text", vocab_size=text.get_vocab_size(), max_positions=4096
    )
    weights.save(folder, shape, fakes.params(shape), extra={"eos_token_id": [0, 2]})
    text.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<end_of_turn>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    (folder / "chat_template.jinja").write_text(CHAT)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    return folder


def arguments(source: Path) -> list[str]:
    return [
        f"--config={ROOT / 'configs/gsm8k_smollm2_135m.py'}",
        f"--config.model.source={source}",
        "--config.mesh.data=8",
        "--config.checkpoint.keep=3",
    ]


def exported(*more: str) -> int:
    argv = ["score_jax", "--mode=export", *more]
    with mock.patch.object(sys, "argv", argv):
        return main.main(argv)


def trained(source: Path, workdir: Path, run: list[str] | None = None) -> dict:
    """A work directory whose newest checkpoint holds other weights than the source; those."""
    settings = command_line.settings_of(run or arguments(source))
    experiment = Experiment.open(settings)
    params = jax.tree.map(lambda x: x * 1.25 + 0.01, experiment.initial_params())
    workdir.mkdir()
    (workdir / "config.json").write_text(json.dumps({"settings": jsonfiles.plain(settings)}))
    for stage, at_step in (("stage1", 200), ("stage2", 3)):
        state = step.init(params, experiment.learner_settings(settings.stages[stage]))
        state = dataclasses.replace(state, step=state.step + at_step)
        folder = workdir / "checkpoints" / stage
        with checkpoints.StageCheckpoints(folder, keep=3) as saved:
            saved.save(jax.tree.map(lambda x: x.copy(), state), {"data": {}})
        params = jax.tree.map(lambda x: x * 1.25, params)
    return state.params


def test_the_newest_checkpoint_is_what_transformers_loads(source, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    params = trained(source, tmp_path / "run")
    assert exported(*arguments(source), f"--workdir={tmp_path / 'run'}") == 0
    said = capsys.readouterr().out
    assert "stage2 at step 3" in said
    assert "Tokenizer, copied: tokenizer.json, tokenizer_config.json" in said

    folder = tmp_path / "run" / "export"
    shape, loaded = weights.load(str(folder))
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokens_BT = fake_checkpoints.tokens(2, 9, shape.vocab_size)
    logits_BTV = jax.jit(transformer.logits, static_argnums=0)(shape, params, tokens_BT)
    theirs_BTV = fake_checkpoints.huggingface_logits(model, tokens_BT)
    np.testing.assert_allclose(logits_BTV, theirs_BTV, atol=1e-4, rtol=0)
    assert model.generation_config.eos_token_id == [0, 2]
    assert model.config.eos_token_id == [0, 2]

    theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), tokenizer.load(str(source))
    assert theirs.encode("6 x 7", add_special_tokens=False) == ours.encode("6 x 7")
    assert theirs.chat_template == CHAT


def test_an_export_goes_where_and_in_the_precision_that_the_flags_say(source, tmp_path):
    params = trained(source, tmp_path / "run")
    there = tmp_path / "there"
    run = [*arguments(source), f"--workdir={tmp_path / 'run'}", "--export_dtype=bfloat16"]
    assert exported(*run, f"--export_dir={there}") == 0
    assert json.loads((there / "config.json").read_text())["torch_dtype"] == "bfloat16"
    _, loaded = weights.load(str(there), "bfloat16")
    expected = jax.tree.map(lambda x: x.astype("bfloat16"), params)
    jax.tree.map(np.testing.assert_array_equal, loaded, expected)


def test_a_run_with_lora_exports_merged_weights_or_adapters_alone(source, tmp_path):
    run, adapters = [*arguments(source), "--config.model.lora.rank=2"], tmp_path / "adapters"
    trained(source, tmp_path / "run", run)
    run.append(f"--workdir={tmp_path / 'run'}")
    assert exported(*run) == 0
    _, merged = weights.load(str(tmp_path / "run" / "export"))
    _, base = weights.load(str(source))
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), merged, base)
    assert changed["layers"]["query"] and not changed["embedding"]
    assert exported(*run, "--export_adapters", f"--export_dir={adapters}") == 0
    described = json.loads((adapters / "adapter_config.json").read_text())
    assert (described["r"], described["base_model_name_or_path"]) == (2, str(source))


def test_a_run_that_started_from_a_run_has_the_tokenizer_of_the_first_ones_source(
    source, tmp_path, capsys
):
    first = trained(source, tmp_path / "first")
    second = trained(tmp_path / "first", tmp_path / "second")
    expected = jax.tree.map(lambda x: (x * 1.25 + 0.01) * 1.25, first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), second, expected)
    run = [*arguments(tmp_path / "first"), f"--workdir={tmp_path / 'second'}"]
    assert exported(*run) == 0
    assert "Tokenizer, copied: tokenizer.json, tokenizer_config.json" in capsys.readouterr().out
    described = json.loads((tmp_path / "second" / "export" / "config.json").read_text())
    assert described["eos_token_id"] == [0, 2]
    assert exported(*run, f"--export_dir={tmp_path / 'first'}") == main.BAD_INPUT
    assert "first is the work directory of a run" in capsys.readouterr().err


def test_an_export_that_cannot_be_is_explained_in_one_message(source, tmp_path, capsys):
    run = [*arguments(source), f"--workdir={tmp_path / 'run'}"]
    assert exported(*run) == main.BAD_INPUT
    assert "run has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    trained(source, tmp_path / "run")
    before = (source / "model.safetensors").read_bytes()
    assert exported(*run, f"--export_dir={source}") == main.BAD_INPUT
    assert "would replace the weights that training started from" in capsys.readouterr().err
    assert (source / "model.safetensors").read_bytes() == before
    assert exported(*run, "--export_adapters") == main.BAD_INPUT
    assert "config.model.lora.rank is 0" in capsys.readouterr().err
    assert exported(*run, "--export_dtype=float8") == main.BAD_INPUT
    assert "'float8' is unknown; known: float32, bfloat16" in capsys.readouterr().err


def experiment(source: str, named: str = "", text: tokenizer.Tokenizer | None = None) -> Experiment:
    """As much of an experiment as an export looks at."""
    parts: dict = {
        "merged": lambda params: params,
        "model": fakes.MODEL,
        "settings": types.SimpleNamespace(
            model=types.SimpleNamespace(source=source, tokenizer=named)
        ),
        "template": types.SimpleNamespace(tokenizer=text or tokenizer.characters()),
    }
    return types.SimpleNamespace(**parts)  # type: ignore[return-value]


def test_a_gguf_leaves_its_vocabulary_as_files_that_transformers_reads(tmp_path):
    transformers = pytest.importorskip("transformers")
    pieces_test.train(tmp_path / "tokenizer.model")
    source = pieces_test.write_gguf(tmp_path / "m.gguf", tmp_path / "tokenizer.model")
    ours = tokenizer.load(str(source))
    said = export.write(experiment(str(source), text=ours), fakes.params(), tmp_path / "out")
    assert "made of the vocabulary in m.gguf: tokenizer.json, tokenizer_config.json." in said
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.encode("half as many") == [ours.bos_id, *ours.encode("half as many")]
    for name in ("config.json", "generation_config.json"):
        described = json.loads((tmp_path / "out" / name).read_text())
        assert described["eos_token_id"] == ours.end_ids[0] == theirs.eos_token_id
        assert described["bos_token_id"] == ours.bos_id == theirs.bos_token_id


@pytest.mark.parametrize("name", ["M.GGUF", "0a1b2c", "alone/m.gguf"])
def test_a_gguf_leaves_its_vocabulary_whatever_it_is_called(tmp_path, name):
    pieces_test.train(tmp_path / "tokenizer.model")
    path = tmp_path / "gguf" / name
    path.parent.mkdir(parents=True)
    pieces_test.write_gguf(path, tmp_path / "tokenizer.model")
    source = str(path.parent if name == "alone/m.gguf" else path)
    ours = tokenizer.load(source)
    said = export.write(experiment(source, text=ours), fakes.params(), tmp_path / "out")
    assert f"made of the vocabulary in {path.name}: tokenizer.json" in said
    exported = tokenizer.load(str(tmp_path / "out"))
    assert exported.encode("half as many") == ours.encode("half as many")


def test_a_run_from_adapters_exports_the_tokens_of_the_base_and_the_tokenizer_they_came_with(
    source, tmp_path
):
    described = {"peft_type": "LORA", "base_model_name_or_path": str(source)}
    jsonfiles.write(tmp_path / "adapter" / "adapter_config.json", described)
    jsonfiles.write(source / "config.json", {"eos_token_id": 77, "bos_token_id": 78})
    made = experiment(str(tmp_path / "adapter"))
    export.write(made, fakes.params(), tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (stated["eos_token_id"], stated["bos_token_id"]) == (77, 78)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (
        source / "tokenizer.json"
    ).read_bytes()
    (tmp_path / "adapter" / "tokenizer.json").write_text("{}")
    export.write(made, fakes.params(), tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"


def test_a_vocabulary_that_files_cannot_hold_exactly_is_left_out_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_tokenizer, "write", lambda source, folder: [])
    (tmp_path / "m.gguf").touch()
    said = export.write(experiment(str(tmp_path / "m.gguf")), fakes.params(), tmp_path / "out")
    assert "No tokenizer: the vocabulary in m.gguf would give other ids as tokenizer.json" in said


def test_tokenizer_files_named_by_the_settings_are_the_ones_copied(tmp_path):
    beside = tmp_path / "text"
    beside.mkdir()
    (tmp_path / "m.gguf").touch()
    (beside / "gemma.model").write_bytes(b"pieces")
    (beside / "tokenizer_config.json").write_text("{}")
    (beside / "README.md").write_text("")
    for named in (beside, beside / "gemma.model"):
        folder = tmp_path / f"out{named.suffix}"
        if named == beside:
            (beside / "tokenizer.model").write_bytes(b"pieces")
        said = export.write(
            experiment(str(tmp_path / "m.gguf"), str(named)), fakes.params(), folder
        )
        assert "copied: tokenizer.model, tokenizer_config.json." in said
        assert (folder / "tokenizer.model").read_bytes() == b"pieces"
        assert not (folder / "README.md").exists()


def test_a_preset_says_that_its_tokenizer_is_read_by_nobody_else(tmp_path):
    said = export.write(
        experiment("preset:quickstart", "characters"), fakes.params(), tmp_path / "out"
    )
    assert "No tokenizer: that of the characters" in said


def test_a_folder_that_cannot_take_the_tokenizer_is_named(source, tmp_path):
    made = experiment(str(source))
    (tmp_path / "out" / "tokenizer.json").mkdir(parents=True)
    with pytest.raises(InputError, match="out: the tokenizer's files cannot be written"):
        export.write(made, fakes.params(), tmp_path / "out")
