"""How to use an export, for its model card: both prompts, and commands that send them.

    section(experiment, name, base, adapters)   -> Markdown
    fenced(text, kind)                          -> text in a fence that it cannot close

The commands are for others' programs: vLLM's server, a client that asks it twice, and lm-eval for
first attempts. They send what a run sends, with two differences: a server renders the conversation
again from its texts, where a run continues from the sampled ids; and it cuts at a stop sequence,
where a run cuts between tokens.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from score_jax.config.settings import Settings
from score_jax.experiment import Experiment, stops_of
from score_jax.text import prompt_text, prompts
from score_jax.text.prompt_text import Piece

_OURS: Mapping[str, str] = {}
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters that vLLM reserves memory for


def section(experiment: Experiment, name: str, base: str, adapters: bool = False) -> str:
    """The card's last part. base: of adapters, the model under them."""
    s = experiment.settings
    pieces, instructions = _prompts(s)
    beside = "" if "/" in name else f", started beside the folder `{name}`"
    parts = [
        "## Prompts",
        *([f"System text:\n\n{fenced(s.problems.system)}"] if s.problems.system else []),
        f"First turn, with {_listed(pieces)} in place of the braces:\n\n{fenced(_shown(pieces))}",
        *(f"Then, as the next turn of the user:\n\n{fenced(_shown(one))}" for one in instructions),
        *_attempts(s),
        "## Use",
        f"A server{beside}:\n\n{fenced(_serve(s, experiment, name, base, adapters), 'bash')}",
        "Both attempts of it. The model was trained on the first answer exactly as it was sampled; "
        f"here it is sent back as text:\n\n{fenced(client(experiment, name), 'python')}",
    ]
    if not adapters:
        parts.append(
            "First attempts with lm-eval, on a file `problems.jsonl` whose rows have "
            f"{_listed(pieces, s.problems.fields)} and "
            f"`{s.problems.fields.get('answer', 'answer')}`. It takes the last number of an "
            "answer, which is not the grader of the table above. "
            f"{_lm_eval_cuts(s)}In `first_attempt.yaml`:\n\n"
            f"{fenced(lm_eval_task(experiment), 'yaml')}\n\n"
            f"{fenced(lm_eval_command(experiment, name), 'bash')}"
        )
    return "\n\n".join(parts)


