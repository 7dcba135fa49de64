"""Convolution of unitary series against torch, against loops, and with every window counted."""

import pytest
import torch
from torch import Tensor, nn

from halfstep.nn.convolution import SeriesConv

from .cases import noise, shaken

SIZES = [(3, 5, 11, 4, 2), (2, 7, 9, 9, 9), (5, 2, 10, 2, 4), (3, 4, 12, 3, 3)]


def by_loops(layer: SeriesConv, x: Tensor) -> Tensor:
    batch, variables, length = x.shape
    filters, window, step = layer.filters, layer.window, layer.step
    positions = (length - window) // step + 1
    y = torch.zeros(batch, variables, positions, filters, dtype=x.dtype)
    bias = layer.bias.reshape(-1, filters) if layer.bias is not None else torch.zeros(variables, filters)
    for v in range(variables):
        own = 0 if layer.weight.shape[0] == 1 else v
        for p in range(positions):
            for f in range(filters):
                y[:, v, p, f] = bias[own, f]
                for k in range(window):
                    y[:, v, p, f] += layer.weight[own, f, k] * x[:, v, p * step + k]
    return y


@pytest.mark.parametrize(("variables", "filters", "length", "window", "step"), SIZES)
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_dense_and_conv_equal_torch(
    variables: int, filters: int, length: int, window: int, step: int, shared: bool, bias: bool
) -> None:
    layer = shaken(SeriesConv(variables, filters, window, step, shared=shared, bias=bias))
    x = noise(2, variables, length, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), by_loops(layer, x), rtol=1e-12, atol=1e-12)
        conv = nn.Conv1d(
            variables, variables * filters, window, step, groups=variables, bias=bias, dtype=torch.float64
        )
        repeats = variables if shared else 1
        conv.weight.copy_(layer.weight.repeat(repeats, 1, 1).reshape(-1, 1, window))
        if bias:
            conv.bias.copy_(layer.bias.repeat(repeats))
        expected = conv(x).reshape(2, variables, filters, -1).transpose(2, 3)
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.pitfall("C2", "C3")
def test_every_window_counts() -> None:
    for length, window, step, expected, defect in [(1080, 120, 120, 9, 8), (9, 9, 9, 1, 0), (10, 4, 2, 4, 3), (10, 2, 4, 3, 2)]:  # fmt: skip
        positions = SeriesConv(1, 1, window, step)(torch.ones(1, 1, length)).shape[2]
        assert positions == expected != defect
    for window, step, gradient in [(4, 2, [16.0, 20, 24, 28]), (2, 4, [15.0, 18])]:
        layer = SeriesConv(1, 1, window, step)
        layer(torch.arange(1.0, 11.0).reshape(1, 1, 10)).sum().backward()
        assert layer.weight.grad is not None
        assert layer.weight.grad.flatten().tolist() == gradient


@pytest.mark.pitfall("N3")
def test_filters_are_independent() -> None:
    layer = SeriesConv(1, 2, 2, bias=False)
    nn.init.ones_(layer.weight)
    assert layer(torch.ones(1, 1, 2)).flatten().tolist() == [2.0, 2.0]  # not 2, 4


def test_variables_do_not_mix() -> None:
    layer, x = shaken(SeriesConv(3, 4, 5, 2)), noise(2, 3, 11, dtype=torch.float64)
    changed = x.clone()
    changed[:, 1] += 1
    same = (layer(x) == layer(changed)).flatten(2).all(2)
    assert same.tolist() == [[True, False, True]] * 2


def test_an_optimizer_sees_variables_and_heads() -> None:
    layer = SeriesConv(3, 4, 5, heads=2)
    assert (layer.variables, layer.heads, tuple(layer.weight.shape)) == (3, 2, (3, 4, 5))
    assert SeriesConv(3, 4, 5, shared=True).variables == 1


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="heads: 3, must divide filters 4"):
        SeriesConv(2, 4, 5, heads=3)
    with pytest.raises(ValueError, match="window: 0, must be at least 1"):
        SeriesConv(2, 4, 0)
    with pytest.raises(ValueError, match="x: 3 variables, must be 2"):
        SeriesConv(2, 4, 5)(torch.ones(1, 3, 9))
    with pytest.raises(ValueError, match="x: length 4, must be at least the window 5"):
        SeriesConv(2, 4, 5)(torch.ones(1, 2, 4))
