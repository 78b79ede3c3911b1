"""An adapter's tensors, merged into its base's while these are read.

    merged(adapter, base)   -> the base's tensors, each with what its adapter adds

What is computed is what the unmerged model computes; so an embedding that is also the head becomes
two tensors where an adapter changes one of its two uses alone. `fan_in_fan_out` needs no care: it
is for layers that are stored transposed, which no family has.

Source: LoRA, arXiv 2106.09685; DoRA, arXiv 2402.09353; names and shapes are those of `peft`.
"""

import dataclasses
import functools
import re

import numpy as np

from score_jax.model.files import huggingface, stored
from score_jax.model.files.adapters import CONFIG, MERGE_THERE, WEIGHTS, Adapter
from score_jax.model.files.stored import StoredTensor, WeightFiles, listed
from score_jax.problem import InputError

# Tensors of an adapter: the module that they belong to, and what they are of it.
_TENSOR = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B"
    r"|lora_magnitude_vector)(\.default)?(\.weight)?"
    r"|(?P<whole>.+?)(?P<below>\.base_layer)?(\.modules_to_save(\.default)?)?"
    r"\.(?P<kind>weight|bias)"
)
_MODULE = re.compile(r"(?P<before>|.+?\.)(?P<name>(layers\.\d+\..+|embed_tokens|norm)|lm_head)")


def merged(adapter: Adapter, base: WeightFiles) -> WeightFiles:
    """The base's tensors with the adapter's in them; values are read and merged later, by rows.

    Raises: InputError if adapter and base do not belong together.
    """
    if base.gguf:
        raise InputError(
            f"{adapter.path} is an adapter of the GGUF file {base.path}; adapters are merged into "
            f"Hugging Face folders only. Name the folder of that model in {CONFIG}."
        )
    given = _gathered(adapter, base)
    config, tensors = base.config, base.tensors | given.below
    changed = {huggingface.HEAD, huggingface.EMBEDDING} & {*given.factors, *given.wholes}
    shared = config.tied and bool(changed)
    if shared:
        if adapter.described.get("ensure_weight_tying") and len(changed) == 1:
            raise InputError(
                f"{adapter.path / CONFIG}: ensure_weight_tying is set, but {WEIGHTS} holds "
                f"{changed.pop()} alone of embedding and head. {MERGE_THERE}"
            )
        tensors[huggingface.HEAD] = tensors[huggingface.EMBEDDING]
    tensors |= given.wholes
    for name, factors in given.factors.items():
        tensors[name] = _merged(adapter, tensors[name], factors)
    if shared:
        both = len(changed) == 2 and changed <= given.wholes.keys()
        tied = both and stored.equal(tensors[huggingface.HEAD], tensors[huggingface.EMBEDDING])
        config = dataclasses.replace(config, tied=tied)
        if tied:
            del tensors[huggingface.HEAD]
    if huggingface.EMBEDDING in given.below | given.wholes:  # the vocabulary may have grown
        rows = tensors[huggingface.EMBEDDING].shape[0]
        config = dataclasses.replace(config, vocab_size=rows)
    return WeightFiles(adapter.path, config, tensors, gguf=False)


@dataclasses.dataclass
class _Factors:
    """The adapter of one tensor."""

    module: str  # as the adapter's file names it
    parts: dict[str, StoredTensor]  # "lora_A", "lora_B", …


@dataclasses.dataclass
class _Given:
    """What an adapter's file holds, by the base's names."""

    factors: dict[str, _Factors]
    wholes: dict[str, StoredTensor]  # trained in place of the base's
    below: dict[str, StoredTensor]  # what adapters are added to, where it is not the base's own


