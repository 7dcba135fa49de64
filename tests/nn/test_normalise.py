"""Instance normalisation: exact inverse, no memory, small features are not swamped."""

import pytest
import torch

from halfstep.errors import ConfigError
from halfstep.nn.normalise import RevIN, RunningNorm

from .cases import encoder_of, noise, shaken


def norm_of(features: int, reference_std: list[float] | None = None) -> RevIN:
    """Return a norm with an affine that is not the identity."""
    norm = RevIN(features)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.gain.copy_(torch.randn(features, generator=generator) * 0.3)
        norm.shift.copy_(torch.randn(features, generator=generator) * 0.3)
    if reference_std is not None:
        norm.reference_std.copy_(torch.tensor(reference_std))
    return norm


@pytest.mark.pitfall("M6")
def test_denormalise_inverts_normalise() -> None:
    deviations = torch.tensor([1e-4, 10.0, 100.0], dtype=torch.float64)
    means = torch.tensor([0.0, 50.0, 1000.0], dtype=torch.float64)
    noise = torch.randn(5, 40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x = means + deviations * noise
    norm = norm_of(3).double()
    back = norm.denormalise(*norm.normalise(x))
    assert ((back - x).abs() / deviations).max() < 1e-6


@pytest.mark.pitfall("M8")
def test_instance_norm_ignores_level_and_scale() -> None:
    x = torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(2))
    norm = norm_of(3)
    moved = 3 * x + 7
    torch.testing.assert_close(
        norm.normalise(moved)[0],
        norm.normalise(x)[0],
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.pitfall("M14")
def test_small_features_are_normalised() -> None:
    x = torch.tensor([1e-4, -1e-4]).repeat(30).reshape(1, 60, 1)
    norm = RevIN(1)
    norm.reference_std.copy_(torch.tensor([1e-4]))
    torch.testing.assert_close(norm.normalise(x)[0].abs(), torch.ones(1, 60, 1))


@pytest.mark.pitfall("M8")
def test_evaluation_has_no_memory() -> None:
    norm = norm_of(2, [1.0, 1.0])
    window = torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(3))
    before = norm.normalise(window)[0]
    norm.train()
    for scale in (5.0, 500.0):
        history = scale * torch.randn(64, 30, 2)
        norm.normalise(history)
    assert torch.equal(norm.normalise(window)[0], before)


def test_a_still_window_is_floored_by_the_training_deviation() -> None:
    norm = RevIN(1, floor=0.01)
    norm.reference_std.copy_(torch.tensor([2.0]))
    stats = norm.statistics(torch.full((1, 10, 1), 5.0))
    assert stats.deviation.item() == torch.tensor(0.02).item()


def test_level_and_volatility_are_relative_and_bounded() -> None:
    norm = RevIN(1)
    norm.reference_mean.copy_(torch.tensor([10.0]))
    norm.reference_std.copy_(torch.tensor([2.0]))
    x = torch.tensor([13.0, 15.0] * 5).reshape(1, 10, 1)  # mean 14, deviation 1
    level, volatility = norm.describe(norm.statistics(x))[0, 0].tolist()
    assert abs(level - 2.0) < 1e-6
    assert abs(volatility - torch.tensor(0.5).log().item()) < 1e-6
    far = norm.describe(norm.statistics(1e9 * x))[0, 0].tolist()
    assert far == [5.0, 3.0]


def test_revin_by_hand() -> None:
    norm = RevIN(1).double()
    x = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64).reshape(1, 4, 1)
    y, stats = norm.normalise(x)
    assert stats.deviation.item() == pytest.approx(1.118034, abs=1e-6)
    assert y.flatten().tolist() == pytest.approx([-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6)
    norm = shaken(RevIN(1))
    y, stats = norm.normalise(x)
    torch.testing.assert_close(norm.denormalise(y, stats), x, rtol=1e-12, atol=1e-12)
    affine = norm.standardise(x, stats) * norm.gain.exp() + norm.shift
    torch.testing.assert_close(y, affine, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.undo_affine(y), norm.standardise(x, stats), rtol=1e-12, atol=1e-12)


def test_a_constant_window_is_zero_and_its_gradient_finite() -> None:
    norm = RevIN(2)
    x = torch.full((1, 6, 2), 3.0, requires_grad=True)
    y, _ = norm.normalise(x)
    assert not y.any()
    y.square().sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_describe_restores_level() -> None:
    encoder = encoder_of("attention")
    x = noise(1, 120, 9)
    mean = x.mean(1, keepdim=True)
    far = 3 * x  # three times the level and the deviation
    torch.testing.assert_close(encoder(far).latent, encoder(x).latent, rtol=1e-4, atol=1e-5)
    difference = (encoder.context(far) - encoder.context(x))[0]
    torch.testing.assert_close(difference[:, -2], 2 * mean[0, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(difference[:, -1], torch.tensor(3.0).log().expand(9), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [None, 6])
def test_running_norm_is_frozen_in_eval(positions: int | None) -> None:
    norm = RunningNorm(2, window=5, positions=positions).double().train()
    batches = [2 + 3 * noise(4, 6, 2, seed=k, dtype=torch.float64) for k in range(3)]
    for batch in batches:
        y, stats = norm.normalise(batch)
        assert stats.mean.shape == (4, 1, 2)
    mean, variance = torch.zeros(1, 2).double(), torch.ones(1, 2).double()
    for number, x in enumerate(torch.cat(batches), 1):
        weight = 1 / min(number, 5)
        seen = x if positions else x.mean(0, keepdim=True)
        mean = (1 - weight) * mean + weight * seen
        square = (x - mean).square()
        variance = (1 - weight) * variance + weight * (square if positions else square.mean(0, keepdim=True))
    torch.testing.assert_close(norm.mean, mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.variance, variance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y, (batches[-1] - mean) / variance.sqrt(), rtol=1e-12, atol=1e-12)
    norm.eval()
    before = [buffer.clone() for buffer in norm.buffers()]
    alone = norm.normalise(batches[0][:1])[0]
    assert all(torch.equal(a, b) for a, b in zip(before, norm.buffers(), strict=True))
    assert torch.equal(norm.normalise(batches[0])[0][:1], alone)
    torch.testing.assert_close(
        norm.denormalise(norm.standardise(batches[0], stats), stats), batches[0], rtol=1e-9, atol=1e-9
    )


def test_running_norm_refuses_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ConfigError, match="running statistics with 2 processes, must be one"):
        RunningNorm(2).train().normalise(torch.ones(1, 4, 2))


@pytest.mark.parametrize("norm", ["running", "running_per_position"])
def test_an_encoder_takes_running_statistics(norm: str) -> None:
    encoder = encoder_of("tpm_windowed", norm=norm)
    encoder.train()(noise(3, 120, 9))
    assert encoder.norm.count == 3  # each window once, however often the encoder looks at it
    assert encoder.eval().context(noise(2, 120, 9)).shape == (2, 9, 26)


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"floor: -1\.0, must be 0 or above"):
        RevIN(2, floor=-1.0)
    with pytest.raises(ValueError, match="window: 0, must be at least 1"):
        RunningNorm(2, window=0)
