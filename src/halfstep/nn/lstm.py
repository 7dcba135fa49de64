"""One step of a long short-term memory, as functions of its pre-activations."""

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.initial import uniform_
from halfstep.nn.precision import raised


def lstm_step(
    z: Float[Tensor, "batch gates"], c: Float[Tensor, "batch hidden"]
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """Return (h', c') from the pre-activations of the gates i, f, g, o and the cell state.

    c' = sigmoid(z_f) c + sigmoid(z_i) tanh(z_g);   h' = sigmoid(z_o) tanh(c')

    The cell state is kept in at least float32; h' has the type of z.
    """
    i, f, g, o = raised(z).chunk(4, dim=-1)
    c = f.sigmoid() * raised(c) + i.sigmoid() * g.tanh()
    return (o.sigmoid() * c.tanh()).to(z.dtype), c


class LstmCell(nn.Module):
    """z = W_ih x + W_hh h + b, then `lstm_step`. The state is an argument and a result.

    Equals `torch.nn.LSTM` with its second bias 0; that one cannot have attention between its steps. Weights and
    bias begin uniform ±1/sqrt(hidden), the forget gate's bias higher by 1.

    Args:
        input_size, hidden_size: sizes of x and h.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_size, input_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_size, hidden_size))
        self.bias = nn.Parameter(torch.empty(4 * hidden_size))
        for parameter in self.parameters():
            uniform_(parameter, hidden_size)
        with torch.no_grad():
            self.bias[hidden_size : 2 * hidden_size] += 1

    def gates(
        self, x: Float[Tensor, "batch input"], h: Float[Tensor, "batch hidden"]
    ) -> Float[Tensor, "batch gates"]:
        """Return the pre-activations z of the gates i, f, g, o."""
        return F.linear(x, self.weight_ih, self.bias) + F.linear(h, self.weight_hh)

    def forward(
        self,
        x: Float[Tensor, "batch input"],
        h: Float[Tensor, "batch hidden"],
        c: Float[Tensor, "batch hidden"],
    ) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
        """Return (h', c')."""
        return lstm_step(self.gates(x, h), c)
