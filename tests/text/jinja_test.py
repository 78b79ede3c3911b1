import datetime

import pytest

from score_jax.problem import InputError
from score_jax.text.jinja import CannotRender, ChatTemplate

TODAY = datetime.datetime(2024, 7, 26)
ASKED = [{"role": "user", "content": "2+2"}]


def rendered(text, messages=ASKED, **variables):
    return ChatTemplate(text).render(messages, TODAY, variables)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{% for m in messages %}\n{{ m.role }}:{{ m['content'] }}\n{% endfor %}\n", "user:2+2\n"),
        ("  {% if add_generation_prompt %}A:{% endif %}", "A:"),  # lstrip_blocks
        ("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024"),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ tools is none and documents is none }}", "True"),
        ("{{ bos_token }}|{{ unknown }}", "<s>|"),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
    ],
)
def test_programs_find_what_transformers_offers(text, expected):
    assert rendered(text, bos_token="<s>") == expected


def test_texts_are_never_run():
    hostile = "{{ 7 * 7 }} {% raise %} {# gone #}"
    assert rendered("{{ messages[0].content }}", [{"role": "user", "content": hostile}]) == hostile


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[3].content.strip() }}", "no element 3"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_program_that_fails_or_leaves_its_sandbox_is_stopped_with_the_reason(text, why):
    with pytest.raises(CannotRender, match=why):
        rendered(text)


def test_what_a_program_takes_from_outside_is_known():
    found = ChatTemplate(
        "{% if enable_thinking is defined %}{% endif %}{% set own = 1 %}{{ own }}"
        "{% if not date_string is defined %}{% set date_string = '1' %}{% endif %}"
    ).variables
    assert found == {"enable_thinking", "date_string"}


def test_a_text_that_is_no_program_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"not a usable Jinja program: .*It begins '{% if x"):
        ChatTemplate("{% if x %}")
