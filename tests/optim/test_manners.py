"""AdamMini in the situations that training programs bring a torch optimizer into."""

import copy
import io
from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel

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


SCHEDULES: list[Any] = [
    lambda o: lr_scheduler.StepLR(o, 2), lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    lambda o: lr_scheduler.ConstantLR(o), lambda o: lr_scheduler.LinearLR(o),
    lambda o: lr_scheduler.ExponentialLR(o, 0.9), lambda o: lr_scheduler.PolynomialLR(o),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 5), lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    lambda o: lr_scheduler.LambdaLR(o, lambda k: 1 / (k + 1)), lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.9),
    lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=9),
    lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-1, step_size_up=3, cycle_momentum=True), lambda o: SWALR(o, 0.01),
]  # fmt: skip


def test_every_schedule_drives_both_backends_alike() -> None:
    for make in SCHEDULES:
        finished = []
        for fused in (True, False):
            model = small()
            optimizer = AdamMini(model.parameters(), lr=1e-2, fused=fused)
            schedule = make(optimizer)
            for k in range(6):
                backward(model, k)
                optimizer.step()
                schedule.step()
            finished.append(model)
        assert_same(*finished, tolerance=1e-6)


@pytest.mark.pitfall("O19")
def test_serialisation_with_weights_only() -> None:
    model = small()
    optimizer = AdamMini(model.named_parameters())
    backward(model)
    optimizer.step()
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    twin = copy.deepcopy(model)
    loaded = AdamMini(twin.named_parameters())
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for m, o in ((model, optimizer), (twin, loaded)):
        backward(m, 2)
        o.step()
    assert_same(model, twin)


def test_state_replaced_by_hand_is_used() -> None:
    changes: list[Any] = [
        lambda o, p: o.state[p].__setitem__("exp_avg", torch.ones_like(p)),
        lambda o, _: setattr(o, "state", defaultdict(dict)), lambda o, _: o.state.clear(),
        lambda _, p: setattr(p, "data", torch.ones_like(p)), lambda _, p: setattr(p, "grad", torch.ones(4, 8).T),
        lambda _, p: setattr(p, "grad", None), lambda _, p: p.requires_grad_(False),
    ]  # fmt: skip
    for change in changes:
        finished = []
        for fused in (True, False):
            model = small()
            optimizer = AdamMini(model.parameters(), fused=fused)
            for k in range(4):
                backward(model, k)
                if k == 2:
                    change(optimizer, model[0].weight)
                optimizer.step()
            finished.append(model)
        assert_same(*finished, tolerance=1e-6)


def test_in_place_change_is_seen_by_autograd() -> None:
    model = small()
    optimizer = AdamMini(model.parameters())
    backward(model)
    loss = model(torch.ones(1, 4)).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_averaged_model_and_mixed_dtypes() -> None:
    model = small()
    model[2].to(torch.float64)
    averaged = AveragedModel(model)
    optimizer = AdamMini(
        [*model.parameters(), nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.zeros(0, 3))]
    )
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    before = [p.detach().clone() for p in optimizer.param_groups[0]["params"]]
    optimizer.step()
    averaged.update_parameters(model)
    moved: list[Tensor] = optimizer.param_groups[0]["params"]
    assert all(p.numel() == 0 or not torch.equal(p, q) for p, q in zip(moved, before, strict=True))
