"""What is right and wrong with a file of bars: every fault, the share of bars that are there, and what looks odd.

Errors are what `halfstep.market.read_bars` refuses; warnings are legal and suspicious; infos explain. Nothing is
changed by a check.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError, DataError
from halfstep.market.bars import PRICE_COLUMNS, Bars
from halfstep.market.calendar import ServerZone, iso, overlaps_sessions
from halfstep.market.ends import TAIL_SHARE, first_days, last_bar_share
from halfstep.market.grid import Grid, session_grid
from halfstep.market.indicators import median_before
from halfstep.market.instruments import preset_of, sessions_of
from halfstep.market.raw import RawBars, ReadOptions
from halfstep.market.read import bars_of, read_raw
from halfstep.market.timeframes import DAY, HOUR

REFERENCE_BARS, LEAST_REFERENCE = 500, 50
OUTLIER_FACTOR = 20.0
VOLUME_HIGH, VOLUME_LOW, VOLUME_MONTHS = 2.5, 0.4, 6
ZERO_SPREAD_SHARE = 0.05
NAMED_ZONES = ("server-eu", "server-us", "est", "UTC")
FRIDAY_CLOSE = 5 * DAY + 17 * HOUR  # from Sunday 00:00, New York
SHOWN = 5  # gaps and rows named in a sentence

Level = Literal["info", "warning", "error"]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One rule and what was found."""

    code: str
    level: Level
    count: int
    """Rows, runs or months concerned."""
    text: str
    """One or two sentences."""
    rows: tuple[int, ...] = ()
    """Physical lines (Parquet: rows; bars in memory: bars), from 1, of every row concerned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataReport:
    """What `check_bars` found.

    Attributes:
        file: as it was given.
        format, symbol, timeframe, side, zone, is_zone_assumed, digits, volume_kind: what the bars are of;
            ``timeframe`` is None where the rows tell none.
        rows: of the file, faulty ones included.
        first, last: server time of the first and last usable bar.
        grid: bars against the sessions; None where there is no timeframe.
        findings: errors first.
        notes: assumptions and conversions of the reader.
    """

    file: str
    format: str
    symbol: str
    timeframe: str | None
    side: str
    zone: str
    is_zone_assumed: bool
    digits: int
    volume_kind: str
    rows: int
    first: str
    last: str
    grid: Grid | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def quality(self) -> float | None:
        """History quality in percent, cut to two decimals."""
        return None if self.grid is None else self.grid.quality

    def count(self, level: Level) -> int:
        """Return the number of findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    def exit_status(self, *, strict: bool = False) -> int:
        """Return 1 where there are errors (``strict``: or warnings), else 0."""
        return int(self.count("error") > 0 or (strict and self.count("warning") > 0))

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {**asdict(self), "quality": self.quality}


def check_bars(
    source: str | Path | Bars,
    *,
    price_range: tuple[float, float] | None = None,
    options: ReadOptions | None = None,
) -> DataReport:
    """Return every fault of a file, or what looks odd about bars.

    Args:
        source: a file that `halfstep.market.read_bars` knows, or bars.
        price_range: lowest and highest plausible price.
        options: what the caller knows better than the file; repairs are not made.

    Raises:
        FormatError, ColumnError, TimeError: the file cannot be read as a table of bars at all.
        CoverageError: it does not cover the range that ``options`` ask for.
    """
    options = replace(options or ReadOptions(), repair=())
    if price_range is not None and not 0 < price_range[0] < price_range[1]:
        raise ConfigError(f"price_range: {price_range}, must be two rising prices.")
    if isinstance(source, Bars):
        return _report(
            str(source.source.path or "memory"), source, _rows_of(source), len(source), [], price_range, "bar"
        )
    raw = read_raw(source, options)
    findings = [*_faults(raw), *_disorder(raw)]
    rows = len(raw.lines) + sum(len(fault.lines) for fault in raw.faults if fault.is_ragged)
    usable = _usable(raw)
    if len(usable.lines) == 0:
        return _nothing(usable, findings, rows)
    try:
        bars = bars_of(usable, options)
    except CoverageError:
        raise  # the request is wrong, not the file
    except DataError as error:
        findings.append(
            Finding(code="timeframe", level="error", count=1, text=f"{error.what}.", rows=(error.row or 1,))
        )
        return _nothing(usable, findings, rows)
    kept = np.isin(usable.columns["time"], bars.time, assume_unique=True)
    lines = usable.lines[kept] if kept.sum() == len(bars) else _rows_of(bars)
    return _report(str(source), bars, lines, rows, findings, price_range, _unit(raw))


