"""The memory that a run may use."""

import types

from score_jax.runtime import peaks


def test_a_container_has_its_limit_and_a_machine_all_it_has(tmp_path):
    limit = tmp_path / "memory.max"
    whole = peaks._machine_bytes(limit)  # no such file
    assert whole > 1e8
    limit.write_text("max\n")
    assert peaks._machine_bytes(limit) == whole
    limit.write_text("100000000\n")
    assert peaks._machine_bytes(limit) == 100_000_000
    limit.write_text("9223372036854771712\n")  # how "no limit" looks to some
    assert peaks._machine_bytes(limit) == whole


def test_a_device_with_memory_of_its_own_says_its_limit(monkeypatch):
    device = types.SimpleNamespace(
        device_kind="NVIDIA H200", memory_stats=lambda: {"bytes_limit": 104_900_000_000}
    )
    monkeypatch.setattr(peaks.jax, "local_devices", lambda: [device])
    assert peaks.memory() == "104.9 GB on each NVIDIA H200"
