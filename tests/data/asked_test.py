"""First turns of problems whose prompt is a text with the fields of their rows."""

import json

import pytest

from score_jax.config.settings import ProblemSettings, SourceSettings
from score_jax.data import asked, pipeline, problems
from score_jax.problem import InputError, Problem
from score_jax.text import templates, tokenizer
from score_jax.text.prompts import AS_IT_IS

ROW = {
    "question": "What is {context}?",
    "answer": "2",
    "context": "{problem} and sums",
    "meta": {"topic": "maths", "n": 3, "empty": None},
    "choices": ["two", "three"],
}


def write(folder, rows) -> str:
    folder.mkdir(exist_ok=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def settings(path: str, text: str, **changes) -> ProblemSettings:
    given: dict = {"fields": {"problem": "question", "hint": "meta.topic"}, **changes}
    given = {"instruction_text": "Again.", **given}
    return ProblemSettings("jsonl", path=path, prompt_text=text, **given)


def first(path: str, text: str, **changes) -> Problem:
    return problems.for_evaluation(settings(path, text, **changes), 0)[0]


def test_fields_of_the_row_are_put_in_and_the_problem_stays_what_it_is(tmp_path):
    path = write(tmp_path, [ROW])
    found = first(path, "{context} | {hint} {meta.n} {choices.1} | {problem}")
    assert found.asked == "{problem} and sums | maths 3 three | What is {context}?"
    assert found.prompt == ROW["question"] and not found.prompt_format
    train = problems.for_training(settings(path, "Q: {problem}"), 0).problems
    assert [p.asked for p in train] == ["Q: What is {context}?"]


def test_what_is_asked_is_what_is_encoded(tmp_path):
    found = first(write(tmp_path, [ROW]), "1+{problem}=", fields={"problem": "meta.topic"})
    text = tokenizer.characters()
    plain = templates.make("plain", text, system="", prompt_format=AS_IT_IS, instruction="?")
    problem = Problem("a", "2", "3", asked="1+2=")
    (row,) = [pipeline.tokenise([problem], plain.first_turn).tokens.tolist()]
    assert row == text.encode("1+2=") == asked.encoded(problem, plain.first_turn)
    assert found.asked == "1+maths="


@pytest.mark.parametrize(
    "text, words",
    [
        ("{contxt} {problem}", ("line 1: there is no field 'contxt'", "context, meta", "hint")),
        ("{meta.name} {problem}", ("no field 'meta.name'", "{{meta.name}} for the text")),
        ("{meta} {problem}", ("field 'meta', which", "is an object", "{meta.0}")),
        ("{choices} {problem}", ("is a list",)),
        ("{meta.empty} {problem}", ("is null",)),
        ("{context}", ("config.problems.prompt_text='{context}' has no {problem}",)),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_put_in_is_named_with_those_there_are(tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        first(write(tmp_path, [ROW]), text)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_row_that_lacks_the_field_is_named(tmp_path):
    rows = [ROW, {"question": "1+1?", "answer": "2", "meta": {"topic": "sums"}}]
    with pytest.raises(InputError, match=r"test\.jsonl, line 2: there is no field 'context'"):
        first(write(tmp_path, rows), "{context} {problem}")


def test_tags_of_a_known_set_are_fields_too():
    one = Problem("math/1", "1+1?", "2", tags={"level": "Level 1"})
    (found,) = asked.asked([one], "{level}: {problem}", {}, "config.problems")
    assert found.asked == "Level 1: 1+1?"
    with pytest.raises(
        InputError, match=r"problem 'math/1': there is no field 'x'.*problem, level"
    ):
        asked.asked([one], "{x} {problem}", {}, "config.problems")


def test_messages_are_asked_as_they_are(tmp_path):
    rows = [{"question": [{"role": "user", "content": "1+1?"}], "answer": "2"}]
    found = first(write(tmp_path, rows), "Q: {problem}", fields={"problem": "question"})
    assert not found.asked and found.prompt_format == AS_IT_IS


def test_a_further_set_has_a_text_of_its_own_or_that_of_the_run(tmp_path):
    path = write(tmp_path, [ROW])
    names = {"problem": "question"}
    tests = {
        "own": SourceSettings("jsonl", path, prompt_text="T: {problem}", fields=names),
        "same": SourceSettings("jsonl", path, fields=names),
    }
    further = problems.further_tests(settings(path, "R: {problem}", tests=tests), 0)
    assert {name: p.asked[:2] for name, (p,) in further.items()} == {"own": "T:", "same": "R:"}
    tests = {"own": SourceSettings("jsonl", path, prompt_text="{no} {problem}", fields=names)}
    with pytest.raises(InputError, match=r"which config\.problems\.tests\.own\.prompt_text names"):
        problems.further_tests(settings(path, "R: {problem}", tests=tests), 0)
    tests = {"named": SourceSettings("jsonl", path, prompt="math", fields=names)}
    with pytest.raises(InputError, match=r"another instruction .*instruction_text='Again\.'"):
        problems.further_tests(settings(path, "R: {problem}", tests=tests), 0)


def test_a_typed_question_is_put_into_the_run_s_prompt():
    simple = settings("", "Q: {problem}")
    assert asked.of_question("1+1?", simple).asked == "Q: 1+1?"
    further = settings("", "{hint}/{context}: {problem}")
    row = {"question": "1+1?", "context": "Sums", "meta": {"topic": "maths"}}
    found = asked.of_question(json.dumps(row), further)
    assert (found.asked, found.prompt) == ("maths/Sums: 1+1?", "1+1?")
    for question in ("1+1?", "[1]", '{"context": "Sums"}'):
        with pytest.raises(InputError, match=r'a JSON object with all of them: \{"question": …'):
            asked.of_question(question, further)
    with pytest.raises(InputError, match="the question: there is no field 'hint'"):
        asked.of_question('{"question": "1+1?", "context": "Sums"}', further)
    with pytest.raises(InputError, match="the question is empty"):
        asked.of_question(" ", simple)


def test_an_instruction_with_fields_is_filled_in_and_one_without_is_the_run_s(tmp_path):
    path = write(tmp_path, [ROW])
    assert (
        first(path, "{problem}", instruction_text=r"Is \boxed{x}, {{hint}} right?").instructions
        == ()
    )
    found = first(path, "{problem}", instruction_text=("Again.", "{hint}: {problem} {{hint}} {1}"))
    assert found.instructions == ("Again.", "maths: What is {context}? {hint} {1}")
    tests = {
        "own": SourceSettings(
            "jsonl", path, prompt_text="T: {problem}", fields={"problem": "context"}
        )
    }
    own = settings(path, "{problem}", tests=tests, instruction_text="Look: {problem}")
    ((other,),) = problems.further_tests(own, 0).values()
    assert (other.asked, other.instructions) == (
        "T: {problem} and sums",
        ("Look: {problem} and sums",),
    )


def test_messages_have_the_instruction_of_their_row(tmp_path):
    rows = [{"question": [{"role": "user", "content": "1+1?"}], "answer": "2", "hint": "Sums"}]
    found = first(
        write(tmp_path, rows),
        "Q: {problem}",
        fields={"problem": "question"},
        instruction_text="{hint} {problem}",
    )
    assert not found.asked and found.instructions == ("Sums 1+1?",)


def test_a_prompt_that_shows_the_answer_is_refused(tmp_path):
    named = {"problem": "question"}
    for text, fields in (("{problem} {answer}", named), ("{problem} {t}", named | {"answer": "t"})):
        with pytest.raises(InputError, match=r"prompt_text=.*is the right answer"):
            first(write(tmp_path, [ROW | {"t": "2"}]), text, fields=fields)


@pytest.mark.parametrize(
    "said, words",
    [
        ("{word}?", ("line 1: there is no field 'word'", "instruction_text names", "{{word}}")),
        (("Once.", "{choices}"), ("which config.problems.instruction_text names, is a list",)),
        ("{answer}", ("instruction_text='{answer}'", "the right answer")),
    ],
)
def test_a_field_that_an_instruction_cannot_show_is_named(tmp_path, said, words):
    with pytest.raises(InputError) as caught:
        first(write(tmp_path, [ROW]), "{problem}", instruction_text=said)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_typed_question_is_put_into_the_instruction_too():
    simple = settings("", "Q: {problem}", instruction_text="Look: {problem}")
    assert asked.of_question("1+1?", simple).instructions == ("Look: 1+1?",)
    further = settings("", "{problem}", instruction_text="Look: {context}")
    with pytest.raises(
        InputError, match=r"fields 'context' too, .* \{.question.: …, .context.: …\}"
    ):
        asked.of_question("1+1?", further)
    row = json.dumps({"question": "1+1?", "context": "Sums"})
    assert asked.of_question(row, further).instructions == ("Look: Sums",)
    graded = json.dumps({"question": "1+1?", "context": "Sums", "answer": "2"})
    assert asked.of_question(graded, further).instructions == ("Look: Sums",)


def test_a_given_first_attempt_is_followed_by_the_instruction_of_its_row():
    text = tokenizer.characters()
    plain = templates.make("plain", text, system="", prompt_format=AS_IT_IS, instruction="?")
    given = Problem("a", "1+2", "3", asked="1+2=", first_attempt="4", instructions=("+1+2=",))
    ids = asked.encoded(given, plain.first_turn)
    attempt = plain.attempt_ids("4")
    assert ids == [*text.encode("1+2="), *attempt, *text.encode("+1+2=")]


def test_a_typed_sum_is_put_into_a_text_of_ones_own():
    own = ProblemSettings("arithmetic", prompt_text="{problem}?", instruction_text="?{problem}")
    found = asked.of_question("1+2", own)
    assert found.prompt.startswith("1+2") and found.gold == "3"
    assert (found.asked, found.instructions) == (f"{found.prompt}?", (f"?{found.prompt}",))
