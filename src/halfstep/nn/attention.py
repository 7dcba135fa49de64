"""Stacks of attention layers: multi-head, grouped and multi-layer sharing of keys and values in one form.

For layer l on x ``(batch, token, width)``, with H query heads, G key-value heads and k numbers per head:

    q = x Wq + bq
    if l mod layers_per_kv == 0:  K, V = c Wk + bk, c Wv + bv      c = x (self) or the context (cross)
    a = softmax(q K^T / sqrt(k) + mask) V                          attention(x) = a Wo + bo

    attention_first:      x = LN(x + attention(x));   x = LN(x + W2 act(W1 x + b1) + b2)
    feed_forward_first:   u = W2 act(W1 x + b1) + b2;   x = LN(u + attention(u))        in self attention c = u, too

Query head h reads key-value head floor(h G / H), so consecutive heads share; published weights, whose heads
alternate, need their query heads permuted. G = H is the plain transformer block, G < H grouped-query attention, G = 1
multi-query attention (Ainslie et al. 2023), layers_per_kv > 1 MLKV (Zuhri et al. 2024), layers_per_kv >= layers one K
and V for all. To save work, reduce heads inside a layer first, share across layers second.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.activations import activation
from halfstep.nn.config import StackConfig
from halfstep.nn.dense import Dense

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each ``(batch, kv_head, token, key)``."""
Prepared = list[KeysValues]
"""Keys and values of each group of layers."""


class FoldedLayer(NamedTuple):
    """A layer's projections multiplied into the keys and values of each context, for many queries of one context.

    With M_h = K_h Wq_h / sqrt(k), m_h = K_h bq_h / sqrt(k) and N_h = Wo_h V_h^T of head h:

        attention(x) = sum_h N_h softmax(M_h x + m_h) + bo

    which is the same function with ``token`` instead of ``head_dim`` numbers per head.

    Attributes:
        score: M, ``(context, head * token, width)``.
        offset: m, ``(context, head * token)``.
        value: N, ``(context, width, head * token)``.
    """

    score: Tensor
    offset: Tensor
    value: Tensor


Folded = list[FoldedLayer]
"""One for each layer."""


class AttentionLayer(nn.Module):
    """One layer; it owns key and value projections only where it begins a group.

    The attributes ``num_heads``, ``num_key_value_heads`` and ``head_dim`` tell an optimizer how to cut the query and
    key projections by head.
    """

    def __init__(self, config: StackConfig, *, owns_kv: bool) -> None:
        super().__init__()
        self.num_heads, self.num_key_value_heads = config.heads, config.kv_heads
        self.head_dim, self.owns_kv = config.head_dim, owns_kv
        self.is_causal = config.mask == "causal"
        self.feed_forward_first = config.order == "feed_forward_first"
        width, inner, kv = config.width, config.heads * config.head_dim, config.kv_heads * config.head_dim
        source = config.context_width or width
        self.q_proj = Dense(width, inner)
        self.k_proj = Dense(source, kv) if owns_kv else None
        self.v_proj = Dense(source, kv) if owns_kv else None
        self.o_proj = Dense(inner, width)
        self.ff1 = Dense(width, config.ff_multiple * width)
        self.ff2 = Dense(config.ff_multiple * width, width)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=config.norm_affine)
        self.norm2 = None
        if not self.feed_forward_first:
            self.norm2 = nn.LayerNorm(width, elementwise_affine=config.norm_affine)
        self._act = activation(config.activation)

    def enter(self, x: Float[Tensor, "*batch token width"]) -> Float[Tensor, "*batch token width"]:
        """Return what the attention reads: x, or u where the feed-forward part comes first."""
        return self._feed_forward(x) if self.feed_forward_first else x

    def keys_and_values(self, context: Float[Tensor, "batch token context"]) -> KeysValues:
        """Return K and V of a context."""
        if self.k_proj is None or self.v_proj is None:
            raise RuntimeError("this layer shares the keys and values of an earlier one")
        return self._by_head(self.k_proj(context)), self._by_head(self.v_proj(context))

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        keys: Float[Tensor, "#batch kv_head key_token key"],
        values: Float[Tensor, "#batch kv_head key_token key"],
    ) -> Float[Tensor, "batch token width"]:
        """Return the layer's output for what `enter` returned; keys and values of batch 1 serve the whole batch."""
        return self._join(x, self.attend(x, keys, values))

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return softmax(q K^T / sqrt(k) + mask) V Wo + bo."""
        a = F.scaled_dot_product_attention(
            self._by_head(self.q_proj(x)),
            keys.expand(len(x), -1, -1, -1),
            values.expand(len(x), -1, -1, -1),
            is_causal=self.is_causal,
            enable_gqa=self.num_key_value_heads < self.num_heads,
        )
        answer: Tensor = self.o_proj(a.transpose(1, 2).flatten(2))
        return answer

    def fold(self, keys: Tensor, values: Tensor) -> FoldedLayer:
        """Return the layer for queries of these contexts."""
        shape, share = (self.num_heads, self.head_dim), self.num_heads // self.num_key_value_heads
        keys = keys.repeat_interleave(share, dim=1) / self.head_dim**0.5  # (context, head, token, key)
        values = values.repeat_interleave(share, dim=1)
        score = torch.einsum("bhtk,hkw->bhtw", keys, self.q_proj.weight.unflatten(0, shape))
        offset = torch.einsum("bhtk,hk->bht", keys, self.q_proj.bias.unflatten(0, shape))
        value = torch.einsum("bhtk,whk->bwht", values, self.o_proj.weight.unflatten(1, shape))
        return FoldedLayer(score.flatten(1, 2), offset.flatten(1), value.flatten(2).contiguous())

    def forward_folded(self, x: Tensor, folded: FoldedLayer, context: int) -> Tensor:
        """Return the layer's output for queries ``(path, width)`` of one of the folded contexts."""
        # paths last, because a softmax over a short last axis takes ten times as long
        scores = torch.addmm(folded.offset[context, :, None], folded.score[context], x.t())
        weights = scores.unflatten(0, (self.num_heads, -1)).softmax(dim=1).flatten(0, 1)
        return self._join(x, torch.addmm(self.o_proj.bias, weights.t(), folded.value[context].t()))

    def _join(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return what follows the attention: residuals, norms and the feed-forward part where it comes second."""
        x = self.norm1(x + attended)
        if self.norm2 is not None:
            x = self.norm2(x + self._feed_forward(x))
        return x

    def _feed_forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ff2(self._act(self.ff1(x)))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (-1, self.head_dim))
        return heads.transpose(1, 2)


class _Stack(nn.ModuleList):
    """Layers of which each `layers_per_kv`-th owns keys and values."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__(
            AttentionLayer(config, owns_kv=index % config.layers_per_kv == 0)
            for index in range(config.layers)
        )

    def _layers(self) -> Iterator[AttentionLayer]:
        return cast(Iterator[AttentionLayer], iter(self))


