"""The default encoder against its equations in numpy, step by step."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from halfstep.nn.config import TpmWindowedConfig
from halfstep.nn.tpm_windowed import AdditiveAttention, TpmWindowed

from .cases import encoder_of, noise, shaken

NAMES = ("gap", "body", "rsi")
CONFIG = TpmWindowedConfig(
    bars=17, features=3, horizon=4, hidden=5, channels=6, filters=2, pool=5, score=7, decoder_steps=2, plr_segments=3
)  # fmt: skip
Array = np.ndarray


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    shares = np.exp(x - x.max())
    return shares / shares.sum()


def lstm(w: dict[str, Array], prefix: str, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    z = w[f"{prefix}.weight_ih"] @ x + w[f"{prefix}.weight_hh"] @ h + w[f"{prefix}.bias"]
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def scores(w: dict[str, Array], prefix: str, query: Array, keys: list[Array]) -> Array:
    inner = w[f"{prefix}.w.weight"] @ query + w[f"{prefix}.w.bias"]
    return np.array([w[f"{prefix}.v.weight"][0] @ np.tanh(inner + w[f"{prefix}.u.weight"] @ k) for k in keys])


def cscm(w: dict[str, Array], x: Array, variable: int = 0) -> Array:
    """Return the features of one bar; all windows there are whole."""

    def dense(name: str, z: Array) -> Array:
        weight = w[f"cscm.{name}.weight"][variable]
        bias = w[f"cscm.{name}.bias"].reshape(-1, len(weight))[variable]
        return weight @ z + bias

    z = sigmoid(dense("first", x))
    parts = []
    for index in range(4):
        z = sigmoid(dense(f"scales.{index}", z))
        parts.append(z)
    return dense("out", np.concatenate(parts))


def head(w: dict[str, Array], d: Array, x: Array, horizon: int) -> Array:
    """Return the standardised forecast of a head with activations silu, silu, none and a linear skip."""
    for name in ("dense1", "dense2"):
        d = w[f"head.{name}.weight"] @ d + w[f"head.{name}.bias"]
        d = d * sigmoid(d)
    y = (w["head.out.weight"] @ d + w["head.out.bias"]).reshape(horizon, -1)
    y = y + np.einsum("fht,tf->hf", w["head.skip"], x)
    return (y - w["norm.shift"]) / np.exp(w["norm.gain"])


def normalised(w: dict[str, Array], x: Array) -> Array:
    return np.exp(w["norm.gain"]) * (x - x.mean(0)) / x.std(0) + w["norm.shift"]


def by_hand(encoder: TpmWindowed, window: Array, segments: Array) -> Array:
    config = CONFIG
    w = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    x = normalised(w, window)
    m = x + np.stack([cscm(w, bar) for bar in x])
    padded = np.concatenate([np.zeros((2, 3)), m])
    r = np.zeros((17, 3, 2))
    for t, v, f in itertools.product(range(17), range(3), range(2)):
        bias = w["short.conv.bias"].reshape(3, 2)[v, f]
        r[t, v, f] = max(0.0, w["short.conv.weight"][v, f] @ padded[t : t + 3, v] + bias)
    groups = [r[2 + 5 * k : 7 + 5 * k].max(0).reshape(6) for k in range(3)]  # the two oldest bars are dropped
    s = np.stack([w["short.mix.weight"] @ group + w["short.mix.bias"] for group in groups])
    h = c = np.zeros(config.hidden)
    states = []
    for s_t in s:
        alpha = softmax(scores(w, "input_attention", np.concatenate([h, c]), list(s.T)))
        h, c = lstm(w, "lstm", config.channels * alpha * s_t, h, c)
        states.append(h)
    d = h
    for _ in range(config.decoder_steps):
        beta = softmax(scores(w, "temporal_attention", np.concatenate([d, c]), states))
        z = sum(share * state for share, state in zip(beta, states, strict=True))
        y = w["decoder.join.weight"] @ np.concatenate([z, segments]) + w["decoder.join.bias"]
        d, c = lstm(w, "decoder.lstm", y, d, c)
    return head(w, d, x, config.horizon)


def test_forecast_equals_the_equations() -> None:
    encoder = shaken(TpmWindowed(CONFIG, NAMES))
    x = noise(2, 17, 3, dtype=torch.float64)
    segments = noise(2, 9, seed=1, dtype=torch.float64)
    with torch.no_grad():
        latent, stats = encoder(x, segments)
    for sample in range(2):
        expected = by_hand(encoder, x[sample].numpy(), segments[sample].numpy())
        np.testing.assert_allclose(latent[sample].numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(stats.mean[:, 0].numpy(), x.mean(1).numpy(), atol=1e-12)
    np.testing.assert_allclose(stats.deviation[:, 0].numpy(), x.std(1, correction=0).numpy(), atol=1e-12)


def test_tpm_windowed_steps() -> None:
    encoder = shaken(TpmWindowed(CONFIG, NAMES))
    s = noise(2, 3, 6, dtype=torch.float64)
    nn.init.zeros_(encoder.input_attention.v.weight)  # uniform scores
    states, _, _ = encoder.encode_steps(s)
    h = c = torch.zeros(2, 5, dtype=torch.float64)
    for t in range(3):
        h, c = encoder.lstm(s[:, t], h, c)
        torch.testing.assert_close(states[:, t], h, rtol=1e-12, atol=1e-12)
    attention = AdditiveAttention(4, 3, 5)
    weights = attention(noise(2, 4), attention.u(noise(2, 7, 3)))
    assert weights.shape == (2, 7)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_every_bar_of_the_window_counts_and_no_other() -> None:
    encoder = encoder_of("tpm_windowed")
    values = noise(130, 9)
    row = encoder.encode_table(values, 129, 130)
    for bar in range(130):
        changed = values.clone()
        changed[bar, 2] += 1
        is_same = torch.equal(encoder.encode_table(changed, 129, 130), row)
        assert is_same == (bar < 10)


def test_the_price_path_is_the_running_sum_of_its_features() -> None:
    encoder = encoder_of("tpm_windowed")
    x = noise(3, 120, 9)
    path = (x[..., 0] + x[..., 1]).double().cumsum(1)
    path = (path - path.mean(1, keepdim=True)) / path.std(1, keepdim=True, correction=0)
    expected = encoder.segments.plr(path[:, None]).flatten(1).float()
    torch.testing.assert_close(encoder.static(x), expected)
    torch.testing.assert_close(encoder.static(1e-4 * x + 0), expected, rtol=1e-3, atol=1e-4)


def test_unknown_features_have_no_path() -> None:
    with pytest.raises(ValueError, match=r"path_features: gap\+body or close_open, must be among .* a, b, c"):
        TpmWindowed(CONFIG, ("a", "b", "c"))
