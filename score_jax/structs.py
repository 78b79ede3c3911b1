"""The values that the parts of the program exchange, and the letters of their shapes.

The names of array variables end with their shape in these letters (`logp_BT`, `reward_BA`):

    Q problems          G samples per problem     B rows (Q * G)          A attempts
    T tokens of a row   S cache slots             N tokens fed at once    P prompt tokens
    V vocabulary        L layers                  D model width           F MLP width
    H query heads       K key/value heads         E width of a head       C instructions
    1 broadcast

Words: a *problem* is asked once and answered in several *attempts*; all attempts of one sample form
an *episode*; *reward* is a number from grading; *bonus* is the progress term of Stage II; the
*reference* is the frozen policy of the KL terms.

Values of the host alone (Problem, Grade) are in problem.py, which imports no jax.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import numpy as np

from score_jax.problem import Problem


class Instructions(flax.struct.PyTreeNode):
    """The ids before attempts 2, 3, …, of problems that each have their own; padded behind.

    C instructions of a problem: one for all later attempts, or one for each.
    """

    tokens: Any  # [Q, C, N] int32
    length: Any  # [Q, C] int32, 1..N

    def of(self, which) -> "Instructions":
        """Those of some problems."""
        return jax.tree.map(lambda x: x[which], self)

    def after(self, attempts: int) -> "Instructions":
        """Those before attempts 2 + attempts, 3 + attempts, …"""
        first = min(attempts, self.length.shape[1] - 1)
        return jax.tree.map(lambda x: x[:, first:], self)


@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Tokenised problems of one step. Rows are contiguous: tokens from column 0, then padding."""

    tokens: np.ndarray  # [Q, P] int32
    length: np.ndarray  # [Q] int32, 1..P
    index: np.ndarray  # [Q] int32, position in the data set: addresses the sampling keys
    problems: tuple[Problem, ...]  # Q of them
    instructions: Instructions | None = None  # None: those of the rollout's settings

    @property
    def instruction_tokens(self) -> int:
        """N, the width of the problems' own instructions; 0: they have none."""
        return self.instructions.tokens.shape[2] if self.instructions else 0

    def part(self, of: slice) -> "PromptBatch":
        """Some of the problems."""
        own = self.instructions.of(of) if self.instructions else None
        arrays = (self.tokens[of], self.length[of], self.index[of])
        return PromptBatch(*arrays, self.problems[of], own)


class Episode(flax.struct.PyTreeNode):
    """All attempts of B samples, one row each: prompt, attempt 1, instruction, attempt 2, …

    Row q * G + g is sample g of problem q. Rows are contiguous, so position = column.
    """

    tokens: jax.Array  # [B, T] int32
    attempt: jax.Array  # [B, T] int32; a for tokens the policy wrote in attempt a, else 0
    logp: jax.Array  # [B, T] float32; log-prob under the distribution sampled from; 0 elsewhere
    length: jax.Array  # [B] int32, tokens in the row
    truncated: jax.Array  # [B, A] bool; the attempt hit its limit before an end token


class SampledLogProbs(flax.struct.PyTreeNode):
    """Log-probs of the tokens that the policy wrote, gathered to the front of their rows.

    All by one program of the learner (learner/sampled_logprobs.py), float32; 0 where there is none.
    """

    reference: jax.Array  # [B, N] under the reference
    policy: jax.Array | None = None  # [B, N] under the policy; None: the sampler's serve
    hidden: jax.Array | None = None  # [B, N, D] of the reference, if the KL's estimator needs them


class Batch(flax.struct.PyTreeNode):
    """What one update learns from."""

    tokens: jax.Array  # [B, T] int32
    attempt: jax.Array  # [B, T] int32, as in Episode
    logp: jax.Array  # [B, T] float32, behaviour log-probs
    length: jax.Array  # [B] int32
    reward: jax.Array  # [B, A] float32
    truncated: jax.Array  # [B, A] bool
    # [B, A] float32: 1 for attempts whose verdict is true; None without selective revision
    true_verdict: jax.Array | None = None
    # [B] bool: rows whose first attempt the reference wrote; None: the policy wrote all
    given: jax.Array | None = None
    logprobs: SampledLogProbs | None = None  # of the KL terms; None: not computed yet


Params = Any  # nested dict of arrays; model/transformer.py describes it
