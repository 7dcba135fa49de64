"""The recurrent encoder against its equations, and its one rule for the state."""

import numpy as np
import pytest
import torch

from halfstep.nn.config import TpmStatefulConfig
from halfstep.nn.tpm_stateful import TpmState, TpmStateful

from .cases import encoder_of, noise, shaken
from .test_tpm_windowed import cscm, head, lstm, normalised, softmax

NAMES = ("gap", "body", "rsi")
CONFIG = TpmStatefulConfig(bars=7, features=3, horizon=4, hidden=5, plr_segments=2, burn_in=3)


def test_forecast_equals_the_equations() -> None:
    encoder = shaken(TpmStateful(CONFIG, NAMES))
    w = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    windows = noise(1, 6, 7, 3, dtype=torch.float64)
    segments = noise(1, 6, 6, seed=1, dtype=torch.float64)
    with torch.no_grad():
        (latent, _), state = encoder(windows, None, segments)
    h = c = d = e = np.zeros(5)
    for bar in range(6):
        x = normalised(w, windows[0, bar].numpy())
        f = np.stack([cscm(w, row, variable) for variable, row in enumerate(x)])
        inner = w["input_attention.weight"] @ np.concatenate([f.ravel(), h, c]) + w["input_attention.bias"]
        attended = np.tanh(inner).reshape(7, 3)
        weights = np.stack([softmax(column) for column in attended.T], axis=1)
        h, c = lstm(w, "lstm", (f * weights).ravel(), h, c)
        q = w["temporal_attention.weight"] @ np.concatenate([h, d, e]) + w["temporal_attention.bias"]
        y = np.concatenate([softmax(np.tanh(q)) * h, segments[0, bar].numpy()])
        y = w["decoder.join.weight"] @ y + w["decoder.join.bias"]
        d, e = lstm(w, "decoder.lstm", y, d, e)
        np.testing.assert_allclose(latent[0, bar].numpy(), head(w, d, x, 4), rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(state, (h, c, d, e), strict=True):
        np.testing.assert_allclose(mine[0].numpy(), theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.pitfall("M13")
def test_stepwise_equals_block() -> None:
    encoder = encoder_of("tpm_stateful")
    windows = noise(1, 100, 120, 9)
    with torch.no_grad():
        block, end = encoder(windows)
        state, rows = None, []
        for bar in range(100):
            output, state = encoder(windows[:, bar : bar + 1], state)
            rows.append(output.latent)
        torch.testing.assert_close(torch.cat(rows, 1), block.latent, rtol=1e-5, atol=1e-6)
        for mine, theirs in zip(state, end, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_streams_do_not_mix() -> None:
    encoder = encoder_of("tpm_stateful")
    windows = noise(3, 4, 120, 9)
    together, _ = encoder(windows)
    alone, _ = encoder(windows[1:2])
    torch.testing.assert_close(together.latent[1:2], alone.latent, rtol=1e-4, atol=1e-5)


@pytest.mark.pitfall("N7")
def test_gradient_reaches_the_first_bar_of_the_block() -> None:
    encoder = encoder_of("tpm_stateful")
    before = noise(1, 10, 120, 9).requires_grad_()
    block = noise(1, 100, 120, 9, seed=1).requires_grad_()
    _, state = encoder(before)
    output, _ = encoder(block, state.detach())
    output.latent[:, -1].square().sum().backward()
    assert block.grad is not None
    assert block.grad[:, 0].abs().max() > 0  # bar 1 of 100
    assert before.grad is None  # the block before: exactly none
    output, _ = encoder(block, state)
    output.latent[:, -1].square().sum().backward()
    assert before.grad is not None  # only where the caller carries the gradient on


def test_the_state_is_an_argument() -> None:
    encoder = encoder_of("tpm_stateful")
    windows = noise(1, 3, 120, 9)
    first, state = encoder(windows)
    again, _ = encoder(windows)
    other, _ = encoder(windows, state)
    assert torch.equal(first.latent, again.latent)
    assert not torch.equal(first.latent, other.latent)
    assert isinstance(state, TpmState)


def test_bars_of_the_burn_in_have_no_context() -> None:
    encoder, values = encoder_of("tpm_stateful"), noise(200, 9)
    assert encoder.first_row == 119 + 30
    with pytest.raises(ValueError, match="first: 148, must be at least 149"):
        encoder.encode_table(values, 148, 200)
    torch.testing.assert_close(
        encoder.encode_table(values, 149, 200)[20:], encoder.encode_table(values, 169, 200), rtol=0, atol=0
    )
