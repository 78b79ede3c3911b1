"""PNG files of a run; what they look like is judged by eye."""

import struct
import zlib

from score_jax.report.run_page import plots
from tests.report.run_page import fake_runs


def size(path) -> tuple[int, int]:
    """Width and height of a PNG, once it is seen to be whole."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data[-12:]
    length, kind = struct.unpack(">I4s", data[8:16])
    assert zlib.crc32(data[12 : 16 + length]) == struct.unpack(">I", data[16 + length :][:4])[0]
    assert kind == b"IHDR"
    return struct.unpack(">II", data[16:24])


def test_a_run_is_plotted(tmp_path):
    written = plots.write(fake_runs.write(tmp_path))
    assert [path.name for path in written] == ["accuracy.png", "policy.png"]
    assert all(width > 1000 and height > 400 for width, height in map(size, written))


def test_a_run_without_rl_yet_has_only_its_evaluation(tmp_path):
    written = plots.write(fake_runs.write(tmp_path, stages=("base",)))
    assert [path.name for path in written] == ["accuracy.png"]


def test_a_run_of_one_attempt_is_plotted(tmp_path):
    rows = [fake_runs.transcript(i, ("4", True)) for i in range(5)]
    fake_runs.write(tmp_path, stages=("base",), transcripts={"base": rows})
    assert len(plots.write(tmp_path)) == 1


def test_a_run_that_has_just_begun_has_no_plots(tmp_path):
    assert plots.write(fake_runs.write(tmp_path, stages=())) == []
