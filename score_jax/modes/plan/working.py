"""What rollout, update and evaluation hold beside weights and optimizer, by arithmetic.

    update(n), rollout(n), evaluation(n)   -> {term: bytes}, at the moment that needs most

`Numbers` are those of one device. A program passes through phases, and only one of them is at its
peak: an update's backward pass holds a layer's recomputed values, its loop over the vocabulary a
chunk's logits. Each phase is a dict of terms, and the largest is returned.

How many arrays of a kind are alive together is read from XLA's buffer assignment on a CPU, and
tests compare the sums with its `memory_analysis`. Products of bfloat16 are computed in float32
where the device has no such units (`converts`): their factors then exist in float32 too.
"""

import dataclasses

FLOAT32 = 4
Terms = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A config on one device; sizes in elements where they are not bytes."""

    layers: int
    width: int  # D
    heads: int  # with kv_heads, mlp and vocabulary: this device's share along `tensor`
    kv_heads: int
    head_width: int
    mlp: int
    vocabulary: int
    tied: bool
    bytes: int  # of a value of model.dtype
    converts: bool
    by_head: bool  # the cache's layout: on CPUs
    # Whether decoding holds the head twice: for CPUs a tied one is transposed, and a TPU's compiler
    # copies one that is not split along `tensor`.
    second_head: bool
    prompt_copies: int  # of the prompts' cache: as fed, turned into the ring; on TPUs by slot too
    shards: int  # devices over which the trained weights are split along `fsdp`
    trained: float  # bytes of the trained weights on this device, float32
    rank: int  # of adapters of frozen weights, where those are trained; else 0
    # The update.
    rows: int  # of a micro-batch
    columns: int  # T
    written: int  # columns of a row that the policy may write
    parts: int  # micro-batches
    remat: str
    chunk: int  # tokens projected to the vocabulary at once
    pairs: int  # scores of a head in a row; 0: a kernel that keeps none
    narrower: (
        float  # columns of narrower rows whose layers' inputs XLA keeps apart, as a share of T
    )
    # The rollout.
    problems: int
    slots: int
    queued: bool  # more samples than slots: the prompts' cache stays for those that wait
    prompt: int  # tokens
    fed: int  # tokens of the longest turn between two attempts
    turn_rows: int
    # Evaluation.
    test_slots: int
    test_columns: int
    shaded_rows: int  # of an evaluation, whose log-probs the run page shows

    @property
    def adapters(self) -> bool:
        """Whether adapters are trained."""
        return self.rank > 0

    @property
    def layer(self) -> int:
        """Weights of a layer."""
        heads = 2 * (self.heads + self.kv_heads) * self.head_width
        return self.width * (heads + 3 * self.mlp)

    @property
    def head(self) -> int:
        """Weights of the projection to the vocabulary."""
        return self.vocabulary * self.width

    @property
    def all(self) -> int:
        """Weights of a model, without norms and biases."""
        return self.layers * self.layer + self.head * (1 if self.tied else 2)

    @property
    def token(self) -> int:
        """Bytes of a token in the cache."""
        return 2 * self.layers * self.kv_heads * self.head_width * self.bytes


def update(n: Numbers) -> Terms:
    """Of the train step; the log-probs before it hold less."""
    tokens = n.rows * n.columns
    found: Terms = {"layers' inputs": n.layers * _kept(n)}
    found["layers' inputs"] *= 1 + n.narrower
    if n.remat == "none":  # XLA copies one of the MLP's values of all layers
        found["layers' inputs"] += n.layers * tokens * n.mlp * n.bytes
    if not n.adapters and n.bytes < FLOAT32:  # frozen weights are stored in model.dtype already
        # And their gradients, before they become float32; where products convert, they are that.
        copies = 1 if n.converts else 2
        found["weights in model.dtype"] = copies * n.trained / FLOAT32 * n.bytes
    if n.shards > 1:  # of this layer and the next; the embedding and its gradient
        found["gathered weights"] = 2 * (n.layer + n.head) * n.bytes
    if n.converts:
        # Adapters' products take bfloat16 itself.
        layers, mlp = (0, 0) if n.adapters else (n.layers * n.layer, n.mlp)
        kept = float(n.width)
        if n.remat == "none":  # factors of products that all layers keep
            kept += 3 * mlp + n.heads * n.pairs / n.columns
        found["float32 copies"] = FLOAT32 * (layers + n.head + n.layers * tokens * kept)
    return _largest(found, _backward(n, tokens), _vocabulary(n, tokens))


def _kept(n: Numbers) -> float:
    """Bytes that the backward pass keeps of a layer's forward pass.

    The counts are those of jax's residuals of a layer (a test counts them): norms and rotations
    keep float32, and products of adapters count as no product for memory.remat=products.
    """
    tokens = n.rows * n.columns
    queries, keys = n.heads * n.head_width, n.kv_heads * n.head_width
    narrow, down = n.bytes < FLOAT32, 7 * n.rank  # what the seven adapters make narrow
    if n.remat == "none":
        norms = 2.0 if n.adapters else 4.0  # times the width, in float32
        mine = 6 * n.mlp + 6 * n.width + 3 * queries + 3.5 * keys + down
        if narrow:
            norms += 0.5 * queries / n.width
            mine += n.mlp + 6 * n.width if n.adapters else 0
        return tokens * (mine * n.bytes + norms * n.width * FLOAT32) + _scores(n)
    kept = n.width
    if n.remat == "products":
        kept += down
        if not (n.adapters and narrow):  # an adapted weight has two products
            kept += (2 if n.adapters else 1) * (queries + n.width + 2 * keys + 2 * n.mlp)
    return tokens * kept * n.bytes


def _scores(n: Numbers) -> float:
    """Bytes of the weights of attention in one layer: float32, and bfloat16 for their product."""
    return n.rows * n.heads * n.pairs * FLOAT32 * (1.5 if n.bytes < FLOAT32 else 1)


def _backward(n: Numbers, tokens: int) -> Terms:
    """While the backward pass is in one layer, whose values it has recomputed."""
    heads = (n.heads + n.kv_heads) * n.head_width
    # Of the MLP's width: three values and their gradients. An adapted weight has two products,
    # in float32, and their sum.
    wide = FLOAT32 if n.adapters or n.converts else n.bytes
    mlp, others = n.mlp * wide * (13 if n.adapters else 6), 6 * n.width + 2 * heads
    found = {"gradients": n.trained + _summed(n) + (_head_gradient(n) if n.tied else 0)}
    if n.remat == "none":  # all are kept already, but for gradients
        return found | {"values of a layer": tokens * mlp * 2 / 3 + 1.75 * _scores(n)}
    if n.remat == "products":
        others -= n.width + heads
        if not n.adapters:
            mlp -= 2 * n.mlp * wide
    values = tokens * (mlp + others * n.bytes)
    gradients = n.rows * n.heads * n.pairs * FLOAT32 / 2  # of the scores of one block of queries
    return found | {"attention scores": _scores(n) + gradients, "values of a layer": values}


def _vocabulary(n: Numbers, tokens: int) -> Terms:
    """While the loop over the vocabulary is at a chunk of tokens: its logits, five times."""
    size = n.rows * min(max(1, n.chunk // n.rows), n.written)
    hidden = (tokens + 3 * n.rows * n.written) * n.width * n.bytes
    return {
        "gradients": _summed(n) + 2 * _head_gradient(n),  # of the chunk, and of those before
        "logits": 5 * size * n.vocabulary * FLOAT32 + hidden,
    }


def _summed(n: Numbers) -> float:
    """The sum of the gradients of the micro-batches before this one."""
    return n.trained if n.parts > 1 else 0


def _head_gradient(n: Numbers) -> float:
    return 0 if n.adapters else n.head * FLOAT32 / n.shards


def _largest(always: Terms, *phases: Terms) -> Terms:
    """The terms of the phase that needs most."""
    most = max(phases, key=lambda phase: sum(phase.values()))
    return {name: always.get(name, 0) + most.get(name, 0) for name in {**always, **most}}


def rollout(n: Numbers) -> Terms:
    """Of sampling a step's episodes."""
    found: Terms = {"decode weights": _decode_weights(n)}
    if n.converts:
        found["float32 copies"] = _converted(n, n.slots, n.columns, n.turn_rows)
    cache, prompts = n.slots * n.columns * n.token, n.problems * n.prompt
    scores = n.problems * n.heads * n.prompt**2 * FLOAT32
    prefill: Terms = {
        "prompts' cache": prompts * n.token,
        "prompts' attention": 2 * scores + prompts * n.bytes * (3 * n.mlp + 4 * n.width),
    }
    filled: Terms = {"cache": cache, "prompts' cache": n.prompt_copies * prompts * n.token}
    kept = prompts * n.token if n.queued else 0
    writing: Terms = {
        "cache": cache,
        "prompts' cache": kept,
        **_turn(n, n.slots, n.turn_rows, n.columns),
    }
    return _largest(found, prefill, filled, writing)


