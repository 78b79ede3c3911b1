"""Bad input of every kind: exit status 2, one message that names the thing and what to do, no
traceback, and nothing written.

Each case runs through `main` in this process, as a user's command does; what is accepted fails.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from score_jax import loop
from score_jax.data.sets import arithmetic
from tests.main_test import QUICKSTART, in_the_repository, run  # noqa: F401  (a fixture)

# Overrides of configs/quickstart.py, and words of the message. Several overrides: "a=1 b=2".
SETTINGS = """
seed=1.5 | config.seed | int
seed=abc | seed
evaluation.every_except=('stage3',) | config.evaluation.every_except | 'stage3' | Did you mean
recipe=('base','stage9') | stage9 | Did you mean
recipe=() | config.recipe is empty
recipe=('stage1','base') | must be the first
recipe=('base','stage1','stage1') | names a stage twice
model.source=5 | 5: no such file or folder | hub id
model.source= | config.model.source is empty
model.dtype=float16 | config.model.dtype='float16' | bfloat16
model.attention=flash | config.model.attention='flash' | splash
model.attention=cudnn | config.model.attention | Set it to 'xla'
model.attention=splash | config.model.attention | Set it to 'xla'
model.source=~nosuchuser/x | ~nosuchuser is the home folder of no user
model.tokenizer=~nosuchuser/x | ~nosuchuser is the home folder of no user
model.template=~nosuchuser/x.jinja | ~nosuchuser is the home folder of no user
problems.name=jsonl problems.path=~nosuchuser/x.jsonl | ~nosuchuser is the home folder of no user
rewards.function=~nosuchuser/x.py:f | ~nosuchuser is the home folder of no user
model.template=chatmll | chatmll
model.template=nowhere.jinja | nowhere.jinja
model.tokenizer=nowhere | nowhere
model.lora.rank=-1 | config.model.lora.rank=-1 | at least 0
model.lora.alpha=0.0 | config.model.lora.alpha | at least
model.lora.rank=1000000000 | config.model.lora.rank=1000000000 is above | Lower it
model.lora.targets=( | config.model.lora.targets='(' | regular expression
model.lora.rank=4 model.lora.targets=nothing | nothing
model.thinking=maybe | thinking
problems.name=arithmetics | arithmetic
problems.name= | problems.name
problems.prompt=maths | Did you mean 'math'?
problems.prompt= | no prompt
problems.prompt_text={problem} | config.problems.prompt=
problems.prompt= problems.prompt_text=Ask:{problem} | instruction_text
problems.weight=0.0 | config.problems.weight | at least
problems.bad_golds=-0.1 | config.problems.bad_golds | at least 0
problems.bad_golds=1.5 | config.problems.bad_golds=1.5 | share
problems.curriculum_steps=-1 | config.problems.curriculum_steps=-1
problems.tests={'a.b':{'name':'arithmetic'}} | 'a.b' | letters
problems.mixture={'more':{'weight':2.0}} | mixture.more.name is empty
problems.mixture={'more':{'nam':'x'}} | unknown setting config.problems.mixture.more.nam
problems.mixture={'more':{'name':'arithmetic'}} problems.curriculum_steps=5 | curriculum_steps to 0
problems.tests={'more':5} | config.problems.tests.more | group of settings
problems.stop_before=5 | config.problems.stop_before
rollout.problems_per_step=0 | config.rollout.problems_per_step=0 | at least 1
rollout.problems_per_step=-4 | config.rollout.problems_per_step=-4
rollout.samples_per_problem=0 | config.rollout.samples_per_problem=0
rollout.samples_per_problem=1 | baseline='leave_one_out' | 2 or more
rollout.max_prompt_tokens=0 | config.rollout.max_prompt_tokens=0
rollout.max_prompt_tokens=100000 | context
rollout.max_prompt_tokens=2 | max_prompt_tokens
rollout.max_attempt_tokens=0 | config.rollout.max_attempt_tokens=0
rollout.max_attempt_tokens=1000000 | context
rollout.prompt_buckets=(0,) | config.rollout.prompt_buckets | 1 to
rollout.prompt_buckets=(-3,) | config.rollout.prompt_buckets
rollout.prompt_buckets=(500,) | config.rollout.prompt_buckets | max_prompt_tokens=10
rollout.prompt_buckets=(1.5,) | config.rollout.prompt_buckets | int
rollout.attempts=0 | config.rollout.attempts=0
rollout.attempts=1 | bonus | attempts to 2
rollout.siblings=0 | config.rollout.siblings=0
rollout.siblings=3 | config.rollout.siblings=3 | multiple
rollout.siblings=4 | config.rollout.siblings=4
rollout.siblings=2 | baseline 'sibling'
rollout.temperature=-1.0 | config.rollout.temperature | at least 0
rollout.temperature=0.0 | temperature=0 | equal
rollout.temperature=1e-9 | temperature=1e-09 | equal
rollout.temperature=nan | config.rollout.temperature=nan | finite
rollout.temperature=inf | config.rollout.temperature=inf | finite
rollout.top_k=-1 | config.rollout.top_k=-1
rollout.top_k=1 | config.rollout.top_k=1 | equal | 2 or more
rollout.top_p=0.0 | config.rollout.top_p
rollout.top_p=1.5 | config.rollout.top_p=1.5 | at most 1
rollout.forbidden_ids=(-1,) | config.rollout.forbidden_ids
rollout.forbidden_ids=(99999,) | config.rollout.forbidden_ids
rollout.slots=-1 | config.rollout.slots=-1
rollout.turn_rows=-1 | config.rollout.turn_rows=-1
rollout.shrink=-2 | config.rollout.shrink=-2
stages.stage1.steps=-1 | config.stages.stage1.steps=-1
stages.stage1.steps=2147483648 | config.stages.stage1.steps=2147483648 | at most 2147483647
stages.stage1.steps=100000000000000000000 | config.stages.stage1.steps | at most 2147483647
stages.stage1.steps=2.5 | config.stages.stage1.steps | int
stages.stage1.learning_rate=-1.0 | learning_rate=-1.0 | at least 0
stages.stage1.learning_rate=nan | learning_rate=nan | finite
stages.stage1.learning_rate=1e300 | learning_rate=1e+300 | finite
stages.stage1.objective=ppo | objective='ppo' | sft
stages.stage1.start=stage2 | start='stage2' | earlier
stages.stage1.reference=stage2 | reference='stage2' | earlier
stages.stage1.early_attempts=0 | early_attempts=0
stages.stage1.early_attempts=3 | early_attempts=3 | Lower it
stages.stage1.early_attempts=2 | no reward reaches any attempt
stages.stage1.reward_attempt2=0.0 | no reward reaches any attempt | reward_attempt2=0
stages.stage1.kl_attempt1=-0.1 | kl_attempt1=-0.1
stages.stage1.kl_attempt2=nan | kl_attempt2=nan
stages.stage1.kl_attempt1=0.0 stages.stage1.kl_target=1.0 | kl_target=1 | kl_attempt1
stages.stage1.kl_target=-1.0 | kl_target=-1.0
stages.stage1.kl_target=1.0 stages.stage1.offline_share=1.0 | kl_target=1 | writes none
stages.stage1.verdict=-1.0 | verdict=-1.0
stages.stage1.verdict=0.5 | verdict=0.5 | arithmetic_selective
stages.stage1.discount=-0.5 | discount=-0.5
stages.stage1.discount=1.5 | discount=1.5 | between 0 and 1
stages.stage1.attempts=-1 | attempts=-1
stages.stage1.attempts=3 | attempts=3 | Raise the latter
stages.stage1.attempts=1 | no reward reaches any attempt
stages.stage2.attempts=1 | bonus | attempts to 2
stages.stage2.attempts=1 stages.stage2.bonus=0.0 stages.stage2.discount=0.5 | discount=0.5
stages.stage2.attempts=1 stages.stage2.bonus=0.0 stages.stage2.verdict=0.5 | verdict=0.5 | only one
stages.stage2.attempts=1 stages.stage2.bonus=0.0 stages.stage2.offline_share=0.5 | offline_share=0.5
stages.stage2.offline_share=1.5 | offline_share=1.5 | between 0 and 1
stages.stage2.offline_share=0.001 | offline_share=0.001 | at least 0.015625
stages.stage2.truncation=drop | truncation='drop' | penalty
stages.stage2.truncation=penalty | overlong_tokens=0 | both or neither
stages.stage2.overlong_tokens=3 | overlong_tokens=3 | both or neither
stages.stage2.truncation=penalty stages.stage2.overlong_tokens=50 | overlong_tokens=50 | limit
stages.stage2.baseline=mean | baseline='mean' | batch_mean
stages.stage2.baseline=sibling | siblings to 2
stages.stage2.standardize=True | cancels the bonus of 10
stages.stage2.kl_estimator=k4 | kl_estimator='k4' | exact
stages.stage2.importance_cap=-1.0 | importance_cap=-1.0
stages.stage2.normalizer=mean | normalizer='mean' | sequence
stages.stage2.schedule=step | schedule='step' | cosine
stages.stage2.warmup_steps=-1 | warmup_steps=-1
stages.stage2.final_fraction=-0.5 | final_fraction=-0.5
stages.stage2.documents_per_step=8 | documents_per_step=8 | objective='sft'
stages.stage2.collect.filter=star stages.stage2.collect.steps=2 | stages.stage2.collect | SFT stage
stages.stage2.collect.filter=best | collect.filter='best' | star
stages.stage2.collect.policy=base | collect.policy | collects no documents
stages.stage2.collect.both_right=True | collect.both_right
stages.base.bonus=1.0 | stages.base.bonus=1.0 | documents are not graded
stages.base.discount=0.5 | stages.base.discount=0.5 | earlier attempts
stages.base.offline_share=0.5 | stages.base.offline_share=0.5 | nothing is sampled
stages.base.verdict=0.5 | stages.base.verdict=0.5 | not graded
stages.base.kl_target=1.0 | stages.base.kl_target=1.0 | no reference
stages.base.kl_estimator=exact | stages.base.kl_estimator='exact' | documents have none
stages.base.standardize=True | stages.base.standardize=True | no samples
stages.base.importance_cap=2.0 | stages.base.importance_cap=2.0 | documents have none
stages.base.attempts=2 | stages.base.attempts=2 | nothing is sampled
stages.base.truncation=penalty stages.base.overlong_tokens=3 | stages.base.overlong_tokens=3
stages.base.kl_attempt1=0.1 | stages.base trains on documents
stages.base.baseline=leave_one_out | stages.base trains on documents
stages.base.reward_attempt1=0.0 stages.base.reward_attempt2=0.0 | learns nothing
stages.base.collect.filter=star | collect has filter='star' and steps=0
stages.base.objective=rl stages.base.documents_per_step=0 stages.base.kl_attempt1=0.1 | reference
stages.stage3.steps=1 | stages.stage3
stages.stage1.bonos=1 | bonos | Did you mean 'bonus'?
memory.micro_batches=3 | micro_batches=3 equal parts | divisor of 256
memory.micro_batches=-1 | config.memory.micro_batches=-1
memory.widths=-1 | config.memory.widths=-1
memory.remat=some | config.memory.remat='some' | products
memory.chunk=-1 | config.memory.chunk=-1
optimizer.name=sgd | config.optimizer.name='sgd' | adafactor
optimizer.beta1=1.0 | config.optimizer.beta1=1 | below 1
optimizer.beta1=-0.1 | config.optimizer.beta1=-0.1
optimizer.beta2=1.5 | config.optimizer.beta2=1.5 | below 1
optimizer.epsilon=0.0 | config.optimizer.epsilon=0 | above 0
optimizer.epsilon=-1e-8 | config.optimizer.epsilon=-1e-08
optimizer.clip_norm=-1.0 | config.optimizer.clip_norm=-1.0
optimizer.weight_decay=-1.0 | config.optimizer.weight_decay=-1.0
optimizer.nonfinite=ignore | config.optimizer.nonfinite='ignore' | skip
evaluation.problems=-1 | config.evaluation.problems=-1
evaluation.batch=0 | config.evaluation.batch=0
evaluation.every=-1 | config.evaluation.every=-1
evaluation.attempts=-1 | config.evaluation.attempts=-1
evaluation.protocol=refine | config.evaluation.protocol='refine' | self_refine
evaluation.protocol=self_refine | self_refine
evaluation.temperature=0.0 | config.evaluation.temperature=0.0
evaluation.samples=-1 | config.evaluation.samples=-1
scaling.solutions=1 | config.scaling.solutions=1
scaling.batch=0 | config.scaling.batch=0
rewards.timeout_sec=0.0 | config.rewards.timeout_sec=0.0
rewards.timeout_sec=1e7 | config.rewards.timeout_sec=10000000.0 | at most 1000000
rewards.function_timeout_sec=1e7 | config.rewards.function_timeout_sec | at most 1000000
rewards.program_timeout_sec=1e7 | config.rewards.program_timeout_sec | at most 1000000
rewards.function_memory_gib=100000000000000000000 | function_memory_gib | at most 2147483647
rewards.failed_share=1.5 | config.rewards.failed_share=1.5 | share
rewards.workers=-1 | config.rewards.workers=-1
rewards.retries=-1 | config.rewards.retries=-1
rewards.sandbox=docker | config.rewards.sandbox='docker' | namespace
rewards.function=mine | config.rewards.function='mine' | module:function
rewards.function=nowhere_at_all:f | nowhere_at_all
rewards.function=json:nothing | nothing
rewards.functions={'a/b':{'function':'builtin'}} | 'a/b' | metric
rewards.functions={'a':{'function':'m:f'},'b':{'function':'m:g'}} | solves
rewards.environment=('SCORE_JAX_NOT_SET',) rewards.function=json:dumps | SCORE_JAX_NOT_SET
mesh.data=3 | does not cover
mesh.data=-2 | config.mesh.data=-2
mesh.tensor=7 | mesh
checkpoint.every=0 | config.checkpoint.every=0
checkpoint.keep=0 | config.checkpoint.keep=0
watchdog.rollout=-1.0 | config.watchdog.rollout=-1.0
watchdog.rollout=1e10 | config.watchdog.rollout=10000000000.0 | at most 1000000
compile.after_warmup=stop | config.compile.after_warmup='stop' | warn
compile.cache=perhaps | cache
""".strip().splitlines()

COMMANDS = [
    ([], "--config=FILE is missing"),
    ([QUICKSTART], "--workdir=DIR is missing"),
    ([QUICKSTART, "--workdir="], "--workdir=DIR is missing"),
    ([QUICKSTART, "--workdir= "], "--workdir=  names no folder"),
    ([QUICKSTART, "--workdir=~nosuchuser/x"], "~nosuchuser is the home folder of no user"),
    ([QUICKSTART, "--workdir=W", "--export_dir=~nosuchuser/x"], "~nosuchuser is the home folder"),
    ([QUICKSTART, "--workdir=W", "--base_from=~nosuchuser/x"], "~nosuchuser is the home folder"),
    (
        [QUICKSTART, "--workdir=" + 300 * "x"],
        "--workdir: " + 60 * "x" + "… has a name of more than",
    ),
    ([QUICKSTART, "--workdir=" + 2000 * "x/"], "has more than 3500 bytes"),
    ([QUICKSTART, "--workdir=W", "--export_dir=" + 300 * "x"], "has a name of more than 255 bytes"),
    ([QUICKSTART, "--workdir=README.md"], "README.md is a file, not a folder"),
    ([QUICKSTART, "--workdir=README.md/x"], "README.md is a file, not a folder"),
    ([QUICKSTART, "--workdir=s3://b/run"], "s3://b/run: of buckets only gs:// is known"),
    ([QUICKSTART, "--workdir=W", "--mode=trian"], "Did you mean 'train'?"),
    ([QUICKSTART, "--workdir=W", "--mode="], "unknown --mode="),
    ([QUICKSTART, "--workdri=W"], "workdri"),
    ([QUICKSTART, "--workdir=W", "extra"], "unexpected arguments: extra"),
    (["--config=configs/quickstat.py", "--workdir=W"], "quickstat.py"),
    (["--config=configs", "--workdir=W"], "configs"),
    (["--config=README.md", "--workdir=W"], "is not Python"),
    (["--config=configs/quickstart.py:scroe", "--workdir=W"], "known: score"),
    ([QUICKSTART, "--workdir=W", "--config.rollout=5"], "rollout"),
    ([QUICKSTART, "--workdir=W", "--mode=replay"], "--file=FILE is missing"),
    ([QUICKSTART, "--workdir=W", "--mode=replay", "--file=nowhere.json"], "nowhere.json is not"),
    (["--mode=replay", "--file=nowhere.json"], "nowhere.json is not a saved step"),
    (["--mode=replay", "--file=README.md"], "README.md is not a saved step"),
    ([QUICKSTART, "--workdir=W", "--file=x.json"], "--file is for --mode=replay"),
    ([QUICKSTART, "--workdir=W", "--question=1+2"], "--question is for --mode=try"),
    ([QUICKSTART, "--workdir=W", "--mode=export"], "has no checkpoint"),
    ([QUICKSTART, "--workdir=W", "--mode=export", "--push=mine"], "Give OWNER/NAME"),
    ([QUICKSTART, "--workdir=W", "--push=me/mine"], "--push is for --mode=export"),
    ([QUICKSTART, "--workdir=W", "--topology=v5e:4x4"], "--topology is for --mode=plan"),
    ([QUICKSTART, "--mode=plan"], "--mode=plan needs the machine to plan for: --device="),
    ([QUICKSTART, "--mode=plan", "--memory=much"], "much"),
    ([QUICKSTART, "--mode=plan", "--device=abacus"], "abacus"),
    ([QUICKSTART, "--mode=plan", "--topology=v9z:4x4"], "v9z:4x4"),
    ([QUICKSTART, "--mode=plan", "--topology=v5e:0x0"], "v5e:0x0' is not a known TPU topology"),
    ([QUICKSTART, "--workdir=W", "--base_from=nowhere"], "nowhere"),
    ([QUICKSTART, "--workdir=W", "--processes=2"], "three values"),
    ([QUICKSTART, "--workdir=W", "--process=x"], "process"),
]


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch):
    def accepted(run):
        raise AssertionError("the input was accepted")

    monkeypatch.setattr(loop, "_all_stages", accepted)
    monkeypatch.setattr(arithmetic, "TRAIN_PROBLEMS", 512)  # fewer are made and encoded sooner


def assert_refused(capsys, folder: Path, arguments, *words: str) -> str:
    workdir = folder / "run"
    status = run(
        *(a.replace("=W", f"={workdir}") if a.startswith("--workdir") else a for a in arguments)
    )
    said = capsys.readouterr()
    message = said.err
    assert status == 2, said.out
    assert "Traceback" not in message + said.out
    assert message.count("score_jax: ") == 1 and message.startswith("score_jax: "), message
    for word in words:
        assert word in message, message
    left = [path for path in workdir.rglob("*") if path.is_file()] if workdir.is_dir() else []
    assert not left
    return message


@pytest.mark.parametrize("case", SETTINGS)
def test_a_bad_setting_is_refused(case, tmp_path, capsys):
    given, *words = (part.strip() for part in case.split(" | "))
    overrides = re.split(r" (?=[a-z_0-9.]+=)", given)
    arguments = [f"--config.{one}" for one in overrides]
    assert_refused(capsys, tmp_path, [QUICKSTART, "--workdir=W", *arguments], *words)


@pytest.mark.parametrize(("arguments", "said"), COMMANDS)
def test_a_bad_command_is_refused(arguments, said, tmp_path, capsys):
    assert_refused(capsys, tmp_path, arguments, said)


CONFIGS = {
    "a name that is unknown": ("import os\nx = foo\n", "line 2: NameError: name 'foo'"),
    "an error of its own": ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivision"),
    "no Python": ("def get_config(:\n", "mine.py, line 1 is not Python"),
    "a module that is missing": ("import nowhere_at_all\n", "line 1: ModuleNotFoundError"),
    "no get_config": ("x = 1\n", "get_config"),
    "no return": (
        "def get_config():\n    pass\n",
        "mine.py: get_config() of the config returned None. It must return to_config_dict(",
    ),
    "settings that are no tree": (
        "from configs import quickstart\nfrom score_jax.config.build import resolve\n"
        "def get_config():\n    return resolve(quickstart.get_config('score'))\n",
        "returned Settings(",
    ),
    "a value of another type": (
        "from configs import quickstart\ndef get_config():\n"
        "    c = quickstart.get_config('score')\n    c.seed = 'x'\n    return c\n",
        "mine.py, line 4: TypeError",
    ),
    "two parameters": ("def get_config(a, b):\n    pass\n", "mine.py: get_config() missing"),
    "nothing": ("", "mine.py: module 'config_config' has no attribute 'get_config'"),
    "an end of the program": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: the config ends"),
    "an error without words": (
        "class E(Exception):\n    def __str__(self): raise RuntimeError\n"
        "def get_config():\n    raise E\n",
        "mine.py, line 4: E: an error without a message",
    ),
    "another thing": ("def get_config():\n    return 5\n", "get_config() of the config returned 5"),
    "settings of another program": (
        "import ml_collections\ndef get_config():\n"
        "    return ml_collections.ConfigDict({'lr': 0.1})\n",
        "unknown setting config.lr",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_is_refused(name, tmp_path, capsys):
    text, said = CONFIGS[name]
    path = tmp_path / "mine.py"
    path.write_text(text)
    assert_refused(capsys, tmp_path, [f"--config={path}", "--workdir=W"], said)
    override = [f"--config={path}", "--config.seed=1", "--workdir=W"]
    assert_refused(capsys, tmp_path, override, said)


ROW = {"problem": "1+2?", "answer": "3"}
DATA = {
    "missing": (None, "No such file or directory"),
    "empty": (b"", ""),
    "blank": (b"\n\n", ""),
    "no JSON": (b"problem: 1+2\n", "line 1"),
    "half a line": (b'{"problem": "1+2?", "ans', "line 1"),
    "a list": (b"[1, 2]\n", "one JSON array"),
    "a JSON document": (json.dumps([ROW], indent=1).encode(), "line"),
    "no answer": (b'{"problem": "1+2?"}\n', "answer"),
    "no problem": (b'{"answer": "3"}\n', "problem"),
    "an empty problem": (b'{"problem": "", "answer": "3"}\n', "line 1"),
    "a null answer": (b'{"problem": "1+2?", "answer": null}\n', "answer"),
    "a list as problem": (b'{"problem": [1], "answer": "3"}\n', "problem"),
    "utf-16": ('{"problem": "1+2?", "answer": "3"}\n'.encode("utf-16"), "UTF-16"),
    "utf-32": ('{"problem": "1+2?", "answer": "3"}\n'.encode("utf-32"), "iconv -f UTF-32 -t"),
    "no utf-8": (b'{"problem": "\xff\xfe", "answer": "3"}\n', "line 1: not JSON ('utf-8'"),
    "binary": (bytes(range(256)), ""),
    "parquet": (b"PAR1" + bytes(64), "arquet"),
    "broken gzip": (b"\x1f\x8b" + bytes(20), ""),
    "NaN": (b'{"problem": "1+2?", "answer": NaN}\n', "answer"),
    "half a pair in a system text": (
        b'{"problem": [{"role": "system", "content": "\\ud800"}, {"role": "user", "content": "a"}],'
        b' "answer": "1"}',
        "field 'problem' holds half of a surrogate pair",
    ),
    **{
        f"half a pair in {field}": (
            json.dumps(ROW | {field: "a\ud800"}).encode(),
            f"line 1: field '{field}' holds half of a surrogate pair",
        )
        for field in ("problem", "answer", "id", "grader", "solution")
    },
}


@pytest.mark.parametrize("name", DATA)
def test_a_bad_file_of_problems_is_refused(name, tmp_path, capsys):
    content, said = DATA[name]
    path = tmp_path / "mine.jsonl"
    if content is not None:
        path.write_bytes(content)
    overrides = {"name": "jsonl", "path": path, "prompt": "math"}
    arguments = [f"--config.problems.{k}={v}" for k, v in overrides.items()]
    alone = "--config.recipe=('stage1','stage2')"
    assert_refused(capsys, tmp_path, [QUICKSTART, "--workdir=W", alone, *arguments], said, "mine")


def test_a_curriculum_over_rows_without_levels_is_refused_before_anything_is_trained(
    tmp_path, capsys
):
    path = tmp_path / "mine.jsonl"
    rows = [{"problem": f"{i}+1=", "answer": "1", "solution": "1"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    overrides = {"name": "jsonl", "path": path, "curriculum_steps": 4}
    overrides["fields.solution"] = "solution"
    arguments = [f"--config.problems.{k}={v}" for k, v in overrides.items()]
    arguments += ["--config.rollout.problems_per_step=8", "--config.rollout.turn_rows=0"]
    said = "have 0 different levels"
    assert_refused(capsys, tmp_path, [QUICKSTART, "--workdir=W", *arguments], said)


LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
    "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 16, "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True, "head_dim": 8,
}  # fmt: skip
MODELS = {
    "an empty folder": ({}, ""),
    "no weights": ({"config.json": json.dumps(LLAMA)}, ""),
    "a config that is no JSON": ({"config.json": "{"}, "config.json"),
    "a config that is a list": ({"config.json": "[]"}, "config.json"),
    "an unknown architecture": (
        {"config.json": json.dumps(LLAMA | {"model_type": "mamba", "architectures": ["Mamba"]})},
        "amba",
    ),
    "a width of text": ({"config.json": json.dumps(LLAMA | {"hidden_size": "x"})}, "hidden_size"),
    "no layers": (
        {"config.json": json.dumps(LLAMA | {"num_hidden_layers": 0})},
        "num_hidden_layers",
    ),
    "a negative vocabulary": (
        {"config.json": json.dumps(LLAMA | {"vocab_size": -1})},
        "vocab_size",
    ),
    "no base of rotary positions": (
        {"config.json": json.dumps(LLAMA | {"rope_theta": 0})},
        "rope_theta must be one number, above 0",
    ),
    "heads that do not divide": (
        {"config.json": json.dumps(LLAMA | {"num_key_value_heads": 3})},
        "head",
    ),
    "unknown rotary scaling": (
        {"config.json": json.dumps(LLAMA | {"rope_scaling": {"rope_type": "odd", "factor": 2}})},
        "odd",
    ),
    "empty weights": ({"config.json": json.dumps(LLAMA), "model.safetensors": b""}, "safetensors"),
    "weights that are text": (
        {"config.json": json.dumps(LLAMA), "model.safetensors": b"hello, world"},
        "safetensors",
    ),
    "weights of another model": (
        {
            "config.json": json.dumps(LLAMA),
            "model.safetensors": safetensors.numpy.save({"a": np.zeros(2, np.float32)}),
        },
        "",
    ),
    "a folder of the name of the weights": (
        {"config.json": json.dumps(LLAMA), "model.safetensors": None},
        "holds neither model.safetensors nor",
    ),
    "a folder of the name of the shape": ({"config.json": None}, "config.json cannot be read"),
    "a pickle": ({"config.json": json.dumps(LLAMA), "pytorch_model.bin": b"\x80\x04N."}, ""),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_bad_model_is_refused(name, tmp_path, capsys):
    files, said = MODELS[name]
    folder = tmp_path / "model"
    folder.mkdir()
    for file, content in files.items():
        if content is None:
            (folder / file).mkdir()
            continue
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = f"--config.model.source={folder}"
    assert_refused(capsys, tmp_path, [QUICKSTART, "--workdir=W", source], said)


GGUFS = {
    "empty": b"",
    "text": b"hello, world, this is no model",
    "a head alone": b"GGUF\x03\x00\x00\x00",
    "an old version": b"GGUF\x01\x00\x00\x00" + bytes(16),
    "more tensors than bytes": b"GGUF\x03\x00\x00\x00" + b"\xff" * 16,
    "no metadata": b"GGUF\x03\x00\x00\x00" + bytes(16),
}


@pytest.mark.parametrize("name", GGUFS)
def test_a_bad_gguf_is_refused(name, tmp_path, capsys):
    path = tmp_path / "mine.gguf"
    path.write_bytes(GGUFS[name])
    arguments = [QUICKSTART, "--workdir=W", f"--config.model.source={path}"]
    assert_refused(capsys, tmp_path, arguments, "mine.gguf")


TOKENIZERS = {
    "an empty folder": {},
    "no JSON": {"tokenizer.json": "{"},
    "an empty object": {"tokenizer.json": "{}"},
    "a list": {"tokenizer.json": "[]"},
    "no model": {"tokenizer.model": "hello"},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_bad_tokenizer_is_refused(name, tmp_path, capsys):
    folder = tmp_path / "words"
    folder.mkdir()
    for file, content in TOKENIZERS[name].items():
        (folder / file).write_text(content)
    arguments = [QUICKSTART, "--workdir=W", f"--config.model.tokenizer={folder}"]
    assert_refused(capsys, tmp_path, arguments, "words")


TEMPLATES = {
    "no Jinja": "{% if %}",
    "an unclosed block": "{% for m in messages %}{{ m.content }}",
    "an error of its own": "{{ raise_exception('no such role') }}",
    "an unknown name": "{{ nothing.at.all }}",
    "no messages in it": "always the same",
    "out of the sandbox": "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ messages }}",
    "an endless loop": "{% for i in range(10**9) %}x{% endfor %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_bad_template_is_refused(name, tmp_path, capsys):
    path = tmp_path / "mine.jinja"
    path.write_text(TEMPLATES[name])
    arguments = [QUICKSTART, "--workdir=W", f"--config.model.template={path}"]
    assert_refused(capsys, tmp_path, arguments, "mine.jinja")


def test_there_are_enough_cases_and_none_twice():
    tables = (SETTINGS, COMMANDS, CONFIGS, DATA, MODELS, GGUFS, TOKENIZERS, TEMPLATES)
    assert sum(map(len, tables)) >= 250
    assert len(set(SETTINGS)) == len(SETTINGS)
