"""An overflow that `GradScaler` finds leaves weights, moments and step counts as they were."""

import copy

import pytest
import torch
from torch import nn

from halfstep.optim.optimizer import AdamMini


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def backward(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    model(torch.randn(8, 4, generator=generator)).square().mean().backward()


def assert_same(one: nn.Module, other: nn.Module, tolerance: float = 0.0) -> None:
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@pytest.mark.pitfall("O11")
def test_overflow_step_is_skipped() -> None:
    model, twin = small(), small()
    optimizer, plain = AdamMini(model.parameters()), AdamMini(twin.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for k in range(4):
        before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
        backward(twin, k)
        model.zero_grad()
        generator = torch.Generator().manual_seed(k)
        scaler.scale(model(torch.randn(8, 4, generator=generator)).square().mean()).backward()
        if k == 2:
            model[0].weight.grad[1, 2] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        if k == 2:
            assert all(torch.equal(before[0][name], tensor) for name, tensor in model.state_dict().items())
            now = optimizer.state_dict()["state"]
            assert all(torch.equal(before[1][i][key], now[i][key]) for i in now for key in now[i])
        else:
            plain.step()
    assert_same(model, twin, 1e-6)