def evaluation(n: Numbers) -> Terms:
    """Of decoding test problems, or of the log-probs that the run page shows of the first rows."""
    rows = max(1, n.test_slots // 16)
    decoding: Terms = {
        "decode weights": n.all * n.bytes + (n.head * n.bytes if n.second_head else 0),
        "cache": n.test_slots * n.test_columns * n.token,
    }
    if n.converts:
        decoding["float32 copies"] = _converted(n, n.test_slots, n.test_columns, rows)
    decoding = _largest(decoding, _turn(n, n.test_slots, rows, n.test_columns))
    shading = _log_probs(n, n.shaded_rows, n.test_columns)
    return max(decoding, shading, key=lambda terms: sum(terms.values()))


def _log_probs(n: Numbers, rows: int, columns: int) -> Terms:
    """Of the log-probs of whole rows, without a gradient."""
    tokens, cast = rows * columns, not n.adapters and n.bytes < FLOAT32
    mlp = 5 if n.adapters else 3
    return {
        "weights in model.dtype": n.trained / FLOAT32 * n.bytes if cast else 0,
        "gathered weights": 2 * n.layer * n.bytes if n.shards > 1 else 0,
        "float32 copies": FLOAT32 * (n.layers * n.layer + n.head) if n.converts else 0,
        "values of a layer": max(
            tokens * n.bytes * (mlp * n.mlp + 4 * n.width),
            rows * n.heads * n.pairs * columns / n.columns * FLOAT32,
        ),
    }


def _decode_weights(n: Numbers) -> float:
    """Each device, or each group of devices along `tensor`, decodes with a whole model."""
    second_head = n.head * n.bytes if n.second_head else 0
    as_trained = n.bytes == FLOAT32 or n.adapters
    if n.shards == 1 and as_trained:  # embedding and head are those that are there
        return n.layers * n.layer * n.bytes + second_head
    return n.all * n.bytes + second_head


def _turn(n: Numbers, slots: int, rows: int, columns: int) -> Terms:
    """While `rows` slots are fed what comes between two attempts."""
    chunk = 1.5 * n.heads * n.fed * columns * FLOAT32 + n.fed * n.bytes * (3 * n.mlp + 4 * n.width)
    step = slots * n.vocabulary * FLOAT32
    return {"fed instructions": max(rows * (chunk + columns * n.token), 2 * step)}


def _converted(n: Numbers, slots: int, columns: int, rows: int) -> float:
    """Weights in float32, twice for the layers, and the cache while `rows` rows are replaced.

    Products of adapted weights take bfloat16 itself.
    """
    layers = 0 if n.adapters else 2 * n.layers * n.layer
    cache = slots * columns * n.token
    return FLOAT32 * (layers + n.head) + cache * (2.4 if rows > 1 else 0.5)
