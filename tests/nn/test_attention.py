"""Attention stacks against a float64 loop over heads, and what a token may see."""

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from halfstep.nn.attention import AttentionStack, CrossAttentionStack
from halfstep.nn.config import StackConfig

SIZES = StackConfig(width=10, layers=3, heads=6, kv_heads=2, head_dim=5, layers_per_kv=2, ff_multiple=3)


def by_hand(stack: CrossAttentionStack, x: Tensor, context: Tensor) -> Tensor:
    """Return the stack's output, computed head by head as the module's docstring states it."""
    heads, groups, k = SIZES.heads, SIZES.kv_heads, SIZES.head_dim
    shared: tuple[Tensor, Tensor] | None = None
    for index, layer in enumerate(stack.layers):
        if index % SIZES.layers_per_kv == 0:
            shared = (layer.k_proj(context), layer.v_proj(context))
        assert shared is not None
        q = layer.q_proj(x)
        parts = []
        for head in range(heads):
            group = head * groups // heads
            keys, values = (t[..., group * k : (group + 1) * k] for t in shared)
            scores = q[..., head * k : (head + 1) * k] @ keys.transpose(1, 2) / math.sqrt(k)
            parts.append(scores.softmax(-1) @ values)
        a = torch.cat(parts, dim=-1)
        x = F.layer_norm(x + layer.o_proj(a), x.shape[-1:])
        x = F.layer_norm(x + layer.ff2(F.leaky_relu(layer.ff1(x))), x.shape[-1:])
    return x


def test_cross_attention_equals_a_loop_over_heads() -> None:
    torch.manual_seed(0)
    stack = CrossAttentionStack(SIZES, 7).double()
    x, context = torch.randn(2, 3, 10).double(), torch.randn(2, 4, 7).double()
    torch.testing.assert_close(
        stack(x, stack.prepare(context)), by_hand(stack, x, context), rtol=1e-10, atol=1e-12
    )


def test_only_the_first_layer_of_a_group_owns_keys_and_values() -> None:
    stack = CrossAttentionStack(SIZES, 7)
    assert [layer.k_proj is not None for layer in stack.layers] == [True, False, True]
    assert len(stack.prepare(torch.randn(1, 4, 7))) == 2


def test_paths_do_not_see_each_other() -> None:
    torch.manual_seed(1)
    stack = CrossAttentionStack(SIZES, 7)
    prepared = stack.prepare(torch.randn(1, 4, 7))
    x = torch.randn(1, 5, 10)
    alone = torch.cat([stack(x[:, k : k + 1], prepared) for k in range(5)], dim=1)
    torch.testing.assert_close(stack(x, prepared), alone, rtol=1e-5, atol=1e-6)


def test_newer_tokens_have_no_influence() -> None:
    torch.manual_seed(2)
    stack = AttentionStack(SIZES)
    x = torch.randn(2, 8, 10)
    changed = x.clone()
    changed[:, 5:] += 100
    assert torch.equal(stack(x)[:, :5], stack(changed)[:, :5])
    assert not torch.equal(stack(x)[:, 5], stack(changed)[:, 5])


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="kv_heads: 4, must divide heads 6"):
        StackConfig(width=8, layers=1, heads=6, kv_heads=4, head_dim=2)
    with pytest.raises(ValueError, match="layers: 0, must be at least 1"):
        StackConfig(width=8, layers=0, heads=1, kv_heads=1, head_dim=2)
