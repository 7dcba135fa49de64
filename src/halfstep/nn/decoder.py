"""The second half of the recurrent encoders: what was attended to and the segments, joined and remembered."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.dense import Dense
from halfstep.nn.lstm import LstmCell


class Decoder(nn.Module):
    """y = Dense([z; segments]);   d, c' = LSTM(y).

    Args:
        hidden: size of z, y, d and c'.
        static: numbers of the segments.
    """

    def __init__(self, hidden: int, static: int) -> None:
        super().__init__()
        self.join = Dense(hidden + static, hidden)
        self.lstm = LstmCell(hidden, hidden)

    def forward(
        self,
        z: Float[Tensor, "batch hidden"],
        static: Float[Tensor, "batch static"],
        d: Float[Tensor, "batch hidden"],
        c: Float[Tensor, "batch hidden"],
    ) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
        """Return the next (d, c')."""
        state: tuple[Tensor, Tensor] = self.lstm(self.join(torch.cat([z, static.to(z.dtype)], dim=1)), d, c)
        return state
