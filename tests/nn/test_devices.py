"""Types and devices: meta, float64, bfloat16, autocast; a GPU where there is one."""

import pytest
import torch
from torch import nn

from halfstep.nn.build import build_actor, build_critic, build_encoder
from halfstep.nn.loss import fredf_loss
from halfstep.nn.presets import preset
from halfstep.optim.optimizer import AdamMini

from .cases import KINDS, NAMES, encoder_of, noise

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 6e-2}
"""Of a forecast, relative to the deviation of the exact forecast."""
DEVICES = [
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]),
    pytest.param("mps", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")]),
]  # fmt: skip


def forecast(encoder: nn.Module, x: torch.Tensor) -> torch.Tensor:
    output = encoder(x[None])[0] if type(encoder).__name__ == "TpmStateful" else encoder(x)
    return output.latent.reshape(len(x), 24, -1)


def far(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the greatest difference, in deviations of b."""
    return ((a.double().cpu() - b).abs().max() / b.std()).item()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_devices_and_dtypes(kind: str, dtype: torch.dtype) -> None:
    exact, x = encoder_of(kind).double(), noise(6, 120, 9)
    encoder = encoder_of(kind).to(dtype)
    x = x.to(dtype)
    with torch.no_grad():
        latent = forecast(encoder, x)
    assert far(latent, forecast(exact, x.double()).detach()) < TOLERANCE[dtype]
    context = encoder.encode_table(noise(200, 9).to(dtype), 170, 180)
    assert context.dtype == dtype
    assert bool(context.isfinite().all())


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_to_bfloat16(kind: str) -> None:
    encoder, x, target = encoder_of(kind), noise(16, 120, 9), noise(16, 24, 9, seed=1)
    with torch.no_grad():
        exact = forecast(encoder, x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = forecast(encoder, x)
    error = (rounded.float() - exact).norm() / exact.norm()
    assert error < 2e-2
    encoder.train()
    optimizer = AdamMini.for_model(encoder, lr=3e-3)
    losses = []
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            latent = forecast(encoder, x)
            loss = fredf_loss(latent, target[..., encoder.columns]).total
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] < 1e3


def test_policy_networks_in_bfloat16() -> None:
    config = preset("tiny")
    actor, critic = build_actor(config, seed=0), build_critic(config, seed=0)
    account, context = noise(2, 3, 12), noise(2, 9, 26)
    exact = critic(account, actor(account, actor.prepare(context)).action, critic.prepare(context))
    with torch.autocast("cpu", torch.bfloat16):
        action = actor(account, actor.prepare(context)).action
        rounded = critic(account, action, critic.prepare(context))
    assert (rounded.float() - exact).norm() / exact.norm() < 2e-2
    actor, account, context = actor.bfloat16(), account.bfloat16(), context.bfloat16()
    assert actor(account, actor.prepare(context)).action.dtype == torch.bfloat16


def test_meta_device_builds_every_preset() -> None:
    for name in ("tiny", "default", "reference"):
        with torch.device("meta"):
            encoder = build_encoder(preset(name), feature_names=NAMES, seed=0)
        assert all(p.is_meta for p in encoder.parameters())


def test_nothing_bad_is_replaced() -> None:
    for kind in KINDS:
        x = noise(2, 120, 9)
        x[1, 7, 4] = float("nan")
        assert bool(forecast(encoder_of(kind), x)[1].isnan().any())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_equals_the_cpu(kind: str, device: str) -> None:
    encoder, x = encoder_of(kind), noise(6, 120, 9)
    with torch.no_grad():
        exact = forecast(encoder.double(), x.double())
        latent = forecast(encoder.float().to(device), x.to(device))
    assert latent.device.type == device
    assert far(latent, exact) < TOLERANCE[torch.float32]
