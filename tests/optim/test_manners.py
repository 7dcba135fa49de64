"""AdamMini in the situations that training programs bring a torch optimizer into."""

import copy
import io
import subprocess
import sys
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


@pytest.mark.pitfall("K4")
def test_bias_rule_is_the_same_at_every_width() -> None:
    for n in (63, 64, 65, 128, 130):
        layer = nn.Linear(n, 3)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimizer = AdamMini(layer.parameters(), weight_decay=0.0)
        layer.weight.grad, layer.bias.grad = torch.ones(3, n), torch.tensor([1.0, 10.0, 1e6])
        optimizer.step()
        torch.testing.assert_close(layer.weight.detach(), torch.full((3, n), -1e-3))
        torch.testing.assert_close(layer.bias.detach(), torch.full((3,), -1e-3))
        torch.testing.assert_close(optimizer.state[layer.weight]["exp_avg_sq"], torch.full((3, 1), 1e-3))


@pytest.mark.pitfall("K6")
def test_vanishing_gradients_are_harmless() -> None:
    for dtype in (torch.float64, torch.float32):
        param = nn.Parameter(torch.zeros(1, 1, dtype=dtype))
        param.grad = torch.full_like(param, 1e-25)
        AdamMini([param]).step()
        assert param.item() == pytest.approx(-1e-20, rel=1e-4)


@pytest.mark.pitfall("K11")
def test_second_moment_uses_the_batch_gradient() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimizer = AdamMini(layer.parameters())
    (layer(torch.tensor([[1.0, 0.0], [0.0, 2.0]])) * torch.tensor([[1.0], [3.0]])).mean().backward()
    optimizer.step()
    assert optimizer.state[layer.weight]["exp_avg_sq"].item() == pytest.approx(4.625e-3, rel=1e-5)


@pytest.mark.pitfall("K14", "C14")
def test_step_counts_optimizer_steps() -> None:
    params = [nn.Parameter(torch.zeros(1, 1)) for _ in range(20)]
    optimizer = AdamMini(params, lr=0.1, weight_decay=0.0)
    for k in range(3):
        for param in params:
            param.grad = torch.ones_like(param)
        if k == 1:
            params[7].grad = None
        optimizer.step()
        if k == 0:
            torch.testing.assert_close(torch.cat(list(params)).detach(), torch.full((20, 1), -0.1))
    assert [int(optimizer.state[p]["step"]) for p in params] == [2 if k == 7 else 3 for k in range(20)]


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


@pytest.mark.pitfall("O28")
def test_clipping_inside_the_step() -> None:
    for fused in (None, False):
        param = nn.Parameter(torch.zeros(1, 2))
        optimizer = AdamMini([param], fused=fused)
        param.grad = torch.tensor([[3.0, 4.0]])
        assert optimizer.clip_grad_norm_(1.0).item() == pytest.approx(5.0)
        optimizer.step()
        torch.testing.assert_close(optimizer.state[param]["exp_avg"], torch.tensor([[0.06, 0.08]]))
        assert optimizer.state[param]["exp_avg_sq"].item() == pytest.approx(5e-4, rel=1e-5)


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


def test_accumulation_equals_a_big_batch() -> None:
    one, other = small(), small()
    x = torch.randn(8, 4)
    for model, parts in ((one, 1), (other, 4)):
        optimizer = AdamMini(model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            for part in x.chunk(parts):
                (model(part).square().mean() / parts).backward()
            optimizer.step()
    assert_same(one, other, 1e-5)


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


@pytest.mark.pitfall("O22")
def test_step_allocates_nothing_large() -> None:
    param = nn.Parameter(torch.zeros(4096, 4096))
    optimizer = AdamMini([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        optimizer.step()
    assert sum(max(0, event.self_cpu_memory_usage) for event in profile.events()) < 2**20
    assert any("AdamMini.step" in event.name for event in profile.events())


@pytest.mark.pitfall("O21")
def test_import_and_step_are_silent() -> None:
    code = (
        "import torch, halfstep.optim as h; p = torch.nn.Parameter(torch.ones(3, 2)); p.grad = torch.ones(3, 2); "
        "h.AdamMini([p]).step()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_without_numba_one_warning_and_right_numbers() -> None:
    code = (
        "import sys, warnings, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'numba' else find(name, *a); sys.modules['numba'] = None\n"
        "import torch; from halfstep.optim import AdamMini\n"
        "with warnings.catch_warnings(record=True) as w:\n"
        "    warnings.simplefilter('always')\n"
        "    for _ in range(2):\n"
        "        p = torch.nn.Parameter(torch.zeros(3, 2)); p.grad = torch.ones(3, 2); AdamMini([p]).step()\n"
        "print(len(w), round(p[0, 0].item(), 6), 'numba is absent' in str(w[0].message))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 -0.001 True\n"


def test_a_forked_child_steps() -> None:
    code = (
        "import os, torch; from halfstep.optim import AdamMini; torch.set_num_threads(2)\n"
        "p = torch.nn.Parameter(torch.zeros(300, 300)); o = AdamMini([p], weight_decay=0.0)\n"
        "p.grad = torch.ones_like(p); o.step()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    o.step(); os._exit(0 if abs(p[7, 7].item() + 2e-3) < 1e-6 else 3)\n"
        "assert os.waitpid(child, 0)[1] == 0; o.step(); print(round(p[7, 7].item(), 6))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "-0.002\n"
