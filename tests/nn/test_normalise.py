"""Instance normalisation: exact inverse, no memory, small features are not swamped."""

import pytest
import torch

from halfstep.nn.normalise import RevIN


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
    stats = norm.statistics(x)
    back = norm.denormalise(norm.normalise(x, stats), stats)
    assert ((back - x).abs() / deviations).max() < 1e-6


@pytest.mark.pitfall("M8")
def test_instance_norm_ignores_level_and_scale() -> None:
    x = torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(2))
    norm = norm_of(3)
    moved = 3 * x + 7
    torch.testing.assert_close(
        norm.normalise(moved, norm.statistics(moved)),
        norm.normalise(x, norm.statistics(x)),
        rtol=0,
        atol=1e-5,
    )


@pytest.mark.pitfall("M14")
def test_small_features_are_normalised() -> None:
    x = torch.tensor([1e-4, -1e-4]).repeat(30).reshape(1, 60, 1)
    norm = RevIN(1)
    norm.reference_std.copy_(torch.tensor([1e-4]))
    torch.testing.assert_close(norm.normalise(x, norm.statistics(x)).abs(), torch.ones(1, 60, 1))


@pytest.mark.pitfall("M8")
def test_evaluation_has_no_memory() -> None:
    norm = norm_of(2, [1.0, 1.0])
    window = torch.randn(1, 30, 2, generator=torch.Generator().manual_seed(3))
    before = norm.normalise(window, norm.statistics(window))
    norm.train()
    for scale in (5.0, 500.0):
        history = scale * torch.randn(64, 30, 2)
        norm.normalise(history, norm.statistics(history))
    assert torch.equal(norm.normalise(window, norm.statistics(window)), before)


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
