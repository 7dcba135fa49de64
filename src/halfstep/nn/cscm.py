"""Cross-scale features of each variable: convolutions of several windows, stacked and concatenated (CSCM)."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.activations import activation as activation_named
from halfstep.nn.convolution import SeriesConv


class Cscm(nn.Module):
    """Multi-window features of series of a fixed length L.

        z_0 = act(SeriesConv window L, L filters)
        z_j = act(SeriesConv window = step = size of z_{j-1}, w_{j+1} filters, the last 1)     j = 1 ... n
        out = SeriesConv(window = sizes of z_1 ... z_n, L filters) of their concatenation, no activation

    For L = 9 the windows are (9, 6, 5, 4): z_1 ... z_4 have 6, 5, 4 and 1 numbers, 367 parameters per variable.

    Args:
        variables: series.
        length: L, numbers of a series.
        windows: w_1 ... w_n, the first L; None: L, 6L/9, 5L/9, 4L/9 rounded, each at least 1.
        activation: name.
        shared: one set of weights for all variables.
    """

    def __init__(
        self,
        variables: int,
        length: int,
        windows: tuple[int, ...] | None = None,
        activation: str = "sigmoid",
        shared: bool = False,
    ) -> None:
        super().__init__()
        if windows is None:
            windows = (length, *(max(1, round(share * length / 9)) for share in (6, 5, 4)))
        if not windows or windows[0] != length:
            raise ValueError(f"windows: {windows}, must begin with the length {length}.")
        self._act = activation_named(activation)
        sizes = (*windows, 1)
        self.first = SeriesConv(variables, length, length, shared=shared)
        self.scales = nn.ModuleList(
            SeriesConv(variables, filters, window, shared=shared) for window, filters in pairwise(sizes)
        )
        self.out = SeriesConv(variables, length, sum(sizes[1:]), shared=shared)

    def forward(self, x: Float[Tensor, "batch variable length"]) -> Float[Tensor, "batch variable length"]:
        """Return the features, as many as the series has numbers."""
        z = self._act(self.first(x)).flatten(2)
        parts = []
        for scale in self.scales:
            z = self._act(scale(z)).flatten(2)
            parts.append(z)
        out: Tensor = self.out(torch.cat(parts, dim=2)).flatten(2)
        return out
