"""Begins to compile what the learner runs at every step of a stage, beside the run.

    begin(run, stage)

It needs no weights: shapes and shardings are foretold. What is foretold wrongly is compiled twice.
"""

from score_jax.batches import episodes
from score_jax.batches.documents import Documents
from score_jax.learner import step
from score_jax.run import Run, Stage


def begin(run: Run, stage: Stage) -> None:
    """Log-probs and update of a stage. Raises: InputError for documents that do not fit."""
    experiment, settings = run.experiment, stage.settings
    state, base = experiment.state_shapes(settings), experiment.base
    reference, batch = None, None
    if settings.objective == "rl":
        reference, batch = {} if base else state.params, episodes.shapes(run, stage)
    elif not settings.collect.filter:  # else its documents are still to be written
        batch, _ = Documents(run, stage).batch(1)
    if batch and settings.steps:
        step.ahead(state, reference, batch, stage=settings, base=base)
