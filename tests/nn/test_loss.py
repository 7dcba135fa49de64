"""The forecast's loss in time and in frequency."""

import math

import pytest
import torch

from halfstep.nn.loss import fredf_loss

from .cases import noise


@pytest.mark.pitfall("M7")
def test_frequency_loss_by_hand() -> None:
    forecast = torch.tensor([1.0, 0.0, 0.0, 0.0]).reshape(1, 4, 1)
    terms = fredf_loss(forecast, torch.zeros(1, 4, 1), alpha=0.7)
    assert terms.frequency.item() == pytest.approx(1.0)  # |E| = 1 in each of three bins
    assert terms.mse.item() == pytest.approx(0.25)
    assert terms.total.item() == pytest.approx(0.775)


@pytest.mark.parametrize("horizon", [12, 24, 25])
@pytest.mark.pitfall("M7")
def test_frequency_loss_runs_over_time(horizon: int) -> None:
    target = noise(5, horizon, 9)
    forecast = target.clone()
    forecast[..., 3] += noise(5, horizon, seed=1)
    forecast.requires_grad_()
    fredf_loss(forecast, target).total.backward()
    gradient = forecast.grad
    assert gradient is not None
    assert gradient[..., 3].abs().min() > 0
    assert not gradient[..., [0, 1, 2, 4, 5, 6, 7, 8]].any()


@pytest.mark.parametrize("fft_norm", ["backward", "ortho"])
@pytest.mark.parametrize("horizon", [24, 25])
def test_fredf_against_direct_formula(fft_norm: str, horizon: int) -> None:
    forecast, target = (
        noise(2, horizon, 9, dtype=torch.float64),
        noise(2, horizon, 9, seed=1, dtype=torch.float64),
    )
    weights = torch.arange(1.0, 10.0, dtype=torch.float64)
    shares = 9 * weights / weights.sum()
    bins, time = torch.arange(horizon // 2 + 1), torch.arange(horizon)
    angle = 2 * math.pi * torch.outer(bins, time).double() / horizon
    scale = 1 / math.sqrt(horizon) if fft_norm == "ortho" else 1.0
    error = forecast - target
    real = torch.einsum("kt,btf->bkf", angle.cos(), error) * scale
    imaginary = torch.einsum("kt,btf->bkf", angle.sin(), error) * scale
    frequency = (shares * (real.square() + imaginary.square()).sqrt()).mean()
    mse = (shares * error.square()).mean()
    terms = fredf_loss(forecast, target, 0.3, weights, fft_norm)  # type: ignore[arg-type]
    torch.testing.assert_close(terms.frequency, frequency, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(terms.mse, mse, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(terms.total, 0.3 * frequency + 0.7 * mse, rtol=1e-12, atol=1e-12)


def test_alpha_0_is_the_squared_error_and_phase_does_not_matter() -> None:
    error = noise(2, 24, 9, dtype=torch.float64)
    zero = torch.zeros_like(error)
    assert fredf_loss(error, zero, 0.0).total == error.square().mean()
    total = fredf_loss(error, zero).total
    torch.testing.assert_close(fredf_loss(error.roll(5, 1), zero).total, total, rtol=1e-12, atol=1e-12)
    shuffled = error[:, torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    assert abs(fredf_loss(shuffled, zero).total - total) > 1e-3


def test_no_error_has_no_gradient() -> None:
    forecast = torch.ones(1, 4, 1, requires_grad=True)
    fredf_loss(forecast, torch.ones(1, 4, 1)).total.backward()
    assert forecast.grad is not None
    assert not forecast.grad.any()
    with pytest.raises(ValueError, match=r"alpha: 1.5, must lie in \[0, 1\]"):
        fredf_loss(forecast, forecast, 1.5)


@pytest.mark.pitfall("M10")
def test_mse_gradient() -> None:
    forecast = torch.full((1, 1, 1), 0.5, requires_grad=True)
    fredf_loss(forecast, torch.zeros(1, 1, 1), alpha=0.0).total.backward()
    assert forecast.grad is not None
    assert forecast.grad.item() == 1.0
