"""The settings of a rollout."""

import dataclasses

from score_jax.model.families import ModelConfig
from score_jax.rl.policy import Policy
from score_jax.text.stops import Automaton


@dataclasses.dataclass(frozen=True)
class EpisodeSettings:
    """Everything that a compiled rollout depends on besides the shapes of its inputs."""

    model: ModelConfig
    policy: Policy
    attempts: int  # A
    samples: int  # G, samples per problem
    max_attempt_tokens: int  # tokens of one attempt, its end token included
    # Ids between two attempts; where each problem has its own (PromptBatch.instructions) these are
    # not read.
    instruction: tuple[int, ...]
    turn_end: tuple[int, ...]  # ids that close a truncated attempt before the instruction
    end_ids: tuple[int, ...]  # ids that end an attempt
    pad_id: int
    slots: int = 0  # per device; 0: one per sample, or per family of siblings
    turn_rows: int = 0  # slots that one turn-around can serve; 0: a sixteenth of them
    shrink: int = 0  # how often the last samples may move into half of the slots
    siblings: int = 1  # M: samples g * M to g * M + M - 1 have the same first attempt
    dtype: str = "float32"  # of weights and cache while decoding
    cache_layout: str = "by_head"  # see model/cache_layouts.py
    untied: bool = False  # decode with a transposed copy of a tied embedding; for CPUs
    # One instruction for each attempt after the first, the last one for all further attempts too;
    # empty: `instruction` before each.
    instructions: tuple[tuple[int, ...], ...] = ()
    stops: Automaton | None = None  # stop sequences
    close_stopped: bool = False  # `turn_end` also closes attempts that a stop sequence ended

    def before(self, attempt: int) -> tuple[int, ...]:
        """The instruction before attempt 2, 3, …"""
        if not self.instructions:
            return self.instruction
        return self.instructions[min(attempt - 2, len(self.instructions) - 1)]

    def after_given(self, attempts: int) -> "EpisodeSettings":
        """For rows whose first `attempts` attempts are in the prompt, with the next instruction."""
        left = self.instructions[attempts:] or self.instructions[-1:]
        return dataclasses.replace(self, attempts=self.attempts - attempts, instructions=left)

    def row_tokens(self, prompt_tokens: int, instruction_tokens: int = 0) -> int:
        """T: columns of a row that holds the longest possible episode.

        instruction_tokens: the width of the problems' own instructions; 0: they have none.
        """
        turns = [
            len(self.turn_end) + (instruction_tokens or len(self.before(a)))
            for a in range(2, self.attempts + 1)
        ]
        return prompt_tokens + self.attempts * self.max_attempt_tokens + sum(turns)
