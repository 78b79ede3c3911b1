"""Where the batches of a stage come from.

episodes samples a step's problems and grades them (RL); documents learns texts as they are (SFT);
collected samples documents, filters and keeps them, and then learns them (STaR, Pair-SFT). All have
the methods that the loop calls:

    prepare(state)            what must be there before the first step: compiled shapes, documents
    dispatch(params, number)  queues on the device what step `number` needs
    batch(dispatched, began)  waits for it -> the batch of the update, and what was measured
    taken                     samples of that step for samples.jsonl (samples.py); SFT has none
    get_state(), set_state()  the position in the data, for checkpoints
"""

from collections.abc import Callable
from typing import Any

from score_jax.batches.collected import Collected
from score_jax.batches.documents import Documents
from score_jax.batches.episodes import Episodes
from score_jax.run import Run, Stage
from score_jax.structs import Params


def of_stage(run: Run, stage: Stage, reference: Params | None) -> Any:
    """The batches of a stage; `reference` is the policy of its KL terms."""
    return OBJECTIVES[stage.settings.objective](run, stage, reference)


def _documents(run: Run, stage: Stage, reference: Params | None) -> Documents:
    del reference
    return (Collected if stage.settings.collect.filter else Documents)(run, stage)


OBJECTIVES: dict[str, Callable[[Run, Stage, Params | None], Any]] = {
    "rl": Episodes,
    "sft": _documents,
}
