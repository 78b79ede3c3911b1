"""TensorBoard's event files: scalars, histograms and texts by step.

    file   = records, one after another
    record = length (8 bytes), its checksum (4), an Event message, the message's checksum (4)

The few protobuf messages are encoded here: packages that write them import torch or TensorFlow.
Sources: TensorFlow's record_writer.h (records), event.proto and summary.proto (field numbers).
Left out: images, audio, graphs.
"""

import ctypes
import os
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

_SYNC_SEC = 10.0  # between two syncs: a mounted bucket uploads only what was synced
_BINS = 30  # of a histogram
_START, _STRING = 1, 7  # SessionLog.START, DT_STRING


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
        self._synced_sec = 0.0
        self._write(first_step, _bytes(3, b"brain.Event:2"))
        self._write(first_step, _bytes(7, _integer(1, _START)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one number for each tag."""
        self._write_summary(
            step, *(_bytes(1, tag.encode()) + _float(2, x) for tag, x in values.items())
        )

    def histogram(self, step: int, tag: str, values: Sequence[float]) -> None:
        """Writes the distribution of `values`, which must not be empty."""
        array = np.asarray(values, float)
        counts, edges = np.histogram(array, _BINS)
        filled = np.flatnonzero(counts)
        first, end = filled[0], filled[-1] + 1
        moments = (array.min(), array.max(), len(array), array.sum(), array @ array)
        # A bin is described by its right edge, so the first left edge needs an empty bin.
        histogram = b"".join(_double(n, float(x)) for n, x in enumerate(moments, start=1))
        histogram += _doubles(6, edges[first : end + 1].tolist()) + _doubles(
            7, [0, *counts[first:end]]
        )
        self._write_summary(step, _bytes(1, tag.encode()) + _bytes(5, histogram))

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes Markdown."""
        shape = _bytes(2, _integer(1, 1))  # one dimension of size 1
        tensor = _integer(1, _STRING) + _bytes(2, shape) + _bytes(8, text.encode())
        metadata = _bytes(1, _bytes(1, b"text"))
        self._write_summary(
            step,
            _bytes(1, f"{tag}/text_summary".encode()) + _bytes(8, tensor) + _bytes(9, metadata),
        )

    def close(self) -> None:
        """Syncs and closes the file."""
        self._sync()
        self._file.close()

    def _write_summary(self, step: int, *values: bytes) -> None:
        self._write(step, _bytes(5, b"".join(_bytes(1, value) for value in values)))

    def _write(self, step: int, content: bytes) -> None:
        event = _double(1, time.time()) + _integer(2, step) + content
        length = struct.pack("<Q", len(event))
        self._file.write(length + checksum(length) + event + checksum(event))
        self._file.flush()
        if time.monotonic() - self._synced_sec > _SYNC_SEC:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_sec = time.monotonic()


def checksum(data: bytes) -> bytes:
    """The masked CRC-32C of a record. Source: RFC 3720, TensorFlow's crc32c.h."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_crc_of_byte(byte) for byte in range(256)]


# Fields of a protobuf message: the number and the wire type in one varint, then the value.


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _doubles(field: int, values: Sequence[float]) -> bytes:
    return _bytes(field, struct.pack(f"<{len(values)}d", *values))


def _float(field: int, value: float) -> bytes:
    # What float32 cannot hold becomes inf; struct would raise.
    return _varint(field << 3 | 5) + bytes(ctypes.c_float(value))
