"""--mode=export: a trained model as a Hugging Face folder, for transformers, vLLM and others.

    export_latest(settings, folder, …)           the newest checkpoint of a work directory
    write(experiment, params, folder)            -> what was written, in words
    write_adapters(experiment, params, folder)   -> the same for LoRA's adapters alone

With a model card (model_card.py), and on the hub if --push names a repository there (push.py).
Weights and config.json are written anew. The tokenizer's files are copied from where the tokenizer
was read, as it does not change. A GGUF has no such files: they are made from its vocabulary.
"""

import shutil
from pathlib import Path

from score_jax import jsonfiles
from score_jax import run as runs
from score_jax.buckets import places
from score_jax.buckets.client import is_url
from score_jax.config.settings import Settings
from score_jax.experiment import Experiment
from score_jax.learner import adapter_files
from score_jax.model import weights
from score_jax.model.files import saved_params
from score_jax.modes import model_card, push
from score_jax.problem import FULL, InputError, expanded
from score_jax.structs import Params
from score_jax.text.tokenizers import gguf_files, gguf_tokenizer

GENERATION = "generation_config.json"
# What transformers looks for beside the weights.
TOKENIZER = ("tokenizer.json", "tokenizer.model")
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION,
)


def export_latest(
    settings: Settings,
    folder: Path,
    to: str = "",
    *,
    dtype: str = "",
    adapters: bool = False,
    push_to: str = "",
) -> None:
    """Writes the newest checkpoint as a Hugging Face folder; by default DIR/export.

    Args:
      adapters: write only the adapters of a run with LoRA, in PEFT's layout; else they are merged.
      push_to: OWNER/NAME of a repository of the hub that the folder is uploaded to.

    Raises: InputError if nothing has been trained in the work directory yet, or cannot be pushed.
    """
    if adapters and not settings.model.lora.rank:
        raise InputError(
            "--export_adapters writes the adapters that a run with LoRA trains, and "
            "config.model.lora.rank is 0: all weights are trained. Leave it out."
        )
    if is_url(to):
        raise InputError(
            f"{to} is in a bucket, and this export takes a local folder. On the command line "
            "--mode=export --export_dir=gs://… writes to buckets."
        )
    client = push.ready(push_to) if push_to else None
    with runs.newest(settings, folder, "export") as (run, stage, at_step, params):
        target = Path(to) if to else folder / "export"
        trained = run.trained_so_far(stage, at_step)
        run.log.doing("writing the export")
        if adapters:
            said = write_adapters(run.experiment, params, target)
        else:
            said = write(run.experiment, params, target, dtype=dtype)
        model_card.write(run, target, trained=trained, hub_name=push_to, adapters=adapters)
        places.upload(target)
        run.log.say(f"{trained}: {said} Its model card: {target / model_card.NAME}")
        if client:
            run.log.say(f"Pushed to {push.push(client, target, push_to, trained)}")


def write(experiment: Experiment, params: Params, folder: Path, *, dtype: str = "") -> str:
    """Writes a folder that AutoModelForCausalLM.from_pretrained loads.

    Args:
      params: what was trained; adapters are merged into the weights under them.
      dtype: of the weights, as in weights.save.

    Returns: what was written and what is missing, for the user.
    Raises: InputError if the folder cannot be written, or is the one that was trained from.
    """
    settings = experiment.settings.model
    source, text = saved_params.origin(settings.source, settings.tokenizer)
    same_url = places.url_of(folder) == places.url_of(Path(source)) != ""
    if same_url or Path(source).resolve() == folder.resolve():
        raise InputError(
            f"{folder} is config.model.source: exporting there would replace the weights that "
            "training started from. Choose another --export_dir."
        )
    if (folder / saved_params.CHECKPOINTS).exists() or saved_params.begun(folder):
        raise InputError(
            f"{folder} is the work directory of a run: exporting there would replace its "
            "config.json, so it could not resume. Choose another --export_dir, e.g. its export/."
        )
    ids = _token_ids(experiment, Path(source))
    weights.save(folder, experiment.model, experiment.merged(params), dtype=dtype, extra=ids)
    # What ends an answer is looked up there; a source's own replaces it.
    jsonfiles.write(folder / GENERATION, {k: v for k, v in ids.items() if v is not None})
    said = f"{folder}: a {experiment.model.family} model, ready for transformers."
    return f"{said} {_write_tokenizer(text, folder)}"


def write_adapters(experiment: Experiment, params: Params, folder: Path) -> str:
    """Writes LoRA adapters as PeftModel.from_pretrained loads them; returns words for the user."""
    settings = experiment.settings.model
    adapter_files.save_adapters(
        folder, experiment.model, params, settings.lora, source=settings.source
    )
    return f"{folder}: adapters in PEFT's layout, for {settings.source}."


def _token_ids(experiment: Experiment, source: Path) -> dict[str, int | list[int] | None]:
    """Begin, end and padding, for config.json: as the source has it, or as they are used here."""
    text = experiment.template.tokenizer
    ends = list(text.end_ids)
    ids: dict[str, int | list[int] | None] = {
        "bos_token_id": text.bos_id,
        "eos_token_id": ends if len(ends) > 1 else ends[0],
        "pad_token_id": text.pad_id,
    }
    if source.is_dir():
        stated = jsonfiles.read(source / "config.json")
        ids |= {key: stated[key] for key in ids if key in stated}
    return ids


def _write_tokenizer(named: str, folder: Path) -> str:
    """Writes or copies the files of the tokenizer read from `named`; says what there is."""
    origin = expanded(named)
    try:
        if not _present(origin, TOKENIZER) and (gguf := gguf_files.find(origin)):
            return _of_gguf(gguf, folder)
        if origin.suffix == ".model":
            copied = {"tokenizer.model": origin} | _present(origin.parent, BESIDE)
        elif origin.is_dir():
            copied = _present(origin, (*TOKENIZER, *BESIDE))
        else:
            return "No tokenizer: that of the characters has no files that others read."
        for name, path in copied.items():
            shutil.copyfile(path, folder / name)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{folder}: the tokenizer's files cannot be written, as they are in {origin} "
            f"({error.strerror or error}). Choose another --export_dir."
        ) from None
    return f"Tokenizer, copied: {', '.join(copied)}."


def _of_gguf(origin: Path, folder: Path) -> str:
    written = gguf_tokenizer.write(origin, folder)
    if written:
        return f"Tokenizer, made of the vocabulary in {origin.name}: {', '.join(written)}."
    return (
        f"No tokenizer: the vocabulary in {origin.name} would give other ids as {TOKENIZER[0]}. "
        "Copy the tokenizer's files of the original model into the folder, or set "
        "config.model.tokenizer to a folder that contains these files."
    )


def _present(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    return {name: folder / name for name in names if (folder / name).is_file()}
