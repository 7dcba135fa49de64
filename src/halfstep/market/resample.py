"""Coarser bars from finer ones."""

from dataclasses import replace

import numpy as np

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars, Seconds
from halfstep.market.timeframes import DAY, HOUR, Timeframe
from halfstep.market.times import days_since_1970

SUNDAY_BEFORE_1970 = 4 * DAY  # 1970-01-01 was a Thursday


def resample(bars: Bars, to: Timeframe | str, *, keep_partial: bool = False) -> Bars:
    """Return bars of a coarser timeframe: first open, highest high, lowest low, last close, sum of the volumes.

    The spread of a bar is the smallest stated one among its parts, -1 where none is stated. Buckets stand on the
    server's clock: H4 at 0, 4, ... o'clock, D1 at midnight, W1 on Sunday, MN1 on the 1st. A bucket without a bar
    gives no bar.

    Args:
        bars: of a timeframe of which ``to`` is a whole multiple.
        to: the coarser timeframe.
        keep_partial: keep a last bar whose parts do not reach its end.

    Raises:
        ConfigError: ``to`` is no coarser whole multiple.
        CoverageError: no bucket is filled to its end.
    """
    to = Timeframe.parse(to)
    fine = bars.timeframe
    if to.seconds <= fine.seconds or not _divides(fine, to):
        raise ConfigError(f"timeframe: {fine.name} to {to.name}, must be a coarser whole multiple.")
    start, last_end = _buckets(bars, to)
    first = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
    if not keep_partial and int(bars.close_time[-1]) < last_end:
        bars, first = _without(bars, int(first[-1]), to), first[:-1]
    stated = np.where(bars.spread >= 0, bars.spread, np.iinfo(np.int32).max)
    spread = np.minimum.reduceat(stated, first)
    return replace(
        bars,
        timeframe=to,
        time=start[first],
        open=bars.open[first],
        high=np.maximum.reduceat(bars.high, first),
        low=np.minimum.reduceat(bars.low, first),
        close=bars.close[np.append(first[1:], len(bars)) - 1],
        volume=np.add.reduceat(bars.volume, first),
        spread=np.where(spread == np.iinfo(np.int32).max, -1, spread),
        report=replace(bars.report, notes=(*bars.report.notes, f"made from {fine.name} bars")),
    )


def _divides(fine: Timeframe, coarse: Timeframe) -> bool:
    """Return whether every coarse bucket holds whole fine ones; a month is a whole number of days, not of weeks."""
    unit = DAY if coarse is Timeframe.MN1 else coarse.seconds
    return unit % fine.seconds == 0


def _buckets(bars: Bars, to: Timeframe) -> tuple[Seconds, int]:
    """Return the UTC second at which each bar's bucket opens, and that at which the last bucket ends."""
    server = bars.server_time
    if to.seconds <= HOUR:  # the server's clock is never changed within such a bucket
        start = bars.time - server % to.seconds
        return start, int(start[-1]) + to.seconds
    if to is Timeframe.MN1:
        month = (server // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        begin = days_since_1970(1970 + month // 12, month % 12 + 1, np.ones_like(month)) * DAY
        after = month[-1:] + 1
        end = days_since_1970(1970 + after // 12, after % 12 + 1, np.ones_like(after)) * DAY
    else:
        shift = SUNDAY_BEFORE_1970 if to is Timeframe.W1 else 0
        begin = (server + shift) // to.seconds * to.seconds - shift
        end = begin[-1:] + to.seconds
    firsts = np.unique(begin)
    opens, _ = bars.zone.to_utc_where_it_exists(np.concatenate([firsts, end]))
    return opens[:-1][np.searchsorted(firsts, begin)], int(opens[-1])


def _without(bars: Bars, index: int, to: Timeframe) -> Bars:
    if index == 0:
        raise CoverageError(
            f"the bars do not fill a single {to.name} bar",
            file=bars.source.path,
            hint=f"Pass keep_partial=True. {bars.covers()}",
        )
    return bars.slice(0, index)
