"""What every encoder keeps: context units, causality, one encoding per bar, unbounded forecasts, gradients."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from halfstep.nn.build import build_encoder
from halfstep.nn.config import EncoderConfig, ModelConfig
from halfstep.nn.encoder import EncoderOutput
from halfstep.nn.loss import fredf_loss
from halfstep.nn.normalise import InstanceStats
from halfstep.nn.presets import preset
from halfstep.optim.optimizer import AdamMini

from .cases import KINDS, NAMES, WINDOW_KINDS, encoder_of, noise


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("M9")
def test_context_units_are_features(kind: str) -> None:
    columns = {"columns": None} if kind == "stnn" else {}
    encoder = encoder_of(kind, **columns)
    latent = torch.arange(216.0).reshape(1, 24, 9)
    stats = InstanceStats(torch.zeros(1, 1, 9), torch.ones(1, 1, 9))
    context = encoder.to_context(EncoderOutput(latent, stats))
    assert context.shape == (1, 9, 26)
    assert context[0, 0, :24].tolist() == [9.0 * k for k in range(24)]  # one feature over time, not 0 … 23
    encoder = encoder_of(kind, context_stats=False, **columns)
    assert encoder.to_context(EncoderOutput(latent, stats)).shape == (1, 9, 24)


@pytest.mark.parametrize("kind", KINDS)
def test_a_context_holds_the_newest_bars(kind: str) -> None:
    encoder = encoder_of(kind, context_bars=2)
    features = len(encoder.context_scale) - 1
    windows = noise(1, 120, 9)
    windows[0, -1, 3] = 1e6
    mean, deviation = windows.mean(dim=1, keepdim=True), windows.std(dim=1, correction=0, keepdim=True)
    output = EncoderOutput(torch.ones(1, 24, features), InstanceStats(mean, deviation))
    context = encoder.to_context(output, windows)
    assert context.shape == (1, features + 1, 26 + 2 * 9)
    assert not context[0, :-1, 26:].any()
    assert not context[0, -1, :26].any()
    before, newest = context[0, -1, 26:35], context[0, -1, 35:]
    torch.testing.assert_close(before[0], (windows[0, -2, 0] - mean[0, 0, 0]) / deviation[0, 0, 0])
    torch.testing.assert_close(newest[1], (windows[0, -1, 1] - mean[0, 0, 1]) / deviation[0, 0, 1])
    assert newest[3] == 5.0  # of 10.9 deviations
    with pytest.raises(ValueError, match=r"context_bars is 2\. Give the windows"):
        encoder.to_context(output)
    with pytest.raises(ValueError, match="context_bars: 121, must lie between 0 and bars 120"):
        encoder_of(kind, context_bars=121)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bars", [0, 2])
def test_encode_table_equals_windows(kind: str, bars: int) -> None:
    encoder, values = encoder_of(kind, context_bars=bars), noise(400, 9)
    first = encoder.first_row
    table = encoder.encode_table(values, first, 400)
    assert table.shape == (400 - first, (4 if kind == "stnn" else 9) + (bars > 0), 26 + bars * 9)
    windows = values.unfold(0, 120, 1).transpose(1, 2)
    with torch.no_grad():
        if kind == "tpm_stateful":
            state, rows = None, []
            for window in windows:
                output, state = encoder(window[None, None], state)
                rows.append(encoder.to_context(output, window[None, None])[0, 0])
            one_by_one = torch.stack(rows)[first - 119 :]
        else:
            one_by_one = torch.cat([encoder.context(window[None]) for window in windows])
    torch.testing.assert_close(table, one_by_one, rtol=1e-4, atol=1e-6)
    for chunk in (1, 7):
        part = encoder.encode_table(values, 390, 400, chunk=chunk)
        torch.testing.assert_close(part, table[390 - first :], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_later_bars_have_no_influence_on_a_context(kind: str) -> None:
    encoder, values = encoder_of(kind), noise(200, 9)
    changed = values.clone()
    changed[181:] = noise(19, 9, seed=1)
    before, after = (encoder.encode_table(v, 170, 200) for v in (values, changed))
    assert torch.equal(before[:11], after[:11])
    assert not torch.equal(before[11], after[11])


@pytest.mark.parametrize("kind", ["stnn", "attention"])
@pytest.mark.pitfall("N11")
def test_causal_mask_direction(kind: str) -> None:
    encoder, x = encoder_of(kind), noise(2, 120, 9)
    newest, oldest = x.clone(), x.clone()
    newest[:, -1] += 1
    oldest[:, 0, 3] += 1
    tokens = encoder.encode(x)
    assert torch.equal(encoder.encode(newest)[:, :-1], tokens[:, :-1])
    assert not torch.equal(encoder.encode(newest)[:, -1], tokens[:, -1])
    assert bool((encoder.encode(oldest) != tokens).any(-1).all())
    assert not torch.equal(encoder.predict(oldest, None), encoder.predict(x, None))


@pytest.mark.parametrize("kind", WINDOW_KINDS)
@pytest.mark.pitfall("M11")
def test_forecast_can_exceed_one_sigma(kind: str) -> None:
    encoder = encoder_of(kind).train()
    x = noise(4, 120, 9)
    static = encoder.static(x)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=5e-3)
    for _ in range(200):
        loss = (encoder(x, static).latent - 3).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 1e-3:  # not >= 4, as under a tanh
            return
    pytest.fail(f"loss {loss.item()}")


@pytest.mark.parametrize("kind", WINDOW_KINDS)
def test_forecast_is_the_latent_in_units_of_the_feature(kind: str) -> None:
    encoder, x = encoder_of(kind), 5 + 2 * noise(2, 120, 9)
    with torch.no_grad():
        latent, stats = encoder(x)
        expected = latent * stats.deviation[..., encoder.columns] + stats.mean[..., encoder.columns]
        torch.testing.assert_close(encoder.forecast(x), expected)
    assert encoder.norm.standardise(x, stats).std().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("N6", "U12")
def test_every_parameter_moves(kind: str) -> None:
    encoder = encoder_of(kind).train()
    optimizer = AdamMini.for_model(encoder, lr=1e-3)
    before = {name: p.detach().clone() for name, p in encoder.named_parameters()}
    x = noise(4, 120, 9)
    output = encoder(x.reshape(2, 2, 120, 9))[0] if kind == "tpm_stateful" else encoder(x)
    latent = output.latent.reshape(4, 24, -1)
    fredf_loss(latent, noise(*latent.shape, seed=1)).total.backward()
    optimizer.step()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        rows, moved = p.grad.flatten(1) if p.dim() > 1 else p.grad[:, None], (p != before[name])
        moved_rows = (moved.flatten(1) if p.dim() > 1 else moved[:, None]).any(1)
        if name.endswith("k_proj.bias"):  # softmax gives it no gradient but rounding
            continue
        assert bool(moved_rows[rows.any(1)].all()), name
        assert bool(moved.any()), name


@pytest.mark.parametrize("kind", KINDS)
def test_overfits_one_batch(kind: str) -> None:
    encoder = encoder_of(kind).train()
    x, target = noise(32, 120, 9), noise(32, 24, 9, seed=1)
    if kind == "tpm_stateful":  # a window of its own at each of 32 bars, 8 bars in 4 streams
        x = x.reshape(4, 8, 120, 9)
        static = encoder.static(x.flatten(0, 1)).unflatten(0, (4, 8))
    else:
        static = encoder.static(x)
    optimizer = AdamMini.for_model(encoder, lr=1e-2, weight_decay=0.0)
    first = None
    for _ in range(400):
        output = encoder(x, None, static)[0] if kind == "tpm_stateful" else encoder(x, static)
        latent = output.latent.reshape(32, 24, -1)
        loss = fredf_loss(latent, target[..., encoder.columns]).total
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05 * first:
            return
    pytest.fail(f"{kind}: loss fell from {first} to {loss.item()} only")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("N2", "U1")
def test_readers_sizes_train(kind: str) -> None:
    """12 bars of 11 features, 4 bars ahead: sizes that the published kernels refuse."""
    changes: dict[str, object] = {"bars": 12, "features": 11, "horizon": 4}
    changes |= {"plr_series": "all"} if kind.startswith("tpm") else {}
    changes |= {"pool": 5} if kind == "tpm_windowed" else {}
    encoder = encoder_of(kind, **changes).train()
    optimizer = AdamMini.for_model(encoder, lr=3e-3)
    x, losses = noise(8, 12, 11), []
    for _ in range(10):
        output = encoder(x[None])[0] if kind == "tpm_stateful" else encoder(x)
        loss = (output.latent.reshape(8, 4, -1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_wrong_use_is_named() -> None:
    with pytest.raises(ValueError, match="feature_names: 3 names, must be 9"):
        build_encoder(preset("tiny"), feature_names=("a", "b", "c"), seed=0)
    with pytest.raises(TypeError, match="encoder: EncoderConfig, must be TpmWindowedConfig"):
        build_encoder(ModelConfig(encoder=EncoderConfig()), feature_names=NAMES, seed=0)
    encoder = encoder_of("attention")
    with pytest.raises(ValueError, match="first: 100, must be at least 119"):
        encoder.encode_table(noise(140, 9), 100, 140)
    with pytest.raises(ValueError, match="last: 150, must lie between first 120 and the 140 bars"):
        encoder.encode_table(noise(140, 9), 120, 150)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.pitfall("T3")
def test_evaluation_needs_its_statistics(kind: str) -> None:
    encoder = build_encoder(ModelConfig(encoder=replace(KINDS[kind])), feature_names=NAMES, seed=0)
    with pytest.raises(ValueError, match="no statistics of its training span"):
        encoder.encode_table(noise(200, 9), 170, 200)


def test_building_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    a, b = encoder_of("attention", 3), encoder_of("attention", 3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(encoder_of("attention", 4).embed.weight, a.embed.weight)


def test_contexts_are_scaled_and_told_apart() -> None:
    """Over the training span every number has mean signature and deviation 1; a constant one is not blown up."""
    encoder = encoder_of("tpm_windowed")
    rows = 5 + 0.01 * noise(300, 9, 26)
    rows[:, 3, 7] = 2.0
    encoder.fit_context(rows)
    scaled = rows * encoder.context_scale + encoder.context_shift
    signature = scaled.mean(dim=0)
    assert_close(signature.abs(), torch.ones(9, 26), rtol=0, atol=1e-3)
    assert len({tuple(row.tolist()) for row in signature.sign()}) == 9
    deviation = scaled.std(dim=0, correction=0)
    assert deviation[3, 7] == 0
    deviation[3, 7] = 1
    assert_close(deviation, torch.ones(9, 26), rtol=1e-3, atol=0)
    again = encoder_of("tpm_windowed")
    again.fit_context(rows)
    assert again.context_shift.equal(encoder.context_shift)


def test_context_scale_is_part_of_the_context() -> None:
    encoder, values = encoder_of("tpm_windowed"), noise(400, 9)
    raw = encoder.encode_table(values, 200, 400)
    encoder.fit_context(raw)
    assert_close(
        encoder.encode_table(values, 200, 400),
        raw * encoder.context_scale + encoder.context_shift,
        rtol=1e-4,
        atol=1e-4,
    )
