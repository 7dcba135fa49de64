"""The compiled kernels do what plain torch does, to every element, and touch nothing else."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from halfstep.optim.optimizer import AdamMini
from halfstep.optim.partition import Rule, partition_model

GUARD = 64
POISON = 77.0


def guarded(values: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Return a copy of a tensor inside poisoned memory, ``offset`` elements from an aligned address, and the memory."""
    memory = torch.full((values.numel() + 2 * GUARD + offset,), POISON, dtype=values.dtype)
    inside = memory[GUARD + offset : GUARD + offset + values.numel()].view(values.shape)
    return inside.copy_(values), memory


def assert_guards(memory: Tensor, count: int, offset: int) -> None:
    assert bool((memory[: GUARD + offset] == POISON).all())
    assert bool((memory[GUARD + offset + count :] == POISON).all())


def compare(
    weights: Tensor,
    grads: list[Tensor],
    blocks: Any = "row",
    *,
    offset: int = 0,
    tolerance: float = 1e-5,
    **options: Any,
) -> None:
    """Step the same weights with both backends inside poisoned memory, and compare weights and state."""
    results = []
    for fused in (True, False):
        module = nn.Module()
        if weights.is_contiguous():
            inside, memory = guarded(weights, offset)
        else:
            inside, memory = weights.clone(memory_format=torch.preserve_format), None
        module.weight = nn.Parameter(inside)
        partition = partition_model(module, rules=[Rule("weight", blocks)])
        optimizer = AdamMini(module.parameters(), lr=1e-2, partition=partition, fused=fused, **options)
        memories: dict[str, tuple[Tensor, int]] = {}
        for grad in grads:
            module.weight.grad = grad
            optimizer.step()
            if not memories and memory is not None:  # the state moves into poisoned memory, too
                state = optimizer.state[module.weight]
                for key in ("exp_avg", "exp_avg_sq"):
                    count = state[key].numel()
                    state[key], held = guarded(state[key], offset)
                    memories[key] = held, count
        if memory is not None:
            assert_guards(memory, weights.numel(), offset)
            for held, count in memories.values():
                assert_guards(held, count, offset)
        results.append((module.weight.detach(), optimizer.state[module.weight]))
    (p, ours), (q, theirs) = results
    if weights.dtype in (
        torch.float32,
        torch.float64,
    ):  # a narrower weight rightly stays at less than half an ulp
        assert not bool((p == weights).any()), "an element was not written"
    low = {torch.bfloat16: 2**-7, torch.float16: 2**-10}.get(weights.dtype, tolerance)
    torch.testing.assert_close(p, q, rtol=low, atol=1e-7)
    for key in ("exp_avg", "exp_avg_sq", "step"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=tolerance, atol=1e-7)


def normal(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, count: int = 2
) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(math.prod(shape))
    grads = [(torch.randn(shape, generator=generator) + 3).to(dtype) for _ in range(count)]
    return torch.ones(shape, dtype=dtype), grads


@pytest.mark.pitfall("K2")
def test_any_row_length_equals_the_reference() -> None:
    widths = (
        1,
        2,
        3,
        4,
        5,
        7,
        31,
        32,
        33,
        63,
        64,
        65,
        127,
        128,
        129,
        255,
        256,
        257,
        1023,
        1024,
        1025,
        4097,
        65_537,
    )
    for width in widths:
        for rows in (1, 2, 3, 7):
            compare(*normal((rows, width)), offset=rows)
    compare(*normal((2, 1_048_576)), offset=1)


def test_kernel_equals_reference_for_every_dtype() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        for width in (1, 7, 127, 128, 129, 4097):
            for rows in (1, 7, 129):
                compare(*normal((rows, width), dtype), offset=width % 5)
    for options in ({"maximize": True}, {"eps": 1e-2}, {"betas": (0.5, 0.7)}, {"weight_decay": 0.5}):
        compare(*normal((7, 129), count=3), **options)


def test_kernel_equals_reference_for_every_layout() -> None:
    compare(*normal((5, 123, 123)))
    compare(*normal((12, 10)), 4)
    compare(*normal((6, 100_000)), 3)  # heads longer than a cache
    compare(*normal((513, 513)), "tensor")
    compare(*normal((300_001,)), "tensor", offset=3)
    compare(*normal((1000,)), "element", offset=1)
    for shape, axes in (
        ((8, 3, 5, 7), (0, 2, 3, 1)),
        ((130, 70), (1, 0)),
        ((700, 5), (1, 0)),
        ((4, 6, 9), (0, 2, 1)),
    ):
        weights, grads = normal(tuple(shape[axis] for axis in axes))
        back = [axes.index(axis) for axis in range(len(axes))]
        stored = weights.permute(back)
        compare(stored, [grad.permute(back) for grad in grads])
        compare(stored, [grad.permute(back).contiguous() for grad in grads])
    weights, grads = normal((6, 9))
    compare(weights, [grad[:1].expand(6, 9) for grad in grads])
    compare(weights, [grad.T.contiguous().T for grad in grads])


def test_results_do_not_depend_on_threads() -> None:
    before = torch.get_num_threads()
    bits = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(0)
            params = [nn.Parameter(torch.randn(s)) for s in ((300, 129), (400_000,), (5, 50_000), (4000, 3))]
            module = nn.ParameterList(params)
            partition = partition_model(module, rules=[Rule("1", "tensor")])
            optimizer = AdamMini(params, partition=partition, fused=True)
            for _ in range(3):
                for param in params:
                    param.grad = torch.randn_like(param)
                optimizer.clip_grad_norm_(1.0)
                optimizer.step()
            bits.append([param.detach().clone() for param in params])
    finally:
        torch.set_num_threads(before)
    for other in bits[1:]:
        assert all(torch.equal(p, q) for p, q in zip(bits[0], other, strict=True))
