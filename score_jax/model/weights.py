"""Published weights in, trained weights out.

    load(source, dtype)           -> (config, params), from a Hugging Face folder, hub id, .gguf,
                                     adapters of one of these, or a run of ours
    shape(source)                 -> config alone; no values are read
    described(source)             -> config alone; of the hub, no weights are fetched for it
    save(folder, config, params)  -> safetensors and config.json, which transformers reads
    digest(params, dtype)         -> a name of their values, the same before `save` and after `load`
    fingerprint(source)           -> tells the files of a source from later ones of the same name

A load checks every tensor's name and shape before it reads any value. It then fills one parameter
after the other: all layers of one kind go, block of rows by block of rows, into one host buffer,
which is handed to `put` and forgotten. So the host holds at most one stacked parameter beside what
is already placed.
"""

import contextlib
import functools
import hashlib
import math
import mmap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_jax import jsonfiles
from score_jax.model import families, transformer
from score_jax.model.families import ModelConfig
from score_jax.model.files import (
    adapters,
    config_formats,
    huggingface,
    locate,
    safetensors_file,
    saved_params,
    stored,
    tensor_names,
)
from score_jax.model.files.tensor_names import Place
from score_jax.problem import FULL, InputError
from score_jax.runtime import sharding
from score_jax.structs import Params
from score_jax.text.tokenizers import gguf_files

DTYPES = ("float32", "bfloat16")
_LOOKED_AT = 2**16  # bytes of each part of a file, for its fingerprint
SHARD_BYTES = 5 * 10**9  # of one file, at most, where a model is larger; as transformers has it

Read = Callable[[Place, np.dtype], np.ndarray]  # all layers of a parameter, in our layout
# (path such as "layers/query", the whole parameter) -> what stands in params
Put = Callable[[str, np.ndarray], Any]


def load(
    source: str, dtype: str = "float32", *, put: Put | None = None
) -> tuple[ModelConfig, Params]:
    """A model's shape and its params, all of one dtype.

    Args:
      source: a folder with config.json and safetensors, a hub id ("owner/name"), a .gguf file, a
        folder or hub id of LoRA adapters (see adapters.py), or a run's work directory or a
        checkpoint in it (see saved_params.py).
      dtype: one of DTYPES; quantised and 16-bit weights are converted while they are read.
      put: places each finished parameter, e.g. onto a mesh; by default onto the first device.

    Raises: InputError, naming the file, when anything is missing, damaged or does not fit.
    """
    _known(dtype)
    config, read = _open(source)
    params: dict[str, Any] = {}
    for place in tensor_names.places(config):
        group = params
        *folders, leaf = place.path.split("/")
        for folder in folders:
            group = group.setdefault(folder, {})
        # Nothing here keeps the buffer, so that it is gone before the next one is made.
        placed = (put or _put)(place.path, read(place, jax.numpy.dtype(dtype)))
        group[leaf] = jax.block_until_ready(placed)
    return config, params


def shape(source: str) -> ModelConfig:
    """The model of a source as in `load`; its tensors' names and shapes are checked.

    Raises: InputError as `load` does.
    """
    return _open(source)[0]


def described(source: str) -> ModelConfig:
    """The shape that a source's small files describe; what only tensors show may differ.

    Raises: InputError as `load` does, for what these files show.
    """
    path = locate.path_of(source, weights=False)
    run = saved_params.find(path)
    if run is None:
        return locate.config_of(path)
    if run.model.source.startswith(families.PRESET):
        return families.preset(run.model.source)
    with saved_params.of_run(run):
        return described(run.model.source)


@functools.lru_cache(maxsize=8)
def _made(config: ModelConfig) -> Params:
    return jax.eval_shape(lambda: transformer.init(config, jax.random.key(0)))


def shapes(config: ModelConfig, mesh: sharding.AnyMesh, dtype: str) -> Params:
    """Shapes and shardings of all weights of a model on a mesh, whose devices need not be here."""
    made = _made(config)
    shardings = sharding.params_shardings(mesh, transformer.AXES, made)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, dtype, sharding=s), made, shardings
    )


