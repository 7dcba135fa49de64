"""A file as rows of numbers with every fault that its cells have, before anything is refused or repaired.

A *fault* is a rule and the rows that break it. `halfstep.market.read` raises the first one or repairs what it was
asked to; `halfstep.market.check` lists them all.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from halfstep.errors import CellError, ColumnError, ConfigError, DataError, PriceError, QuantityError, TimeError
from halfstep.market import _cells
from halfstep.market.bars import (
    DROP_HINT,
    PRICE_COLUMNS,
    SHAPE_HINT,
    Side,
    VolumeKind,
    is_misshapen,
    is_price,
    is_volume,
    on_grid,
    shape_fault,
)
from halfstep.market.calendar import ZONE_HINT, ServerZone, iso, parse_date
from halfstep.market.identity import UNKNOWN_SYMBOL, digits_of, preset_of, symbol_of
from halfstep.market.layout import Format, Layout, find_layout, says_ask
from halfstep.market.sniff import NUMBER, Table, listed, read_table, shortened
from halfstep.market.timeframes import Timeframe
from halfstep.market.times import parse_times

REPAIRS = ("drop-bad", "sort", "dedupe", "widen", "snap", "drop-days", "drop-last")
SPECIAL_NUMBERS = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
MULTIPLES = {"K": 1e3, "M": 1e6, "B": 1e9}
LARGEST_SPREAD = 2**31 - 1
INTEGER_POINTS_ABOVE = 20_000.0

Mask = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOptions:
    """What a caller knows better than the file; see `halfstep.market.read_bars`."""

    symbol: str | None = None
    timeframe: Timeframe | str | None = None
    zone: str | None = None
    side: Side | None = None
    digits: int | None = None
    format: str | None = None
    date_order: Literal["dmy", "mdy"] | None = None
    price_unit: Literal["price", "points"] = "price"
    stamp: Literal["open", "close"] = "open"
    volume_kind: VolumeKind | None = None
    fxcm_side: Side = "bid"
    start: str | None = None
    stop: str | None = None
    repair: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, allowed in (
            ("side", get_args(Side)),
            ("date_order", ("dmy", "mdy")),
            ("price_unit", ("price", "points")),
            ("stamp", ("open", "close")),
            ("volume_kind", get_args(VolumeKind)),
            ("fxcm_side", get_args(Side)),
        ):
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(f"{name}: {value!r}, must be one of {', '.join(allowed)}.")
        if self.digits is not None and not 0 <= self.digits <= 8:
            raise ConfigError(f"digits: {self.digits}, must be 0 to 8.")
        if isinstance(self.repair, str):
            raise ConfigError(f"repair: {self.repair!r}, must be a tuple such as ({self.repair!r},).")
        unknown = [name for name in self.repair if name not in REPAIRS]
        if unknown:
            raise ConfigError(f"repair: {unknown[0]!r}, must be one of {', '.join(REPAIRS)}.")
        if self.timeframe is not None:
            Timeframe.parse(self.timeframe)
        if self.zone is not None:
            ServerZone(self.zone)
        for date in (self.start, self.stop):
            if date is not None:
                parse_date(date)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Fault:
    """Rows of a file that break one rule.

    Attributes:
        code: ``cell``, ``time``, ``price``, ``points`` (the whole file), ``ohlc`` or ``quantity``.
        error: class that `halfstep.market.read_bars` raises.
        column: as the file spells it.
        lines: physical lines (Parquet: rows), from 1, in the order of the file.
        describe: from the position in ``lines`` to the message and the value.
        hint: the way out.
    """

    code: str
    error: type[DataError]
    column: str | None
    lines: Seconds
    describe: Callable[[int], tuple[str, object]]
    hint: str
    is_ragged: bool = False
    """The lines have another number of cells than the table and are no rows of it."""

    def at(self, k: int, path: Path) -> DataError:
        """Return the error of the k-th bad row."""
        what, value = self.describe(k)
        return self.error(
            what, file=path, row=int(self.lines[k]), column=self.column, value=value, hint=self.hint
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a file that `halfstep.market.write_bars` wrote says of itself."""

    symbol: str
    timeframe: Timeframe
    digits: int
    side: Side
    zone: ServerZone
    volume_kind: VolumeKind
    format: Format
    notes: tuple[str, ...]
    repairs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RawBars:
    """Rows of a file.

    Attributes:
        path: the file.
        format: its habits.
        sha256: of its bytes.
        columns: ``time`` (UTC seconds, int64), prices, ``volume``, ``spread`` (float64); NaN where a cell is bad.
        spelled: name of each column as the file spells it.
        lines: physical line of each row.
        is_bad: rows with a fault of a cell, a price or a quantity.
        is_misshapen: rows whose four prices contradict each other and that have no other fault.
        faults: of rows on their own; order and repetition are judged later.
        clock: the zone of the file's times.
        is_clock_stated: the text itself says each offset from UTC.
        has_clock: the text says times of the day.
        notes: assumptions and conversions so far.
        symbol: given, named by the file or its name, or ``UNKNOWN``.
        digits: given, of the preset, or the fewest that hold the prices.
        facts: of a file of our own.
    """

    path: Path
    format: Format
    sha256: str
    columns: dict[str, npt.NDArray[Any]]
    spelled: dict[str, str]
    lines: Seconds
    is_bad: Mask
    is_misshapen: Mask
    faults: tuple[Fault, ...]
    clock: ServerZone
    is_clock_stated: bool
    has_clock: bool
    notes: tuple[str, ...]
    symbol: str
    digits: int
    facts: Facts | None = None

    def first_fault(self, *, but: str | None = None) -> DataError | None:
        """Return the error of the fault that stands first in the file, leaving out those with code ``but``."""
        faults = [fault for fault in self.faults if fault.code != but]
        if not faults:
            return None
        first = min(faults, key=lambda fault: int(fault.lines.min()))
        return first.at(int(first.lines.argmin()), self.path)


