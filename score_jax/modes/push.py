"""--push=OWNER/NAME: puts an export on the Hugging Face hub, with the user's own login.

    ready(name)            the hub's client; refuses what cannot be pushed, before weights are read
    push(client, …)        uploads the files of an export -> where they are

A repository that is new is private: its owner decides when others see it. Needs the extra `hub`.
"""

import re
from pathlib import Path
from typing import Any

from score_jax.problem import InputError

# Only what an export writes: a folder of the user's may hold other files.
FILES = ["README.md", "*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt"]


def ready(name: str) -> Any:
    """The hub's client, logged in. Raises: InputError for a bad name, no client or no login."""
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise InputError(
            f"--push={name} is not the name of a repository of the hub. Give OWNER/NAME, such as "
            "your-name/my-model."
        )
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise InputError(
            f"--push={name} needs huggingface_hub, which is not installed. Run: pip install "
            "'score-jax[hub]', or leave --push out."
        ) from None
    client = HfApi()
    try:
        client.whoami()
    except Exception as error:  # of the client, the network or the hub
        raise InputError(
            f"--push={name}: the hub does not say who you are ({_line(error)}), so nothing could "
            "be uploaded. Log in with `hf auth login` or set HF_TOKEN to a token that may write, "
            "or leave --push out."
        ) from error
    return client


def push(client: Any, folder: Path, name: str, message: str) -> str:
    """Uploads an export as one commit; returns its address.

    Raises: InputError if the hub refuses it; the export stays where it is."""
    try:
        client.create_repo(name, private=True, exist_ok=True)
        client.upload_folder(
            repo_id=name, folder_path=folder, commit_message=message, allow_patterns=FILES
        )
    except Exception as error:
        raise InputError(
            f"the export is in {folder}, and uploading it to {name} failed: {_line(error)}. Check "
            "the name and that your token may write there, and run the same command again."
        ) from error
    return f"https://huggingface.co/{name}"


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