def save(
    folder: str | Path,
    config: ModelConfig,
    params: Params,
    *,
    dtype: str = "",
    extra: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes safetensors and config.json; each file appears only when it is complete.

    A model of more than `shard_bytes` goes into several files and an index of them. Weights that
    lay in the folder before are replaced.

    Args:
      params: every array must be readable from this process.
      dtype: one of DTYPES; empty: as the params are.
      extra: further entries of config.json, e.g. {"eos_token_id": 2}: transformers assumes token
        ids 1 and 2 for begin and end of text where nothing is said.
    """
    folder = Path(folder)
    kind = jax.numpy.dtype(_known(dtype) if dtype else params["embedding"].dtype)
    found: dict[str, list[tuple[Place, int]]] = {}
    for place in tensor_names.places(config):
        for layer, name in enumerate(tensor_names.names(place, place.huggingface, config)):
            found.setdefault(name, []).append((place, layer))

    # Tensors of one parameter, or of those in one tensor, follow each other.
    @functools.lru_cache(maxsize=max(map(len, found.values())))
    def host(path: str) -> np.ndarray:
        value = params
        for key in path.split("/"):
            value = value[key]
        return np.asarray(value)

    def values(name: str) -> np.ndarray:
        parts = []
        for place, layer in found[name]:
            value = host(place.path)
            parts.append(tensor_names.as_stored(place, value[layer] if place.stacked else value))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    shapes = tensor_names.stored_shapes(config, gguf=False)
    files = _files(shapes, kind.itemsize, shard_bytes)
    described = config_formats.to_huggingface(config) | {"torch_dtype": str(kind)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = set(files)
        for file, names in files.items():
            safetensors_file.write(
                folder / file, {name: shapes[name] for name in names}, kind, values
            )
        if len(files) > 1:
            size = sum(kind.itemsize * math.prod(shape) for shape in shapes.values())
            of_name = {name: file for file, names in files.items() for name in names}
            index = {"metadata": {"total_size": size}, "weight_map": of_name}
            jsonfiles.write(folder / huggingface.INDEX, index)
            written.add(huggingface.INDEX)
        for former in (huggingface.INDEX, huggingface.WEIGHTS, "model-?????-of-?????.safetensors"):
            for path in folder.glob(former):
                if path.name not in written:
                    path.unlink()
        jsonfiles.write(folder / "config.json", described | dict(extra or {}))
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(
            f"{folder}: the model cannot be written there ({error.strerror or error}). "
            "Choose another folder."
        ) from None


def digest(params: Params, dtype: str) -> str:
    """16 hexadecimal digits that say which weights these are, as they are saved in `dtype`."""
    found, kind = hashlib.sha256(_known(dtype).encode()), jax.numpy.dtype(dtype)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        found.update(f"{jax.tree_util.keystr(path)}{leaf.shape}".encode())
        found.update(np.ascontiguousarray(np.asarray(leaf).astype(kind)).view(np.uint8).data)
    return found.hexdigest()[:16]


def fingerprint(source: str) -> str:
    """16 hexadecimal digits that say what lies in a source's files; empty for a preset.

    Of each file its size, beginning, middle and end are read: training further changes them all.
    With adapters, the files of their base count too.
    Raises: InputError when there is nothing of that name.
    """
    if source.startswith(families.PRESET):
        return ""
    path = locate.path_of(source).absolute()  # as the run's is
    root, base, settings = path, "", ""
    about_base: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    if run := saved_params.find(path):
        files = [run.path, *run.path.rglob("*")]
        if run.model.lora.rank:
            base, about_base = run.model.source, functools.partial(saved_params.of_run, run)
    elif path.is_file():
        root, files = path.parent, [part for part in gguf_files.parts(path) if part.is_file()]
    else:
        files = [*path.glob("*.safetensors"), path / "config.json"]
        if adapter := adapters.find(path):
            settings = adapter.settings
            base, about_base = adapter.base, adapter.of_base
    found = hashlib.sha256(settings.encode())
    for file in sorted(files):
        found.update(str(file.relative_to(root)).encode())
        if file.is_file():
            size = file.stat().st_size
            with file.open("rb") as opened:
                for start in (0, size // 2, max(0, size - _LOOKED_AT)):
                    opened.seek(start)
                    found.update(opened.read(_LOOKED_AT))
            found.update(str(size).encode())
    if base:
        with about_base():
            found.update(fingerprint(base).encode())
    return found.hexdigest()[:16]


def _files(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int, shard_bytes: int
) -> dict[str, list[str]]:
    """Which tensors go into which file, in order."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, shape in shapes.items():
        more = itemsize * math.prod(shape)
        if shards[-1] and size + more > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    if len(shards) == 1:
        return {huggingface.WEIGHTS: shards[0]}
    return {
        f"model-{i:05}-of-{len(shards):05}.safetensors": names
        for i, names in enumerate(shards, start=1)
    }


def _known(dtype: str) -> str:
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; known: {', '.join(DTYPES)}.")
    return dtype


def _open(source: str) -> tuple[ModelConfig, Read]:
    """A model's shape, checked against what is there, and what reads one parameter of it."""
    path = locate.path_of(source)
    run = saved_params.find(path)
    if run is None:
        files = locate.open_at(path)
        _check(files)
        return files.config, functools.partial(_read, files)
    return _open_run(run)


def _open_run(run: saved_params.Checkpoint) -> tuple[ModelConfig, Read]:
    started_from, adapted = run.model.source, run.model.lora.rank > 0
    if started_from.startswith(families.PRESET):
        if adapted:
            raise InputError(
                f"{run.path} holds adapters of the random weights of {started_from}, which are in "
                "no file. Export that run (--mode=export) and name the exported folder."
            )
        config, read_base = families.preset(started_from), None
    else:
        with saved_params.of_run(run):
            config, read_base = _open(started_from)
    run.check(config)

    def read(place: Place, dtype: np.dtype) -> np.ndarray:
        if read_base is None or not adapted:
            value = run.read(place.path, dtype)
        else:
            # The adapters were trained beside weights of the run's own dtype.
            weight = read_base(place, jax.numpy.dtype(run.model.dtype)).astype(dtype, copy=False)
            value = run.merged(place, weight)
        _check_finite(value, place.path, run.path)
        return value

    return config, read


def _check(files: stored.WeightFiles) -> None:
    """Every tensor accounted for, or all that are not in one message."""
    config, tensors = files.config, files.tensors
    expected = tensor_names.stored_shapes(config, files.gguf)
    problems = []
    missing = [name for name in expected if name not in tensors]
    if missing:
        problems.append(f"{len(missing)} missing: {stored.listed(missing)}")
    unexpected = [name for name in tensors if name not in expected]
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {stored.listed(unexpected)}")
    misshapen = [
        f"{name} is {list(tensors[name].shape)}, should be {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if misshapen:
        problems.append(f"{len(misshapen)} of another shape: {stored.listed(misshapen)}")
        embedding = files.names(tensor_names.places(config)[0])[0]
        rows = tensors[embedding].shape[0] if embedding in tensors else config.vocab_size
        if rows != config.vocab_size:
            problems.append(
                f"the vocabulary has {config.vocab_size} tokens but the embedding {rows} rows"
            )
    if problems:
        described = "its metadata" if files.gguf else "config.json"
        raise InputError(
            f"{files.path}: the tensors are not those of the model that {described} "
            f"describes; {'; '.join(problems)}. Use files of one and the same checkpoint."
        )


def _read(files: stored.WeightFiles, place: Place, dtype: np.dtype) -> np.ndarray:
    """All layers of one parameter, in our layout."""
    parts = files.names(place)
    value = _buffer((len(parts), *tensor_names.shape(place, files.config)), dtype)
    order = None
    if files.gguf and place.interleaved:
        order = tensor_names.deinterleaved(place, files.config)
    offset = files.config.norm_offset if files.gguf and place.is_norm else 0.0
    lines = tensor_names.rows(place, files.config, files.gguf)
    for layer, name in enumerate(parts):
        target = tensor_names.as_stored(place, value[layer])
        for rows, block in stored.blocks(stored.part(files.tensors[name], *lines)):
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, refused below
                block = (block - offset if offset else block).astype(dtype, copy=False)
            _check_finite(block, name, files.path)
            target[rows if order is None else order[rows]] = block
    return value if place.stacked else value[0]


def _check_finite(value: np.ndarray, name: str, path: Path) -> None:
    """Raises: InputError for NaN or inf, with which every answer would be noise."""
    if value.dtype == jax.numpy.bfloat16:  # by its bits: numpy is slow with it
        finite = value.view(np.int16).max() < 0x7F80 and value.view(np.uint16).max() < 0xFF80
    else:
        finite = np.isfinite(value.min()) and np.isfinite(value.max())
    if not finite:
        raise InputError(
            f"{path}: {name} holds NaN, inf or a number that {value.dtype} cannot hold, so the "
            "model cannot answer. A training that diverged writes such weights, and so does a "
            "damaged copy: fetch the files again, or use an earlier checkpoint."
        )


def _put(path: str, value: np.ndarray) -> jax.Array:
    return jax.device_put(value)


def _buffer(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array whose memory goes back to the system when it is forgotten.

    The memory of freed arrays may stay with the process (runtime/heap.py), and weights that are
    placed meanwhile then leave holes in it. It begins 16 bytes after a page: of an aligned array, a
    CPU device would keep the buffer itself, and that memory cannot be donated to an update.
    """
    size = math.prod(shape)
    memory = mmap.mmap(-1, 16 + max(1, size) * dtype.itemsize)
    return np.frombuffer(memory, dtype, size, offset=16).reshape(shape)
