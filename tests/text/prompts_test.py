import pytest

from configs import laptop_smollm2_135m
from score_jax.config.build import resolve
from score_jax.data import problems
from score_jax.data.sets import running_total
from score_jax.problem import InputError
from score_jax.rewards.answers.grade import grade_answer
from score_jax.rewards.programs import extract
from score_jax.text import prompts, templates, tokenizer


@pytest.mark.parametrize("name", prompts.PROMPTS)
def test_every_prompt_has_one_place_for_the_problem(name):
    prompt_format, instruction = prompts.PROMPTS[name]
    assert prompt_format.count("{problem}") == 1
    assert "{problem}" not in instruction


def test_the_maths_prompts_are_the_papers():
    # Typed again from the paper, so that an edit on one side shows.
    answer = (
        "At the end of the Solution, when you give your final answer, write it in the form "
        '"Final Answer: The final answer is $answer$. I hope it is correct."'
    )
    assert (
        "You are a math expert. When you respond, respond only with the Solution of the final "
        "Problem, thinking step by step. " + answer
    ) == prompts.MATH
    assert (
        "There might be an error in the solution above because of lack of understanding of the "
        "question. Please correct the error, if any, and rewrite the solution. Only output the "
        "final solution! " + answer
    ) == prompts.MATH_INSTRUCTION
    assert prompts.PROMPTS["gsm8k"] == prompts.PROMPTS["math"]


def test_the_code_instruction_begins_with_a_comment_mark():
    assert prompts.CODE_INSTRUCTION.startswith("# There might be an error in the code above")
    assert prompts.CODE_INSTRUCTION.endswith("Only output the final correct Python program!")


def test_the_worked_programs_pass_their_own_tests():
    examples = prompts.MBPP.split("\n[DONE]\n")
    assert len(examples) == 4 and examples[3] == ""
    for example in examples[:3]:
        task, program = example.split("\n[BEGIN]\n")
        assert task.lstrip("\n").startswith("You are an expert Python programmer, and here is your")
        tests = task.split("Your code should pass these tests:\n\n")[1]
        assert tests.count("assert") == 3
        exec(f"{program}\n{tests}", {})  # our own text, not a model's


def test_the_query_of_the_programming_prompt_repeats_the_examples_pattern():
    prompt_format, _ = prompts.PROMPTS["mbpp"]
    query = prompt_format.removeprefix(prompts.MBPP)
    before, after = query.split("{problem}")
    assert prompts.MBPP.count(before) == 2 and prompts.MBPP.startswith(before[1:])
    assert after == "\n[BEGIN]\n"


def test_the_boxed_variant_asks_for_a_box_and_nothing_else():
    for text in prompts.PROMPTS["math_boxed"]:
        assert "\\boxed{}" in text
        assert "Final Answer" not in text


def test_the_worked_problems_end_as_the_instruction_asks_and_are_right():
    shots = prompts.MATH_SHOTS.split("\n\nProblem:\n")
    golds = ["16", "\\frac97", "\\frac16", "2\\sqrt{13}"]
    for shot, gold in zip(shots, golds, strict=True):
        assert "\n\nSolution:\n" in shot
        assert shot.endswith("$. I hope it is correct.")
        assert grade_answer(shot.split("Solution:\n")[1], gold).reward == 1.0
    prompt_format, _ = prompts.PROMPTS["math_fewshot"]
    assert prompt_format.endswith("\n\nProblem:\n{problem}\n\nSolution:\n")
    assert prompt_format.startswith(prompts.MATH)


def test_both_programming_prompts_of_a_kind_have_one_instruction():
    # Or MBPP could not be trained on and HumanEval tested in one run.
    for end in ("", "_text", "_chat"):
        assert prompts.PROMPTS[f"mbpp{end}"][1] == prompts.PROMPTS[f"humaneval{end}"][1]


def test_arithmetic_prompts_fit_the_character_tokenizer():
    prompt_format, instruction = prompts.PROMPTS["arithmetic"]
    plain = templates.make(
        "auto",
        tokenizer.characters(),
        system="",
        prompt_format=prompt_format,
        instruction=instruction,
    )
    assert plain.instruction_ids == [12]
    assert plain.tokenizer.decode(plain.first_turn("    7+8+5=")) == "    7+8+5="


