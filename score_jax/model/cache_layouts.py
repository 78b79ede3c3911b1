"""The layouts of one layer's keys and values in memory: one for CPUs, one for TPUs and GPUs.

    ByHead   key [B,K,E,S], value [B,K,S,E]   each head's slots together; keys' slots are innermost,
                                              so a query's scores are sums of whole vectors
    ByRow    key, value [B,S,C], C = K * E    each slot's heads together; a step writes and reads
                                              whole lines of memory, and both products are plain
                                              batched matmuls in any order of axes

Compiled for a TPU v5e, a decode step of the benchmark's small model moves 4.0 times the bytes of
params and cache with ByHead and 1.3 times with ByRow: a TPU fills 128 lanes at a time, and the
step's in-place write fixes an order of axes in which products by head need the cache transposed.
The products of ByRow cost K times the FLOPs. For one token a matrix unit has FLOPs to spare; a CPU
does not.

Both give the same numbers. `cache.py` does everything that does not depend on the layout.
"""

import flax.struct
import jax
import jax.numpy as jnp

from score_jax.model.families import ModelConfig
from score_jax.model.kernels import LANES

# Added to a score, it makes the weight 0. Finite, so that layers can use different multiples of it.
HIDDEN = -1e30


class ByHead(flax.struct.PyTreeNode):
    key: jax.Array  # [B, K, E, S]
    value: jax.Array  # [B, K, S, E]
    number: int = flax.struct.field(pytree_node=False, default=0)  # of the layer; see mask

    SLOT_AXES = (3, 2)  # of key and value

    @classmethod
    def empty(
        cls, config: ModelConfig, rows: int, slots: int, dtype: str, number: int = 0
    ) -> "ByHead":
        k, e = config.kv_heads, config.head_width
        key, value = jnp.zeros((rows, k, e, slots), dtype), jnp.zeros((rows, k, slots, e), dtype)
        return cls(key, value, number)

    def stored(self, k_BNKE: jax.Array, v_BNKE: jax.Array) -> tuple[jax.Array, jax.Array]:
        """New keys and values with the axes ordered as in the arrays, N in place of S."""
        return k_BNKE.transpose(0, 2, 3, 1), v_BNKE.transpose(0, 2, 1, 3)

    def scores(self, q_BNHE: jax.Array) -> jax.Array:
        """Every query with every key of its head, [B, H, N, S] float32; H in the layout's order."""
        b, n, h, e = q_BNHE.shape
        k = self.key.shape[1]
        # Heads of a group and tokens form one axis M = G * N, so that both products are plain
        # batched matmuls and scores are not transposed.
        q_BKME = q_BNHE.reshape(b, n, k, h // k, e).transpose(0, 2, 3, 1, 4)
        q_BKME = q_BKME.reshape(b, k, h // k * n, e)
        score_BKMS = _product("BKME,BKES->BKMS", q_BKME, self.key)
        return score_BKMS.reshape(b, h, n, -1)

    def mask(self, visible: jax.Array) -> jax.Array:
        """Added to scores: 0 where visible; elsewhere it makes the weight 0.

        XLA:CPU fuses a mask into the product of scores only if nothing else reads the mask. One
        mask for all layers would be stored for every head and read by every layer. So each layer
        uses a number of its own.
        """
        return jnp.where(visible, 0.0, HIDDEN * (1 + self.number))

    def mean(self, weight_BHNS: jax.Array, total_BHN1: jax.Array) -> jax.Array:
        """Weighted mean of values, [B, H, N, E] float32; H of the weights as in `scores`."""
        b, h, n, s = weight_BHNS.shape
        k = self.value.shape[1]
        weight_BKMS = weight_BHNS.reshape(b, k, h // k * n, s)
        out_BKME = _product("BKMS,BKSE->BKME", weight_BKMS, self.value)
        return out_BKME.reshape(b, h, n, -1) / total_BHN1


class ByRow(flax.struct.PyTreeNode):
    key: jax.Array  # [B, S, C]
    value: jax.Array  # [B, S, C]
    kv_heads: int = flax.struct.field(pytree_node=False)

    SLOT_AXES = (1, 1)

    @classmethod
    def empty(
        cls, config: ModelConfig, rows: int, slots: int, dtype: str, number: int = 0
    ) -> "ByRow":
        del number
        shape = (rows, slots, config.kv_heads * config.head_width)
        return cls(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), config.kv_heads)

    def stored(self, k_BNKE: jax.Array, v_BNKE: jax.Array) -> tuple[jax.Array, jax.Array]:
        b, n, k, e = k_BNKE.shape
        return k_BNKE.reshape(b, n, k * e), v_BNKE.reshape(b, n, k * e)

    def scores(self, q_BNHE: jax.Array) -> jax.Array:
        b, n, h, e = q_BNHE.shape
        if n > 1:
            q_BNKGE = q_BNHE.reshape(b, n, self.kv_heads, -1, e)
            score_BKGNS = _product("BNKGE,BSKE->BKGNS", q_BNKGE, self._by_head(self.key))
            return score_BKGNS.reshape(b, h, n, -1)
        return _product("BHC,BSC->BHS", self._wide(q_BNHE[:, 0]), self.key)[:, :, None]

    def mask(self, visible: jax.Array) -> jax.Array:
        return jnp.where(visible, 0.0, HIDDEN)

    def mean(self, weight_BHNS: jax.Array, total_BHN1: jax.Array) -> jax.Array:
        b, h, n, s = weight_BHNS.shape
        if n > 1:
            weight_BKGNS = weight_BHNS.reshape(b, self.kv_heads, -1, n, s)
            out_BKGNE = _product("BKGNS,BSKE->BKGNE", weight_BKGNS, self._by_head(self.value))
            return out_BKGNE.reshape(b, h, n, -1) / total_BHN1
        out_BHC = _product("BHS,BSC->BHC", weight_BHNS[:, :, 0], self.value) / total_BHN1[:, :, 0]
        return self._own(out_BHC)[:, :, None]

    def _by_head(self, x_BSC: jax.Array) -> jax.Array:
        b, s, _ = x_BSC.shape
        return x_BSC.reshape(b, s, self.kv_heads, -1)

    # For one token, `_wide` makes each query as wide as all heads, zero outside its own head, and
    # `_own` takes each query's own part of a result of that width. Heads that fill a TPU's lines of
    # 128 numbers are cut out and joined. Narrower heads would have to move within lines; they are
    # put into the order G, K instead, where the queries of a group are lines of C numbers, and
    # masked.

    def _wide(self, q_BHE: jax.Array) -> jax.Array:
        b, h, e = q_BHE.shape
        if self._cut():
            ends = [(k * e, self.width - (k + 1) * e) for k in range(self.kv_heads)]
            parts = jnp.split(q_BHE, self.kv_heads, axis=1)
            wide = [jnp.pad(q, ((0, 0), (0, 0), end)) for q, end in zip(parts, ends, strict=True)]
            return jnp.concatenate(wide, axis=1)
        q_BGKE = q_BHE.reshape(b, self.kv_heads, -1, e).swapaxes(1, 2)
        q_BG1C = q_BGKE.reshape(b, -1, 1, self.width)
        return jnp.where(self._own_KC(), q_BG1C, 0).reshape(b, h, self.width)

    def _own(self, out_BHC: jax.Array) -> jax.Array:
        b, h, _ = out_BHC.shape
        k, e = self.kv_heads, self.width // self.kv_heads
        if self._cut():
            parts = jnp.split(out_BHC, k, axis=1)
            own = [out[:, :, i * e : (i + 1) * e] for i, out in enumerate(parts)]
            return jnp.concatenate(own, axis=1)
        out_BGKC = out_BHC.reshape(b, h // k, k, self.width)
        out_BGC = jnp.sum(jnp.where(self._own_KC(), out_BGKC, 0), axis=2)
        return out_BGC.reshape(b, h // k, k, e).swapaxes(1, 2).reshape(b, h, e)

    def _cut(self) -> bool:
        narrow = self.width // self.kv_heads % LANES > 0
        return not (narrow and self.width % LANES == 0)

    def _own_KC(self) -> jax.Array:
        """[K, C] bool: whether a column of the full width belongs to a head."""
        head_C = jnp.arange(self.width) // (self.width // self.kv_heads)
        return jnp.arange(self.kv_heads)[:, None] == head_C

    @property
    def width(self) -> int:
        """C: the width of all heads together."""
        return self.key.shape[-1]


LAYOUTS: dict[str, type[ByHead] | type[ByRow]] = {"by_head": ByHead, "by_row": ByRow}


def layout_for(platform: str) -> str:
    """The layout for devices of a platform ("cpu", "gpu", "tpu")."""
    return "by_head" if platform == "cpu" else "by_row"


def _product(spec: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=jnp.float32)
