"""An export on the hub, with a client that only remembers what it was asked for."""

import sys
import types
from pathlib import Path

import pytest

from score_jax.modes import push
from score_jax.problem import InputError


class Client:
    """Stands for huggingface_hub.HfApi."""

    def __init__(self, fails: str = ""):
        self.fails, self.asked = fails, []

    def _note(self, what: str, *given, **named):
        if what == self.fails:
            raise OSError(f"403 Forbidden: {what}\nand more lines")
        self.asked.append((what, given, named))

    def whoami(self):
        self._note("whoami")

    def create_repo(self, *given, **named):
        self._note("create_repo", *given, **named)

    def upload_folder(self, **named):
        self._note("upload_folder", **named)


@pytest.fixture
def hub(monkeypatch):
    def installed(client: Client | None) -> Client | None:
        module = types.SimpleNamespace(HfApi=lambda: client) if client else None
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return client

    return installed


def test_the_files_of_an_export_go_to_a_private_repository(hub, tmp_path):
    client = hub(Client())
    assert push.ready("me/my-model") is client
    where = push.push(client, tmp_path, "me/my-model", "stage2 at step 3")
    assert where == "https://huggingface.co/me/my-model"
    (_, create, upload) = client.asked
    assert create == ("create_repo", ("me/my-model",), {"private": True, "exist_ok": True})
    assert upload[2]["repo_id"] == "me/my-model" and upload[2]["folder_path"] == tmp_path
    assert upload[2]["commit_message"] == "stage2 at step 3"


def test_other_files_of_the_folder_stay_at_home(hub, tmp_path):
    import fnmatch

    names = ("README.md", "model-00001-of-00002.safetensors", "tokenizer.json", "tokenizer.model")
    for name in names:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in push.FILES)
    for name in ("notes.txt", ".env", "train.jsonl", "my_rewards.py"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in push.FILES)
    client = Client()
    push.push(client, tmp_path, "me/mine", "")
    assert client.asked[1][2]["allow_patterns"] == push.FILES


@pytest.mark.parametrize("name", ["mine", "a/b/c", "https://huggingface.co/a/b", "a/../b", "/a"])
def test_a_name_that_is_none_is_refused(hub, name):
    hub(Client())
    with pytest.raises(InputError, match="Give OWNER/NAME"):
        push.ready(name)


def test_a_missing_client_or_login_is_told_before_anything_is_read(hub):
    hub(None)
    with pytest.raises(InputError, match=r"pip install 'score-jax\[hub\]'"):
        push.ready("me/mine")
    hub(Client("whoami"))
    with pytest.raises(InputError, match=r"403 Forbidden: whoami\), so nothing .*HF_TOKEN"):
        push.ready("me/mine")


@pytest.mark.parametrize("what", ["create_repo", "upload_folder"])
def test_a_refused_upload_says_where_the_export_is(what):
    with pytest.raises(InputError, match=f"export is in there, .* me/mine failed: .*{what}. Check"):
        push.push(Client(what), Path("there"), "me/mine", "")
