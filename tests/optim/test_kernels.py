"""The compiled kernels against the update rule in plain torch, over shapes, layouts, types and threads."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from halfstep.optim.blocks import BlockSpec, by_element, by_row, by_sections, by_tensor
from halfstep.optim.launcher import Entry, fits_kernel
from halfstep.optim.plan import Plan, make_plan

TOLERANCE = {  # of weights after three steps; half types may differ by one rounding of a stored weight
    torch.float64: {"rtol": 1e-12, "atol": 1e-13},
    torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-2},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
}
OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "maximize": False}


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def entry(param: Tensor, spec: BlockSpec, **options: Any) -> Entry:
    """Return a parameter with a fresh state."""
    wide = torch.promote_types(param.dtype, torch.float32)
    state = {
        "step": torch.zeros(()),
        "exp_avg": torch.zeros_like(param, dtype=wide, requires_grad=False),
        "exp_avg_sq": torch.zeros(spec.state_shape, dtype=wide),
    }
    group = {"capturable": False, "fused": None} | OPTIONS | options
    return Entry("weight", param, spec, group, state)


def plan_of(*entries: Entry) -> Plan:
    """Return the plan of some parameters."""
    return make_plan(entries, [])


def check_against_reference(param: Tensor, spec: BlockSpec, grads: list[Tensor], **options: Any) -> None:
    """Step a parameter by the kernel and by plain torch, and compare weights and moments."""
    ours = entry(nn.Parameter(param.clone(memory_format=torch.preserve_format)), spec, **options)
    plain = entry(
        nn.Parameter(param.clone(memory_format=torch.preserve_format)), spec, **options, fused=False
    )
    assert fits_kernel(ours)
    fast, slow = plan_of(ours), plan_of(plain)
    assert fast.launchers
    assert slow.plain
    for number, grad in enumerate(grads):
        ours.param.grad, plain.param.grad = grad, grad.clone()
        scale = (1.0, 0.37)[number % 2]
        fast.step(scale)
        slow.step(scale)
        norm = float(grad.double().norm())
        assert math.sqrt(float(fast.square_sum())) == pytest.approx(norm, rel=1e-6, abs=1e-30)
    assert ours.state["step"] == plain.state["step"] == len(grads)
    is_double = param.dtype == torch.float64
    # torch's own float32 norm loses digits on long rows: 1e-4 of the square at three million elements
    digits = 1e-11 if is_double else 2e-4 if param.numel() / spec.blocks > 50_000 else 1e-5
    first = {"rtol": 1e-11, "atol": 1e-14} if is_double else {"rtol": 1e-5, "atol": 1e-7}
    torch.testing.assert_close(ours.state["exp_avg"], plain.state["exp_avg"], **first)
    torch.testing.assert_close(ours.state["exp_avg_sq"], plain.state["exp_avg_sq"], rtol=digits, atol=1e-14)
    torch.testing.assert_close(ours.param, plain.param, **TOLERANCE[param.dtype])


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64
    ).to(dtype)


def grads_like(param: Tensor, count: int = 3) -> list[Tensor]:
    """Return gradients with the memory layout of the parameter."""
    return [
        torch.empty_like(param).copy_(noise(*param.shape, dtype=param.dtype, seed=17 * (k + 1)))
        for k in range(count)
    ]


@pytest.mark.pitfall("K2", "K10", "C6")
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_any_row_length_equals_the_reference(rows: int) -> None:
    widths = [
        1,
        2,
        3,
        4,
        5,
        7,
        8,
        9,
        16,
        27,
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
    ]
    for width in [*widths, 4097, 65_537] + ([1_048_576] if rows < 3 else []):
        param = noise(rows, width)
        check_against_reference(param, by_row((rows, width), ""), grads_like(param))


def test_many_short_blocks_equal_the_reference() -> None:
    """More than are done at once: lengths the compiler knows and others, blocks of one row and of several."""
    for width in (2, 3, 4, 5, 6, 7, 8, 9, 11, 16, 25, 31):
        rows = 6000 // width
        check_against_reference(noise(rows, width), by_row((rows, width), ""), grads_like(noise(rows, width)))
    heads = by_sections((4000, 2), "", sections=((4000, 4),), name="short heads")
    check_against_reference(noise(4000, 2), heads, grads_like(noise(4000, 2)))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_every_storage_type_and_block_equals_the_reference(dtype: torch.dtype) -> None:
    cases = [
        ((5, 123, 123), by_row((5, 123, 123), "", axes=(0,))),
        ((5, 123, 123), by_row((5, 123, 123), "", axes=(0, 1))),
        ((5, 123, 123), by_row((5, 123, 123), "", axes=(0, 2))),  # stacked experts stored [expert, in, out]
        ((5, 123, 123), by_row((5, 123, 123), "", axes=(2,))),
        ((37, 129), by_element((37, 129), "")),
        ((37, 4097), by_tensor((37, 4097), "")),
        ((48, 33), by_sections((48, 33), "", sections=((16, 8), (16, 4), (16, 1)), name="qkv")),
        ((33, 48), by_sections((33, 48), "", sections=((16, 8), (16, 4), (16, 1)), name="qkv", axes=(1,))),
        ((4100, 48), by_sections((4100, 48), "", sections=((16, 8), (32, 1)), name="qkv", axes=(1,))),
        ((64, 8), by_sections((64, 8), "", sections=((64, 2),), name="short heads")),
        ((8, 70_001), by_sections((8, 70_001), "", sections=((8, 2),), name="long heads")),
        ((7,), by_element((7,), "")),
        ((7,), by_tensor((7,), "")),
        ((), by_element((), "")),
    ]
    for shape, spec in cases:
        param = noise(*shape, dtype=dtype)
        check_against_reference(param, spec, grads_like(param))


def test_memory_layouts_equal_the_reference() -> None:
    conv = noise(6, 5, 3, 3).contiguous(memory_format=torch.channels_last)
    check_against_reference(conv, by_row((6, 5, 3, 3), ""), grads_like(conv))
    check_against_reference(conv, by_row((6, 5, 3, 3), ""), [g.contiguous() for g in grads_like(conv)])
    turned = noise(33, 65).t()
    check_against_reference(turned, by_row((65, 33), ""), grads_like(turned))
    dense = noise(33, 65)
    check_against_reference(dense, by_row((33, 65), ""), [noise(65, 33).t(), torch.ones(1, 1).expand(33, 65)])


@given(data=st.data())
def test_any_blocks_equal_the_reference(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4), label="shape"))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1)), label="row axes")))
    left = math.prod(shape[axis] for axis in axes)
    sections = []
    while data.draw(st.booleans(), label="section") and left:
        per_block = data.draw(st.integers(1, left), label="rows per block")
        count = per_block * data.draw(st.integers(1, left // per_block), label="blocks")
        sections.append((count, per_block))
        left -= count
    if sections and left:
        sections.append((left, left))
    spec = BlockSpec(shape=shape, row_axes=axes, kind="row", reason="", sections=tuple(sections))
    param = noise(*shape, dtype=torch.float64)
    if fits_kernel(entry(param, spec)):
        check_against_reference(param, spec, grads_like(param), maximize=data.draw(st.booleans()))


def test_the_form_without_a_kernel_is_known() -> None:
    gaps = nn.Parameter(noise(6, 10)[:, ::2])
    assert not fits_kernel(entry(gaps, by_row((6, 5), "")))
    assert not fits_kernel(entry(noise(2, 3, 4, 5), by_row((2, 3, 4, 5), "", axes=(1, 3))))


@pytest.mark.pitfall("K2", "K5")
def test_nothing_outside_a_tensor_is_touched() -> None:
    """Weights, gradients and moments stand between guard words, at odd offsets."""
    for rows, width in ((1, 1), (3, 7), (5, 31), (4, 33), (3, 1025), (2, 70_001)):
        guard = 9
        spec = by_row((rows, width), "")

        memories = []
        tensors = []
        for seed, shape in enumerate([(rows, width)] * 3 + [(rows, 1)]):
            values = shape[0] * shape[1]
            memories.append(torch.full((values + 2 * guard,), 12345.0))
            inside = memories[-1][guard : guard + values]
            tensors.append(inside.normal_(generator=torch.Generator().manual_seed(seed)).view(shape))
        param = nn.Parameter(tensors[0])
        own = entry(param, spec, lr=1.0)  # every weight moves visibly
        param.grad = tensors[1]
        tensors[3].abs_()
        own.state["exp_avg"], own.state["exp_avg_sq"] = tensors[2], tensors[3]
        before = [memory.clone() for memory in memories]
        assert fits_kernel(own)
        plan_of(own).step(1.0)
        for number, (memory, old) in enumerate(zip(memories, before, strict=True)):
            assert torch.equal(memory[:guard], old[:guard])
            assert torch.equal(memory[-guard:], old[-guard:])
            changed = memory[guard:-guard] != old[guard:-guard]
            assert changed.all() if number != 1 else not changed.any()


def test_thread_counts_give_equal_bits() -> None:
    shapes = [(300, 300), (3, 200_001), (40_000, 7), (2000, 192), (9999,)]
    specs = [
        by_row((300, 300), ""), by_row((3, 200_001), ""), by_row((40_000, 7), ""),
        by_row((2000, 192), "", axes=(1,)), by_tensor((9999,), ""),
    ]  # fmt: skip
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        entries = [
            entry(nn.Parameter(noise(*shape)), spec) for shape, spec in zip(shapes, specs, strict=True)
        ]
        plan = plan_of(*entries)
        norms = []
        for number in range(3):
            for own in entries:
                own.param.grad = noise(*own.param.shape, seed=number + 1)
            norms.append(plan.square_sum())
            plan.step(0.5)
        results.append(
            (norms, [own.param.detach().clone() for own in entries], [own.state for own in entries])
        )
    for norms, params, states in results[1:]:
        assert norms == results[0][0]
        assert all(torch.equal(a, b) for a, b in zip(params, results[0][1], strict=True))
        for state, first in zip(states, results[0][2], strict=True):
            assert all(torch.equal(state[key], first[key]) for key in state)


def test_half_types_round_as_torch_does() -> None:
    """Every value of the storage type, and sums that need rounding, subnormal, infinite and NaN included."""
    for dtype, integers in ((torch.bfloat16, torch.int16), (torch.float16, torch.int16)):
        weights = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(integers).view(dtype)
        own = entry(
            nn.Parameter(weights.clone()),
            by_element((2**16,), ""),
            lr=1.0,
            weight_decay=0.3,
            betas=(0.5, 0.5),
        )
        plain = entry(
            nn.Parameter(weights.clone()),
            by_element((2**16,), ""),
            lr=1.0,
            weight_decay=0.3,
            betas=(0.5, 0.5),
            fused=False,
        )
        for e in (own, plain):
            e.param.grad = weights.flip(0).clone()
            plan_of(e).step(1.0)
        ours, theirs = own.param.detach(), plain.param.detach()
        assert torch.equal(ours.isnan(), theirs.isnan())
        finite = ~ours.isnan()
        same = (ours[finite].view(integers) == theirs[finite].view(integers)) | (
            ours[finite] == theirs[finite]
        )
        assert same.float().mean() > 0.999  # the rest: a fused multiply-add before the rounding
        torch.testing.assert_close(ours[finite], theirs[finite], rtol=1e-2, atol=1e-6)


def test_a_block_is_summed_in_more_than_float32_digits() -> None:
    """Three million equal squares: torch's float32 norm is off by 1e-4; chunks of 4,096 by 64 roundings of 6e-8 at most."""
    grad = torch.full((3_000_000,), 0.1)
    own = entry(nn.Parameter(torch.zeros(3_000_000)), by_tensor((3_000_000,), ""), betas=(0.9, 0.0))
    own.param.grad = grad
    plan_of(own).step(1.0)
    assert own.state["exp_avg_sq"].item() == pytest.approx(float(grad[0]) ** 2, rel=4e-6)
