"""Dense layers and activations by name."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from halfstep.nn.activations import ACTIVATIONS, activation
from halfstep.nn.dense import Dense

from .cases import noise


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_dense_is_the_activation_of_an_affine_map(name: str) -> None:
    layer = Dense(5, 3, name).double()
    x = noise(2, 7, 5, dtype=torch.float64)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    by_hand = torch.einsum("oi,bti->bto", layer.weight, x) + layer.bias
    torch.testing.assert_close(layer(x), ACTIVATIONS[name](by_hand), rtol=1e-12, atol=1e-12)


def test_columns_of_a_dense_layer_can_be_applied_early() -> None:
    layer = Dense(7, 3).double()
    early, late = noise(4, 5, dtype=torch.float64), noise(4, 2, seed=1, dtype=torch.float64)
    parts = F.linear(early, layer.weight[:, :5], layer.bias) + F.linear(late, layer.weight[:, 5:])
    torch.testing.assert_close(parts, layer(torch.cat([early, late], 1)), rtol=1e-12, atol=1e-12)


def test_first_weights_are_uniform_and_biases_zero() -> None:
    layer = Dense(400, 300)
    bound = 1 / math.sqrt(400)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not layer.bias.any()
    assert Dense(2, 3, bias=False).bias is None
    copy.deepcopy(layer)


@pytest.mark.pitfall("N22")
def test_softplus_values() -> None:
    values = activation("softplus")(torch.tensor([-100.0, 0.0, 100.0]))
    assert 0 <= values[0].item() < 1e-40
    assert values[1].item() == pytest.approx(0.693147, abs=1e-6)
    assert values[2].item() == 100.0  # not 1


def test_other_names_are_an_error_that_lists_them() -> None:
    with pytest.raises(ValueError, match=r"activation: 'swish', must be one of none, tanh, .*silu\."):
        Dense(2, 3, "swish")
