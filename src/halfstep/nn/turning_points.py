"""Turning points of series: the bars at which a move of at least a threshold begins and ends.

Bars 0 and n-1 are turning points, and every i between that is a maximum or a minimum of size delta. i is a maximum if
going to older bars a value <= s_i - delta is met before any value > s_i, and going to newer bars one is met before any
value >= s_i: of equal tops the newest counts. Minima are maxima of -s. Maxima and minima then alternate, and the legs
between them are at least delta.

Two functions find them; each is the other's oracle. `turning_points_by_scan` makes one pass over time and needs memory
for one bar; `turning_points_in_parallel` compares all pairs of bars, without a loop, and is what a compiled or exported
graph holds.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def turning_points_by_scan(s: Float[Tensor, "row time"], threshold: float) -> Bool[Tensor, "row time"]:
    """Return which bars are turning points, by one pass from the oldest bar to the newest.

    The pass keeps the highest and the lowest bar since the last turn. A fall of delta from the highest confirms it as
    a turning point if a rise of delta led to it; the first leg of a series has no leg before it.
    """
    rows, time = s.shape
    top, bottom = s[:, 0].clone(), s[:, 0].clone()  # values of the two candidates
    top_at = torch.zeros(rows, dtype=torch.long, device=s.device)
    bottom_at = top_at.clone()
    is_rising = torch.zeros(
        rows, dtype=torch.bool, device=s.device
    )  # a leg up is confirmed: the top may be one
    is_falling = is_rising.clone()
    found = torch.zeros(
        rows, time + 1, dtype=torch.bool, device=s.device
    )  # the last column takes what is none
    for bar in range(1, time):
        value = s[:, bar]
        turns_down = (value <= top - threshold) & ~is_falling
        turns_up = (value >= bottom + threshold) & ~is_rising
        found.scatter_(1, torch.where(turns_down & is_rising, top_at, time)[:, None], True)
        found.scatter_(1, torch.where(turns_up & is_falling, bottom_at, time)[:, None], True)
        is_rising = (is_rising & ~turns_down) | turns_up
        is_falling = (is_falling & ~turns_up) | turns_down
        higher, lower = (value >= top) | turns_up, (value <= bottom) | turns_down
        top, top_at = torch.where(higher, value, top), top_at.masked_fill(higher, bar)
        bottom, bottom_at = torch.where(lower, value, bottom), bottom_at.masked_fill(lower, bar)
    found[:, 0] = True
    found[:, time - 1] = True
    return found[:, :time]


def turning_points_in_parallel(s: Float[Tensor, "row time"], threshold: float) -> Bool[Tensor, "row time"]:
    """Return which bars are turning points, by comparing all pairs of bars; memory grows with time squared."""
    time = s.shape[1]
    bar = torch.arange(time, device=s.device)
    is_end = (bar == 0) | (bar == time - 1)
    return _maxima(s, threshold) | _maxima(-s, threshold) | is_end


def _maxima(s: Float[Tensor, "row time"], threshold: float) -> Bool[Tensor, "row time"]:
    time = s.shape[1]
    here, there = s[:, :, None], s[:, None, :]
    bar = torch.arange(time, dtype=torch.int32, device=s.device)
    is_older, is_newer = bar < bar[:, None], bar > bar[:, None]
    far_below = there <= here - threshold
    # going to older bars, the first met is the one with the greatest index
    older_leg = torch.where(far_below & is_older, bar, -1).amax(2)
    older_stop = torch.where((there > here) & is_older, bar, -1).amax(2)
    newer_leg = torch.where(far_below & is_newer, bar, time).amin(2)
    newer_stop = torch.where((there >= here) & is_newer, bar, time).amin(2)
    return (older_leg > older_stop) & (newer_leg < newer_stop)