def text_bars(path: Path, data: bytes, options: ReadOptions) -> RawBars:
    """Return the rows of a text file.

    Raises:
        FormatError, ColumnError, TimeError: the file as a whole cannot be read.
    """
    table = read_table(path, data)
    layout = find_layout(table, path, format_name=options.format, fxcm_side=options.fxcm_side)
    reader = _TextReader(table, layout, path)
    notes = [f"read as {layout.format.name}"]
    time, clock, stated, has_clock = _times(reader, options, notes)
    columns: dict[str, Values] = {name: reader.numbers(name) for name in PRICE_COLUMNS}
    columns["volume"] = reader.volume(options.volume_kind)
    columns["spread"] = reader.spread()
    symbol = options.symbol or symbol_of(path, table.ticker)
    digits = prices_in_units(columns, symbol, options, path, notes, reader.faults, reader.spelled, table.lines)
    if reader.spread_is_in_price:
        with np.errstate(over="ignore"):  # of prices that are none, which are faults already
            columns["spread"] = np.rint(columns["spread"] * 10.0**digits)
        columns["spread"][columns["spread"] < 0] -= 1  # an ask below the bid is an error, not "unknown"
    if table.encoding not in ("ascii", "utf-8"):
        notes.append(f"encoding {table.encoding}")
    if reader.decimal_comma:
        notes.append("decimal commas were read as decimal points")
    notes += layout.notes
    return finish(
        path=path,
        format=layout.format,
        sha256=table.sha256,
        columns={"time": time, **columns},
        spelled=reader.spelled,
        lines=table.lines,
        faults=reader.faults,
        is_bad=reader.is_bad,
        clock=clock,
        is_clock_stated=stated,
        has_clock=has_clock,
        notes=notes,
        symbol=symbol,
        digits=digits,
    )


