import functools
import http.server
import subprocess
import sys
import threading

import pytest

from score_jax.data.files import prepared
from score_jax.data.sets import humaneval, math_problems, mbpp
from score_jax.problem import InputError
from tests.data.real import REAL, needs_real_data

BUILDERS = "score_jax.data.files.builders"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A TFDS folder with MBPP and HumanEval, from the published files."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("mbpp", "humaneval"):
        path = prepared.prepare(name, str(REAL / name), str(folder))
        assert list(path.glob(f"{name}-*.array_record-*"))
    return str(folder)


@needs_real_data
@pytest.mark.parametrize(
    ("module", "split"), [(mbpp, "train+validation"), (mbpp, "test"), (humaneval, "test")]
)
def test_array_record_holds_what_the_published_files_hold_in_their_order(written, module, split):
    rows = prepared.rows(module.NAME, split, module=BUILDERS, data_dir=written)
    assert [module.problem(row) for row in rows] == module.problems(str(REAL / module.NAME), split)


@pytest.mark.slow  # the largest of the three
@needs_real_data
def test_math_is_prepared_from_its_two_files(tmp_path):
    prepared.prepare("math", str(REAL / "math"), str(tmp_path))
    for split, count in (("train", 11_999), ("test", 500)):
        rows = prepared.rows("math", split, module=BUILDERS, data_dir=str(tmp_path))
        assert len(rows) == count
        expected = math_problems.problems(str(REAL / "math"), split)
        assert [math_problems.problem(row) for row in rows] == expected


@needs_real_data
def test_what_is_prepared_is_read_without_tensorflow_jax_or_a_network(written):
    program = (
        "import sys; from score_jax.data.files import prepared\n"
        "prepared._require_network = lambda: sys.exit('asks for the network')\n"
        f"rows = prepared.rows('humaneval', 'test', module={BUILDERS!r}, data_dir=sys.argv[1])\n"
        "assert len(rows) == 164\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
        f"prepared.rows('math', 'test', module={BUILDERS!r}, data_dir=sys.argv[1])"
    )
    command = [sys.executable, "-c", program, written]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1:] == ["asks for the network"], done.stderr


@pytest.fixture
def served():
    """The address of a web server over the published files."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(REAL))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@needs_real_data
def test_published_files_are_downloaded_from_the_address_that_is_given(
    served, tmp_path, monkeypatch
):
    rows = prepared.rows(
        "humaneval",
        "test",
        module=BUILDERS,
        data_dir=str(tmp_path),
        url=f"{served}/humaneval/",
    )
    assert [humaneval.problem(row) for row in rows] == humaneval.problems(
        str(REAL / "humaneval"), "test"
    )
    assert list((tmp_path / "humaneval").rglob("*.array_record-*"))


def test_a_file_of_another_content_is_refused_with_our_own_message(tmp_path):
    (tmp_path / "mbpp.jsonl").write_text('{"task_id": 1}\n')
    with pytest.raises(InputError, match=r"^[^ ]*mbpp\.jsonl: has 1 rows, but .* has 974"):
        prepared.prepare("mbpp", str(tmp_path), str(tmp_path / "tfds"))
    assert not list((tmp_path / "tfds").rglob("*.array_record-*"))


def test_without_a_network_the_message_names_the_published_file(tmp_path, monkeypatch):
    import requests

    def offline(*_, **__):
        raise requests.ConnectionError("name resolution failed")

    monkeypatch.setattr(requests, "head", offline)
    monkeypatch.setattr(requests.Session, "get", offline)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    where = {"data_dir": str(tmp_path), "files": "mbpp.jsonl"}
    with pytest.raises(InputError, match=r"resolution failed.*path=FOLDER.* mbpp\.jsonl"):
        prepared.rows("mbpp", "train", module=BUILDERS, **where)


def test_command_line_tells_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="neither a folder nor a URL"):
        prepared.main(["mbpp", str(tmp_path / "nowhere"), f"--data_dir={tmp_path}"])


@needs_real_data
def test_command_line_prepares(tmp_path, capsys):
    given = ["humaneval", str(REAL / "humaneval"), f"--data_dir={tmp_path}"]
    prepared.main(given)
    assert f"{tmp_path}/humaneval/1.0.0" in capsys.readouterr().out
