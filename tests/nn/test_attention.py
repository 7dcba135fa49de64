"""Attention stacks against formulas written out, known special cases, and what a token may see."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from halfstep.nn.attention import AttentionLayer, AttentionStack, CrossAttentionStack
from halfstep.nn.config import StackConfig

from .cases import noise, shaken

H, K, WIDTH = 4, 3, 5


def config_of(**changes: object) -> StackConfig:
    return StackConfig(**({"width": WIDTH, "layers": 4, "heads": H, "kv_heads": 2, "head_dim": K} | changes))


def by_hand(config: StackConfig, layers: nn.ModuleList, x: Tensor, context: Tensor | None) -> Tensor:
    """Return the stack's output with every sum written out; context None is self attention."""
    groups, k = config.kv_heads, config.head_dim

    def affine(layer: nn.Module, t: Tensor) -> Tensor:
        return torch.einsum("oi,bti->bto", layer.weight, t) + layer.bias

    def norm(t: Tensor) -> Tensor:
        centred = t - t.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def feed_forward(layer: nn.Module, t: Tensor) -> Tensor:
        u = affine(layer.ff1, t)
        return affine(layer.ff2, torch.where(u > 0, u, 0.01 * u))

    for index, layer in enumerate(layers):
        if config.order == "feed_forward_first":
            x = feed_forward(layer, x)
        if index % config.layers_per_kv == 0:
            source = x if context is None else context
            keys, values = (
                affine(p, source).unflatten(-1, (groups, k)) for p in (layer.k_proj, layer.v_proj)
            )
        q = affine(layer.q_proj, x).unflatten(-1, (H, k))
        heads = []
        for head in range(H):
            group = head * groups // H
            scores = torch.einsum("btk,bsk->bts", q[:, :, head], keys[:, :, group]) / math.sqrt(k)
            if config.mask == "causal":
                newer = torch.arange(scores.shape[2])[None, :] > torch.arange(scores.shape[1])[:, None]
                scores = scores.masked_fill(newer, -math.inf)
            shares = (scores - scores.amax(-1, keepdim=True)).exp()
            shares = shares / shares.sum(-1, keepdim=True)
            heads.append(torch.einsum("bts,bsk->btk", shares, values[:, :, group]))
        x = norm(x + affine(layer.o_proj, torch.cat(heads, -1)))
        if config.order == "attention_first":
            x = norm(x + feed_forward(layer, x))
    return x