def prices_in_units(
    columns: dict[str, Values],
    symbol: str,
    options: ReadOptions,
    path: Path,
    notes: list[str],
    faults: list[Fault],
    spelled: dict[str, str],
    lines: Seconds,
) -> int:
    """Return the digits; turn points into prices where that was said, and name prices that look like points."""
    if symbol == UNKNOWN_SYMBOL:
        notes.append("neither the file nor its name says the symbol; name it with symbol= (command line: --symbol)")
    preset = preset_of(symbol)
    if options.price_unit == "points":
        digits = options.digits if options.digits is not None else preset.digits if preset else None
        if digits is None:
            raise ConfigError(
                f"digits: not given, but {symbol} is no known symbol. Prices in points need digits= (--digits)."
            )
        for name in PRICE_COLUMNS:
            whole, off = on_grid(columns[name], 0)
            columns[name] = np.where(off, columns[name], whole) / 10.0**digits
        notes.append(f"whole points were read as prices with {digits} digits")
        return digits
    prices = np.concatenate([columns[name] for name in PRICE_COLUMNS])
    digits = options.digits if options.digits is not None else digits_of(symbol, prices)
    close = columns["close"][np.isfinite(columns["close"])]
    if digits >= 3 and len(close) and np.median(close) > INTEGER_POINTS_ABOVE:
        middle = float(np.median(close))
        faults.append(
            Fault(
                code="points",
                error=PriceError,
                column=spelled.get("close", "close"),
                lines=lines[:1],
                describe=lambda _: (
                    f"prices look like whole points: the median close is {middle:,.0f}, and {symbol} has {digits} digits",
                    middle,
                ),
                hint='Pass price_unit="points" (command line: --price-unit points).',
            )
        )
    return digits


def finish(
    *,
    columns: dict[str, npt.NDArray[Any]],
    spelled: dict[str, str],
    lines: Seconds,
    faults: list[Fault],
    is_bad: Mask,
    notes: list[str],
    **identity: Any,
) -> RawBars:
    """Add the faults of prices and quantities, and turn round a file that runs from new to old."""
    prices = [columns[name] for name in PRICE_COLUMNS]
    rules = [
        *((name, PriceError, "price", ~is_price(columns[name]), "price") for name in PRICE_COLUMNS),
        ("volume", QuantityError, "quantity", ~is_volume(columns["volume"]), "volume"),
        ("spread", QuantityError, "quantity", ~_is_spread(columns["spread"]), "spread"),
    ]
    bad_before = is_bad.copy()
    for name, error, code, bad, word in rules:
        bad &= ~bad_before
        if bad.any():
            rows = np.flatnonzero(bad)
            values = columns[name][rows]
            faults.append(
                Fault(
                    code=code,
                    error=error,
                    column=spelled.get(name, name),
                    lines=lines[rows],
                    describe=lambda k, values=values, word=word: (_no_number(values[k], word), float(values[k])),
                    hint=DROP_HINT,
                )
            )
            is_bad |= bad
    misshapen = is_misshapen(*prices) & ~is_bad
    if misshapen.any():
        rows = np.flatnonzero(misshapen)
        four = [price[rows] for price in prices]
        shapes = {}
        for name in ("high", "low"):
            is_high = (four[1] < four[0]) | (four[1] < four[3])
            mine = np.flatnonzero(is_high if name == "high" else ~is_high)
            if len(mine):
                shapes[name] = mine
        for name, mine in shapes.items():
            faults.append(
                Fault(
                    code="ohlc",
                    error=PriceError,
                    column=spelled.get(name, name),
                    lines=lines[rows[mine]],
                    describe=lambda k, mine=mine, name=name: (
                        shape_fault(*(float(price[mine[k]]) for price in four))[1],
                        float(four[1 if name == "high" else 2][mine[k]]),
                    ),
                    hint=SHAPE_HINT,
                )
            )
    good = np.flatnonzero(~is_bad)
    steps = np.diff(columns["time"][good])
    if len(steps) and (steps <= 0).all() and (steps < 0).any():
        columns = {name: column[::-1] for name, column in columns.items()}
        lines, is_bad, misshapen = lines[::-1], is_bad[::-1], misshapen[::-1]
        notes.append("the file runs from new to old; turned round")
    return RawBars(
        columns=columns,
        spelled=spelled,
        lines=lines,
        faults=tuple(faults),
        is_bad=is_bad,
        is_misshapen=misshapen,
        notes=tuple(notes),
        **identity,
    )


