"""Bars from files: MetaTrader exports, other providers' CSV, Parquet, and the bars of the installation.

What a file does not state is taken from its format's habits and written into ``bars.report.notes``; what
contradicts itself is refused with the line, the column and the way out. Nothing is repaired without being asked.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from halfstep.errors import ColumnError, CoverageError, DataError, FormatError, MissingInputError, TimeError
from halfstep.market.bars import (
    ORDER_HINT,
    PRICE_COLUMNS,
    REPEAT_HINT,
    Bars,
    ReadReport,
    Side,
    Source,
    VolumeKind,
    on_grid,
    order_fault,
)
from halfstep.market.calendar import ServerZone, iso, overlaps_sessions, parse_date
from halfstep.market.ends import leading_days
from halfstep.market.identity import timeframe_of
from halfstep.market.instruments import sessions_of
from halfstep.market.layout import says_ask
from halfstep.market.parquet import parquet_bars
from halfstep.market.raw import RawBars, ReadOptions
from halfstep.market.sniff import read_bytes
from halfstep.market.text import text_bars
from halfstep.market.timeframes import DAY, Timeframe

LISTED_LINES = 3  # of a repair

Columns = dict[str, npt.NDArray[Any]]
Lines = npt.NDArray[np.int64]


def read_bars(
    path: str | Path,
    *,
    symbol: str | None = None,
    timeframe: str | Timeframe | None = None,
    zone: str | None = None,
    side: Side | None = None,
    digits: int | None = None,
    format: str | None = None,  # noqa: A002  # the word of the field
    date_order: Literal["dmy", "mdy"] | None = None,
    price_unit: Literal["price", "points"] = "price",
    stamp: Literal["open", "close"] = "open",
    volume_kind: VolumeKind | None = None,
    fxcm_side: Side = "bid",
    start: str | None = None,
    stop: str | None = None,
    repair: Sequence[str] = (),
) -> Bars:
    """Return the checked bars of a file.

    Args:
        path: MetaTrader 5 or 4 export, CSV of another provider, or Parquet; text may be packed as ``.gz``.
        symbol: default: from the file's header or name.
        timeframe: default: from the file's name, else the most frequent step between bars.
        zone: the clock of the file's times; default: the text's own offset, else the format's habit.
        side: whether prices are bids or asks; default: bid, ask where the file's name holds the word ``ASK``.
        digits: decimals of a price; default: the preset of the symbol, else the fewest that hold 99 % of prices.
        format: a name of `halfstep.market.layout.FORMATS`, for its habits; default: recognised.
        date_order: for dates with slashes that nothing else decides.
        price_unit: ``"points"`` for prices in whole points.
        stamp: ``"close"`` where a bar's time is the end of its period; it is shifted to the open.
        volume_kind: ``"real"`` reads the column of real volume, ``"none"`` no volume at all; default: by format.
        fxcm_side: which side of a table of bids and asks to read.
        start, stop: half-open range of server dates to keep.
        repair: names of `halfstep.market.raw.REPAIRS`, applied in this order and counted: ``drop-bad`` rows whose
            cells or prices fail, ``sort``, ``dedupe`` equal rows, ``widen`` high and low to hold open and close,
            ``snap`` prices to the grid, ``drop-days`` leading bars that are whole days, ``drop-last``.

    Raises:
        MissingInputError, FormatError, ColumnError, CellError, TimeError, PriceError, QuantityError: by what
            is wrong; each names the file, the line (for Parquet the row) and the way out.
        CoverageError: ``start`` or ``stop`` lies outside the file.
        ConfigError: an argument is out of range.
    """
    options = ReadOptions(
        symbol=symbol, timeframe=timeframe, zone=zone, side=side, digits=digits, format=format,
        date_order=date_order, price_unit=price_unit, stamp=stamp, volume_kind=volume_kind, fxcm_side=fxcm_side,
        start=start, stop=stop, repair=repair,
    )  # fmt: skip
    return bars_of(read_raw(path, options), options)


def read_raw(path: str | Path, options: ReadOptions) -> RawBars:
    """Return the rows of a file with all their faults."""
    path = Path(path)
    return raw_of(path, read_bytes(path), options)


def raw_of(path: Path, data: bytes, options: ReadOptions) -> RawBars:
    """Return the rows of a file whose bytes are at hand."""
    if data[:4] == b"PAR1":
        return parquet_bars(path, data, options)
    return text_bars(path, data, options)


def bars_of(raw: RawBars, options: ReadOptions) -> Bars:
    """Return checked bars, after the repairs that were asked for; raises the first fault that remains."""
    repair = options.repair
    whole_file = next((fault for fault in raw.faults if fault.code == "points"), None)
    error = (
        whole_file.at(0, raw.path)
        if whole_file
        else None
        if "drop-bad" in repair
        else raw.first_fault(but="ohlc" if "widen" in repair else None)
    )
    if error is not None:
        raise error
    rows = _Rows(raw)
    if "drop-bad" in repair:
        ragged = sum(len(fault.lines) for fault in raw.faults if fault.is_ragged)
        bad = raw.is_bad | (raw.is_misshapen & ("widen" not in repair))
        rows.drop(bad, "drop-bad", more=ragged)
    if len(rows.lines) == 0:
        raise FormatError(
            "no row of this file is a usable bar",
            file=raw.path,
            hint="Look at it with: halfstep data check FILE",
        )
    if "sort" in repair:
        rows.sort()
    if "dedupe" in repair:
        rows.drop(rows.repeats(), "dedupe")
    rows.refuse_disorder()
    if "widen" in repair:
        rows.widen()
    frame = _timeframe(raw, rows, options)
    notes = list(raw.notes)
    if options.stamp == "close":
        rows.columns["time"] = opens_of_closes(rows.columns["time"], frame, raw.clock)
        notes.append(f"times are those of the close; shifted to the open, {frame.name} earlier")
    if "snap" in repair:
        rows.snap(raw.digits)
    if "drop-days" in repair:
        head = leading_days(rows.columns["high"], rows.columns["low"], rows.columns["volume"])
        rows.drop(np.arange(len(rows.lines)) < head, "drop-days")
    idle = flat_outside_sessions(rows.columns, frame, raw.symbol)
    if idle.any() and not idle.all():
        rows.drop(idle, None)
        notes.append(f"{int(idle.sum())} flat bars of volume 0 outside the sessions were dropped")
    if "drop-last" in repair and len(rows.lines) > 1:
        rows.drop(np.arange(len(rows.lines)) == len(rows.lines) - 1, "drop-last")
    return _within(_built(raw, rows, frame, options, notes), options)


def flat_outside_sessions(columns: Columns, frame: Timeframe, symbol: str) -> npt.NDArray[np.bool_]:
    """Return which bars are flat, of volume 0, and outside the sessions of their symbol."""
    flat = (columns["high"] == columns["low"]) & (columns["volume"] == 0)
    if flat.any():
        rows = np.flatnonzero(flat)
        flat[rows] = ~overlaps_sessions(columns["time"][rows], frame.seconds, sessions_of(symbol))
    return np.asarray(flat)


def opens_of_closes(time: Lines, frame: Timeframe, zone: ServerZone) -> Lines:
    """Return when bars open whose stamps are their closes; a month is that of the calendar."""
    server = zone.to_server(time)
    if frame is Timeframe.MN1:
        month = (server // DAY).astype("datetime64[D]").astype("datetime64[M]") - 1
        opens = month.astype("datetime64[D]").astype(np.int64) * DAY + server % DAY
    elif frame.seconds >= DAY:
        opens = server - frame.seconds
    else:
        return time - frame.seconds
    return zone.to_utc(opens)


def default_bars() -> Bars:
    """Return the real EURUSD hours of 2017 that come with the installation: 6,225 bars, ask prices, UTC.

    They are a data file of the package gym-anytrading (MIT licence); nothing of that package is imported.
    """
    spec = importlib.util.find_spec("gym_anytrading")
    if spec is None or not spec.submodule_search_locations:
        raise MissingInputError(
            "the default bars are not installed: the package gym-anytrading is absent. "
            "Install it with: pip install --no-deps gym-anytrading==2.0.0, or give your own bars with --bars FILE."
        )
    path = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "data" / "FOREX_EURUSD_1H_ASK.csv"
    return read_bars(path, symbol="EURUSD", timeframe="H1", zone="UTC", side="ask")


class _Rows:
    """Columns and lines under repair, with the record of what was changed."""

    def __init__(self, raw: RawBars) -> None:
        self.columns, self.lines = dict(raw.columns), raw.lines
        self.log: list[str] = []
        self._raw = raw

    def drop(self, rows: npt.NDArray[np.bool_], name: str | None, *, more: int = 0) -> None:
        """Remove rows; a repair (``name``) is recorded, ``more`` counts lines that never became rows."""
        if name is not None:
            self._record(name, rows, more)
        if rows.any():
            self.columns = {key: column[~rows] for key, column in self.columns.items()}
            self.lines = self.lines[~rows]

    def sort(self) -> None:
        order = np.argsort(self.columns["time"], kind="stable")
        moved = order != np.arange(len(order))
        self.columns = {key: column[order] for key, column in self.columns.items()}
        self.lines = self.lines[order]
        self._record("sort", moved)

    def repeats(self) -> npt.NDArray[np.bool_]:
        """Return which rows equal the row before them in every column."""
        same = np.ones(len(self.lines), bool)
        same[:1] = False
        for column in self.columns.values():
            same[1:] &= column[1:] == column[:-1]
        return same

    def refuse_disorder(self) -> None:
        """Raise where a time is not later than the one before, naming both lines."""
        time = self.columns["time"]
        wrong = time[1:] <= time[:-1]
        if wrong.any():
            row = int(wrong.argmax()) + 1
            raise TimeError(
                f"{order_fault(time[row - 1], time[row])} in line {self.lines[row - 1]}",
                file=self._raw.path,
                row=int(self.lines[row]),
                column=self._raw.spelled.get("clock", self._raw.spelled.get("date", "time")),
                value=iso(int(time[row])),
                hint=REPEAT_HINT if time[row] == time[row - 1] else ORDER_HINT,
            )

    def widen(self) -> None:
        o, h, low, c = (self.columns[name] for name in PRICE_COLUMNS)
        high, lowest = np.maximum(h, np.maximum(o, c)), np.minimum(low, np.minimum(o, c))
        self._record("widen", (high != h) | (lowest != low))
        self.columns |= {"high": high, "low": lowest}

    def snap(self, digits: int) -> None:
        moved = np.zeros(len(self.lines), bool)
        for name in PRICE_COLUMNS:
            whole, _ = on_grid(self.columns[name], digits)
            snapped = np.maximum(whole, 1) / 10.0**digits
            moved |= snapped != self.columns[name]
            self.columns[name] = snapped
        self._record("snap", moved)

    def _record(self, name: str, rows: npt.NDArray[np.bool_], more: int = 0) -> None:
        count = int(rows.sum()) + more
        first = ", ".join(str(line) for line in np.sort(self.lines[rows])[:LISTED_LINES])
        where = (
            f" (line{'s' if rows.sum() > 1 else ''} {first}{', ...' if rows.sum() > LISTED_LINES else ''})"
        )
        self.log.append(f"{name}: {count} row{'' if count == 1 else 's'}{where if first else ''}")


def _timeframe(raw: RawBars, rows: _Rows, options: ReadOptions) -> Timeframe:
    known = raw.facts.timeframe if raw.facts is not None else None
    server = raw.clock.to_server(rows.columns["time"])
    frame = timeframe_of(raw.path, server, options.timeframe or known, rows.lines)
    if not raw.has_clock and frame.seconds < DAY:
        raise ColumnError(
            f"no column says the time of the day, which {frame.name} bars need",
            file=raw.path,
            row=int(rows.lines[0]),
            column=raw.spelled.get("date"),
            hint="Export the bars again with their times; only D1, W1 and MN1 do without.",
        )
    return frame


def _built(raw: RawBars, rows: _Rows, frame: Timeframe, options: ReadOptions, notes: list[str]) -> Bars:
    facts = raw.facts
    columns = {name: _owned(rows.columns[name], np.float64) for name in (*PRICE_COLUMNS, "volume")}
    columns["time"] = _owned(rows.columns["time"], np.int64)
    columns["spread"] = _owned(rows.columns["spread"], np.int32)
    if "bid_open" in raw.spelled or "ask_open" in raw.spelled:
        usual_side = options.fxcm_side
    else:
        usual_side = "ask" if says_ask(raw.path) and not raw.format.is_metatrader else "bid"
    kind = options.volume_kind or (facts.volume_kind if facts else raw.format.volume_kind)
    if facts is None and not columns["volume"].any():
        kind = "none"
    try:
        return Bars(
            **columns,
            symbol=raw.symbol,
            timeframe=frame,
            digits=raw.digits,
            side=options.side or (facts.side if facts else usual_side),
            zone=raw.clock,
            volume_kind=kind,
            source=Source(format=raw.format.name, path=raw.path, sha256=raw.sha256),
            report=ReadReport(notes=tuple(notes), repairs=(*(facts.repairs if facts else ()), *rows.log)),
        )
    except DataError as error:
        row = None if error.row is None else int(rows.lines[error.row - 1])
        raise type(error)(
            error.what, file=raw.path, row=row, column=error.column, value=error.value, hint=error.hint
        ) from None


def _owned(column: npt.NDArray[Any], kind: type) -> npt.NDArray[Any]:
    """Return a column that `Bars` takes over without another copy."""
    owned: npt.NDArray[Any] = np.ascontiguousarray(column, kind)
    if owned.base is not None:
        owned = owned.copy()
    owned.flags.writeable = False
    return owned


def _within(bars: Bars, options: ReadOptions) -> Bars:
    """Return the bars of the asked range of server dates, which the file must cover up to a long weekend."""
    if options.start is None and options.stop is None:
        return bars
    server = bars.server_time
    first = int(server[0]) if options.start is None else parse_date(options.start)
    last = int(server[-1]) + 1 if options.stop is None else parse_date(options.stop)
    if first < int(server[0]) - 3 * DAY or last > int(server[-1]) + bars.timeframe.seconds + 3 * DAY:
        raise CoverageError(
            f"{options.start or 'the start'} to {options.stop or 'the end'} is not inside the file",
            file=bars.source.path,
            hint=f"{bars.covers()} Choose start= and stop= inside (command line: --start, --stop).",
        )
    begin, end = (int(k) for k in np.searchsorted(server, [first, last]))
    if begin >= end:
        raise CoverageError(
            f"no bar between {options.start or 'the start'} and {options.stop or 'the end'}",
            file=bars.source.path,
            hint=bars.covers(),
        )
    return bars.slice(begin, end)