def _gathered(adapter: Adapter, base: WeightFiles) -> _Given:
    file = adapter.path / WEIGHTS
    if not file.is_file():
        pickled = (
            " PyTorch's adapter_model.bin is not read: opening a pickle runs the code in it. If "
            'you trust it, convert it: python -c "import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{adapter.path}/adapter_model.bin'), '{file}')\""
        )
        found = pickled if (adapter.path / "adapter_model.bin").exists() else " Fetch that file."
        raise InputError(f"{adapter.path} holds no {WEIGHTS}.{found}")
    given = _Given({}, {}, {})
    unknown, prefixes = [], set()
    for name, tensor in huggingface.read([file], base.config.layers, adapter.path).items():
        match = _TENSOR.fullmatch(name)
        own = (match["module"] or match["whole"]) if match else ""
        module = _MODULE.fullmatch(own)
        if not match or not module:
            unknown.append(name)
            continue
        theirs = module["name"]
        if theirs != "lm_head":
            prefixes.add(module["before"])
            theirs = f"model.{theirs}"
        theirs += f".{match['kind'] or 'weight'}"
        if theirs not in base.tensors and theirs != huggingface.HEAD:
            unknown.append(name)
        elif match["part"]:
            given.factors.setdefault(theirs, _Factors(own, {})).parts[match["part"]] = tensor
        else:
            (given.below if match["below"] else given.wholes)[theirs] = tensor
    if unknown or len(prefixes) > 1:
        said = listed(unknown) if unknown else f"names that begin with {listed(sorted(prefixes))}"
        raise InputError(
            f"{file} holds tensors that cannot be merged into {base.path}: {said}. Name its own "
            f"base in {CONFIG}. {MERGE_THERE}"
        )
    return given


def _merged(adapter: Adapter, weight: StoredTensor, factors: _Factors) -> StoredTensor:
    """One tensor W [outputs, inputs] with its adapter: W + scale * B A."""
    parts = dict(factors.parts)
    magnitude = parts.pop("lora_magnitude_vector", None)
    # Of an embedding the factors are stored transposed: W + scale * (B A)^T.
    embedding = "lora_embedding_A" in parts
    kinds = ("lora_embedding_B", "lora_embedding_A") if embedding else ("lora_A", "lora_B")
    down, up = (parts.pop(kind, None) for kind in kinds)
    if down and up and embedding:
        down, up = _transposed(down), _transposed(up)
    fits = (
        down is not None
        and up is not None
        and not parts
        and len(down.shape) == len(up.shape) == 2
        and (up.shape[0], down.shape[1]) == weight.shape
        and up.shape[1] == down.shape[0]
        and bool(adapter.described.get("use_dora")) == (magnitude is not None)
        and (magnitude is None or (magnitude.shape == weight.shape[:1] and not embedding))
    )
    if not fits or down is None or up is None:
        shapes = {kind: list(part.shape) for kind, part in factors.parts.items()}
        raise InputError(
            f"{adapter.path}: the adapter of {factors.module} is {shapes} with use_dora = "
            f"{adapter.described.get('use_dora')!r}, which cannot be merged into the base's "
            f"{list(weight.shape)}. Name its own base in {CONFIG}. {MERGE_THERE}"
        )
    scale = np.float32(adapter.scale(factors.module, down.shape[0]))

    def read_rows(first: int, last: int) -> np.ndarray:
        value = weight.read_rows(first, last).astype(np.float32)
        value += scale * (up.read_rows(first, last).astype(np.float32) @ _whole(down))
        if magnitude is not None:
            length_O = np.linalg.norm(value, axis=1)
            value *= (_whole(magnitude)[first:last] / length_O)[:, None]
        return value

    return StoredTensor(weight.name, weight.shape, read_rows)


def _transposed(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(
        tensor.name, tensor.shape[::-1], lambda first, last: _whole(tensor).T[first:last]
    )


@functools.lru_cache(maxsize=4)  # the blocks of one tensor are read after each other
def _whole(tensor: StoredTensor) -> np.ndarray:
    return tensor.read_rows(0, tensor.shape[0]).astype(np.float32)