class _TextReader:
    """Reads the columns of one table and collects the faults of their cells."""

    def __init__(self, table: Table, layout: Layout, path: Path) -> None:
        self.table, self.layout, self.path = table, layout, path
        self.faults: list[Fault] = []
        self.spread_is_in_price = False
        self.is_bad = np.zeros(len(table), bool)
        self.spelled = {
            name: (shortened(table.names[position]) if table.names is not None else name)
            for name, position in layout.columns.items()
        }
        self.decimal_comma = table.separator in ";\t" and any(
            re.fullmatch(r"[+-]?\d+,\d+", table.cell(layout.columns[name], row), re.ASCII)
            for name in PRICE_COLUMNS
            for row in range(min(50, len(table)))
        )
        if len(table.ragged_lines):
            counts, lines, width = table.ragged_counts, table.ragged_lines, table.width
            self.faults.append(
                Fault(
                    code="cell",
                    error=CellError,
                    column=None,
                    lines=lines,
                    describe=lambda k: (f"{counts[k]} cells, but the table has {width} columns", int(counts[k])),
                    hint="This line was cut or edited. " + DROP_HINT,
                    is_ragged=True,
                )
            )

    def add(
        self,
        code: str,
        error: type[DataError],
        column: str | None,
        lines: Seconds,
        describe: Callable[[int], tuple[str, object]],
        hint: str,
    ) -> None:
        self.faults.append(
            Fault(code=code, error=error, column=column, lines=lines, describe=describe, hint=hint)
        )

    def mark(
        self, code: str, error: type[DataError], meaning: str, bad: Mask, words: str, hint: str = DROP_HINT
    ) -> None:
        """Add a fault of the cells of one column."""
        bad = bad & ~self.is_bad
        if not bad.any():
            return
        rows, position = np.flatnonzero(bad), self.layout.columns[meaning]

        def describe(k: int) -> tuple[str, object]:
            cell = self.table.cell(position, int(rows[k]))
            return f"{shortened(cell)!r} {words}", cell

        self.add(code, error, self.spelled[meaning], self.table.lines[rows], describe, hint)
        self.is_bad |= bad

    def numbers(self, meaning: str) -> Values:
        """Return a column of numbers; cells that are none are faults."""
        values, unread = self._parsed(meaning)
        self.mark("cell", CellError, meaning, unread, "is not a number")
        return values

    def volume(self, wanted: VolumeKind | None) -> Values:
        """Return the volumes that were asked for; zeros where there are none."""
        columns = self.layout.columns
        if wanted == "real" and "real_volume" not in columns:
            raise ColumnError(
                f"no column of real volume in the header {listed(self.table.names or ())}",
                file=self.path,
                row=self.table.header_line,
                hint='Leave volume_kind out, or pass volume_kind="tick".',
            )
        meaning = "real_volume" if wanted == "real" or "volume" not in columns else "volume"
        if meaning not in columns or wanted == "none":
            return np.zeros(len(self.table))
        self.spelled["volume"] = self.spelled[meaning]
        position = columns[meaning]
        if (self.table.last[position] - self.table.first[position]).max(initial=0) <= 1 and all(
            self.table.cell(position, row) in ("", "-") for row in range(len(self.table))
        ):
            return np.zeros(len(self.table))  # a column without a single number is no volume
        return self.numbers(meaning)

    def spread(self) -> Values:
        """Return spreads in points: of the column, of bid and ask, or -1 where nothing states them."""
        columns = self.layout.columns
        if "spread" in columns:
            return self.numbers("spread")
        if "bid_open" in columns and "ask_open" in columns:
            self.spread_is_in_price = True  # the digits are not known yet
            self.spelled["spread"] = self.spelled["ask_open"]
            return self.numbers("ask_open") - self.numbers("bid_open")
        return np.full(len(self.table), -1.0)

    def _parsed(self, meaning: str) -> tuple[Values, Mask]:
        position, n = self.layout.columns[meaning], len(self.table)
        values, unread = np.empty(n), np.empty(n, bool)
        _cells.parse_numbers(
            self.table.text,
            self.table.first[position],
            self.table.last[position],
            self.decimal_comma,
            values,
            unread,
        )
        for row in np.flatnonzero(unread).tolist():
            value = number(self.table.cell(position, row), decimal_comma=self.decimal_comma)
            if value is not None:
                values[row], unread[row] = value, False
        return values, unread


