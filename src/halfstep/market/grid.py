"""The bars a market's sessions should have, and which of them are missing.

The grid of a timeframe is every slot that overlaps the sessions, from the first bar to the last. Slots are counted
in UTC where the server's clock is a whole number of bars ahead of it, else (H4 and longer) on the server's clock.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halfstep.market.bars import Bars
from halfstep.market.calendar import overlaps_sessions
from halfstep.market.timeframes import DAY, Timeframe
from halfstep.market.times import days_since_1970

CHUNK = 2**21  # slots looked at together, so that two bars a century apart need no more memory
MOST_SPANS = 199
HOLIDAY_HOURS = 20

Seconds = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Missing bars in a row."""

    start: int
    """Server seconds of the first missing bar."""
    bars: int
    """How many are missing."""
    is_holiday: bool
    """At least 20 hours of one server day are missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How far bars fill the sessions.

    Attributes:
        slots: bars that there should be.
        missing: how many of them are not there.
        wrong: how many are there and wrong.
        gaps: runs of missing bars.
        spans: history quality of at most 199 equal spans, percent.
    """

    slots: int
    missing: int
    wrong: int
    gaps: tuple[Gap, ...]
    spans: tuple[float, ...]

    @property
    def quality(self) -> float:
        """History quality: 100 (slots - missing - wrong) / slots, cut to two decimals."""
        return cut_percent(self.slots - self.missing - self.wrong, self.slots)


def cut_percent(part: int, whole: int) -> float:
    """Return 100 part / whole, cut (not rounded) to two decimals; 0 of nothing.

    >>> cut_percent(12_963, 13_032)
    99.47
    """
    return (10_000 * part // whole) / 100 if whole else 0.0


def session_grid(bars: Bars, wrong: Mask, sessions: str) -> Grid:
    """Compare bars with the grid of their sessions.

    Args:
        bars: of any timeframe.
        wrong: bars that do not count, ``(n,)``.
        sessions: ``"fx"``, ``"metals"`` or ``"always"``.
    """
    ruler = _Ruler(bars)
    held, bad = ruler.indices(bars), ruler.indices(bars)[wrong]
    total = sum(int(is_open.sum()) for _, is_open in ruler.open_slots(sessions))
    spans = min(MOST_SPANS, total)
    faults, sizes = np.zeros(spans + 1, np.int64), np.zeros(spans + 1, np.int64)
    missing = wrong_in_grid = before = 0
    runs: list[tuple[int, int]] = []
    for first, is_open in ruler.open_slots(sessions):
        present, failing = np.zeros(len(is_open), bool), np.zeros(len(is_open), bool)
        present[_inside(held, first, len(is_open))] = True
        failing[_inside(bad, first, len(is_open))] = True
        absent, failing = is_open & ~present, is_open & failing
        missing += int(absent.sum())
        wrong_in_grid += int(failing.sum())
        span = (before + np.cumsum(is_open) - 1) * spans // max(total, 1)
        np.add.at(faults, span[absent | failing], 1)
        np.add.at(sizes, span[is_open], 1)
        before += int(is_open.sum())
        _append_runs(runs, absent, first)
    return Grid(
        slots=total,
        missing=missing,
        wrong=wrong_in_grid,
        gaps=tuple(ruler.gap(first, length) for first, length in runs),
        spans=tuple(
            cut_percent(int(n - f), int(n)) for n, f in zip(sizes[:spans], faults[:spans], strict=True)
        ),
    )


class _Ruler:
    """Numbers the slots of a timeframe from the first bar's on."""

    def __init__(self, bars: Bars) -> None:
        self.frame, self.zone = bars.timeframe, bars.zone
        self.seconds = bars.timeframe.seconds
        offsets = np.unique(bars.server_time - bars.time)
        self.is_utc = bool((offsets % self.seconds == 0).all())
        self.phase = 0
        if self.frame is Timeframe.W1:
            self.phase = int(bars.server_time[0] % self.seconds)
        index = self._absolute(bars.time[[0, -1]])
        self.first, self.count = int(index[0]), int(index[1] - index[0]) + 1

    def indices(self, bars: Bars) -> Seconds:
        """Return the slot of each bar."""
        return self._absolute(bars.time) - self.first

    def open_slots(self, sessions: str) -> Iterator[tuple[int, Mask]]:
        """Yield the first slot of each chunk and which of its slots overlap the sessions."""
        for first in range(0, self.count, CHUNK):
            slots = np.arange(first, min(first + CHUNK, self.count))
            yield first, overlaps_sessions(self._utc(slots), self.seconds, sessions)

    def gap(self, first: int, length: int) -> Gap:
        """Return a run of missing slots as a reader wants it."""
        server = self.zone.to_server(self._utc(np.arange(first, min(first + length, first + 100_000))))
        hours = np.unique(server // DAY, return_counts=True)[1].max() * self.seconds / 3600
        return Gap(start=int(server[0]), bars=length, is_holiday=bool(hours >= HOLIDAY_HOURS))

    def _absolute(self, time: Seconds) -> Seconds:
        clock = time if self.is_utc else self.zone.to_server(time)
        if self.frame is Timeframe.MN1:
            return (clock // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        return (clock - self.phase) // self.seconds

    def _utc(self, slots: Seconds) -> Seconds:
        index = slots + self.first
        if self.frame is Timeframe.MN1:
            clock = days_since_1970(1970 + index // 12, index % 12 + 1, np.ones_like(index)) * DAY
        else:
            clock = index * self.seconds + self.phase
        return clock if self.is_utc else self.zone.to_utc_where_it_exists(clock)[0]


def _inside(indices: Seconds, first: int, count: int) -> Seconds:
    """Return the positions in a chunk of the rising indices that fall into it."""
    begin, end = np.searchsorted(indices, [first, first + count])
    return indices[begin:end] - first


def _append_runs(runs: list[tuple[int, int]], absent: Mask, first: int) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2).tolist():
        if runs and runs[-1][0] + runs[-1][1] == first + begin:
            runs[-1] = (runs[-1][0], runs[-1][1] + end - begin)
        else:
            runs.append((first + begin, end - begin))