def client(experiment: Experiment, name: str, url: str = "http://localhost:8000") -> str:
    """A Python program that asks a server of vLLM for both attempts."""
    s = experiment.settings
    pieces, instructions = _prompts(s)
    every = [*pieces, *itertools.chain(*instructions)]
    fields = ", ".join(dict.fromkeys(_variable(p.text) for p in every if p.is_field))
    values = ", ".join(f'{field}="…"' for field in fields.split(", "))
    sampling: dict[str, Any] = {
        "model": name,
        "max_tokens": s.rollout.max_attempt_tokens,
        # The server would else take the base model's own defaults.
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
    }
    stops, begins = stops_of(s), s.model.answer_prefix
    if stops:
        sampling["stop"] = [*stops.before, *stops.after]
        sampling["include_stop_str_in_output"] = bool(stops.after)
    chat = _is_chat(experiment)
    if chat and begins:
        sampling |= {"add_generation_prompt": False, "continue_final_message": True}
    if "enable_thinking" in experiment.template.tokenizer.chat_template:
        sampling["chat_template_kwargs"] = {"enable_thinking": s.model.thinking}
    ended = repr(_end_text(experiment))
    if stops:  # after a stop sequence the instruction continues the text
        ended = f'"" if choice.get("stop_reason") in SAMPLING["stop"] else {ended}'
    later, constant, function = "INSTRUCTIONS", f"INSTRUCTIONS = {_texts(instructions)}\n", ""
    if any(p.is_field for one in instructions for p in one):
        later, constant = f"instructions({values})", ""
        function = f"\n\ndef instructions({fields}):\n    return {_texts(instructions)}\n"
    shared = f"""import requests

{constant}SAMPLING = {sampling!r}


def prompt({fields}):
    return {_expression(pieces)}
{function}

def answer(path, body):
    said = requests.post("{url}/v1/" + path, json=body | SAMPLING, timeout=600)
    said.raise_for_status()
    choice = said.json()["choices"][0]
    attempt = choice{'["message"]["content"]' if chat else '["text"]'}
"""
    if stops.before and stops.after:  # the server keeps either all of them or none
        shared += f"""    if choice.get("stop_reason") in {list(stops.before)!r}:
        attempt = attempt.removesuffix(choice["stop_reason"])
"""
    said = f"{begins!r} + attempt" if begins else "attempt"
    if not chat:
        return f"""{shared}    return {said}, {ended}


def ask(text):
    return answer("completions", {{"prompt": text{f" + {begins!r}" if begins else ""}}})


text = prompt({values})
attempt, end = ask(text)
print(attempt)
for instruction in {later}:
    text += attempt + end + instruction
    attempt, end = ask(text)
    print(attempt)"""
    system = [{"role": "system", "content": s.problems.system}] if s.problems.system else []
    begun = f' + [{{"role": "assistant", "content": {begins!r}}}]' if begins else ""
    return f"""{shared}    return {said}


def ask(messages):
    return answer("chat/completions", {{"messages": messages{begun}}})


messages = {system!r} + [{{"role": "user", "content": prompt({values})}}]
print(attempt := ask(messages))
for instruction in {later}:
    messages.append({{"role": "assistant", "content": attempt}})
    messages.append({{"role": "user", "content": instruction}})
    print(attempt := ask(messages))"""


def lm_eval_task(experiment: Experiment) -> str:
    """A task of lm-eval for first attempts, as YAML; strings are JSON, which is YAML too."""
    s = experiment.settings
    pieces, _ = _prompts(s)
    fields, stops = s.problems.fields, stops_of(s)
    asked = "".join(
        f"{{{{{fields.get(p.text, p.text)}}}}}" if p.is_field else _raw(p.text) for p in pieces
    )
    begins, begun = s.model.answer_prefix, ""
    if begins and _is_chat(experiment):
        begun = f"\ngen_prefix: {json.dumps(_raw(begins))}"
    elif begins:  # lm-eval would put a blank before its gen_prefix
        asked += _raw(begins)
    return f"""task: first_attempt
dataset_path: json
dataset_kwargs: {{data_files: {{test: problems.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: {json.dumps(asked)}
doc_to_target: {json.dumps(f"{{{{{fields.get('answer', 'answer')}}}}}")}{begun}
generation_kwargs:
  until: {json.dumps([_end_text(experiment), *stops.before, *stops.after])}
  do_sample: false
  max_gen_toks: {s.rollout.max_attempt_tokens}
filter_list:
  - name: last_number
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[0-9]+(?:[.][0-9]+)?)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}"""


def lm_eval_command(experiment: Experiment, name: str) -> str:
    """The command that runs this task; a chat template brings its own token of the beginning."""
    s, text = experiment.settings, experiment.template.tokenizer
    chat = _is_chat(experiment)
    bos = not chat and text.bos_id is not None
    more = "    --apply_chat_template \\\n" if chat else ""
    if chat and s.problems.system:
        more += f"    --system_instruction {_quoted(s.problems.system)} \\\n"
    return (
        f"lm_eval run --model hf --model_args pretrained={name},dtype={s.model.dtype},"
        f"add_bos_token={bos} \\\n{more}"
        "    --include_path . --tasks first_attempt --log_samples --output_path lm_eval"
    )


