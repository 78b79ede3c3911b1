"""Names of files are those of files."""

from pathlib import Path

import pytest

from score_jax.problem import InputError, expanded


def test_a_home_folder_is_written_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/runs") == Path("/home/me/runs")
    assert expanded("runs/~") == Path("runs/~")
    assert expanded("./~x") == Path("~x")
    assert expanded(Path("runs")) == Path("runs")
    assert expanded("") == Path()
    assert expanded("ä" * 127) == Path("ä" * 127)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("~nosuchuser/x", r"~nosuchuser is the home folder of no user"),
        ("runs/a\0b", r"'runs/a\\x00b': no file has such a character in its name"),
        ("\ud800", r"'\\ud800': no file has such a character"),
        ("~\ud800/x", "no file has such a character"),
        ("~a\0b/x", "no file has such a character"),
        (300 * "x", r"^x{60}… has a name of more than 255 bytes"),
        ("a/" + 128 * "ä" + "/b", r"has a name of more than 255 bytes"),
    ],
)
def test_a_name_that_no_file_has_is_refused(name, said):
    with pytest.raises(InputError, match=said):
        expanded(name)
