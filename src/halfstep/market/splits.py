"""Spans by time: what is learnt from, what decides, and what is opened once at the end.

Spans are disjoint, in time order, and cut by the server's dates. A sample whose target reaches beyond its span
does not belong to it (purge); its inputs may reach back across a border, because the past is no leak.
"""

import itertools
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.calendar import parse_date

if TYPE_CHECKING:
    from halfstep.market.bars import Bars

LEAST_TEST_DAYS = 14
LEAST_DAYS = 28  # after the warm-up, where no split is given
WARMUP_BARS = 620

Dates = tuple[str, str]
Span = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Half-open pairs of server dates, in time order."""

    train: Dates
    """Days the networks learn from."""
    validation: Dates
    """Days that decide which weights are kept."""
    test: Dates
    """Days that are opened once, at the end."""
    purge_bars: int = 24
    """Bars at a span's end that are no sample's origin: the horizon of the forecast."""
    warmup_bars: int = WARMUP_BARS
    """Bars needed before the first span: 500 for the indicators to settle, 120 for the first window."""

    def __post_init__(self) -> None:
        moments = [parse_date(day) for span in (self.train, self.validation, self.test) for day in span]
        if any(b < a for a, b in itertools.pairwise(moments)) or any(
            moments[k] == moments[k + 1] for k in (0, 2, 4)
        ):
            raise ConfigError(
                f"split: train {self.train}, validation {self.validation}, test {self.test}, "
                "must be disjoint, not empty and in time order."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSpans:
    """The same spans as half-open pairs of bar indices."""

    train: Span
    validation: Span
    test: Span


REFERENCE_SPLIT = Split(
    train=("2023-01-01", "2023-11-01"),
    validation=("2023-11-01", "2024-01-01"),
    test=("2024-01-01", "2024-02-01"),
)
"""The reference experiment: EURUSD H1, 2023 and January 2024."""

DEFAULT_SPLIT = Split(
    train=("2017-02-07", "2017-11-01"),
    validation=("2017-11-01", "2017-12-01"),
    test=("2017-12-01", "2018-01-01"),
)
"""The bars of 2017 that come with the installation."""


def split_spans(bars: "Bars", split: Split) -> SplitSpans:
    """Return the bar indices of a split.

    Raises:
        CoverageError: a span has no or too few bars, the bars end before it does, or too few lie before the first.
    """
    spans = {}
    for name in ("train", "validation", "test"):
        first, last = getattr(split, name)
        spans[name] = (bars.index_at(first), bars.index_at(last))
        if spans[name][0] >= spans[name][1] or not _reaches(bars, last):
            raise CoverageError(
                f"the {name} span {first} to {last} is not inside the bars",
                file=bars.source.path,
                hint=f"{bars.covers()} Choose spans inside with --split.train, --split.validation and --split.test.",
            )
        held, least = spans[name][1] - spans[name][0], 2 * split.purge_bars
        if held < least:
            raise CoverageError(
                f"the {name} span {first} to {last} holds {held} bars, but {least} are needed",
                file=bars.source.path,
                hint=f"Make it longer with --split.{name}. {bars.covers()}",
            )
    if spans["train"][0] < split.warmup_bars:
        raise CoverageError(
            f"{spans['train'][0]} bars before the training span from {split.train[0]}, "
            f"but {split.warmup_bars} are needed for indicators and windows to settle",
            file=bars.source.path,
            hint=f"Begin the training span later with --split.train, or give earlier bars. {bars.covers()}",
        )
    return SplitSpans(**spans)


def choose_split(bars: "Bars") -> Split:
    """Return the split for bars whose owner named none.

    The reference split where the bars cover it, the default split for the bars of the installation; else the
    last calendar month of the bars (with the one before, if it has less than 14 days) is the test, the month before
    it the validation, and at most twelve months before that, beginning after the warm-up, are the training span.
    Bars of less than three months are cut at 70 and 85 % of the days that follow the warm-up.
    """
    for split in (REFERENCE_SPLIT, DEFAULT_SPLIT):
        try:
            split_spans(bars, split)
        except CoverageError:
            continue
        return split
    warmup = WARMUP_BARS
    first, last = (_day(bars, min(bar, len(bars) - 1)) + timedelta(days=1) for bar in (warmup, len(bars) - 1))
    if (last - first).days < LEAST_DAYS:
        raise CoverageError(
            f"{len(bars)} bars, but the warm-up alone takes {warmup}, and {(last - first).days} days follow it",
            file=bars.source.path,
            hint=f"Give a file with at least {LEAST_DAYS} days after the warm-up; some months are better.",
        )
    test = (last - timedelta(days=1)).replace(day=1)
    if (last - test).days < LEAST_TEST_DAYS:  # the bars end early in a month: take the month before, too
        test = (test - timedelta(days=1)).replace(day=1)
    validation = (test - timedelta(days=1)).replace(day=1)
    if (validation - first).days < 28:
        days = (last - first).days
        validation, test = first + timedelta(days=int(0.7 * days)), first + timedelta(days=int(0.85 * days))
    train = max(first, validation - timedelta(days=365))
    return Split(
        train=(train.isoformat(), validation.isoformat()),
        validation=(validation.isoformat(), test.isoformat()),
        test=(test.isoformat(), last.isoformat()),
    )


def training_origins(span: Span, horizon: int) -> range:
    """Return the origins t of samples whose target t + 1 ... t + horizon lies inside the span.

    >>> training_origins((0, 800), 24)[-1]
    775
    """
    return range(span[0], max(span[0], span[1] - horizon))


def _reaches(bars: "Bars", last: str) -> bool:
    """Return whether the bars go on to the end of a span: within three days (a weekend and a holiday)."""
    return int(bars.server_time[-1]) >= parse_date(last) - 3 * 86_400


def _day(bars: "Bars", index: int) -> date:
    return date(1970, 1, 1) + timedelta(seconds=int(bars.server_time[index]) // 86_400 * 86_400)
