"""The squashed Gaussian and the netting of its sides."""

import math

import pytest
import torch
from torch.distributions import Normal, SigmoidTransform, TransformedDistribution

from halfstep.nn.gaussian import GaussianHead, GaussianOutput, kl_to_standard_normal, net_sides

from .cases import noise


def head_of(size: int = 1, low: float = 0.0, high: float = 1.0) -> GaussianHead:
    return GaussianHead(size * (low,), size * (high,)).double()


@pytest.mark.pitfall("N17")
def test_gaussian_head_by_hand() -> None:
    moments = torch.tensor([0.3, math.log(4.0)], dtype=torch.float64, requires_grad=True)
    output = head_of()(moments, torch.tensor([0.5], dtype=torch.float64))
    assert output.raw.item() == pytest.approx(1.3)
    (gradient,) = torch.autograd.grad(output.raw.sum(), moments)
    assert gradient.tolist() == pytest.approx([1.0, 0.5])
    kl = kl_to_standard_normal(*moments.chunk(2))
    assert kl.item() == pytest.approx(0.851853, abs=1e-6)
    (gradient,) = torch.autograd.grad(kl.sum(), moments)
    assert gradient.tolist() == pytest.approx([0.3, 1.5])


def test_gaussian_head_squash() -> None:
    head = head_of(6)
    output = head(torch.zeros(12, dtype=torch.float64), torch.zeros(6, dtype=torch.float64))
    assert output.squashed.tolist() == [0.5] * 6
    assert head.log_prob(output).item() / 6 == pytest.approx(0.467356, abs=1e-6)
    raw = noise(50, 6, dtype=torch.float64)
    torch.testing.assert_close(head.inverse(head.squash(raw)), raw, rtol=1e-10, atol=1e-12)
    edges = head.inverse(torch.tensor([0.0, 1.0, 1e-4, 0.5, 1 - 1e-4, 2.0], dtype=torch.float64))
    assert edges.tolist() == pytest.approx([-9.21024, 9.21024, -9.21024, 0.0, 9.21024, 9.21024], abs=1e-5)
    far = GaussianOutput(*(torch.full((6,), value).double() for value in (50.0, 0.0, 50.0, 1.0)))
    assert bool(head.log_prob(far).isfinite())
    assert bool(head.log_prob(far._replace(raw=-far.raw)).isfinite())
    wide = torch.tensor([0.0, 100.0], dtype=torch.float64, requires_grad=True)
    drawn = head_of()(wide, torch.ones(1, dtype=torch.float64)).raw
    assert drawn.item() == pytest.approx(math.exp(2))
    kl_to_standard_normal(*wide.chunk(2)).backward()
    assert wide.grad is not None
    assert wide.grad[1] > 0  # descent pulls an exploding deviation down, though the draw is clamped


@pytest.mark.parametrize(
    ("mean", "logvar", "low", "high"), [(0.0, 0.0, 0.0, 1.0), (0.7, -1.0, -2.0, 3.0), (-1.0, 0.8, 0.0, 0.5)]
)
def test_density_integrates_to_one(mean: float, logvar: float, low: float, high: float) -> None:
    head = head_of(1, low, high)
    actions = torch.linspace(low, high, 20_001, dtype=torch.float64)[1:-1, None]
    fraction = (actions - low) / (high - low)
    output = GaussianOutput(
        torch.full_like(actions, mean), torch.full_like(actions, logvar), fraction.logit(), actions
    )
    density = head.log_prob(output).exp()
    assert torch.trapezoid(density, actions[:, 0]).item() == pytest.approx(1.0, abs=1e-4)
    squashed = TransformedDistribution(Normal(mean, math.exp(logvar / 2)), SigmoidTransform())
    expected = squashed.log_prob(fraction[:, 0]) - math.log(high - low)
    torch.testing.assert_close(head.log_prob(output), expected.double(), rtol=1e-5, atol=1e-5)


def test_bounds_of_one_are_a_tanh() -> None:
    raw = noise(9, 1, dtype=torch.float64)
    torch.testing.assert_close(head_of(1, -1.0, 1.0).squash(raw), torch.tanh(raw / 2))
    with pytest.raises(ValueError, match="must be as many, each low below its high"):
        GaussianHead((0.0, 1.0), (1.0, 1.0))


def test_net_sides_by_hand() -> None:
    asked = torch.tensor(
        [[0.3, 0.1, 0.2, 0.1, 0.4, 0.5], [0.1, 0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0, 0, 0.2, 0, 0]]
    )
    torch.testing.assert_close(
        net_sides(asked)[:, [0, 3]], torch.tensor([[0.2, 0.0], [0.0, 0.2], [0.0, 0.0]])
    )
    assert torch.equal(net_sides(asked)[:, [1, 2, 4, 5]], asked[:, [1, 2, 4, 5]])


def test_divergence_equals_torch() -> None:
    mean, logvar = noise(7, dtype=torch.float64), noise(7, seed=1, dtype=torch.float64)
    expected = torch.distributions.kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected.double())