def test_the_examples_of_a_form_end_where_its_stop_sequences_say():
    after, before = prompts.STOPS["math_fewshot"].after, prompts.STOPS["math_fewshot"].before
    _, *solutions = prompts.MATH_SHOTS.split("\n\nSolution:\n")
    for solution in solutions:
        written, _, following = solution.partition(after[0])
        assert not any(stop in written for stop in before)
        assert not following or following.lstrip().startswith(before[0])
    for program in prompts.MBPP.split("[BEGIN]\n")[1:]:
        written, stop, following = program.partition(prompts.STOPS["mbpp_text"].before[0])
        assert stop and not any(text in written for text in prompts.STOPS["mbpp_text"].before)
        assert not following.strip() or following.lstrip().startswith("You are an expert")


def test_stop_sequences_belong_to_forms_without_turns_and_begin_where_a_token_does():
    for name, stops in prompts.STOPS.items():
        assert name.endswith(("_text", "_fewshot")) and name in prompts.PROMPTS
        assert all(text == text.lstrip() for text in stops.before), "a line break may be in a token"


def test_chat_code_prompts_ask_for_a_program_in_a_fenced_block():
    for name, task in (("mbpp_chat", '"""\nDo.\n"""'), ("humaneval_chat", "Do.")):
        prompt_format, instruction = prompts.PROMPTS[name]
        assert prompt_format.replace("{problem}", "Do.").endswith(f"\n\n```python\n{task}\n```\n")
        for text in (prompt_format, instruction, prompts.SELF_REFINE[name][1]):
            assert "in one fenced code block" in text


def test_an_answer_in_the_chat_form_is_graded():
    answer = "Here it is:\n\n```python\nimport math\n\ndef add(a, b):\n    return a + b\n```\nDone."
    assert extract.readings(answer)[0] == ("import math\n\ndef add(a, b):\n    return a + b\n",)


def test_a_prompt_is_chosen_by_name_or_by_text():
    assert prompts.chosen("math", "", ()) == (
        prompts.PROMPTS["math"][0],
        [prompts.MATH_INSTRUCTION],
    )
    assert prompts.chosen("", "Q: {problem}", ("A", "B")) == ("{problem}", ["A", "B"])
    with pytest.raises(InputError, match=r"prompt='maths' is unknown\. Did you mean 'math'"):
        prompts.chosen("maths", "", ())
    with pytest.raises(InputError, match=r"prompt_text='Q' has no \{problem\}"):
        prompts.chosen("", "Q", ())


@pytest.mark.parametrize("field", ["answer", "reward.truth"])
def test_an_instruction_that_shows_the_right_answer_is_refused(field):
    fields = {"answer": "reward.truth"}
    with pytest.raises(InputError, match=r"='Look: .* is the right answer, .* copy it .*\{\{"):
        prompts.chosen("", "{problem}", ["Again.", f"Look: {{{field}}}"], fields)
    others = ["Look: {problem} {context} {meta.topic}", "No {{answer}}"]
    assert prompts.chosen("", "{problem}", others, fields)[1] == others


def test_an_instruction_may_show_braces():
    said = ['Write {"answer": 3}, \\boxed{answer}, {1, 2}, {word} or {{problem}}.']
    assert prompts.chosen("", "{problem}", said)[1] == said


def test_the_laptops_prompts_and_documents_fill_their_places(smollm2):
    settings = resolve(laptop_smollm2_135m.get_config())
    prompt_format, instruction = prompts.PROMPTS[settings.problems.prompt]
    template = templates.make(
        "plain", smollm2, system="", prompt_format=prompt_format, instruction=instruction
    )
    tested = problems.for_evaluation(settings.problems, seed=0)
    longest = max(len(template.first_turn(problem.prompt)) for problem in tested)
    assert longest == settings.rollout.max_prompt_tokens
    made = running_total.documents(0, 1, 300)
    attempts = [template.attempt_ids(*document.attempts) for document in made]
    assert max(map(len, attempts)) == settings.rollout.max_attempt_tokens
