"""Spans by time: what is learnt from, what decides, and what is opened once at the end.

Spans are disjoint, in time order, and cut by the server's dates. A sample whose target reaches beyond its span
does not belong to it (purge); its inputs may reach back across a border, because the past is no leak.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.calendar import parse_date
from halfstep.market.timeframes import DAY

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
    embargo_bars: int = 24
    """Bars after a validation or test block before training may go on; see `training_spans`."""
    warmup_bars: int = WARMUP_BARS
    """Bars needed before the first span: 500 for the indicators to settle, 120 for the first window."""

    def __post_init__(self) -> None:
        moments = [parse_date(day) for span in (self.train, self.validation, self.test) for day in span]
        if any(b < a for a, b in itertools.pairwise(moments)) or any(
            moments[k] == moments[k + 1] for k in (0, 2, 4)
        ):
            raise CoverageError(
                f"split: train {self.train}, validation {self.validation}, test {self.test}, "
                "must be disjoint, not empty and in time order",
                hint=f"A span's last {self.purge_bars} bars are no sample's origin (purge), so spans may touch, "
                "but not overlap.",
            )
        for name in ("purge_bars", "embargo_bars", "warmup_bars"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)}, must be 0 or more.")

    @property
    def train_all(self) -> Dates:
        """Training and validation days together, for a final fit with a fixed number of steps."""
        return self.train[0], self.validation[1]


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
        CoverageError: a span has no or too few bars, the bars begin after it or end before it does, or too few lie
            before the first.
    """
    spans = {}
    for name in ("train", "validation", "test"):
        first, last = getattr(split, name)
        spans[name] = (bars.index_at(first), bars.index_at(last))
        if spans[name][0] >= spans[name][1] or not (_begins(bars, first) and _reaches(bars, last)):
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


def training_spans(span: Span, held_out: Sequence[Span], *, embargo_bars: int) -> list[Span]:
    """Return the parts of a training span outside held-out blocks; training goes on ``embargo_bars`` after each.

    Samples belong to a part as they do to any span: `training_origins` of each part keeps targets out of the blocks.

    >>> training_spans((0, 1000), [(800, 900)], embargo_bars=24)
    [(0, 800), (924, 1000)]
    """
    spans, begin = [], span[0]
    for first, stop in sorted(held_out):
        spans.append((begin, min(first, span[1])))
        begin = max(begin, stop + embargo_bars)
    spans.append((begin, span[1]))
    return [(first, stop) for first, stop in spans if first < stop]


@dataclass(frozen=True, kw_only=True, slots=True)
class WalkForward:
    """Splits whose test months follow one another.

    Attributes:
        splits: oldest first.
        skipped: months without a bar, such as ``2023-05``.
    """

    splits: tuple[Split, ...]
    skipped: tuple[str, ...]


def walk_forward(
    bars: "Bars",
    *,
    train_months: int = 12,
    validation_months: int = 2,
    test_months: int = 1,
    step_months: int = 1,
    anchored: bool = False,
    warmup_bars: int = WARMUP_BARS,
) -> WalkForward:
    """Return month-aligned splits in which each test month is tested once.

    Months are those of the server's clock; months without a bar are skipped, and a last month that the bars do not
    fill is not used. The first training month begins after the warm-up.

    Args:
        bars: covering at least one split.
        train_months, validation_months, test_months: lengths, which follow one another.
        step_months: from one split to the next, at least ``test_months``.
        anchored: training always begins with the first month.
        warmup_bars: needed before the first training month.

    Raises:
        ConfigError: a length below 1, or a step that would test a month twice.
        CoverageError: too little history for one split.
    """
    for name, value in (
        ("train_months", train_months), ("validation_months", validation_months), ("test_months", test_months),
        ("step_months", step_months),
    ):  # fmt: skip
        if value < 1:
            raise ConfigError(f"{name}: {value}, must be at least 1.")
    if step_months < test_months:
        raise ConfigError(f"step_months: {step_months}, must be at least test_months ({test_months}).")
    months, skipped = _months(bars, warmup_bars)
    needed = train_months + validation_months + test_months
    if len(months) < needed:
        raise CoverageError(
            f"{len(months)} whole months after the warm-up of {warmup_bars} bars, but {needed} are needed",
            file=bars.source.path,
            hint=f"Give a longer file, or ask for shorter spans. {bars.covers()}",
        )
    splits = []
    for first in range(0, len(months) - needed + 1, step_months):
        a, b, c = first + train_months, first + train_months + validation_months, first + needed
        splits.append(
            Split(
                train=(str(months[0 if anchored else first]) + "-01", f"{months[a]}-01"),
                validation=(f"{months[a]}-01", f"{months[b]}-01"),
                test=(f"{months[b]}-01", f"{months[c - 1] + 1}-01"),
                warmup_bars=warmup_bars,
            )
        )
    return WalkForward(splits=tuple(splits), skipped=skipped)


def _months(bars: "Bars", warmup_bars: int) -> tuple[list[np.datetime64], tuple[str, ...]]:
    """Return the whole months with bars that begin after the warm-up, and the months between without any."""
    server = bars.server_time
    month = (server // DAY).astype("datetime64[D]").astype("datetime64[M]")
    present, first = np.unique(month, return_index=True)
    whole = np.ones(len(present), bool)
    whole[0] &= _begins(bars, f"{present[0]}-01")
    whole[-1] &= _reaches(bars, f"{present[-1] + 1}-01")
    present = present[whole & (first >= warmup_bars)]
    between = np.arange(present[0], present[-1] + 1) if len(present) else present
    skipped = np.setdiff1d(between, present)
    return list(present), tuple(str(one) for one in skipped)


def _begins(bars: "Bars", first: str) -> bool:
    """Return whether the bars begin with a span or before it: within three days, as in `_reaches`."""
    return int(bars.server_time[0]) <= parse_date(first) + 3 * DAY


def _reaches(bars: "Bars", last: str) -> bool:
    """Return whether the bars go on to the end of a span: within three days (a weekend and a holiday)."""
    return int(bars.server_time[-1]) >= parse_date(last) - 3 * DAY


def _day(bars: "Bars", index: int) -> date:
    return date(1970, 1, 1) + timedelta(seconds=int(bars.server_time[index]) // DAY * DAY)
