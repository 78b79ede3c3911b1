"""TensorBoard's event files: scalars, histograms and texts by step.

Messages and records are those of the `tensorboard` package. Other writers are not used: they import
torch or TensorFlow where one of these is installed.
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.summary.writer.record_writer import RecordWriter

_SYNC_SEC = 10.0  # between two syncs: a mounted bucket uploads only what was synced
_BINS = 30  # of a histogram


class EventFile:
    """One event file; every record is written out at once."""

    def __init__(self, folder: Path, first_step: int):
        """Starts a file; TensorBoard hides this step and later ones of earlier files."""
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names. With whole seconds alone, a quick
        # resume would overwrite the file before it.
        sec, nanosec = divmod(time.time_ns(), 10**9)
        path = folder / f"events.out.tfevents.{sec}.{socket.gethostname()}.{nanosec:09}"
        self._file = open(path, "xb")  # noqa: SIM115  # closed by close()
        self._records = RecordWriter(self._file)
        self._synced_sec = 0.0
        self._write(first_step, file_version="brain.Event:2")
        self._write(first_step, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one number for each tag."""
        # What float32 cannot hold becomes inf; protobuf would raise.
        with np.errstate(over="ignore"):
            found = [
                Summary.Value(tag=tag, simple_value=float(np.float32(x)))
                for tag, x in values.items()
            ]
        self._write(step, summary=Summary(value=found))

    def histogram(self, step: int, tag: str, values: Sequence[float]) -> None:
        """Writes the distribution of `values`, which must not be empty."""
        array = np.asarray(values, float)
        counts, edges = np.histogram(array, _BINS)
        filled = np.flatnonzero(counts)
        first, end = filled[0], filled[-1] + 1
        # A bin is described by its right edge, so the first left edge needs an empty bin.
        histogram = summary_pb2.HistogramProto(
            min=array.min(),
            max=array.max(),
            num=len(array),
            sum=array.sum(),
            sum_squares=array @ array,
            bucket_limit=edges[first : end + 1],
            bucket=[0, *counts[first:end]],
        )
        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, histo=histogram)]))

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes Markdown."""
        size_one = tensor_shape_pb2.TensorShapeProto.Dim(size=1)
        tensor = tensor_pb2.TensorProto(
            dtype=types_pb2.DT_STRING,
            tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=[size_one]),
            string_val=[text.encode()],
        )
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        value = Summary.Value(tag=f"{tag}/text_summary", tensor=tensor, metadata=metadata)
        self._write(step, summary=Summary(value=[value]))

    def close(self) -> None:
        """Syncs and closes the file."""
        self._sync()
        self._file.close()

    def _write(self, step: int, **content) -> None:
        event = Event(wall_time=time.time(), step=step, **content)
        self._records.write(event.SerializeToString())
        self._file.flush()
        if time.monotonic() - self._synced_sec > _SYNC_SEC:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_sec = time.monotonic()
