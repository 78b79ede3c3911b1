"""Buckets: batches of prompts of any lengths, in widths of a fixed set."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from score_jax.data import pipeline
from score_jax.problem import Problem

WIDEST, BATCH = 12, 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 16), min_size=6, max_size=20),
    st.sets(st.integers(1, WIDEST), max_size=3),
    st.integers(0, 3),
)
def test_every_batch_has_the_narrowest_width_that_its_prompts_fit_in(lengths, widths, seed):
    fitting = [n for n in lengths if n <= WIDEST]
    if len(fitting) < BATCH:
        return
    problems = [Problem(str(i), "x" * n, "0") for i, n in enumerate(lengths)]
    found = pipeline.batches(
        problems,
        lambda text, *others: [7] * len(text),
        batch=BATCH,
        max_prompt_tokens=WIDEST,
        pad_id=0,
        seed=seed,
        bucket_sizes=tuple(widths),
    )
    seen = []
    for _ in range(2 * len(fitting) // BATCH):
        batch = next(found)
        longest, width = max(batch.length), batch.tokens.shape[1]
        assert width == min(w for w in (*widths, WIDEST) if w >= longest)
        for row, n, problem in zip(batch.tokens, batch.length, batch.problems, strict=True):
            np.testing.assert_array_equal(row, [7] * n + [0] * (width - n))
            assert n == len(problem.prompt) <= WIDEST
            seen.append(problem.id)
    first = seen[: len(fitting) // BATCH * BATCH]
    assert len(set(first)) == len(first)  # none twice in an epoch
