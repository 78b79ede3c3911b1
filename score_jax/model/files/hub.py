"""Downloads a model from the Hugging Face hub, or finds it in the hub's cache."""

from pathlib import Path

from score_jax.model.files import adapters, huggingface
from score_jax.problem import InputError

SMALL = ["*.json", "*.model", "*.jinja"]  # files that are no weights
# A second copy of the weights, in another layout.
_COPIES = ["consolidated*", "*/*.safetensors"]


def download(name: str, weights: bool) -> Path:
    """The folder of a hub id. What was downloaded before needs no network.

    weights: False downloads the small files only (shape and tokenizer).
    Raises: InputError if it can be had neither from the cache nor from the hub.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(
            f"{name} is not a local folder, and downloading it from the hub needs huggingface_hub. "
            "Run: pip install 'score-jax[hub]', or name a local folder."
        ) from None
    reason = ""
    for local in (True, False):
        try:
            found = Path(
                snapshot_download(
                    name,
                    local_files_only=local,
                    allow_patterns=SMALL + (["*.safetensors"] if weights else []),
                    ignore_patterns=_COPIES,
                )
            )
        except Exception as error:  # of the client, the network or the system
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            continue
        # The cache may hold a part of the files; the client does not count that as an error.
        if _whole(found, weights and local):
            return found
        if not local:
            raise InputError(
                f"{name} has no {huggingface.CONFIG} on the hub, so it is no model in Hugging "
                f"Face's layout. If it holds GGUF files, download one and name that: hf download "
                f"{name} FILE.gguf"
            )
    raise InputError(
        f"{name} is neither a local folder nor in the hub's cache, and could not be downloaded: "
        f"{reason}. Check the name and the network, or name a local folder."
    )


def _whole(found: Path, weights: bool) -> bool:
    described = (found / huggingface.CONFIG).exists() or (found / adapters.CONFIG).exists()
    return described and (
        not weights or huggingface.complete(found) or (found / adapters.WEIGHTS).exists()
    )
