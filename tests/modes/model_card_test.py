"""The model card of an export says what the run says, and its commands do what it says."""

import http.server
import json
import re
import threading
from pathlib import Path

import pytest

from score_jax.config import command_line
from score_jax.config.settings import ModelSettings
from score_jax.modes import model_card
from tests.modes import push_test
from tests.modes.export_test import (  # noqa: F401 (fixtures)
    arguments,
    exported,
    source,
    trained,
)
from tests.modes.push_test import hub  # noqa: F401

METRICS = {
    "n": 8,
    "accuracy_attempt1": 0.25,
    "accuracy_attempt2": 0.5,
    "delta": 0.25,
    "interval": {"accuracy_attempt1": [0.1, 0.4], "delta": [-0.1, 0.6]},
}


def section(card: str, head: str) -> str:
    return card.split(f"\n## {head}\n")[1].split("\n## ")[0]


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```+{kind}\n(.*?)\n```+$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def made(source, tmp_path):  # noqa: F811 (the fixture)
    """Makes an export with settings of the test's own; returns its card."""
    (source / "README.md").write_text("---\ntags: [x]\nlicense: gemma\n---\n# license: other\n")

    def make(*more: str) -> str:
        run = [*arguments(source), f"--config.problems.path={tmp_path / 'me' / 'gsm8k'}", *more]
        plain = [one for one in run if one.startswith("--config")]
        trained(source, tmp_path / "run", plain)
        folder = tmp_path / "run" / "evaluations"
        folder.mkdir()
        for name in ("base", "stage2"):
            (folder / f"{name}.json").write_text(json.dumps(METRICS))
        assert exported(*run, f"--workdir={tmp_path / 'run'}") == 0
        return (tmp_path / "run" / "export" / "README.md").read_text()

    return make


def test_a_card_names_base_licence_data_recipe_and_results(made, tmp_path, capsys):
    card = made("--config.stages.stage2.bonus=7.5", "--config.seed=5")
    assert f"Its model card: {tmp_path / 'run' / 'export' / 'README.md'}" in capsys.readouterr().out
    head = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)[1].splitlines()
    assert "license: gemma" in head and "library_name: transformers" in head
    assert not any(line.startswith("base_model") for line in head)  # a folder is not on the hub
    assert "the weights of stage2 at step 3" in card
    assert "`source`. Licence: gemma." in section(card, "Base model")
    assert "| training | gsm8k | gsm8k | train |" in section(card, "Data")
    assert "| evaluation | gsm8k | gsm8k | test |" in section(card, "Data")
    training = section(card, "Training")
    assert re.search(r"\| stage2 \| \d+ \| rl \| \S+ \| 7.5 \|", training)
    (changed,) = blocks(training, "json")
    changed = json.loads(changed)
    assert changed["stages.stage2.bonus"] == 7.5 and changed["seed"] == 5
    assert changed["model.source"] == "source" and "rollout.top_k" not in changed
    assert "# run\n" in card and str(tmp_path) not in card  # nobody else's folders
    results = section(card, "Results")
    assert "| base | 8 | 0.250 [0.100, 0.400] | 0.500 | +0.250 [-0.100, +0.600] |" in results
    assert "| stage2 | 8 |" in results and "stage1" not in results


def test_a_run_without_evaluations_says_so(made, tmp_path):
    made()
    for file in (tmp_path / "run" / "evaluations").iterdir():
        file.unlink()
    run = [*arguments(tmp_path / "source"), f"--workdir={tmp_path / 'run'}"]
    run.append(f"--config.problems.path={tmp_path / 'me' / 'gsm8k'}")
    assert exported(*run) == 0
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert section(card, "Results").strip() == "No evaluation was run."


