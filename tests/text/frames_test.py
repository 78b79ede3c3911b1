import pytest

from score_jax.problem import InputError
from score_jax.text import frames
from score_jax.text.frames import Slot
from score_jax.text.jinja import CannotRender


def speaks(*, user="U:{}.", assistant="A:{};", system="S:{}!", prompt="A:"):
    """A chat template in Python: how each role's text is written, and what begins an answer."""

    def render(messages):
        text = ""
        for message in messages:
            form = {"user": user, "assistant": assistant, "system": system}[message["role"]]
            text += form.format(message["content"])
        return text + prompt

    return render


def test_a_rendering_is_cut_at_the_texts_of_an_episode():
    bare, framed = frames.both(speaks(user="U:{}.\n"))
    assert bare.first == ("U:", Slot("problem"), ".\nA:")
    assert bare.later == (";U:", Slot("instruction"), ".\nA:")
    assert bare.margin == ""
    assert framed.first == ("S:", Slot("system"), "!U:", Slot("problem"), ".\nA:")
    assert framed.later == bare.later


@pytest.mark.parametrize(
    ("strip", "slot", "given", "left"),
    [
        (str, Slot("problem"), " \n x\n", " \n x\n"),
        (str.strip, Slot("problem", None, None), " \n x\n", "x"),
        (str.lstrip, Slot("problem", None, ""), " \n x\n", "x\n"),
        (str.rstrip, Slot("problem", "", None), " \n x\n", " \n x"),
        (lambda text: text.strip("\n"), Slot("problem", "\n", "\n"), "\n\n x\n", " x"),
    ],
)
def test_what_a_template_strips_is_stripped(strip, slot, given, left):
    def render(messages):
        return speaks()([{**m, "content": strip(m["content"])} for m in messages])

    bare, _ = frames.both(render)
    assert bare.first[1] == slot
    assert slot.trimmed(given) == left
    frames.check(render, [{"role": "user", "content": given}], f"U:{left}.A:")


def test_blanks_that_belong_to_the_template_are_not_taken_for_the_texts():
    def render(messages):
        stripped = [{**m, "content": m["content"].strip()} for m in messages]
        return speaks(user="U:\n\n{}\n\n", prompt="A:\n", assistant="A:\n{}\n\n")(stripped)

    bare, _ = frames.both(render)
    assert bare.first == ("U:\n\n", Slot("problem", None, None), "\n\nA:\n")
    assert bare.later[0] == "\n\nU:\n\n"


def test_blanks_before_an_answer_are_its_margin():
    bare, _ = frames.both(speaks(prompt="", assistant=" {} </s>"))
    assert (bare.first[-1], bare.margin, bare.later[0]) == (".", " ", " </s>U:")


@pytest.mark.parametrize(
    ("prompt", "again"),
    [
        ("A:<think>\n\n</think>\n\n", "A:{};"),  # Qwen3 without thinking
        ("A:<think>\n", "A:{};"),  # R1
        ("A:", "A:\n<think></think>\n{};"),  # GLM-4.5
        ("A:<think>\n", "A:<think></think>{};"),  # Nemotron
    ],
)
def test_thoughts_that_a_template_drops_or_adds_stay_as_they_were_sampled(prompt, again):
    bare, _ = frames.both(speaks(prompt=prompt, assistant=again))
    assert bare.first == ("U:", Slot("problem"), f".{prompt}")
    assert bare.later == (";U:", Slot("instruction"), f".{prompt}")
    assert bare.margin == ""


def test_a_system_text_that_moves_to_the_last_question_stays_before_the_first():
    def render(messages):  # Mistral's way
        system = ""
        if messages[0]["role"] == "system":
            system, messages = messages[0]["content"] + "\n\n", messages[1:]
        last = {"role": "user", "content": system + messages[-1]["content"]}
        return speaks(prompt="", assistant="{};")([*messages[:-1], last])

    bare, framed = frames.both(render)
    assert framed.first == ("U:", Slot("system"), "\n\n", Slot("problem"), ".")
    assert framed.later == bare.later == (";U:", Slot("instruction"), ".")


@pytest.mark.parametrize("refuses", [True, False])
def test_a_template_without_a_place_for_a_system_text_is_known(refuses):
    def render(messages):
        if refuses and messages[0]["role"] == "system":
            raise CannotRender("System role not supported")
        return speaks(system="")(messages)

    bare, framed = frames.both(render)
    assert framed is None and bare.first[0] == "U:"


@pytest.mark.parametrize(
    "render",
    [
        speaks(prompt=""),  # does not open the answer
        speaks(prompt="A:", assistant="A (edited):{};"),
        speaks(assistant=""),  # drops answers
        lambda messages: speaks()(messages[-1:]),  # and all but the last message
        lambda messages: f"{len(messages)} messages: {speaks()(messages)}",
    ],
)
def test_two_turns_that_do_not_extend_one_are_refused_with_both(render):
    with pytest.raises(InputError, match=r"as an extension of one.*One turn: '.*U:⟨problem⟩\..*'"):
        frames.both(render)


def test_a_template_that_changes_a_text_is_refused_with_both():
    def render(messages):
        marked = [{**m, "content": m["content"].replace("\n", "|")} for m in messages]
        return speaks()(marked)

    with pytest.raises(InputError, match=r"more than stripping.*'U:⟨problem⟩\.A:' and 'U:\|"):
        frames.both(render)


def test_a_template_that_fails_says_why():
    def render(messages):
        raise CannotRender("no tools")

    with pytest.raises(InputError, match=r"refuses a conversation of user and assistant: no tools"):
        frames.both(render)


def test_a_text_that_a_template_looks_into_is_refused():
    def render(messages):
        text = messages[0]["content"]
        return f"U:{text.removesuffix('/no_think')}." + "off" * text.endswith("/no_think")

    frames.check(render, [{"role": "user", "content": "2+2"}], "U:2+2.")
    with pytest.raises(InputError, match=r"treats the text '2\+2/no_think'.*gives 'U:2\+2\.off'"):
        frames.check(render, [{"role": "user", "content": "2+2/no_think"}], "U:2+2/no_think.")
