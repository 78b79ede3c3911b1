"""Whether transformers would have written the same greedy answers, token for token.

    python -m tests.model.agreement DIR COUNT --config=… --config.model.source=FILE.gguf …

DIR is the work directory of an evaluation, with the settings that follow. For its first COUNT
problems transformers (float32, the weights dequantised from the same GGUF) reads the whole episode:
prompt, first attempt, instruction, second attempt. At every token that we wrote, ours must be its
most likely one, or less than 1e-3 in the logits below it. Exits with 1 where one is not.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from score_jax.config import command_line
from score_jax.data import asked
from score_jax.data import problems as problem_sets
from score_jax.experiment import template_of_source
from score_jax.problem import Problem
from score_jax.text.templates import Template

TIE = 1e-3


def written(
    template: Template, problem: Problem, attempts: Sequence[dict]
) -> tuple[list[int], list[int]] | None:
    """The ids of an episode, and where in it the tokens are that the policy wrote.

    None: the text of an attempt has other tokens than were sampled, so these are not known.
    """
    ids, places = asked.encoded(problem, template.first_turn), list[int]()
    for attempt in attempts:
        new = template.attempt_ids(attempt["text"])
        ended = len(new) - len(template.turn_end_ids) + (not attempt["truncated"])
        if attempt["tokens"] not in (ended, ended - 1):  # one less: a stop text ended it
            return None
        places += range(len(ids), len(ids) + attempt["tokens"])
        ids += [*new, *template.instruction_ids]
    return ids[: places[-1] + 1], places


def main(folder: str, count: str, *flags: str) -> int:
    """Prints what was compared; the exit status."""
    import torch
    import transformers

    settings = command_line.settings_of(flags)
    path = Path(settings.model.source)
    problems = problem_sets.for_evaluation(settings.problems, settings.seed)
    with (Path(folder) / "transcripts" / "latest.jsonl").open() as lines:
        rows = [json.loads(line) for line in itertools.islice(lines, int(count))]
    template = template_of_source(settings)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    ).eval()
    tokens = firsts = episodes = 0
    below: list[float] = []
    for row, problem in zip(rows, problems, strict=False):
        assert row["id"] == problem.id, (row["id"], problem.id)
        found = written(template, problem, row["attempts"])
        if found is None:
            print(f"{problem.id}: left out, its text has other tokens than were sampled")
            continue
        ids, places = found
        with torch.no_grad():
            logits_TV = model(torch.tensor([ids])).logits[0].numpy()
        before = np.array(places) - 1
        gap = logits_TV[before].max(-1) - logits_TV[before, np.array(ids)[places]]
        episodes, tokens, firsts = episodes + 1, tokens + len(gap), firsts + int((gap == 0).sum())
        below += gap[gap > 0].tolist()
        for n in np.flatnonzero(gap >= TIE):
            print(f"{problem.id}: token {n} of {len(gap)} is {gap[n]:.4g} below the likeliest")
    print(
        f"{episodes} episodes, {tokens} tokens: {firsts} are the likeliest of transformers "
        f"{transformers.__version__}, {sum(g < TIE for g in below)} are less than {TIE} below it, "
        f"{sum(g >= TIE for g in below)} are further below"
    )
    return int(not episodes or any(g >= TIE for g in below))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
