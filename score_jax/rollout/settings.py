"""The settings of a rollout."""

import dataclasses

from score_jax.model.families import ModelConfig
from score_jax.rl.policy import Policy


@dataclasses.dataclass(frozen=True)
class EpisodeSettings:
    """Everything that a compiled rollout depends on besides the shapes of its inputs."""

    model: ModelConfig
    policy: Policy
    attempts: int  # A
    samples: int  # G, samples per problem
    max_attempt_tokens: int  # tokens of one attempt, its end token included
    instruction: tuple[int, ...]  # ids between two attempts
    turn_end: tuple[int, ...]  # ids that close a truncated attempt before the instruction
    end_ids: tuple[int, ...]  # ids that end an attempt
    pad_id: int
    slots: int = 0  # per device; 0: one per sample
    turn_rows: int = 0  # slots that one turn-around can serve; 0: a sixteenth of them
    shrink: int = 0  # how often the last samples may move into half of the slots
    siblings: int = 1  # M: samples g * M to g * M + M - 1 have the same first attempt
    dtype: str = "float32"  # of weights and cache while decoding
    cache_layout: str = "by_head"  # see model/cache_layouts.py
    untied: bool = False  # decode with a transposed copy of a tied embedding; for CPUs

    def row_tokens(self, prompt_tokens: int) -> int:
        """T: columns of a row that holds the longest possible episode."""
        turn = len(self.turn_end) + len(self.instruction)
        return prompt_tokens + self.attempts * self.max_attempt_tokens + (self.attempts - 1) * turn
