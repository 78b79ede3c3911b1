"""Documents as rows of token ids."""

from score_jax.data.sft import documents
from score_jax.data.sft.documents import Row
from score_jax.text import templates, tokenizer


def test_each_attempt_comes_after_its_own_instruction():
    template = templates.make(
        "plain", tokenizer.characters(), system="", prompt_format="{problem}", instruction="?"
    )
    row = Row((7,), ((5, 11), (6,), (4, 11)), (False, True, False), (0.0, 0.5, 1.0))
    packed = documents.pack(
        [row], template, {2: [12], 3: [14, 12]}.get, columns=12, max_attempt_tokens=2
    )
    end = template.turn_end_ids
    assert packed.tokens[0].tolist() == [
        7,
        5,
        11,
        12,
        6,
        *end,
        14,
        12,
        4,
        11,
        *[template.tokenizer.pad_id] * 2,
    ]
    assert packed.attempt[0].tolist() == [0, 1, 1, 0, 2, 0, 0, 0, 3, 3, 0, 0]
    assert packed.reward.tolist() == [[0.0, 0.5, 1.0]]
