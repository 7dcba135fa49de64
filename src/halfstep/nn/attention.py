"""Stacks of attention layers: multi-head, grouped and multi-layer sharing of keys and values in one form.

For layer l on x ``(batch, token, width)``, with H query heads, G key-value heads and k numbers per head:

    q = x Wq + bq
    if l mod layers_per_kv == 0:  K, V = c Wk + bk, c Wv + bv      c = x (self) or the context (cross)
    a = softmax(q K^T / sqrt(k) + mask) V
    x = LN(x + a Wo + bo);  x = LN(x + W2 act(W1 x + b1) + b2)

Query head h reads key-value head floor(h G / H). G = H is the plain transformer block, G < H grouped-query
attention, G = 1 multi-query attention (Ainslie et al. 2023), layers_per_kv > 1 MLKV (Zuhri et al. 2024): reduce
heads inside a layer first, share across layers second.
"""

from typing import cast

import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.config import StackConfig

Prepared = list[tuple[Tensor, Tensor]]
"""Keys and values of each group of layers, each ``(batch, kv_head, token, key)``."""


class AttentionLayer(nn.Module):
    """One layer; it owns key and value projections only where it begins a group.

    The attributes ``num_heads``, ``num_key_value_heads`` and ``head_dim`` tell an optimizer how to cut the query and
    key projections by head.
    """

    def __init__(self, config: StackConfig, context_width: int, *, owns_kv: bool) -> None:
        super().__init__()
        self.owns_kv = owns_kv
        self.num_heads, self.num_key_value_heads, self.head_dim = (
            config.heads,
            config.kv_heads,
            config.head_dim,
        )
        inner, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, inner)
        self.k_proj = nn.Linear(context_width, kv) if owns_kv else None
        self.v_proj = nn.Linear(context_width, kv) if owns_kv else None
        self.o_proj = nn.Linear(inner, config.width)
        self.ff1 = nn.Linear(config.width, config.ff_multiple * config.width)
        self.ff2 = nn.Linear(config.ff_multiple * config.width, config.width)

    def keys_and_values(self, context: Float[Tensor, "batch token width"]) -> tuple[Tensor, Tensor]:
        """Return K and V of a context, each ``(batch, kv_head, token, key)``."""
        if self.k_proj is None or self.v_proj is None:
            raise RuntimeError("this layer shares the keys and values of an earlier one")
        return self._split(self.k_proj(context)), self._split(self.v_proj(context))

    def forward(
        self, x: Float[Tensor, "batch token width"], keys: Tensor, values: Tensor, *, is_causal: bool
    ) -> Float[Tensor, "batch token width"]:
        """Return the layer's output; keys and values may have a batch of 1, which is shared."""
        queries = self._split(self.q_proj(x))
        if keys.shape[0] != queries.shape[0]:
            keys, values = (t.expand(queries.shape[0], -1, -1, -1) for t in (keys, values))
        a = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=is_causal, enable_gqa=self.num_key_value_heads < self.num_heads
        )
        x = F.layer_norm(x + self.o_proj(a.transpose(1, 2).flatten(2)), x.shape[-1:])
        return F.layer_norm(x + self.ff2(F.leaky_relu(self.ff1(x))), x.shape[-1:])

    def _split(self, t: Tensor) -> Tensor:
        heads: Tensor = t.unflatten(-1, (-1, self.head_dim))
        return heads.transpose(1, 2)


class AttentionStack(nn.Module):
    """Causal self attention: a token sees itself and older ones, never a newer one."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AttentionLayer(config, config.width, owns_kv=k % config.layers_per_kv == 0)
            for k in range(config.layers)
        )

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the tokens after all layers."""
        shared: tuple[Tensor, Tensor] | None = None
        for layer in self._layers():
            if layer.owns_kv or shared is None:
                shared = layer.keys_and_values(x)
            x = layer(x, *shared, is_causal=True)
        return x

    def _layers(self) -> list[AttentionLayer]:
        return cast(list[AttentionLayer], list(self.layers))


class CrossAttentionStack(nn.Module):
    """Attention of query tokens over a context. Query tokens do not see each other.

    Many accounts at one bar are therefore many query tokens of one sample, and `prepare` computes the context's
    keys and values once for all of them.
    """

    def __init__(self, config: StackConfig, context_width: int) -> None:
        super().__init__()
        self.layers_per_kv = config.layers_per_kv
        self.layers = nn.ModuleList(
            AttentionLayer(config, context_width, owns_kv=k % config.layers_per_kv == 0)
            for k in range(config.layers)
        )

    def prepare(self, context: Float[Tensor, "batch token width"]) -> Prepared:
        """Return the keys and values of every group of layers."""
        layers = cast(list[AttentionLayer], list(self.layers))
        return [layer.keys_and_values(context) for layer in layers if layer.owns_kv]

    def forward(
        self, x: Float[Tensor, "batch path width"], prepared: Prepared
    ) -> Float[Tensor, "batch path width"]:
        """Return the query tokens after all layers."""
        for index, layer in enumerate(self.layers):
            x = layer(x, *prepared[index // self.layers_per_kv], is_causal=False)
        return x
