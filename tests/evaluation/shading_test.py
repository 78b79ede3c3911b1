"""Log-probs of the tokens of an evaluation, cut into pieces of its texts."""

import jax
import numpy as np
import pytest

from score_jax.data import problems
from score_jax.evaluation import evaluate, shading
from score_jax.experiment import Experiment
from score_jax.model import transformer
from tests.loop_test import tiny_settings

pytestmark = pytest.mark.usefixtures("quick_compile")


def bytewise(ids) -> str:
    """A tokenizer whose tokens are bytes: a character may need several."""
    return bytes(ids).decode("utf-8", "replace")


def test_each_token_is_a_piece_and_the_end_is_one_without_text():
    made = shading.pieces(list(b"so."), {"logp": [-1.0, -0.5, -0.25]}, bytewise, ended=True)
    assert made == {"ends": [1, 2, 2], "logp": [-1.0, -0.5, -0.25]}


def test_tokens_that_make_a_character_together_are_one_piece():
    ids = list("aü€!".encode())
    logp = [-0.1, -1.0, -2.0, -4.0, -8.0, -16.0, -0.2]
    made = shading.pieces(ids, {"logp": logp, "base_logp": logp}, bytewise, ended=False)
    assert made["ends"] == [1, 2, 3, 4]
    assert made["logp"] == made["base_logp"] == [-0.1, -3.0, -28.0, -0.2]


def test_a_character_cut_off_in_its_middle_stays_a_piece():
    made = shading.pieces([97, 0xE2, 0x82], {"logp": [-1.0, -2.0, -3.0]}, bytewise, ended=False)
    assert made == {"ends": [1, 2], "logp": [-1.0, -5.0]}
    assert shading.pieces([], {"logp": []}, bytewise, ended=False) == {"ends": [], "logp": []}


def test_an_evaluation_has_them_for_its_first_rows_and_they_are_the_model_s(monkeypatch):
    monkeypatch.setattr(shading, "rows_of", lambda problems: 3)
    settings = tiny_settings()
    experiment = Experiment.open(settings)
    params = experiment.initial_params()
    other = jax.tree.map(lambda x: 0.5 * x, params)
    asked = problems.for_evaluation(settings.problems, 0)[:16]
    found = evaluate.evaluate(experiment, params, asked, reference=other)
    assert ["shading" in row["attempts"][1] for row in found.transcripts] == [True] * 3 + [
        False
    ] * 13
    decoded = found.transcripts[2]
    for model, name in ((params, "logp"), (other, "base_logp")):
        wanted = by_hand(experiment, model, decoded)
        for attempt, logp in zip(decoded["attempts"], wanted, strict=True):
            made = attempt["shading"]
            assert len(made["ends"]) == attempt["tokens"] == len(made[name])
            assert made["ends"][-1] == len(attempt["text"])
            np.testing.assert_allclose(made[name], logp, atol=2e-3)


def by_hand(experiment: Experiment, params, row) -> list[list[float]]:
    """Log-probs of each attempt's tokens, one row, all logits at once."""
    template, encode = experiment.template, experiment.template.tokenizer.encode
    ids, spans = list(template.first_turn(row["problem"])), []
    for a, attempt in enumerate(row["attempts"]):
        ids += template.instruction_ids if a else []
        written = encode(attempt["text"], continued=True)
        if not attempt["truncated"]:
            written = [*written, template.tokenizer.end_ids[0]]
        spans.append((len(ids), len(ids) + len(written)))
        ids += written
        ids += template.turn_end_ids if attempt["truncated"] else []
    logits_1TV = transformer.logits(experiment.model, params, np.array([ids]))
    logp_TV = np.asarray(jax.nn.log_softmax(logits_1TV[0]))
    return [[float(logp_TV[t - 1, ids[t]]) for t in range(*span)] for span in spans]


def test_few_rows_are_shaded():
    assert [shading.rows_of(n) for n in (1, 64, 500, 5000)] == [1, 1, 7, 16]
