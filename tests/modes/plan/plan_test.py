"""The whole mode: a small config compiled for chips that are not here, and flagships (slow)."""

import dataclasses
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict

import pytest

from score_jax.config import settings
from score_jax.modes.plan import chips, compiled, plan
from score_jax.problem import InputError
from tests.modes.plan import flagships

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="TPU's compiler (libtpu) is not installed: launch/test.sh installs it on Linux",
)


CONFIGS = sorted(path.stem for path in (flagships.ROOT / "configs").glob("*.py"))
V5E_4 = chips.slice_of("v5e:2x2")


def small(**model) -> settings.Settings:
    """The quickstart with few and short rows, on the four chips of a v5e:2x2."""
    made = flagships.settings("quickstart")
    return dataclasses.replace(
        made,
        model=dataclasses.replace(made.model, **model),
        rollout=dataclasses.replace(
            made.rollout,
            problems_per_step=4,
            samples_per_problem=2,
            max_prompt_tokens=16,
            max_attempt_tokens=8,
            shrink=0,
        ),
        memory=settings.MemorySettings(micro_batches=1, widths=1),
        evaluation=dataclasses.replace(made.evaluation, batch=4),
        mesh=settings.MeshSettings(data=2, fsdp=2),
    )


def executed(text: str) -> Counter[str]:
    """How often a program runs each kind of collective, from the lines of its text upwards.

    Loops of a constant length count as often as that says, others once.
    """
    lines: dict[str, list[str]] = {}  # of each computation
    for row in text.splitlines():
        if found := re.match(r"(?:ENTRY )?%(\S+) \(.*\{$", row):
            lines[found[1]] = []
        elif row.startswith("  "):
            lines[next(reversed(lines))].append(row)
    called: dict[str, list[tuple[str, int]]] = {}  # by whom, and how often a call
    for name, rows in lines.items():
        for row in rows:
            limit = 1
            if until := re.search(r" while\(.*condition=%([\w.\-]+)", row):
                constants = re.findall(r"constant\((\d+)\)", "\n".join(lines[until[1]]))
                limit = int(constants[0]) if len(constants) == 1 else 1
            for callee in re.findall(r"(?:calls|body)=%([\w.\-]+)", row):
                called.setdefault(callee, []).append((name, limit))

    def times(name: str) -> int:
        return sum(n * times(by) for by, n in called.get(name, [])) or 1

    kinds = r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
    once = {}  # the parts of one that is spread over fusions name the same chain
    for name, rows in lines.items():
        for row in rows:
            if kind := re.search(kinds, row):
                chain = re.search(r'chain_id="\d+"', row)
                once[chain[0] if chain else row] = (kind[1], times(name))
    total: Counter[str] = Counter()
    for kind, count in once.values():
        total[kind] += count
    return total


@pytest.mark.slow
@needs_libtpu
def test_a_small_config_is_compiled_for_four_chips(capsys, monkeypatch):
    texts, cost, counts = defaultdict(list), compiled.hlo.cost, {}

    def costed(text):
        texts[threading.get_ident()].append(text)  # the programs are compiled side by side
        return cost(text)

    monkeypatch.setattr(compiled.hlo, "cost", costed)
    compile_one = compiled.compile_one

    def counted(program):
        found = compile_one(program)
        counts[program.name] = Counter()
        for piece, text in zip(program.pieces, texts.pop(threading.get_ident()), strict=True):
            counts[program.name].update({k: piece.times * n for k, n in executed(text).items()})
        return found

    monkeypatch.setattr(compiled, "compile_one", counted)
    plan.plan(small(), V5E_4, compile=True)
    said = capsys.readouterr().out
    # What the plan names is what runs, and all of it.
    for program in ("update", "rollout"):
        named = re.findall(rf"^{program}: ([a-z-]+) +(\d+)", said, re.MULTILINE)
        assert {kind: int(count) for kind, count in named} == counts[program]
    assert "v5e-4 (v5e:2x2): 4 chips, mesh data=2 x fsdp=2 x tensor=1" in said
    for line in ("by arithmetic", "compiled,", "decode weights", "cache", "code of both"):
        assert line in said
    # No argument counts as one that is not there.
    (batches,) = re.findall(r"^prompts and episodes +(\S+) +(\S+)$", said, re.MULTILINE)
    assert min(map(float, batches)) >= 0
    # No chip does another's work: what it computes is its share of the whole.
    least, found = map(float, re.findall(r"(\d\.\d+e\+\d+)", said))
    # The reference's pass, a quarter or a fifth, is another program.
    assert 0.9 * 3 / 4 * least < found < 1.3 * 4 / 5 * least
    assert said.endswith("It fits v5e-4.\n")


