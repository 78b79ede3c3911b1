"""Experiments on published data run: two steps of each stage, tiny weights, the real problems."""

import dataclasses
import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from score_jax import jsonfiles, loop
from score_jax.batches import Episodes
from score_jax.config import command_line
from score_jax.config.settings import MeshSettings, Settings, SourceSettings
from score_jax.data import problems as problem_sets
from score_jax.model import families, weights
from score_jax.modes import evaluate
from score_jax.problem import InputError
from score_jax.rewards.programs import grade as programs
from score_jax.rewards.sandbox import start
from score_jax.rewards.sandbox.tester import Job
from score_jax.run import Run
from score_jax.text import prompts
from score_jax.workdir import runlog
from tests import fakes
from tests.data.real import REAL, needs_real_data
from tests.rewards.sandbox import sandboxes

ROOT = Path(__file__).resolve().parents[1]
pytestmark = needs_real_data
CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant'"
    " else m.role) + '\\n' + m.content | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
SPECIAL = ["<end_of_turn>", "<bos>", "<start_of_turn>"]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """A checkpoint folder: a random model of one layer, a small vocabulary, Gemma's turns."""
    folder = tmp_path_factory.mktemp("model")
    text = tokenizers.Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        min_frequency=1,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The prompts are long; with their own words as tokens the test takes a tenth of the time.
    text.train_from_iterator([part for both in prompts.PROMPTS.values() for part in both], trainer)
    text.save(str(folder / "tokenizer.json"))
    described = {"bos_token": "<bos>", "eos_token": SPECIAL[0], "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    shape = families.ModelConfig(
        family="llama",
        vocab_size=text.get_vocab_size(),
        layers=1,
        width=16,
        heads=2,
        kv_heads=1,
        head_width=8,
        mlp_width=16,
        max_positions=4096,
    )
    weights.save(folder, shape, fakes.params(shape))
    return str(folder)


def settings(name: str, source: str, *, prompt_tokens: int, **problems) -> Settings:
    """The experiment of that name, made small in what costs time."""
    whole = command_line.settings_of([f"--config={ROOT / 'configs' / name}.py"])

    def smaller(part, **changes):
        return dataclasses.replace(part, **changes)

    return smaller(
        whole,
        model=smaller(whole.model, source=source, dtype="float32"),
        problems=smaller(whole.problems, **problems),
        stages={key: smaller(s, steps=2, warmup_steps=1) for key, s in whole.stages.items()},
        rollout=smaller(
            whole.rollout,
            problems_per_step=8,
            samples_per_problem=2,
            max_prompt_tokens=prompt_tokens,
            max_attempt_tokens=6,
        ),
        memory=smaller(whole.memory, micro_batches=2),
        evaluation=smaller(whole.evaluation, problems=8, batch=8),
        mesh=MeshSettings(),
    )


def stages_of(folder: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["grad_norm"] >= 0 for row in rows)
    assert all(row["logp_gap"] < 1e-4 for row in rows)
    return [(row["stage"], row["step"]) for row in rows]


def transcript(folder: Path, name: str) -> list[dict]:
    return [json.loads(x) for x in (folder / "transcripts" / f"{name}.jsonl").open()]


STEPS = [("stage1", 1), ("stage1", 2), ("stage2", 1), ("stage2", 2)]


@pytest.mark.slow
def test_math_runs_on_the_real_problems(source, tmp_path):
    made = settings("math_gemma2_2b", source, prompt_tokens=300, path=str(REAL / "math"))
    assert loop.train(made, str(tmp_path)) == loop.DONE
    assert stages_of(tmp_path) == STEPS
    left_out = {row["prompts_left_out"] for row in runlog.read_metrics(tmp_path)}
    assert len(left_out) == 1 and left_out != {0}
    rows = transcript(tmp_path, "stage2")
    assert [row["id"] for row in rows][:2] == ["math/test/algebra/1004", "math/test/algebra/101"]
    assert all(len(row["attempts"]) == 2 for row in rows)


def drawn(made: Settings, stage: int) -> dict:
    """What the data position of a stage says of how its problems are drawn."""
    run = Run.start(made, Path("unused"), fakes.NO_LOG, None)  # type: ignore[arg-type]
    return Episodes(run, run.stages[stage]).get_state()


@pytest.mark.slow
def test_curriculum_and_mixture_reach_the_loop(source):
    math = {"path": str(REAL / "math"), "test": SourceSettings(split="test")}
    plain = settings("math_gemma2_2b", source, prompt_tokens=300, **math)

    def with_problems(**changes):
        return dataclasses.replace(plain, problems=dataclasses.replace(plain.problems, **changes))

    # Stage II goes on where Stage I, of two steps, left the curriculum.
    assert drawn(with_problems(curriculum_steps=50), 0)["curriculum"] == [50, 0]
    assert drawn(with_problems(curriculum_steps=50), 1)["curriculum"] == [50, 2]
    more = {"gsm8k": SourceSettings("gsm8k", str(REAL / "gsm8k"), weight=0.25)}
    assert drawn(with_problems(mixture=more), 0)["mixture"] == [[11_999, 1.0], [7_473, 0.25]]


