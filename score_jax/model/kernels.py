"""Attention of whole rows by kernels for one kind of device: cuDNN's for GPUs, splash for TPUs.

    KERNELS[name](q_BTHE, k_BTKE, v_BTKE, window=..., softcap=...) -> out_BTHE

The caller scales queries. Both kernels are causal, and neither stores the scores of a whole row. A
kernel is compiled for one window, so `window` is a plain number here; attention.py chooses between
the windows of a model's layers.

cudnn    GPUs; bfloat16 or float16; no soft-cap, and heads of 128 at most on older cards
splash   TPUs; jax.experimental.pallas.ops.tpu.splash_attention, in blocks of up to 512 tokens
"""

import jax
import jax.numpy as jnp

LANES = 128  # of a TPU's vector unit: rows and heads are padded to multiples of it
BLOCK = 512  # tokens of queries and of keys that are multiplied at once


def cudnn(q_BTHE, k_BTKE, v_BTKE, *, window: int, softcap: float) -> jax.Array:
    """Raises: ValueError where cuDNN has no such attention."""
    if softcap:
        raise ValueError(
            "cuDNN's attention cannot bound scores by tanh, as this model does (Gemma 2), so its "
            "results would be wrong. Set config.model.attention to 'xla'."
        )
    return jax.nn.dot_product_attention(
        q_BTHE,
        k_BTKE,
        v_BTKE,
        scale=1.0,
        is_causal=True,
        local_window_size=(window - 1, 0) if window else None,
        implementation="cudnn",
    )


def splash(
    q_BTHE, k_BTKE, v_BTKE, *, window: int, softcap: float, interpret: bool = False
) -> jax.Array:
    """interpret: run the kernel's operations one by one, on any device; for tests."""
    # Imported here because the import is slow and only TPUs need it.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    b, t, h, e = q_BTHE.shape
    kv_heads = k_BTKE.shape[2]
    columns = -(-t // LANES) * LANES
    block = max(size for size in range(LANES, BLOCK + 1, LANES) if columns % size == 0)
    shape = (columns, columns)
    mask = (
        splash_attention_mask.LocalMask(shape, (window - 1, 0), offset=0)
        if window
        else splash_attention_mask.CausalMask(shape)
    )
    attend = splash_attention_kernel.make_splash_mqa_single_device(
        splash_attention_mask.MultiHeadMask([mask] * (h // kv_heads)),
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=block,
            block_kv=block,
            block_kv_compute=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        attn_logits_soft_cap=softcap or None,
        interpret=interpret,
    )

    def heads_first(x_BTHE: jax.Array) -> jax.Array:
        """[B, K, G, T, E], T and E padded: padded keys follow every token, padded E is 0."""
        padding = ((0, 0), (0, columns - t), (0, 0), (0, -e % LANES))
        x_BTHE = jnp.pad(x_BTHE, padding)
        return jnp.moveaxis(x_BTHE.reshape(b, columns, kv_heads, -1, x_BTHE.shape[-1]), 1, 3)

    q_BKGTE = heads_first(q_BTHE)
    k_BKTE, v_BKTE = heads_first(k_BTKE)[:, :, 0], heads_first(v_BTKE)[:, :, 0]
    out_BKGTE = jax.vmap(jax.vmap(attend))(q_BKGTE, k_BKTE, v_BKTE)
    return jnp.moveaxis(out_BKGTE, 3, 1).reshape(b, columns, h, -1)[:, :t, :, :e]


KERNELS = {"cudnn": cudnn, "splash": splash}
