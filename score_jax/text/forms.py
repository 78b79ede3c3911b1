"""The Jinja text of a run's template: the model's own, a usual form, or a file of one's own."""

from score_jax.problem import InputError, expanded, nearest
from score_jax.text.tokenizers.base import Tokenizer

# Usual forms, for models with the tokens but without a template.
FORMS = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
        "{% endfor %}{{ '<|im_start|>assistant\\n' }}"
    ),
    "llama3": (
        "{{ '<|begin_of_text|>' }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim }}"
        "{{ '<|eot_id|>' }}{% endfor %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"
    ),
    "gemma": (
        "{{ '<bos>' }}{% set system = namespace(text='') %}{% for m in messages %}"
        "{% if m.role == 'system' %}{% set system.text = m.content + '\\n\\n' %}{% else %}"
        "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else 'user') + '\\n' }}"
        "{{ system.text + m.content | trim + '<end_of_turn>\\n' }}{% set system.text = '' %}"
        "{% endif %}{% endfor %}{{ '<start_of_turn>model\\n' }}"
    ),
    "llama2": (
        "{% set system = namespace(text='') %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set system.text = '<<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' %}"
        "{% elif m.role == 'user' %}{{ '<s>[INST] ' + (system.text + m.content).strip() }}"
        "{{ ' [/INST]' }}{% set system.text = '' %}"
        "{% else %}{{ ' ' + m.content.strip() + ' </s>' }}{% endif %}{% endfor %}"
    ),
}
# The special tokens without which a form makes no sense.
_TOKENS = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama2": ("<s>", "</s>"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "gemma": ("<bos>", "<start_of_turn>", "<end_of_turn>"),
}
NAMES = ("auto", "plain", *FORMS)


def program(name: str, tokenizer: Tokenizer) -> str:
    """The Jinja text of the template of that name; empty for "plain".

    name: "auto", the model's own, or "plain" if it has none; one of NAMES; a .jinja file.
    Raises: InputError for an unknown name, or a vocabulary without the special tokens of the form.
    """
    if name == "auto":
        # Base models often have the tokens too, but unused; only chat models have a template.
        return tokenizer.chat_template
    if name in FORMS:
        missing = [text for text in _TOKENS[name] if tokenizer.token_id(text) is None]
        if missing:
            known = ", ".join(list(tokenizer.special)[:8]) or "none"
            raise InputError(
                f"The template {name!r} needs the special tokens {', '.join(missing)}, which this "
                f"vocabulary lacks (it has: {known}). Set config.model.template to 'auto', or to "
                "'plain' for a base model."
            )
        return FORMS[name]
    if name == "plain":
        return ""
    if name.endswith(".jinja") and (path := expanded(name)).is_file():
        try:
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The template {path} cannot be read ({error}). Save it as text in UTF-8."
            ) from error
    raise InputError(
        f"There is no template {name!r}, and no .jinja file of that name. {nearest(name, NAMES)}"
    )