class AttentionStack(_Stack):
    """Self attention. Under the causal mask a token sees itself and older ones, never a newer one.

    Args:
        config: sizes, without a context.
    """

    def __init__(self, config: StackConfig) -> None:
        if config.context_width is not None:
            raise ValueError(f"context_width: {config.context_width}, must be None in self attention.")
        super().__init__(config)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Return the tokens after all layers."""
        shared: KeysValues | None = None
        for layer in self._layers():
            x = layer.enter(x)
            if shared is None or layer.owns_kv:
                shared = layer.keys_and_values(x)
            x = layer(x, *shared)
        return x


class CrossAttentionStack(_Stack):
    """Attention of query tokens over a context. Query tokens do not see each other.

    Many accounts at one bar are therefore many query tokens of one sample, and `prepare` computes the context's keys
    and values once for all of them.

    Args:
        config: sizes, with the context's width and without a mask.
    """

    def __init__(self, config: StackConfig) -> None:
        if config.context_width is None:
            raise ValueError("context_width: None, must be the numbers per token of the context.")
        if config.mask != "none":
            raise ValueError(f"mask: {config.mask!r}, must be none in cross attention.")
        super().__init__(config)

    def prepare(self, context: Float[Tensor, "batch token width"]) -> Prepared:
        """Return the keys and values of every group of layers; they depend on the context only."""
        return [layer.keys_and_values(context) for layer in self._layers() if layer.owns_kv]

    def forward(
        self, x: Float[Tensor, "batch path width"], prepared: Prepared
    ) -> Float[Tensor, "batch path width"]:
        """Return the query tokens after all layers; a context prepared with batch 1 serves the whole batch."""
        group = -1
        for layer in self._layers():
            group += layer.owns_kv
            x = layer(layer.enter(x), *prepared[group])
        return x

    def fold(self, context: Float[Tensor, "context token width"]) -> Folded:
        """Return every layer folded with each context: fewer operations per query, more per context.

        Worth it where many queries share a context and nothing is learnt, as in collecting trajectories.
        """
        prepared, group, folded = self.prepare(context), -1, []
        for layer in self._layers():
            group += layer.owns_kv
            folded.append(layer.fold(*prepared[group]))
        return folded

    def forward_folded(
        self, x: Float[Tensor, "path width"], folded: Folded, context: int
    ) -> Float[Tensor, "path width"]:
        """Return the query tokens after all layers, as `forward` with one context of those that were folded."""
        for layer, own in zip(self._layers(), folded, strict=True):
            x = layer.forward_folded(layer.enter(x), own, context)
        return x