def _attempts(s: Settings) -> list[str]:
    """How an attempt begins and ends, where settings say so."""
    stops, begins = stops_of(s), s.model.answer_prefix
    parts = []
    if begins:
        parts.append(f"Each attempt is begun for the model, with:\n\n{fenced(begins)}")
    for texts, where in ((stops.before, "before"), (stops.after, "behind")):
        if texts:
            listed = json.dumps(texts, ensure_ascii=False)
            parts.append(f"An attempt also ends {where} one of:\n\n{fenced(listed, 'json')}")
    return parts


def _lm_eval_cuts(s: Settings) -> str:
    """What of an attempt lm-eval leaves out, as a sentence."""
    lost = ["the beginning that is given"] if s.model.answer_prefix else []
    lost += ["the texts behind which it ends"] if stops_of(s).after else []
    return f"Its answers lack {' and '.join(lost)}. " if lost else ""


def _raw(text: str) -> str:
    """The text for Jinja, which leaves it as it is."""
    return f"{{% raw %}}{text}{{% endraw %}}"


def fenced(text: str, kind: str = "text") -> str:
    """A block of Markdown; its fence is longer than any in the text."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{kind}\n{text}\n{fence}"


def _prompts(s: Settings) -> tuple[Sequence[Piece], list[Sequence[Piece]]]:
    """The first turn of a run and its instructions, one for each later attempt, in pieces."""
    problems = s.problems
    prompt_format, (*texts,) = prompts.chosen(
        problems.prompt, problems.prompt_text, problems.instructions
    )
    instructions: list[Sequence[Piece]] = [[Piece(text)] for text in texts]
    if problems.prompt_text:
        instructions = [prompt_text.pieces(text) for text in problems.instructions]
    if s.rollout.attempts == 1:
        instructions = []
    elif len(instructions) == 1:
        instructions *= s.rollout.attempts - 1
    if problems.prompt_text:
        return prompt_text.pieces(problems.prompt_text), instructions
    before, after = prompt_format.split(prompts.AS_IT_IS)
    pieces = [Piece(before), Piece(prompt_text.PROBLEM, True), Piece(after)]
    return [piece for piece in pieces if piece.text], instructions


def _serve(s: Settings, experiment: Experiment, name: str, base: str, adapters: bool) -> str:
    """vLLM's server, with room for the longest episode."""
    shared = f"--dtype {s.model.dtype} --max-model-len {experiment.columns}"
    if not adapters:
        return f"vllm serve {name} {shared}"
    rank = next((rank for rank in _RANKS if rank >= s.model.lora.rank), s.model.lora.rank)
    return (
        f"vllm serve {base} {shared} --enable-lora --max-lora-rank {rank} "
        f"--lora-modules {name}={name}"
    )


def _is_chat(experiment: Experiment) -> bool:
    chat_template = experiment.template.tokenizer.chat_template
    return bool(chat_template) and experiment.settings.model.template != "plain"


def _end_text(experiment: Experiment) -> str:
    """The end token of an attempt, as text."""
    text = experiment.template.tokenizer
    named = {i: name for name, i in text.special.items()}
    return named.get(text.end_ids[0]) or text.decode([text.end_ids[0]])


def _variable(field: str) -> str:
    return re.sub(r"\W", "_", field)


def _shown(pieces: Sequence[Piece]) -> str:
    return "".join(f"{{{p.text}}}" if p.is_field else p.text for p in pieces)


def _expression(pieces: Sequence[Piece]) -> str:
    """The text as an expression of Python; fields are variables, which may be numbers."""
    return " + ".join(f"str({_variable(p.text)})" if p.is_field else repr(p.text) for p in pieces)


def _texts(texts: Sequence[Sequence[Piece]]) -> str:
    return f"[{', '.join(map(_expression, texts))}]"


def _listed(pieces: Sequence[Piece], fields: Mapping[str, str] = _OURS) -> str:
    """The names of the fields in a text; fields: our names -> those of a file."""
    names = dict.fromkeys(fields.get(p.text, p.text) for p in pieces if p.is_field)
    return ", ".join(f"`{name}`" for name in names)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
