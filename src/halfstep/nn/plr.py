"""Piecewise linear representation: a series as the lines between its turning points (PLR)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from halfstep.nn.precision import raised
from halfstep.nn.turning_points import turning_points_by_scan, turning_points_in_parallel


class Plr(nn.Module):
    """Slope, value at the oldest end and share of length of each segment between turning points; no parameters.

    A segment runs from turning point a to the next, b, both included: m = b - a, N = m + 1, x = 0 ... m,

        slope = (N sum(x s) - sum(x) sum(s)) / (N sum(x^2) - sum(x)^2)       per bar, forward in time
        value = (sum(s) - slope sum(x)) / N                                  of the line at a
        share = m / (time - 1)

    Sums are differences of prefix sums in float64 (float32 after centring, on devices without it). Slots are
    right-aligned: index -1 is the newest segment, unused ones in front are 0. The oldest slot takes everything before
    the newest ``max_segments`` - 1 segments.

    Turning points are found by one pass over time, in a compiled or exported graph by comparing all pairs; both find
    the same.

    Args:
        threshold: delta, least move of an inner leg; see `halfstep.nn.turning_points`.
        max_segments: slots.
        differentiable: whether gradients reach the series through slopes and values. None passes through the choice
            of turning points.
    """

    def __init__(self, threshold: float, max_segments: int, differentiable: bool = False) -> None:
        super().__init__()
        if not threshold > 0:
            raise ValueError(f"threshold: {threshold}, must be above 0.")
        if max_segments < 1:
            raise ValueError(f"max_segments: {max_segments}, must be at least 1.")
        self.threshold, self.max_segments, self.differentiable = threshold, max_segments, differentiable

    def forward(self, x: Float[Tensor, "batch series time"]) -> Float[Tensor, "batch series segment 3"]:
        """Return (slope, value at the oldest end, share of length) of each slot, in the type of x."""
        if x.shape[2] < 2:
            raise ValueError(f"x: {x.shape[2]} bars, must be at least 2.")
        if not self.differentiable:
            x = x.detach()
        s = raised(x).flatten(0, 1)
        find = turning_points_in_parallel if torch.compiler.is_compiling() else turning_points_by_scan
        segments = fit_segments(s, find(s.detach(), self.threshold), self.max_segments)
        return segments.view(*x.shape[:2], self.max_segments, 3).to(x.dtype)


def fit_segments(
    s: Float[Tensor, "row time"], is_turn: Bool[Tensor, "row time"], max_segments: int
) -> Float[Tensor, "row segment 3"]:
    """Return the least-squares line of each segment between turning points, newest last."""
    a, b = _ends(is_turn, max_segments)
    is_used = b > 0
    offset = s.mean(dim=1, keepdim=True)
    wide = (s - offset).to(torch.float32 if s.device.type == "mps" else torch.float64)
    bar = torch.arange(s.shape[1], device=s.device, dtype=wide.dtype)
    sum_s = _between(wide, a, b)
    m = (b - a).to(wide.dtype)
    n = m + 1
    sum_xs = _between(wide * bar, a, b) - a * sum_s  # x counts from a
    sum_x = m * n / 2
    slope = (n * sum_xs - sum_x * sum_s) / (n * n * (n * n - 1) / 12).clamp_min(1)  # N sum(x^2) - sum(x)^2
    value = (sum_s - slope * sum_x) / n + offset
    rows = torch.stack([slope, value, m / (s.shape[1] - 1)], dim=2)
    return (rows * is_used[:, :, None]).to(s.dtype)


def _ends(is_turn: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Return first and last bar of each slot, oldest first; both 0 where a slot is not used."""
    rows, time = is_turn.shape
    bars = torch.arange(time, device=is_turn.device)
    kept = min(slots, time - 1)
    newest_first = torch.where(is_turn, bars, 0).topk(kept + 1, dim=1).values
    b = newest_first[:, :kept]
    a = newest_first[:, 1:].clone()
    a[:, -1] = 0  # the oldest slot reaches back to the first bar
    unused = is_turn.new_zeros(rows, slots - kept, dtype=torch.long)
    return torch.cat([unused, a.flip(1)], dim=1), torch.cat([unused, b.flip(1)], dim=1)


def _between(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return the sum of values from bar a to bar b, both included."""
    prefix = torch.cat([values.new_zeros(values.shape[0], 1), values.cumsum(1)], dim=1)
    return prefix.gather(1, b + 1) - prefix.gather(1, a)
