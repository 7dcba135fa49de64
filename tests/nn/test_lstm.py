"""The recurrent cell against torch's and by hand."""

import pytest
import torch
from torch import nn

from halfstep.nn.lstm import LstmCell, lstm_step

from .cases import noise


@pytest.mark.pitfall("N4")
def test_lstm_cell_by_hand() -> None:
    cell = LstmCell(1, 1)
    nn.init.ones_(cell.weight_ih)
    nn.init.ones_(cell.weight_hh)
    nn.init.zeros_(cell.bias)
    h, c = cell(torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1, 1))
    assert c.item() == pytest.approx(0.556770, abs=1e-6)
    assert h.item() == pytest.approx(0.369606, abs=1e-6)
    assert abs(h.item() - 0.054328) > 0.1  # gates of sigmoid(-z)


@pytest.mark.pitfall("N4")
def test_lstm_equals_torch() -> None:
    cell = LstmCell(5, 3).double()
    torch_cell = nn.LSTM(5, 3, batch_first=True).double()
    with torch.no_grad():
        torch_cell.weight_ih_l0.copy_(cell.weight_ih)
        torch_cell.weight_hh_l0.copy_(cell.weight_hh)
        torch_cell.bias_ih_l0.copy_(cell.bias)
        torch_cell.bias_hh_l0.zero_()
    x = noise(2, 30, 5, dtype=torch.float64)
    h = c = torch.zeros(2, 3, dtype=torch.float64)
    states = []
    for x_t in x.unbind(1):
        h, c = cell(x_t, h, c)
        states.append(h)
    expected, (_, c_expected) = torch_cell(x)
    torch.testing.assert_close(torch.stack(states, 1), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(c, c_expected[0], rtol=1e-12, atol=1e-12)
    weights = noise(2, 30, 3, seed=1, dtype=torch.float64)
    (torch.stack(states, 1) * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, theirs in [
        (cell.weight_ih, torch_cell.weight_ih_l0), (cell.weight_hh, torch_cell.weight_hh_l0),
        (cell.bias, torch_cell.bias_ih_l0),
    ]:  # fmt: skip
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-12, atol=1e-12)


def test_the_forget_gate_begins_open() -> None:
    cell = LstmCell(7, 100)
    i, f, g, o = cell.bias.chunk(4)
    assert f.mean().item() == pytest.approx(1.0, abs=0.05)
    assert max(i.abs().max(), g.abs().max(), o.abs().max(), (f - 1).abs().max()) <= 0.1


def test_the_cell_state_stays_in_float32() -> None:
    h, c = lstm_step(noise(2, 12).bfloat16(), noise(2, 3).bfloat16())
    assert (h.dtype, c.dtype) == (torch.bfloat16, torch.float32)
