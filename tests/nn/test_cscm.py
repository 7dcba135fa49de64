"""Multi-window features: sizes, the equations written out, every weight in use."""

import pytest
import torch
from torch import Tensor

from halfstep.nn.cscm import Cscm

from .cases import noise, shaken


def by_hand(layer: Cscm, x: Tensor, variable: int) -> Tensor:
    """Return the features of one variable as dense layers written out: every window here is its whole input."""

    def dense(conv: torch.nn.Module, z: Tensor) -> Tensor:
        own = 0 if conv.weight.shape[0] == 1 else variable
        filters = conv.weight.shape[1]
        return z @ conv.weight[own].T + conv.bias[own * filters : (own + 1) * filters]

    z = torch.sigmoid(dense(layer.first, x))
    parts = []
    for scale in layer.scales:
        z = torch.sigmoid(dense(scale, z))
        parts.append(z)
    return dense(layer.out, torch.cat(parts, dim=-1))


@pytest.mark.parametrize("shared", [False, True])
def test_cscm_by_hand(shared: bool) -> None:
    layer = shaken(Cscm(4, 9, shared=shared))
    assert [conv.filters for conv in layer.scales] == [6, 5, 4, 1]
    assert [conv.window for conv in layer.scales] == [9, 6, 5, 4]
    assert layer.out.window == 16
    assert sum(p.numel() for p in layer.parameters()) == 367 * (1 if shared else 4)
    x = noise(3, 4, 9, dtype=torch.float64)
    y = layer(x)
    for variable in range(4):
        torch.testing.assert_close(
            y[:, variable], by_hand(layer, x[:, variable], variable), rtol=1e-12, atol=1e-12
        )
    y.square().sum().backward()
    assert all(bool((p.grad != 0).all()) for p in layer.parameters())


@pytest.mark.parametrize("length", [1, 2, 5, 11])
def test_any_length_builds(length: int) -> None:
    assert Cscm(3, length)(torch.ones(2, 3, length)).shape == (2, 3, length)


def test_windows_begin_with_the_length() -> None:
    assert Cscm(2, 7, windows=(7, 3))(torch.ones(1, 2, 7)).shape == (1, 2, 7)
    with pytest.raises(ValueError, match=r"windows: \(6, 3\), must begin with the length 7"):
        Cscm(2, 7, windows=(6, 3))
