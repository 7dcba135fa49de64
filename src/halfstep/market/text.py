"""Text files of bars to rows of numbers, with every fault of their cells."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from halfstep.errors import CellError, ColumnError, DataError, TimeError
from halfstep.market import _cells
from halfstep.market.bars import DROP_HINT, PRICE_COLUMNS, VolumeKind
from halfstep.market.calendar import ZONE_HINT, ServerZone, iso
from halfstep.market.identity import symbol_of
from halfstep.market.layout import Layout, find_layout
from halfstep.market.raw import Fault, RawBars, ReadOptions, finish, prices_in_units
from halfstep.market.sniff import NUMBER, Table, listed, read_table, shortened
from halfstep.market.times import parse_times

SPECIAL_NUMBERS = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
MULTIPLES = {"K": 1e3, "M": 1e6, "B": 1e9}
LONGEST_NUMBER = 400  # characters

Mask = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


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
    digits = prices_in_units(columns, symbol, options, notes, reader.faults, reader.spelled, table.lines)
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
                    describe=lambda k: (
                        f"{counts[k]} cells, but the table has {width} columns",
                        int(counts[k]),
                    ),
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
    if len(cell) > LONGEST_NUMBER:
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
    reader.mark(
        "cell", CellError, "date", unclear, "is no time, or is written in another way than the first row"
    )
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
            hint='Say which clock they show: zone="UTC", "server-eu", ... (command line: --zone; of halfstep run: --data.zone).',
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
            lambda k: (
                f"{iso(int(local[lines[k]]))} does not exist on the clock {chosen}",
                int(local[lines[k]]),
            ),
            ZONE_HINT,
        )
        reader.is_bad |= bad
    return seconds, clock, False, parsed.has_clock