@pytest.mark.parametrize("order", ["attention_first", "feed_forward_first"])
@pytest.mark.parametrize("mask", ["none", "causal"])
@pytest.mark.pitfall("N9", "N12")
def test_attention_equals_formula(order: str, mask: str) -> None:
    for groups, layers_per_kv in product((1, 2, 4), (1, 2, 3, 4)):
        config = config_of(order=order, mask=mask, kv_heads=groups, layers_per_kv=layers_per_kv)
        stack, x = shaken(AttentionStack(config)), noise(2, 7, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(stack(x), by_hand(config, stack, x, None), rtol=1e-10, atol=1e-12)
            if mask == "causal":
                continue
            cross_config = config_of(
                order=order, kv_heads=groups, layers_per_kv=layers_per_kv, context_width=6
            )
            cross, context = shaken(CrossAttentionStack(cross_config)), noise(2, 11, 6, dtype=torch.float64)
            torch.testing.assert_close(
                cross(x, cross.prepare(context)), by_hand(cross_config, cross, x, context), rtol=1e-10, atol=1e-12
            )  # fmt: skip


def test_special_cases_of_mlkv() -> None:
    config = config_of(kv_heads=H, width=H * K, layers=1)
    layer, x = shaken(AttentionStack(config))[0], noise(2, 7, H * K, dtype=torch.float64)
    theirs = nn.MultiheadAttention(H * K, H, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in (layer.q_proj, layer.k_proj, layer.v_proj)]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in (layer.q_proj, layer.k_proj, layer.v_proj)]))
        theirs.out_proj.weight.copy_(layer.o_proj.weight)
        theirs.out_proj.bias.copy_(layer.o_proj.bias)
        mine = layer.attend(x, *layer.keys_and_values(x))
        torch.testing.assert_close(mine, theirs(x, x, x)[0], rtol=1e-12, atol=1e-12)

    single = shaken(AttentionStack(config_of(kv_heads=1, layers=2)))
    many = AttentionStack(config_of(kv_heads=H, layers=2)).double()
    weights = dict(single.state_dict())
    for name in weights:
        if "k_proj" in name or "v_proj" in name:
            weights[name] = weights[name].repeat(H, *(1 for _ in weights[name].shape[1:]))
    many.load_state_dict(weights)
    x = noise(2, 7, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(single(x), many(x), rtol=1e-12, atol=1e-12)


def test_gradient_of_shared_keys_is_the_sum_over_their_layers() -> None:
    config = config_of(layers=3, layers_per_kv=3, context_width=6)
    shared = shaken(CrossAttentionStack(config))
    apart = CrossAttentionStack(config_of(layers=3, layers_per_kv=1, context_width=6)).double()
    weights = dict(shared.state_dict())
    for index in (1, 2):
        weights |= {
            name.replace("0.", f"{index}.", 1): weights[name] for name in list(weights) if name.startswith(("0.k_", "0.v_"))
        }  # fmt: skip
    apart.load_state_dict(weights)
    x, context = noise(2, 3, WIDTH, dtype=torch.float64), noise(2, 4, 6, dtype=torch.float64)
    for stack in (shared, apart):
        stack(x, stack.prepare(context)).square().sum().backward()
        (stack(x, stack.prepare(context)) * noise(2, 3, WIDTH, seed=5, dtype=torch.float64)).sum().backward()
    total = sum(apart[index].k_proj.weight.grad for index in range(3))
    assert shared[0].k_proj.weight.grad.abs().max() > 1e-6
    torch.testing.assert_close(shared[0].k_proj.weight.grad, total, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ["attention_first", "feed_forward_first"])
@pytest.mark.pitfall("N11")
def test_no_bar_attends_to_a_newer_one(order: str) -> None:
    stack = AttentionStack(config_of(mask="causal", order=order))
    x = noise(2, 8, WIDTH)
    newest, oldest = x.clone(), x.clone()
    newest[:, -1] += 1
    oldest[:, 0] += torch.arange(5.0)
    assert torch.equal(stack(newest)[:, :-1], stack(x)[:, :-1])
    assert not torch.equal(stack(newest)[:, -1], stack(x)[:, -1])
    assert bool((stack(oldest) != stack(x)).any(-1).all())


def plain_layer(heads: int, kv_heads: int, head_dim: int) -> AttentionLayer:
    """Return a layer whose output projection is the identity, so that `attend` shows the heads."""
    width = heads * head_dim
    layer = AttentionStack(
        StackConfig(width=width, layers=1, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    )[0].double()
    with torch.no_grad():
        for name in ("q_proj", "o_proj"):
            getattr(layer, name).weight.copy_(torch.eye(width))
    return layer


def shares_of(scores: list[float]) -> list[float]:
    """Return the shares that a layer gives to values whose scores are given."""
    layer = plain_layer(1, 1, len(scores))
    size = len(scores)
    keys = torch.diag(torch.tensor(scores, dtype=torch.float64))
    values = torch.eye(size, dtype=torch.float64)
    x = torch.full((1, 1, size), math.sqrt(size), dtype=torch.float64)
    return (
        layer.attend(x, keys.reshape(1, 1, size, size), values.reshape(1, 1, size, size)).flatten().tolist()
    )


@pytest.mark.pitfall("N8")
def test_softmax_values() -> None:
    assert shares_of([1, 2]) == pytest.approx([0.268941, 0.731059], abs=1e-6)  # not 0.378, 0.622
    assert shares_of([10, 20]) == pytest.approx([4.53979e-5, 0.999955], abs=1e-6)
    assert shares_of([1000, 1001]) == pytest.approx(shares_of([0, 1]), abs=1e-12)
    assert shares_of([0, 0, 0]) == pytest.approx([1 / 3] * 3)


@pytest.mark.pitfall("N9")
def test_attention_scores_use_every_component() -> None:
    layer = plain_layer(1, 1, 2)
    keys = values = torch.eye(2, dtype=torch.float64).reshape(1, 1, 2, 2)
    shares = layer.attend(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64), keys, values)
    assert shares.flatten().tolist() == pytest.approx([0.669762, 0.330238], abs=1e-6)  # not 0.5, 0.5


@pytest.mark.pitfall("N10")
def test_large_scores_are_finite() -> None:
    layer = plain_layer(1, 1, 2).float()
    keys = (1000 * torch.eye(2)).reshape(1, 1, 2, 2).requires_grad_()
    x = torch.tensor([[[1000.0, 0.0]]], requires_grad=True)
    shares = layer.attend(x, keys, torch.eye(2).reshape(1, 1, 2, 2))
    shares[0, 0, 0].backward()
    assert shares.flatten().tolist() == [1.0, 0.0]
    for tensor in (x, keys):
        assert tensor.grad is not None
        assert bool(tensor.grad.isfinite().all())


@pytest.mark.pitfall("N12")
def test_each_query_head_reads_its_kv_head() -> None:
    layer = plain_layer(4, 2, 3)
    keys = noise(1, 2, 5, 3, dtype=torch.float64)
    values = torch.tensor([1.0, 2.0], dtype=torch.float64).reshape(1, 2, 1, 1).expand(1, 2, 5, 3)
    heads = layer.attend(noise(1, 6, 12, dtype=torch.float64), keys, values).unflatten(-1, (4, 3))
    expected = torch.tensor([1.0, 1, 2, 2], dtype=torch.float64).reshape(1, 1, 4, 1).expand(1, 6, 4, 3)
    torch.testing.assert_close(heads, expected)  # consecutive heads share; not 1, 2, 1, 2


@pytest.mark.pitfall("N14")
def test_five_thousand_keys() -> None:
    layer = plain_layer(2, 1, 3).float()
    x, keys, values = noise(1, 4, 6), noise(1, 1, 5000, 3, seed=1), noise(1, 1, 5000, 3, seed=2)
    q = x.double().unflatten(-1, (2, 3)).transpose(1, 2)
    top, total, answer = torch.full((1, 2, 4, 1), -math.inf).double(), 0.0, 0.0
    for part in torch.arange(5000).split(512):  # the sum in chunks, with a running maximum
        scores = q @ keys[:, :, part].double().transpose(2, 3) / math.sqrt(3)
        higher = torch.maximum(top, scores.amax(-1, keepdim=True))
        shares = (scores - higher).exp()
        total = total * (top - higher).exp() + shares.sum(-1, keepdim=True)
        answer = answer * (top - higher).exp() + shares @ values[:, :, part].double()
        top = higher
    expected = (answer / total).transpose(1, 2).flatten(2).float()
    torch.testing.assert_close(layer.attend(x, keys, values), expected, rtol=1e-5, atol=1e-6)


def test_prepared_context_is_shared() -> None:
    stack = CrossAttentionStack(config_of(context_width=6, layers_per_kv=2))
    context, x = noise(1, 9, 6), noise(1, 7, WIDTH, seed=1)
    prepared = stack.prepare(context)
    assert len(prepared) == 2
    together = stack(x, prepared)
    alone = torch.cat([stack(x[:, k : k + 1], prepared) for k in range(7)], dim=1)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    changed = x.clone()
    changed[:, 3] += 1
    moved = (stack(changed, prepared) != together).any(-1)[0]
    assert moved.tolist() == [k == 3 for k in range(7)]
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(x, stack.prepare(context[:, order])), together, rtol=1e-5, atol=1e-6)
    bars = noise(4, 9, 6, seed=2)
    chunk = stack.prepare(bars)
    for bar in range(4):
        single = stack.prepare(bars[bar : bar + 1])
        row = [(k[bar : bar + 1], v[bar : bar + 1]) for k, v in chunk]
        torch.testing.assert_close(stack(x, row), stack(x, single), rtol=1e-5, atol=1e-6)
    many = stack(noise(5, 3, WIDTH, seed=3), prepared)  # one context for a whole batch
    each = [stack(noise(5, 3, WIDTH, seed=3)[k : k + 1], prepared) for k in range(5)]
    torch.testing.assert_close(many, torch.cat(each), rtol=1e-5, atol=1e-6)