def test_base_models_are_named_as_their_files_name_them(tmp_path, monkeypatch):
    said = {"general.license": "apache-2.0"}
    monkeypatch.setattr(model_card.gguf_metadata, "read", lambda path: said)
    (tmp_path / "m.gguf").touch()
    base = model_card.base_of(ModelSettings(str(tmp_path / "m.gguf")))
    assert (base.name, base.hub_id, base.license) == ("m.gguf", "", "apache-2.0")
    said["general.base_model.0.repo_url"] = "https://huggingface.co/owner/name-1"
    assert model_card.base_of(ModelSettings(str(tmp_path / "m.gguf"))).hub_id == "owner/name-1"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    base = model_card.base_of(ModelSettings(str(tmp_path / "folder")))
    assert (base.name, base.license) == ("folder", "")
    assert "state no licence: look it up" in model_card._base(base)
    base = model_card.base_of(ModelSettings("preset:quickstart"))
    assert (base.name, base.license) == ("random weights (preset:quickstart)", "")
    cached = (str(tmp_path / "folder"), "")
    monkeypatch.setattr(model_card.saved_params, "origin", lambda _: cached)
    base = model_card.base_of(ModelSettings("owner/name"))
    assert (base.name, base.hub_id) == ("owner/name", "owner/name")


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as vLLM would, and keeps what it was sent."""

    sent: list = []  # noqa: RUF012
    stopped: list = []  # noqa: RUF012  # of each answer, the stop sequence that ended it, if any

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.sent.append((self.path, body))
        text = f"answer {len(self.sent)}"
        stop = self.stopped[len(self.sent) - 1] if self.stopped else None
        text += stop or ""
        choice = {"message": {"content": text}, "text": text, "stop_reason": stop}
        said = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


@pytest.fixture
def run_client():
    """Runs a card's client against such a server; returns what was sent."""
    server = http.server.HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def run(card: str, *stopped: str | None) -> list:
        (program,) = blocks(section(card, "Use"), "python")
        Server.sent, Server.stopped = [], list(stopped)
        exec(program.replace("localhost:8000", f"127.0.0.1:{server.server_port}"), {})
        return Server.sent

    yield run
    server.shutdown()
    server.server_close()


OWN = (
    "--config.problems.prompt=",
    "--config.problems.prompt_text=Write \\boxed{answer} or {{this}} in ```. {# {{ x }} {%\n"
    '{meta.hint}: "{problem}"',
    "--config.problems.instruction_text=Look 'again' at ``it``.",
)


def test_the_client_sends_both_prompts_in_two_turns(made, run_client):
    card = made(*OWN, '--config.problems.system=Be "brief".')
    (first, second) = run_client(card)
    assert first[0] == second[0] == "/v1/chat/completions"
    asked = 'Write \\boxed{answer} or {this} in ```. {# {{ x }} {%\n…: "…"'
    turns = [("system", 'Be "brief".'), ("user", asked)]
    assert [(m["role"], m["content"]) for m in first[1]["messages"]] == turns
    turns += [("assistant", "answer 1"), ("user", "Look 'again' at ``it``.")]
    assert [(m["role"], m["content"]) for m in second[1]["messages"]] == turns
    wanted = command_line.settings_of(["--config=configs/gsm8k_smollm2_135m.py"]).rollout
    for _, body in (first, second):
        assert (body["temperature"], body["max_tokens"]) == (0.0, wanted.max_attempt_tokens)
        assert body["repetition_penalty"] == 1.0 and "chat_template_kwargs" not in body
    shown = section(card, "Prompts")
    assert "with `meta.hint`, `problem` in place of the braces" in shown
    assert '{meta.hint}: "{problem}"' in shown and "{this} in ```. {# {{ x }} {%\n" in shown
    assert "````text\n" in shown  # the prompt's own fence closes nothing


def test_the_client_fills_the_fields_of_the_instruction_too(made, run_client):
    said = "--config.problems.instruction_text={problem}: is {meta.unit} 'right', or {{this}}?"
    card = made(*OWN[:2], said)
    (first, second) = run_client(card)
    assert second[1]["messages"][0] == first[1]["messages"][0]
    assert second[1]["messages"][2]["content"] == "…: is … 'right', or {this}?"
    assert "{problem}: is {meta.unit} 'right', or {this}?" in section(card, "Prompts")
    assert "def prompt(meta_hint, problem, meta_unit):" in section(card, "Use")
    assert "str(meta_hint)" in section(card, "Use")  # a field may be a number


def test_a_base_model_is_sent_the_texts_of_one_row(made, run_client):
    card = made("--config.model.template=plain", "--config.problems.prompt=math_text")
    (first, second) = run_client(card)
    assert first[0] == "/v1/completions"
    ended = "answer 1<end_of_turn>\n\nThere might be an error"
    assert second[1]["prompt"].startswith(first[1]["prompt"] + ended)


STOPS = (
    "--config.problems.stop_before=('Problem:', '\\n\\n#')",
    "--config.problems.stop_after=('correct.',)",
    "--config.model.answer_prefix=```{{ x }}\n",
)