def number(cell: str, *, decimal_comma: bool) -> float | None:
    """Return the number that a cell spells, or None.

    Accepted are decimals with an exponent, thousands set apart by blanks, the suffixes K, M and B, and ``nan`` and
    ``inf`` (which no price may be). More than 400 characters are no number.

    >>> number("4 694.88", decimal_comma=False), number("1,5", decimal_comma=True), number("12.5K", decimal_comma=False)
    (4694.88, 1.5, 12500.0)
    """
    if len(cell) > 400:
        return None
    text = re.sub(r"(?<=\d)[ \u00a0\u202f](?=\d)", "", cell)
    if decimal_comma:
        text = text.replace(",", ".", 1) if "." not in text else text
    if SPECIAL_NUMBERS.fullmatch(text):
        return float(text)
    multiple = MULTIPLES.get(text[-1:].upper(), 1.0)
    digits = text if multiple == 1.0 else text[:-1]
    if "," in digits or NUMBER.fullmatch(digits) is None:
        return None
    return float(digits) * multiple


def _no_number(value: float, word: str) -> str:
    if word == "price":
        return f"{value} is no price; it must be finite, above 0 and below 1e9"
    if word == "volume":
        return f"{value} is no volume; it must be finite and 0 or more"
    return f"{value} is no spread; it must be a whole number of points, 0 or more, or -1 for unknown"


def _is_spread(values: Values) -> Mask:
    return np.asarray((values >= -1) & (values <= LARGEST_SPREAD) & (values == np.rint(values)))


def _times(
    reader: _TextReader, options: ReadOptions, notes: list[str]
) -> tuple[Seconds, ServerZone, bool, bool]:
    """Return UTC seconds, the clock of the file, whether the text states it, and whether times of the day are said."""
    table, path, columns = reader.table, reader.path, reader.layout.columns
    parsed = parse_times(
        table, columns["date"], columns.get("clock"), path=path, date_order=options.date_order
    )
    shown = "clock" if "clock" in columns and parsed.has_clock else "date"
    unclear = parsed.unreadable
    reader.mark("cell", CellError, "date", unclear, "is no time, or is written in another way than the first row")
    reader.mark("time", TimeError, shown, parsed.impossible, "is no time of a calendar from 1970 to 2100")
    good = ~reader.is_bad
    is_utc = parsed.is_stated & ~(parsed.is_unix and reader.layout.format.is_metatrader)
    if good.any() and is_utc[good].all():
        return parsed.seconds, ServerZone(options.zone or "UTC"), True, parsed.has_clock
    chosen = options.zone or reader.layout.format.zone
    mixed = bool(is_utc[good].any())
    if mixed or chosen is None:
        row = int(np.flatnonzero(good & ~is_utc)[0]) if good.any() else 0
        raise TimeError(
            "only some times state their offset from UTC" if mixed else "the times state no zone",
            file=path,
            row=int(table.lines[row]) if len(table) else table.header_line,
            column=reader.spelled["date"],
            value=table.cell(columns["date"], row) if len(table) else None,
            hint='Say which clock they show: zone="UTC", "server-eu", ... (command line: --zone).',
        )
    clock = ServerZone(chosen, is_assumed=options.zone is None)
    if clock.is_assumed:
        notes.append(f"the file states no time zone; read as {chosen} (the habit of its format)")
    seconds = np.zeros(len(table), np.int64)
    rows = np.flatnonzero(good)
    backwards = len(rows) > 1 and parsed.seconds[rows[0]] > parsed.seconds[rows[-1]]
    rows = rows[::-1] if backwards else rows
    seconds[rows], never = clock.to_utc_where_it_exists(parsed.seconds[rows])
    if never.any():
        bad = np.zeros(len(table), bool)
        bad[rows[never]] = True
        local = parsed.seconds
        lines = np.flatnonzero(bad)
        reader.add(
            "time",
            TimeError,
            reader.spelled[shown],
            table.lines[lines],
            lambda k: (f"{iso(int(local[lines[k]]))} does not exist on the clock {chosen}", int(local[lines[k]])),
            ZONE_HINT,
        )
        reader.is_bad |= bad
    return seconds, clock, False, parsed.has_clock