def _rows_of(bars: Bars) -> Rows:
    return np.arange(1, len(bars) + 1)


def _report(
    file: str,
    bars: Bars,
    lines: Rows,
    rows: int,
    findings: list[Finding],
    price_range: tuple[float, float] | None,
    unit: str,
) -> DataReport:
    sessions = _sessions(bars)
    wrong = np.zeros(len(bars), bool)
    if bars.volume_kind != "none":
        flat = (bars.high == bars.low) & (bars.volume == 0)
        wrong = flat | ((bars.volume <= 1) & (bars.high != bars.low))
    grid = session_grid(bars, wrong, sessions)
    findings = [
        *findings,
        *_gaps(grid),
        *_outside(bars, lines, sessions, unit),
        *_spreads(bars),
        *_jumps(bars, lines, unit),
        *_ends(bars, lines, unit),
        *_volume_levels(bars),
        *_zones(bars, sessions),
        *_values(bars, lines, price_range, unit),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    return DataReport(
        file=file,
        format=bars.source.format,
        symbol=bars.symbol,
        timeframe=bars.timeframe.name,
        side=bars.side,
        zone=bars.zone.name,
        is_zone_assumed=bars.zone.is_assumed,
        digits=bars.digits,
        volume_kind=bars.volume_kind,
        rows=rows,
        first=iso(int(bars.server_time[0])),
        last=iso(int(bars.server_time[-1])),
        grid=grid,
        findings=tuple(sorted(findings, key=lambda finding: order[finding.level])),
        notes=bars.report.notes,
    )


def _sessions(bars: Bars) -> str:
    """Return the trading week of bars; one of an unknown symbol is FX's where no bar lies outside of it."""
    known = sessions_of(bars.symbol)
    if known == "always" and preset_of(bars.symbol) is None:
        inside = overlaps_sessions(bars.time, bars.timeframe.seconds, "fx").all()
        return "fx" if inside else known
    return known


def _nothing(raw: RawBars, findings: list[Finding], rows: int) -> DataReport:
    """Return the report of a file without usable bars or without a timeframe."""
    times = raw.clock.to_server(raw.columns["time"]) if len(raw.lines) else np.zeros(0, np.int64)
    return DataReport(
        file=str(raw.path),
        format=raw.format.name,
        symbol=raw.symbol,
        timeframe=None,
        side="bid",
        zone=raw.clock.name,
        is_zone_assumed=raw.clock.is_assumed,
        digits=raw.digits,
        volume_kind=raw.format.volume_kind,
        rows=rows,
        first=iso(int(times[0])) if len(times) else "--",
        last=iso(int(times[-1])) if len(times) else "--",
        grid=None,
        findings=tuple(findings),
        notes=raw.notes,
    )


def _unit(raw: RawBars) -> str:
    """Return what a number of a finding counts: lines of a text, rows of a table."""
    return "row" if raw.path.suffix.lower() == ".parquet" else "line"


def _faults(raw: RawBars) -> Iterator[Finding]:
    """Turn the faults of cells, prices and quantities into findings."""
    for fault in raw.faults:
        first = fault.at(int(fault.lines.argmin()), raw.path)
        code = {"quantity": "cell", "points": "price"}.get(fault.code, fault.code)
        where = "" if fault.column is None else f"column {fault.column!r}: "
        yield Finding(
            code=code,
            level="error",
            count=len(fault.lines),
            text=f"{where}{first.what} ({_unit(raw)} {first.row}). {first.hint}",
            rows=tuple(sorted(fault.lines.tolist())),
        )


def _disorder(raw: RawBars) -> Iterator[Finding]:
    """Name every row whose time repeats an earlier one, or lies before one."""
    good = ~(raw.is_bad | raw.is_misshapen)
    time, lines = raw.columns["time"][good], raw.lines[good]
    if len(time) < 2 or (np.diff(time) > 0).all():
        return
    repeated = np.ones(len(time), bool)
    repeated[np.unique(time, return_index=True)[1]] = False
    early = ~repeated
    early[1:] &= time[1:] < np.maximum.accumulate(time)[:-1]
    early[0] = False
    for code, bad, words, way in (
        ("duplicate", repeated, "occurs before", "dedupe"),
        ("order", early, "is earlier than a bar before it", "sort"),
    ):
        if bad.any():
            row = int(bad.argmax())
            yield Finding(
                code=code,
                level="error",
                count=int(bad.sum()),
                text=f"{iso(int(time[row]))} UTC {words} ({_unit(raw)} {lines[row]}). Repair: {way}.",
                rows=tuple(lines[bad].tolist()),
            )


def _usable(raw: RawBars) -> RawBars:
    """Return the rows without faults, sorted, the first of each time."""
    rows = np.flatnonzero(~(raw.is_bad | raw.is_misshapen))
    time = raw.columns["time"][rows]
    if not (np.diff(time) > 0).all():
        rows = rows[np.unique(time, return_index=True)[1]]
    none = np.zeros(len(rows), bool)
    columns = (
        raw.columns
        if len(rows) == len(raw.lines) and (np.diff(rows) == 1).all()
        else {name: column[rows] for name, column in raw.columns.items()}
    )
    return replace(raw, columns=columns, lines=raw.lines[rows], faults=(), is_bad=none, is_misshapen=none)


def _gaps(grid: Grid) -> Iterator[Finding]:
    if not grid.gaps:
        return
    shown = sorted(grid.gaps, key=lambda gap: -gap.bars)[:SHOWN]
    named = ", ".join(f"{iso(gap.start)} {gap.bars}{' (holiday)' if gap.is_holiday else ''}" for gap in shown)
    more = f" and {len(grid.gaps) - SHOWN} more" if len(grid.gaps) > SHOWN else ""
    yield Finding(
        code="gap",
        level="info",
        count=len(grid.gaps),
        text=f"Bars missing: {grid.missing:,}, in runs: {len(grid.gaps)}. First bar and length of the longest: {named}{more}.",
    )


def _outside(bars: Bars, lines: Rows, sessions: str, unit: str) -> Iterator[Finding]:
    outside = ~overlaps_sessions(bars.time, bars.timeframe.seconds, sessions)
    if outside.any():
        yield _of_rows(
            "outside",
            outside,
            bars,
            lines,
            unit,
            f"bars outside the {sessions} sessions (Sunday to Friday, New York)",
        )


def _spreads(bars: Bars) -> Iterator[Finding]:
    preset = preset_of(bars.symbol)
    floor = f"the floor of {preset.spread_floor_points} points" if preset else "the instrument's floor"
    if (bars.spread < 0).all():
        yield Finding(
            code="zero_spread",
            level="warning",
            count=len(bars),
            text=f"The file states no spread: costs use {floor}.",
        )
        return
    zero = int((bars.spread == 0).sum())
    if zero > ZERO_SPREAD_SHARE * len(bars):
        yield Finding(
            code="zero_spread",
            level="warning",
            count=zero,
            text=f"{100 * zero / len(bars):.1f} % of the spreads are 0, as on a demo feed: costs use {floor}.",
        )


def _jumps(bars: Bars, lines: Rows, unit: str) -> Iterator[Finding]:
    moves = np.abs(np.diff(np.log(bars.close)))
    usual = median_before(moves, REFERENCE_BARS, least=LEAST_REFERENCE)
    outlier = np.zeros(len(bars), bool)
    outlier[1:] = (moves > OUTLIER_FACTOR * usual) & (usual > 0)
    if outlier.any():
        yield _of_rows(
            "outlier",
            outlier,
            bars,
            lines,
            unit,
            "closes moved more than 20 times the median move of the 500 bars before",
        )
    reach = median_before(bars.high - bars.low, REFERENCE_BARS, least=LEAST_REFERENCE)
    upper = bars.high - np.maximum(bars.open, bars.close)
    lower = np.minimum(bars.open, bars.close) - bars.low
    spike = (np.maximum(upper, lower) > OUTLIER_FACTOR * reach) & (reach > 0)
    if spike.any():
        yield _of_rows(
            "spike",
            spike,
            bars,
            lines,
            unit,
            "wicks are longer than 20 times the median range of the 500 bars before",
        )


def _ends(bars: Bars, lines: Rows, unit: str) -> Iterator[Finding]:
    days = first_days(bars.high, bars.low, bars.volume)
    if len(days):
        head = np.zeros(len(bars), bool)
        head[days] = True
        yield _of_rows(
            "first_days",
            head,
            bars,
            lines,
            unit,
            "of the first bars look like whole days (repair: drop-days)",
        )
    share = last_bar_share(bars.server_time, bars.volume)
    if share is not None and share < TAIL_SHARE:
        yield Finding(
            code="last_open",
            level="warning",
            count=1,
            text=f"The last bar has {100 * share:.0f} % of the usual volume of its hour: it may not be finished (repair: drop-last).",
            rows=(int(lines[-1]),),
        )


def _volume_levels(bars: Bars) -> Iterator[Finding]:
    if bars.volume_kind == "none" or not bars.volume.any():
        return
    month = (bars.server_time // DAY).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    starts = np.flatnonzero(np.diff(month, prepend=month[0] - 1))
    medians = np.array([np.median(part) for part in np.split(bars.volume, starts[1:])])
    found = []
    for k in range(VOLUME_MONTHS, len(medians)):
        usual = float(np.median(medians[k - VOLUME_MONTHS : k]))
        ratio = float(medians[k]) / usual if usual > 0 else float("inf")
        if not VOLUME_LOW <= ratio <= VOLUME_HIGH:
            found.append(f"{np.datetime64(int(month[starts[k]]), 'M')} ({ratio:.2f} times)")
    if found:
        yield Finding(
            code="volume_level",
            level="warning",
            count=len(found),
            text=f"The median volume leaves the level of the 6 months before in {', '.join(found)}: raw volume is no input.",
        )


def _zones(bars: Bars, sessions: str) -> Iterator[Finding]:
    """Compare the named zones by the share of weeks that end Friday 17:00 in New York."""
    if sessions == "always" or bars.timeframe.seconds > HOUR:
        return
    server = bars.server_time
    names = list(dict.fromkeys((bars.zone.name, *NAMED_ZONES)))
    scores = {}
    before = np.flatnonzero(np.diff(bars.time) > DAY)
    for name in names:
        ends = ServerZone(name).to_utc_where_it_exists(server[before])[0] + bars.timeframe.seconds
        new_york = ServerZone("America/New_York").to_server(ends)
        scores[name] = int(((new_york + 4 * DAY) % (7 * DAY) == FRIDAY_CLOSE).sum())
    if not len(before):
        return
    best = max(names, key=lambda name: scores[name])  # of equal ones the first, which is the one in use
    told = ", ".join(
        f"{name} {scores[name]} of {len(before)}" for name in sorted(names, key=lambda n: -scores[n])
    )
    word = "assumed" if bars.zone.is_assumed else "stated"
    is_best = best == bars.zone.name
    yield Finding(
        code="zone",
        level="info" if is_best else "warning",
        count=scores[bars.zone.name],
        text=f"Weeks that end Friday 17:00 New York: {told}. {word.capitalize()}: {bars.zone.name}"
        + ("." if is_best else f", but {best} fits best (--zone {best})."),
    )


def _values(bars: Bars, lines: Rows, price_range: tuple[float, float] | None, unit: str) -> Iterator[Finding]:
    if price_range is not None:
        out = (bars.low < price_range[0]) | (bars.high > price_range[1])
        if out.any():
            yield _of_rows(
                "range", out, bars, lines, unit, f"prices outside {price_range[0]} to {price_range[1]}"
            )
    if bars.off_grid:
        yield Finding(
            code="off_grid",
            level="warning",
            count=bars.off_grid,
            text=f"{bars.off_grid:,} of {len(PRICE_COLUMNS) * len(bars):,} prices are no whole points "
            f"of {bars.digits} digits (--digits, or repair: snap).",
        )
    zero = int((bars.volume == 0).sum())
    if zero:
        yield Finding(
            code="zero_volume",
            level="warning",
            count=zero,
            text="The file states no volume: features of volume are 0."
            if zero == len(bars)
            else f"{zero:,} bars have volume 0.",
        )


def _of_rows(
    code: str, bad: npt.NDArray[np.bool_], bars: Bars, lines: Rows, unit: str, words: str
) -> Finding:
    rows = np.flatnonzero(bad)
    server = bars.zone.to_server(bars.time[rows[:SHOWN]])
    named = ", ".join(
        f"{iso(int(time))} ({unit} {lines[row]})" for time, row in zip(server, rows, strict=False)
    )
    return Finding(
        code=code,
        level="warning",
        count=len(rows),
        text=f"{len(rows):,} {words}: {named}{', ...' if len(rows) > SHOWN else ''}.",
        rows=tuple(lines[rows].tolist()),
    )
