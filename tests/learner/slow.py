"""Log-probs of whole rows, and the gradient of any weighting of them: the plain way to both.

The learner's way around: it projects only what the policy wrote, in chunks, and recomputes.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from score_jax.model import transformer
from tests import fakes


@functools.partial(jax.jit, static_argnames="config")
def log_probs(
    params, tokens_BT, weight_BT, *, temperature=1.0, config=fakes.MODEL
) -> tuple[jax.Array, jax.Array, Any]:
    """
    Returns: logp_BT, each token's given those before it (column 0 means nothing); logp_BTV, of
    every next token; and the gradient of sum(weight_BT * logp_BT), weight 0 in column 0.
    """

    def weighted(params):
        logits_BTV = transformer.logits(config, params, tokens_BT) / temperature
        logp_BTV = jax.nn.log_softmax(logits_BTV, axis=-1)
        before_BTV = jnp.roll(logp_BTV, 1, axis=1)
        logp_BT = jnp.take_along_axis(before_BTV, tokens_BT[..., None], axis=-1)[..., 0]
        return jnp.sum(weight_BT * logp_BT), (logp_BT, logp_BTV)

    gradient, (logp_BT, logp_BTV) = jax.grad(weighted, has_aux=True)(params)
    return logp_BT, logp_BTV, gradient