@needs_libtpu
def test_what_does_not_fit_is_one_message_with_the_largest_terms_and_settings(tmp_path):
    # One layer, and a vocabulary whose embedding alone is 64 GB.
    described = {
        "model_type": "llama",
        "vocab_size": 2**22,
        "hidden_size": 4096,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    }
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(InputError) as refused:
        plan.plan(small(source=str(tmp_path), dtype="bfloat16"), V5E_4, compile=True)
    (message,) = str(refused.value).splitlines()
    assert message.startswith("the update does not fit a chip of v5e-4: Ran out of memory on HBM")
    assert message.count(" GiB (") == 3 and "optimizer 128.26 GiB" in message
    assert "optimizer.name=adafactor" in message and "model.lora.rank" in message


def test_without_a_compiler_the_estimate_is_there_and_what_to_install(capsys, monkeypatch):
    def absent(*_, **__):
        raise RuntimeError("libtpu.so not found")

    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", absent)
    with pytest.raises(InputError, match=r"libtpu\.so not found.*pip install '\.\[tpu\]'"):
        plan.plan(small(), V5E_4, compile=True)
    assert "share of 15.75 GiB" in capsys.readouterr().out


@needs_libtpu
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", flagships.PLANNED)
def test_every_flagship_compiles_and_fits_with_a_tenth_to_spare(name):
    # A process of its own: TPU's compiler keeps gigabytes, and has crashed at the fourth.
    flags = ("--mode=plan", f"--config=configs/{name}.py", f"--topology={flagships.PLANNED[name]}")
    command = [sys.executable, "-m", "score_jax.main", *flags]
    ran = subprocess.run(command, cwd=flagships.ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
    print(*re.findall(r"^(?:rollout|update): compiled in .*", ran.stdout, re.MULTILINE), sep="\n")
    assert "It fits" in ran.stdout and "to spare" not in ran.stdout


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_is_answered_for_every_kind_of_device_at_once(config, capsys, monkeypatch):
    monkeypatch.delenv(chips.TAKEN, raising=False)
    settings = flagships.settings(config)
    for device in ("t4", "rtx4090", "a100-80gb", "v5e-16", "v6e-8", ""):
        started = time.process_time()
        where = chips.machine_of(device, "" if device else "24GiB")
        try:
            plan.plan(settings, where)
        except InputError as error:
            message = str(error)
            if split := re.search(r"cannot be split over (\d+) devices", message):
                assert f"Set it to a multiple of {split[1]}." in message
                continue
            assert "does not fit" in message and message.count(" GiB (") == 3
            # What to type, or that nothing helps and how much memory would.
            assert "It fits with --config." in message or "a device with more memory" in message
            said = capsys.readouterr().out
        else:
            said = capsys.readouterr().out
            assert re.search(r"rollout.slots up to \d+ \(now", said)
            assert "memory.micro_batches from" in said and "by arithmetic.\n" in said
            assert ("--topology=" in said) == device.startswith("v")
        assert time.process_time() - started <= 2
        for term in ("rollout", "update", "evaluation", "restore", "weights", "cache", "share of"):
            assert term in said
        assert ("least time" in said) == bool(device)
        assert ("has no bfloat16" in said) == (device == "t4")


def test_a_mesh_for_other_devices_is_replaced_and_what_to_type_is_said(capsys):
    with pytest.raises(InputError):
        plan.plan(flagships.settings("math_gemma2_2b"), chips.machine_of("a100-80gb", ""))
    said = capsys.readouterr().out
    assert "mesh data=-1 x fsdp=8 x tensor=2 is not for 1 device; planned with" in said
    assert "--config.mesh.data=1 --config.mesh.fsdp=1 --config.mesh.tensor=1" in said
    assert "mesh data=1 x fsdp=1 x tensor=1" in said


def test_float32_is_what_a_card_without_bfloat16_computes_in(capsys):
    steps = {}
    for device in ("t4", "l4"):
        plan.plan(flagships.settings("gsm8k_gemma3_270m"), chips.machine_of(device, "80GiB"))
        (update,) = re.findall(r"update +([\d.]+) s", capsys.readouterr().out)
        steps[device] = float(update)
    assert steps["t4"] == pytest.approx(steps["l4"] * 121 / 8.1, rel=0.02)


def test_where_more_of_a_gpu_would_be_enough_that_is_said(monkeypatch):
    monkeypatch.delenv(chips.TAKEN, raising=False)
    settings = flagships.settings("gsm8k_qwen25_05b")  # needs 18.5 GiB
    with pytest.raises(InputError, match=rf"jax takes 75% .*{chips.TAKEN}=0.95 it takes enough"):
        plan.plan(settings, chips.machine_of("rtx4090", ""))
    monkeypatch.setenv(chips.TAKEN, "0.95")
    plan.plan(settings, chips.machine_of("rtx4090", ""))
    with pytest.raises(InputError) as refused:
        plan.plan(settings, chips.machine_of("", "18GiB"))
    assert chips.TAKEN not in str(refused.value)