def test_layer_norms_may_learn() -> None:
    stack = shaken(AttentionStack(config_of(norm_affine=True, layers=1)))
    layer, x = stack[0], noise(2, 4, WIDTH, dtype=torch.float64)
    u = layer.attend(x, *layer.keys_and_values(x))
    y = F.layer_norm(x + u, (WIDTH,), layer.norm1.weight, layer.norm1.bias)
    z = layer.ff2(F.leaky_relu(layer.ff1(y)))
    expected = F.layer_norm(y + z, (WIDTH,), layer.norm2.weight, layer.norm2.bias)
    torch.testing.assert_close(stack(x), expected, rtol=1e-12, atol=1e-12)


def test_only_the_first_layer_of_a_group_owns_keys_and_values() -> None:
    stack = AttentionStack(config_of(layers=3, layers_per_kv=2))
    assert [layer.k_proj is not None for layer in stack] == [True, False, True]
    with pytest.raises(RuntimeError, match="shares the keys and values of an earlier one"):
        stack[1].keys_and_values(noise(1, 2, WIDTH))


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="kv_heads: 4, must divide heads 6"):
        config_of(heads=6, kv_heads=4)
    with pytest.raises(ValueError, match="layers: 0, must be at least 1"):
        config_of(layers=0)
    with pytest.raises(ValueError, match="mask: 'causal', must be none in cross attention"):
        CrossAttentionStack(config_of(mask="causal", context_width=6))
    with pytest.raises(ValueError, match="context_width: None, must be"):
        CrossAttentionStack(config_of())
    with pytest.raises(ValueError, match="context_width: 6, must be None in self attention"):
        AttentionStack(config_of(context_width=6))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_memory_is_linear_in_the_window(groups: int) -> None:
    """The fused kernel keeps no table of scores for the backward pass, also where heads share keys."""
    stack = AttentionStack(config_of(kv_heads=groups, layers=1, mask="causal"))

    def kept(tokens: int) -> int:
        total = 0

        def count(t: Tensor) -> Tensor:
            nonlocal total
            total += t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            stack(noise(2, tokens, WIDTH))
        return total

    assert kept(960) < 8.01 * kept(120)
