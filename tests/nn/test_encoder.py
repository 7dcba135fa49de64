"""The encoder: context units, causality, one encoding per bar, unbounded forecasts."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from halfstep.nn.build import build_encoder
from halfstep.nn.config import EncoderConfig, ModelConfig, preset
from halfstep.nn.encoder import AttentionEncoder, EncoderOutput
from halfstep.nn.loss import fredf_loss
from halfstep.nn.normalise import InstanceStats

NAMES = tuple("abcdefghi")


def encoder_of(seed: int = 0) -> AttentionEncoder:
    encoder = build_encoder(preset("tiny"), feature_names=NAMES, seed=seed)
    encoder.norm.reference_std.fill_(1.0)
    return encoder.eval()


def table(bars: int, seed: int = 0) -> Tensor:
    return torch.randn(bars, 9, generator=torch.Generator().manual_seed(seed))


@pytest.mark.pitfall("M9")
def test_context_units_are_features(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of()
    latent = torch.arange(216.0).reshape(1, 24, 9)
    stats = InstanceStats(torch.zeros(1, 1, 9), torch.ones(1, 1, 9))
    monkeypatch.setattr(encoder, "forward", lambda _: EncoderOutput(latent, stats))
    context = encoder.context(torch.zeros(1, 120, 9))
    assert context.shape == (1, 9, 26)
    assert context[0, 0, :24].tolist() == [
        9.0 * k for k in range(24)
    ]  # one feature over the horizon, not 0 … 23


def test_each_bar_is_encoded_from_its_own_window() -> None:
    encoder, values = encoder_of(), table(140)
    rows = encoder.encode_table(values, 119, 140, chunk=6)
    assert rows.shape == (21, 9, 26)
    with torch.no_grad():
        for bar in (119, 127, 139):
            torch.testing.assert_close(rows[bar - 119], encoder.context(values[None, bar - 119 : bar + 1])[0])


def test_later_bars_have_no_influence_on_a_context() -> None:
    encoder, values = encoder_of(), table(140)
    changed = values.clone()
    changed[131:] = 1e3
    before, after = encoder.encode_table(values, 119, 140), encoder.encode_table(changed, 119, 140)
    assert torch.equal(before[:12], after[:12])
    assert not torch.equal(before[12], after[12])


@pytest.mark.pitfall("M11")
def test_forecast_can_exceed_one_sigma() -> None:
    encoder = encoder_of().train()
    x, target = table(480).reshape(4, 120, 9), torch.full((4, 24, 9), 3.0)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=3e-3)
    for _ in range(300):
        loss = (encoder(x).latent - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_forecast_is_the_latent_in_units_of_the_feature() -> None:
    encoder, x = encoder_of(), 5 + 2 * table(240).reshape(2, 120, 9)
    with torch.no_grad():
        latent, stats = encoder(x)
        torch.testing.assert_close(encoder.forecast(x), latent * stats.deviation + stats.mean)


def test_every_parameter_takes_a_gradient() -> None:
    encoder = encoder_of().train()
    latent, _ = encoder(table(480).reshape(4, 120, 9))
    fredf_loss(latent, torch.randn(4, 24, 9)).total.backward()
    still = [n for n, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert still == []


def test_default_encoder_has_its_documented_size() -> None:
    encoder = build_encoder(preset("default"), feature_names=NAMES, seed=0)
    assert sum(p.numel() for p in encoder.parameters()) == 77_706


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="feature_names: 3 names, must be 9"):
        build_encoder(preset("tiny"), feature_names=("a", "b", "c"), seed=0)
    with pytest.raises(ValueError, match="patch: 7, must divide bars 120"):
        EncoderConfig(patch=7)
    untrained = build_encoder(preset("tiny"), feature_names=NAMES, seed=0)
    with pytest.raises(ValueError, match="no statistics of its training span"):
        untrained.encode_table(table(140), 119, 140)
    with pytest.raises(ValueError, match="first: 100, must be at least 119"):
        encoder_of().encode_table(table(140), 100, 140)
    with pytest.raises(ValueError, match="preset: 'huge'"):
        preset("huge")


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    a, b = encoder_of(3), encoder_of(3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    other = build_encoder(ModelConfig(encoder=replace(preset("tiny").encoder)), feature_names=NAMES, seed=4)
    assert not torch.equal(other.embed.weight, a.embed.weight)
