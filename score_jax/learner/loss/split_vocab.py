"""A vocabulary split over devices: each device computes its share of the logits of all rows.

    project(model, head, hidden_BND, axis)           -> share_RNW  all rows R, a share W of V
    whole(share_RNW, axis, vocab_size)               -> logits_BNV  of own rows
    log_prob_and_entropy(share_RNW, token_BN, axis)  -> logp_BN, entropy_BN  of own rows

All run inside a shard_map over `axis`, whose n-th device has the n-th share; with axis "" nothing
is split. Devices exchange hidden states and not weights of the head: 16 devices with 4,096 tokens
each have a quarter as many vectors as a vocabulary of 256,000. Differentiate each device's sum over
its own rows: its gradients are then those of the sum over all devices, complete for the hidden
states of its own rows and for its own share of the head.

Suffixes here: R = B * devices rows, W tokens of a share, the last share padded with logits of -inf.
"""

import functools

import jax
import jax.numpy as jnp

from score_jax.model import transformer
from score_jax.model.families import ModelConfig
from score_jax.rl import policy
from score_jax.structs import Params


def project(model: ModelConfig, head: Params, hidden_BND: jax.Array, axis: str) -> jax.Array:
    """`transformer.project` of all devices' rows to the tokens in this device's share `head`."""
    if not axis:
        return transformer.project(model, head, hidden_BND)
    share_RNW = transformer.project(model, head, _all_rows(hidden_BND, axis))
    return jnp.where(_ids(share_RNW, axis) < model.vocab_size, share_RNW, -jnp.inf)


def whole(share_RNW: jax.Array, axis: str, vocab_size: int) -> jax.Array:
    """Own rows' logits of all tokens, for what cannot be computed from sums; all logits travel."""
    if not axis:
        return share_RNW
    every_BNV = jax.lax.all_to_all(share_RNW, axis, split_axis=0, concat_axis=2, tiled=True)
    return every_BNV[..., :vocab_size]


def log_prob_and_entropy(
    distorted_RNW: jax.Array, token_BN: jax.Array, axis: str
) -> tuple[jax.Array, jax.Array]:
    """`policy.log_prob_and_entropy` of own rows; devices exchange a few numbers per token."""
    if not axis:
        return policy.log_prob_and_entropy(distorted_RNW, token_BN)
    token_RN = jax.lax.all_gather(token_BN, axis, tiled=True)
    constant_RNW = jax.lax.stop_gradient(distorted_RNW)
    top_RN = jax.lax.pmax(jnp.max(constant_RNW, axis=-1), axis)
    weight_RNW = jnp.exp(distorted_RNW - top_RN[..., None])
    constant_weight_RNW = jax.lax.stop_gradient(weight_RNW)
    is_token_RNW = _ids(distorted_RNW, axis) == token_RN[..., None]
    sums_RN3 = jnp.stack(
        [
            jnp.sum(weight_RNW, axis=-1),
            jnp.sum(jnp.where(is_token_RNW, distorted_RNW, 0.0), axis=-1),
            # 0 * -inf where it is padded
            jnp.sum(
                jnp.where(constant_weight_RNW > 0, constant_weight_RNW * constant_RNW, 0.0), axis=-1
            ),
        ],
        axis=-1,
    )
    sums_BN3 = jax.lax.psum_scatter(sums_RN3, axis, scatter_dimension=0, tiled=True)
    mass_BN, chosen_BN, energy_BN = jnp.moveaxis(sums_BN3, -1, 0)
    rows = len(token_BN)
    top_BN = jax.lax.dynamic_slice_in_dim(top_RN, jax.lax.axis_index(axis) * rows, rows)
    logsumexp_BN = jnp.log(mass_BN) + top_BN
    entropy_BN = jax.lax.stop_gradient(logsumexp_BN - energy_BN / mass_BN)
    return chosen_BN - logsumexp_BN, entropy_BN


def _ids(share_RNW: jax.Array, axis: str) -> jax.Array:
    width = share_RNW.shape[-1]
    return jax.lax.axis_index(axis) * width + jnp.arange(width)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _all_rows(x_B: jax.Array, axis: str) -> jax.Array:
    return jax.lax.all_gather(x_B, axis, tiled=True)


def _all_rows_forward(x_B: jax.Array, axis: str):
    return _all_rows(x_B, axis), None


def _all_rows_backward(axis: str, _, above_R: jax.Array):
    # Summed in float32: each device has a part of every row's gradient.
    summed_B = jax.lax.psum_scatter(above_R.astype(jnp.float32), axis, tiled=True)
    return (summed_B.astype(above_R.dtype),)


_all_rows.defvjp(_all_rows_forward, _all_rows_backward)
