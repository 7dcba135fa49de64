"""The forecast's loss in time and in frequency."""

import pytest
import torch

from halfstep.nn.loss import fredf_loss


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
    target = torch.randn(5, horizon, 9)
    forecast = target.clone()
    forecast[..., 3] += torch.randn(5, horizon)
    forecast.requires_grad_()
    fredf_loss(forecast, target).total.backward()
    gradient = forecast.grad
    assert gradient is not None
    assert gradient[..., 3].abs().min() > 0
    assert not gradient[..., [0, 1, 2, 4, 5, 6, 7, 8]].any()


@pytest.mark.pitfall("M10")
def test_mse_gradient() -> None:
    forecast = torch.full((1, 1, 1), 0.5, requires_grad=True)
    fredf_loss(forecast, torch.zeros(1, 1, 1), alpha=0.0).total.backward()
    assert forecast.grad is not None
    assert forecast.grad.item() == 1.0