@pytest.fixture
def ran(monkeypatch):
    """The jobs that came to the sandbox."""
    sandboxes.need_any()
    programs.forget()
    jobs: list[Job] = []
    run = start.run

    def spy(asked, *arguments, **settings):
        jobs.extend(asked)
        return run(asked, *arguments, **settings)

    monkeypatch.setattr(start, "run", spy)
    yield jobs
    start.close()
    sandboxes.close()


def mbpp(source: str) -> Settings:
    return settings(
        "mbpp_gemma2_9b",
        source,
        prompt_tokens=700,
        path=str(REAL / "mbpp"),
        test=SourceSettings("humaneval", str(REAL / "humaneval"), prompt="humaneval"),
    )


@pytest.mark.slow
def test_mbpp_is_trained_on_humaneval_tested_and_a_repair_set_evaluated(
    source, tmp_path, ran, capsys
):
    made = mbpp(source)
    assert loop.train(made, str(tmp_path)) == loop.DONE
    assert stages_of(tmp_path) == STEPS
    assert transcript(tmp_path, "stage2")[0]["id"] == "humaneval/0"
    # HumanEval's check behind its prompt's helpers, and MBPP's asserts.
    assert {len(job.tests) for job in ran} == {1, 3}
    reasons = {one["reason"] for row in transcript(tmp_path, "stage2") for one in row["attempts"]}
    assert reasons <= {"truncated", "syntax", "error", "failed", "no_program"}
    kinds = {row["sandbox"] for row in runlog.read_metrics(tmp_path)}
    kinds |= {json.loads((tmp_path / "evaluations" / "stage2.json").read_text())["sandbox"]}
    assert kinds == {start.shared().kind}

    # Another test set does not make another run.
    row = {
        "id": "mbpp_repair/1",
        "problem": "Write f.",
        "first_attempt": "def f(): pass",
        "made_by": "mutation",
        "tests": ["assert f()"],
        "setup": "",
        "prelude": "",
    }
    file = tmp_path / "repair.jsonl"
    jsonfiles.write_lines(file, [row | {"id": f"mbpp_repair/{n}"} for n in range(8)])
    test = SourceSettings("mbpp_repair", str(file), prompt="mbpp")
    made = dataclasses.replace(made, problems=dataclasses.replace(made.problems, test=test))
    evaluate.evaluate_latest(made, tmp_path)
    assert "stage2 at step 2" in capsys.readouterr().out
    assert transcript(tmp_path, "latest")[7]["id"] == "mbpp_repair/7"


def test_a_set_for_evaluation_only_can_be_evaluated_and_not_trained_on(source, tmp_path, ran):
    made = mbpp(source)
    alone = dataclasses.replace(
        made.problems, name="humaneval", path=str(REAL / "humaneval"), test=SourceSettings()
    )
    made = dataclasses.replace(made, problems=dataclasses.replace(alone, prompt="humaneval"))
    evaluate.evaluate_latest(made, tmp_path)
    with pytest.raises(InputError, match="evaluation only"):
        loop.train(made, str(tmp_path / "other"))


@pytest.mark.parametrize("recipe", ["score", "multi_turn_rl", "single_turn_rl"])
def test_recipes_of_the_one_gpu_config_have_one_budget_and_choose_on_the_validation_split(recipe):
    s = command_line.settings_of([f"--config={ROOT / 'configs/mbpp_qwen25_coder_05b.py'}:{recipe}"])
    assert sum(s.stages[name].steps for name in s.recipe) == 30 and s.rollout.rows == 128
    here = dataclasses.replace(s.problems, path=str(REAL / "mbpp"))
    here = dataclasses.replace(
        here,
        tests={
            name: dataclasses.replace(test, path=str(REAL / folder))
            for (name, test), folder in zip(
                s.problems.tests.items(), ("humaneval", "mbpp"), strict=True
            )
        },
    )
    ids = [problem.id for problem in problem_sets.for_evaluation(here, 0)]
    assert ids[0] == "mbpp/511" and ids[-1] == "mbpp/600"
    tests = problem_sets.further_tests(here, 0)
    assert {name: len(found) for name, found in tests.items()} == {"humaneval": 164, "mbpp": 500}
    training = problem_sets.for_training(here, 0).problems
    held_out = {*ids, *(problem.id for problem in tests["mbpp"])}
    assert len(training) == 374 and held_out.isdisjoint(problem.id for problem in training)
