"""Convolution with own filters for each unitary series (one variable over time, or over features)."""

import torch
import torch.nn.functional as F  # noqa: N812  # the name torch's own documentation uses
from jaxtyping import Float
from torch import Tensor, nn

from halfstep.nn.initial import uniform_


class SeriesConv(nn.Module):
    """Filters that slide along each variable.

        y[b, v, p, f] = bias[v, f] + sum_k weight[v, f, k] x[b, v, p step + k]

    with p = 0 ... floor((length - window) / step). The bias is stored flat, ``[variable * filter]``.

    Args:
        variables: series in the input.
        filters: filters of each variable.
        window: numbers under a filter.
        step: numbers between windows; None: the window.
        heads: filters come in so many groups, which an optimizer may give one rate each; None: each filter is its
            own. Changes no result. An optimizer reads ``variables`` and ``heads`` of this module.
        shared: one set of filters for all variables. The attribute ``variables``, the first axis of the weight, is
            then 1.
        bias: whether there is one.
    """

    def __init__(
        self,
        variables: int,
        filters: int,
        window: int,
        step: int | None = None,
        heads: int | None = None,
        shared: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        step = window if step is None else step
        for name, value in (
            ("variables", variables),
            ("filters", filters),
            ("window", window),
            ("step", step),
        ):
            if value < 1:
                raise ValueError(f"{name}: {value}, must be at least 1.")
        if heads is not None and (heads < 1 or filters % heads):
            raise ValueError(f"heads: {heads}, must divide filters {filters}.")
        self.series, self.variables = variables, 1 if shared else variables
        self.filters, self.window, self.step, self.heads = filters, window, step, heads
        self.weight = nn.Parameter(torch.empty(self.variables, filters, window))
        self.bias = nn.Parameter(torch.zeros(self.variables * filters)) if bias else None
        uniform_(self.weight, window)

    def forward(
        self, x: Float[Tensor, "batch variable length"]
    ) -> Float[Tensor, "batch variable position filter"]:
        """Return each filter's answers at each position."""
        if x.shape[1] != self.series:
            raise ValueError(f"x: {x.shape[1]} variables, must be {self.series}.")
        if x.shape[2] < self.window:
            raise ValueError(f"x: length {x.shape[2]}, must be at least the window {self.window}.")
        y = self._sliding(x) if self.step < self.window else self._apart(x)
        return y if self.bias is None else y + self.bias.view(self.variables, 1, self.filters)

    def _apart(self, x: Tensor) -> Tensor:
        """Windows do not overlap: as a table they are a view of x, and the filters one matrix product."""
        windows = x.unfold(2, self.window, self.step)  # (batch, variable, position, window)
        if self.variables == 1:
            return F.linear(windows, self.weight[0])
        return torch.einsum("bvpk,vfk->bvpf", windows, self.weight)

    def _sliding(self, x: Tensor) -> Tensor:
        """Windows overlap: a table of them would copy x window/step times, which a convolution need not."""
        if self.variables == 1:
            each = F.conv1d(x.flatten(0, 1).unsqueeze(1), self.weight[0].unsqueeze(1), stride=self.step)
            y: Tensor = each.unflatten(0, (-1, self.series))
        else:
            flat = F.conv1d(
                x, self.weight.flatten(0, 1).unsqueeze(1), stride=self.step, groups=self.variables
            )
            y = flat.unflatten(1, (self.variables, self.filters))
        return y.transpose(2, 3)
