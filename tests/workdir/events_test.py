"""Event files: what other packages read in them is what was written."""

import time

import numpy as np
import pytest
import tensorboardX.summary
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from score_jax.workdir import events


def read(folder) -> list[Event]:
    """All events of a folder, in the order that TensorBoard reads them; checks the checksums."""
    found = []
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # length (8 bytes), its check (4), record, its check (4)
            size = int.from_bytes(data[:8], "little")
            checks = data[8:12], data[12 + size : 16 + size]
            for content, check in zip((data[:8], data[12 : 12 + size]), checks, strict=True):
                expected = record_writer.masked_crc32c(content)
                assert int.from_bytes(check, "little") == expected
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def summary(folder) -> Summary:
    """The summary of a file that has one."""
    return read(folder)[2].summary


def test_a_file_begins_with_its_version_and_a_session_at_its_first_step(tmp_path):
    before = time.time()
    events.EventFile(tmp_path / "tensorboard", 300).close()
    version, session = read(tmp_path / "tensorboard")
    assert version.file_version == "brain.Event:2"
    assert session.session_log.status == SessionLog.START and session.step == 300
    assert before <= version.wall_time <= session.wall_time <= time.time()
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")  # how TensorBoard knows such files


def test_scalars_of_a_step_are_one_record_read_as_float32(tmp_path):
    values = {"loss": 0.1, "reward/attempt1": 0.0, "kl": -1e39, "n": 7, "done": True}
    file = events.EventFile(tmp_path, 0)
    file.scalars(123456789, values)
    assert read(tmp_path)[2].step == 123456789  # on disk before the file is closed
    file.close()
    expected = [Summary.Value(tag=k, simple_value=v) for k, v in values.items()]
    assert summary(tmp_path) == Summary(value=expected)


@pytest.mark.parametrize("values", [[1, 2, 2, 5], [3.0], [0.0, 0.0], [-1.5, 1e6, 0.25]])
def test_a_histogram_is_that_of_tensorboard_x(tmp_path, values):
    file = events.EventFile(tmp_path, 0)
    file.histogram(1, "evaluation/tokens", values)
    file.close()
    expected = tensorboardX.summary.histogram("evaluation/tokens", np.array(values), 30)
    assert summary(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "π: 3.14\n" * 5000])
def test_a_text_is_that_of_tensorboard_x(tmp_path, text):
    file = events.EventFile(tmp_path, 0)
    file.text(1, "transcripts", text)
    file.close()
    written, expected = summary(tmp_path), tensorboardX.summary.text("transcripts", text)
    plugin = expected.value[0].metadata.plugin_data
    plugin.content = b""  # the version, which is 0 where it is absent
    assert written == expected
