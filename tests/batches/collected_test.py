"""Documents that a policy wrote, laid out as they were sampled."""

import dataclasses

import jax
import numpy as np
import pytest

from score_jax import grading
from score_jax import run as runs
from score_jax.batches import collected
from score_jax.data.sft import documents
from score_jax.data.sft.documents import Row
from score_jax.evaluation.queue import Kept
from score_jax.model import weights
from score_jax.problem import InputError
from score_jax.rollout import serve
from score_jax.text import templates, tokenizer
from tests.recipes_test import stage_of, tiny
from tests.rollout.remote_test import listening

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize("said", ["", "{problem}?"])
def test_a_document_is_the_row_that_was_sampled_also_where_the_first_attempt_is_empty(
    tmp_path, monkeypatch, said
):
    settings = tiny("star")
    if said:
        own = {"prompt": "", "prompt_text": "{problem}", "instruction_text": said}
        own = dataclasses.replace(settings.problems, **own)
        kept = tuple(name for name in settings.recipe if name != "base")  # it has a corpus
        stages = {name: dataclasses.replace(settings.stages[name], start="") for name in kept}
        settings = dataclasses.replace(settings, problems=own, recipe=kept, stages=stages)
    stops = dataclasses.replace(settings.problems, stop_before=("1", "+", "4"))
    settings = dataclasses.replace(settings, problems=stops)
    grade, graded = grading.grade, []
    monkeypatch.setattr(
        collected.grading, "grade", lambda of, own, **how: graded.append(own) or grade(of, own)
    )
    with runs.opened(settings, tmp_path / "run", train=True) as run:
        stage = next(s for s in settings.recipe if settings.stages[s].collect.filter)
        base = run.experiment.initial_params()
        monkeypatch.setattr(run, "params_of", lambda stage: base)
        found = collected._episodes(run, stage_of(run, stage), Kept(None))
        row_N = np.argsort(np.concatenate([own.row_N for own in graded]))
        sampled = jax.tree.map(lambda *x: np.concatenate(x)[row_N], *[own.rows for own in graded])
        source = collected.Collected(run, stage_of(run, stage))
        source._found = found
        source._asked_of = source._own_instructions()
        assert bool(source._asked_of) == bool(said)
        rows = [
            Row(
                one.prompt,
                tuple(a.ids for a in one.attempts),
                tuple(a.truncated for a in one.attempts),
                (1.0, 1.0),
                source._asked_of.get(one.problem, ()),
            )
            for one in found
        ]
        columns = sampled.tokens.shape[1]
        limit = settings.rollout.max_attempt_tokens
        packed = documents.pack(
            rows,
            run.experiment.template,
            run.experiment.episode_settings().before,
            columns=columns,
            max_attempt_tokens=limit,
        )
    first = [one.attempts[0].ids for one in found]
    assert () in first and any(first)
    for name in ("tokens", "attempt", "length", "truncated"):
        np.testing.assert_array_equal(getattr(packed, name), getattr(sampled, name), name)


def test_in_a_chat_form_a_document_closes_a_turn_that_a_stop_sequence_ended():
    plain = templates.make(
        "plain", tokenizer.characters(), system="", prompt_format="{problem}", instruction="?"
    )
    chat = dataclasses.replace(plain, name="chatml")
    row = Row((7,), ((5, 6), (4, 11)), (False, False), (1.0, 1.0))
    for template, turn in ((plain, [12]), (chat, [11, 12])):
        packed = documents.pack([row], template, {2: [12]}.get, columns=9, max_attempt_tokens=2)
        expected = [7, 5, 6, *turn, 4, 11]
        assert packed.tokens[0, : packed.length[0]].tolist() == expected


@pytest.mark.slow
def test_an_engine_with_the_policys_weights_writes_the_same_documents(tmp_path):
    settings = tiny("star")
    kept = tuple(name for name in settings.recipe if name != "base")  # it has a corpus
    more = dataclasses.replace(settings.stages[kept[0]].collect, steps=16)  # few are right
    stages = {
        name: dataclasses.replace(settings.stages[name], start="", collect=more) for name in kept
    }
    settings = dataclasses.replace(settings, recipe=kept, stages=stages)

    def written(name: str, engine: str = "") -> list:
        rollout = dataclasses.replace(settings.rollout, engine=engine)
        asked = dataclasses.replace(settings, rollout=rollout)
        with runs.opened(asked, tmp_path / name, train=True) as run:
            weights.save(tmp_path / "base", run.experiment.model, run.params_of("base"))
            return collected.documents_of(run, stage_of(run, kept[0]))

    here = written("here")
    service = serve.Service(str(tmp_path / "base"))
    with listening(tmp_path / "socket", service.answer) as address:
        found = written("there", address)
        service.digest = "of others"
        with pytest.raises(InputError, match="the policy 'base' has"):
            written("other", address)
    assert found == here and any(attempt.ids for one in here for attempt in one.attempts)
