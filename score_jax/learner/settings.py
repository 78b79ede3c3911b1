"""What an update is compiled for."""

import dataclasses

from score_jax.config.settings import LoraSettings, OptimizerSettings
from score_jax.learner.loss.token_logprobs import LikelihoodSettings
from score_jax.learner.micro_batches import Split


@dataclasses.dataclass(frozen=True)
class LearnerSettings:
    """The settings that an update is compiled for."""

    likelihood: LikelihoodSettings
    optimizer: OptimizerSettings
    samples: int  # G, rows of one problem; they are adjacent
    max_attempt_tokens: int
    split: Split = Split()  # noqa: RUF009 (frozen)
    lora: LoraSettings = LoraSettings()  # noqa: RUF009 (frozen)
    siblings: int = 1  # adjacent samples that share their first attempt