def test_a_chat_client_begins_attempts_and_ends_them_as_a_run_does(made, run_client):
    card = made(*OWN, *STOPS)
    (first, second) = run_client(card, "Problem:", "correct.")
    for _, body in (first, second):
        assert body["stop"] == ["Problem:", "\n\n#", "correct."]
        assert body["include_stop_str_in_output"] is True
        assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)
        assert body["messages"][-1] == {"role": "assistant", "content": "```{{ x }}\n"}
    said = [m["content"] for m in second[1]["messages"] if m["role"] == "assistant"]
    assert said == ["```{{ x }}\nanswer 1", "```{{ x }}\n"]  # "Problem:" is not the attempt's
    assert '["Problem:", "\\n\\n#"]' in section(card, "Prompts")
    yaml = pytest.importorskip("yaml")
    task = yaml.safe_load(blocks(section(card, "Use"), "yaml")[0])
    ends = ["<end_of_turn>", "Problem:", "\n\n#", "correct."]
    assert task["generation_kwargs"]["until"] == ends
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(keep_trailing_newline=True)  # as lm-eval has it
    assert environment.from_string(task["gen_prefix"]).render() == "```{{ x }}\n"
    lost = "Its answers lack the beginning that is given and the texts behind which it ends. "
    assert lost in section(card, "Use")


def test_a_base_models_instruction_continues_what_a_stop_sequence_ended(made, run_client):
    card = made(*OWN, *STOPS, "--config.model.template=plain", "--config.rollout.attempts=3")
    first, second, third = run_client(card, "correct.", None, None)
    asked = first[1]["prompt"]
    assert asked.endswith('"…"```{{ x }}\n')
    again = "Look 'again' at ``it``.```{{ x }}\n"
    assert second[1]["prompt"] == f"{asked}answer 1correct.{again}"
    assert third[1]["prompt"] == f"{second[1]['prompt']}answer 2<end_of_turn>{again}"
    assert not {"add_generation_prompt", "continue_final_message"} & first[1].keys()
    (task,) = blocks(section(card, "Use"), "yaml")
    assert "gen_prefix" not in task and "``{{ x }}\\n{% endraw %}" in task


def test_the_commands_of_a_card_name_the_export_and_its_settings(made, tmp_path):
    card = made(*OWN, "--config.rollout.max_attempt_tokens=77")
    use = section(card, "Use")
    serve, lm_eval = blocks(use, "bash")
    assert re.fullmatch(r"vllm serve export --dtype float32 --max-model-len \d+", serve)
    assert "beside the folder `export`" in use and str(tmp_path) not in card
    assert "pretrained=export,dtype=float32,add_bos_token=False" in lm_eval
    assert "--apply_chat_template" in lm_eval
    yaml = pytest.importorskip("yaml")
    (task,) = blocks(use, "yaml")
    task = yaml.safe_load(task)
    assert task["generation_kwargs"] == {
        "until": ["<end_of_turn>"],
        "do_sample": False,
        "max_gen_toks": 77,
    }
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(keep_trailing_newline=True)  # as lm-eval has it
    rendered = environment.from_string(task["doc_to_text"]).render(
        problem="1+1?", meta={"hint": "Sums"}
    )
    assert rendered == 'Write \\boxed{answer} or {this} in ```. {# {{ x }} {%\nSums: "1+1?"'


def test_adapters_are_served_over_their_base(source, tmp_path):  # noqa: F811
    run = [*arguments(source), "--config.model.lora.rank=3"]
    trained(source, tmp_path / "run", run)
    assert exported(*run, f"--workdir={tmp_path / 'run'}", "--export_adapters") == 0
    card = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "library_name: peft" in card and "the LoRA adapters of stage2 at step 3" in card
    (serve,) = blocks(section(card, "Use"), "bash")
    assert serve.startswith("vllm serve source --dtype float32")
    assert "--enable-lora --max-lora-rank 8 --lora-modules" in serve


def test_a_pushed_export_is_named_by_its_repository(source, tmp_path, hub, capsys):  # noqa: F811
    client = hub(push_test.Client())
    trained(source, tmp_path / "run")
    run = [*arguments(source), f"--workdir={tmp_path / 'run'}", "--push=me/my-model"]
    assert exported(*run) == 0
    assert "Pushed to https://huggingface.co/me/my-model" in capsys.readouterr().out
    assert [what for what, *_ in client.asked] == ["whoami", "create_repo", "upload_folder"]
    folder = Path(client.asked[-1][2]["folder_path"])
    card = (folder / "README.md").read_text()
    assert "# my-model\n" in card and "vllm serve me/my-model " in card
    assert (folder / "model.safetensors").exists()
    assert "base_model" not in card
