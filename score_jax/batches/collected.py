"""The documents of an SFT stage, written by a policy: sampled, graded, filtered, kept on disk.

    documents_of(run, index) -> documents      DIR/collected/STAGE.jsonl, made if it is not there

Sampling is addressed like that of an RL stage: rollout n draws from (seed, stage, n), so a pass
that was stopped goes on where it was, to the same data set. Until it is complete, episodes wait in
DIR/collected/STAGE.part.jsonl with the number of their rollout.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from score_jax import jsonfiles
from score_jax.batches.episodes import Graded, Sampler
from score_jax.data.sft import filters
from score_jax.data.sft.filters import Dialogue, Written
from score_jax.evaluation.evaluate import Interrupted
from score_jax.problem import InputError
from score_jax.run import Run
from score_jax.runtime import hosts


def documents_of(run: Run, index: int) -> list[Dialogue]:
    """The documents of stage `index` of the recipe.

    Raises: Interrupted if the run was asked to stop; InputError if the filter leaves none.
    """
    name = run.settings.recipe[index]
    collect = run.settings.stages[name].collect
    path = run.folder / "collected" / f"{name}.jsonl"
    if not hosts.lead_says(path.exists):
        part = path.with_suffix(".part.jsonl")
        episodes = [episode for _, episode in _episodes(run, index, part)]
        found = filters.FILTERS[collect.filter](
            episodes, both_right=collect.both_right, seed=(run.settings.seed % 2**32, index)
        )
        if hosts.is_lead():
            jsonfiles.write_lines(path, found)
            part.unlink()
        run.log.say(f"{name}: {len(found)} of {len(episodes)} episodes kept as documents.")
    lines = hosts.lead_says(lambda: path.read_text().splitlines())
    documents = [_dialogue(json.loads(line)) for line in lines]
    if not documents:
        raise InputError(
            f"the filter '{collect.filter}' left none of the episodes of {collect.steps} rollouts, "
            f"so {name} has nothing to learn from: see {path}. Collect more "
            f"(config.stages.{name}.collect.steps), or allow both_right."
        )
    return documents


def _episodes(run: Run, index: int, part: Path) -> list[tuple[int, Dialogue]]:
    """All episodes of the pass with their rollout's number; those still missing are sampled."""
    name = run.settings.recipe[index]
    collect = run.settings.stages[name].collect
    rollout = run.settings.rollout
    rows = rollout.problems_per_step * rollout.samples_per_problem
    left = hosts.lead_says(lambda: part.read_text(encoding="ascii") if part.exists() else "")
    known = list(_whole_rollouts(left, rows))
    # The lead keeps what all find out.
    kept = part if hosts.is_lead() else Path(os.devnull)
    if hosts.is_lead():
        jsonfiles.write_lines(part, ({"rollout": n, **jsonfiles.plain(e)} for n, e in known))
    done = known[-1][0] if known else 0
    if done == collect.steps:
        return known
    policy = collect.policy or (run.settings.recipe[index - 1] if index else "base")
    params = run.params_of(policy)
    sampler = Sampler(run, index, attempts=2)
    sampler.skip(done)
    run.log.say(f"{name}: {policy} writes documents, {collect.steps - done} rollouts.")
    with open(kept, "a", encoding="ascii") as file:
        for number in range(done + 1, collect.steps + 1):
            if run.stop():
                raise Interrupted
            episodes = _dialogues(sampler.collect(sampler.dispatch(params, number)))
            lines = ({"rollout": number, **jsonfiles.plain(episode)} for episode in episodes)
            file.write("".join(map(jsonfiles.line, lines)))
            file.flush()
            known += [(number, episode) for episode in episodes]
    return known


def _whole_rollouts(left: str, rows: int) -> Iterator[tuple[int, Dialogue]]:
    """What an earlier process left; a rollout of which lines are missing counts as not done."""
    by_rollout: dict[int, list[Dialogue]] = {}
    for line in left.splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # torn by a crash
            break
        by_rollout.setdefault(row["rollout"], []).append(_dialogue(row))
    for number, episodes in by_rollout.items():
        if len(episodes) == rows:
            yield from ((number, episode) for episode in episodes)


def _dialogue(row: dict[str, Any]) -> Dialogue:
    attempts = tuple(Written(**{**a, "ids": tuple(a["ids"])}) for a in row["attempts"])
    return Dialogue(row["problem"], tuple(row["prompt"]), attempts)


def _dialogues(graded: Graded) -> list[Dialogue]:
    """A step's episodes as the ids that were sampled; each process reads its own."""
    rows = graded.own
    found = []
    for n, problem in enumerate(graded.problems):
        marks_T = rows.attempt[n]
        begin = int((marks_T > 0).argmax())
        attempts = tuple(
            Written(
                ids=tuple(rows.tokens[n][marks_T == a + 1].tolist()),
                reward=float(graded.reward_BA[graded.row_N[n], a]),
                truncated=bool(rows.truncated[n, a]),
                text=graded.texts[n][a],
            )
            for a in range(rows.truncated.shape[1])
        )
        found.append(Dialogue(problem.id, tuple(rows.tokens[n, :begin].tolist()), attempts))
    return [_dialogue(row) for row in hosts.in_order(graded.row_N, jsonfiles.plain(found))]
