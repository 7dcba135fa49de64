"""Deal histories as their owners export them: rows of filled deals, and how many rows of every other kind there were.

    mql5.com signal, MT4   13 fields   Time Type Volume Symbol Price S/L T/P Time Price Commission Swap Profit Comment
    mql5.com signal, MT5   11 fields   Time Type Volume Symbol Price Volume Time Price Commission Swap Profit
    MT4 statement as CSV   14 fields   Ticket, Open Time, Type, Size, Item, Price, S / L, T / P, Close Time, Price,
                                       Commission, Taxes, Swap, Profit

Columns are read by position, because names repeat and are translated. A *deal* here is a whole position: opened and
closed. The file's Profit leaves out commission, taxes and swap; `net` adds them. The file's S/L is the last one, which
the trader may have trailed, so a stop exit can be a win and the stop says nothing about the beginning.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.errors import CellError, FormatError, MissingInputError, TimeError
from halfstep.market.calendar import ServerZone, iso
from halfstep.market.sniff import Table, listed, read_bytes, read_table, shortened
from halfstep.market.text import number
from halfstep.market.times import parse_times

ACCEPTED = (
    "Accepted are histories of mql5.com signals (13 fields of MT4, 11 of MT5) and MT4 statements saved as CSV "
    "(14 fields), also as .gz."
)
FILLED, PENDING, MONEY = (
    ("buy", "sell"),
    ("stop", "limit"),
    ("balance", "credit", "deposit", "withdrawal", "correction"),
)
KINDS = ("buy", "sell", "cancelled", "pending", "open", "balance", "footer")
NUMBERS = (
    "open_volume", "close_volume", "open_price", "close_price", "sl", "tp", "commission", "swap", "taxes", "profit",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryFormat:
    """Where the columns of a format stand; a column that is absent is not named."""

    name: str
    width: int
    columns: dict[str, int]


_MT4 = ("open_time", "type", "open_volume", "symbol", "open_price", "sl", "tp", "close_time", "close_price",
        "commission", "swap", "profit", "comment")  # fmt: skip
_MT5 = ("open_time", "type", "open_volume", "symbol", "open_price", "close_volume", "close_time", "close_price",
        "commission", "swap", "profit")  # fmt: skip
_STATEMENT = ("ticket", "open_time", "type", "open_volume", "symbol", "open_price", "sl", "tp", "close_time",
              "close_price", "commission", "taxes", "swap", "profit")  # fmt: skip
FORMATS = tuple(
    HistoryFormat(name=name, width=len(columns), columns={column: k for k, column in enumerate(columns)})
    for name, columns in (("mql5-signal-mt4", _MT4), ("mql5-signal-mt5", _MT5), ("mt4-statement", _STATEMENT))
)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class History:
    """Filled deals of one account.

    Attributes:
        path, sha256: the file.
        format: name of its format.
        counts: rows of each of `KINDS`; ``open`` are deals that had not been closed, ``footer`` sums and remarks.
        deals: one row per filled deal by opening time: ``line`` of the file, ``symbol`` as it stands there, ``side``
            (+1 or -1), ``open_clock`` and ``close_clock`` (seconds on the history's own dial), volumes in lots, prices,
            ``sl`` and ``tp`` (0 = none), ``commission``, ``swap``, ``taxes``, ``profit``, ``net`` (their sum), and
            ``comment``.
    """

    path: Path
    sha256: str
    format: str
    counts: dict[str, int]
    deals: pl.DataFrame

    def utc(self, zone: ServerZone) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return UTC seconds of the opening and the closing of each deal, for a clock.

        Raises:
            TimeError: the clock never shows one of the times.
        """
        return self._utc("open_clock", zone), self._utc("close_clock", zone)

    def _utc(self, column: str, zone: ServerZone) -> npt.NDArray[np.int64]:
        shown, where = np.unique(self.deals[column].to_numpy(), return_inverse=True)
        utc, never = zone.to_utc_where_it_exists(shown)
        if never.any():
            row = int(np.flatnonzero(never[where])[0])
            raise TimeError(
                f"{iso(int(shown[where[row]]))} does not exist on the clock {zone.name}",
                file=self.path, row=int(self.deals["line"][row]), hint="Name the history's clock with zone= (--zone).",
            )  # fmt: skip
        return np.asarray(utc[where], np.int64)


def read_history(path: Path) -> History:
    """Return the deals of a file.

    Raises:
        MissingInputError: no file stands there.
        FormatError: an HTML page, another document, or no known number of fields.
        CellError, TimeError: a filled deal with a cell that is no number or no time.
    """
    if not path.exists():
        raise MissingInputError(f"no deal history at {path}. Check the path. {ACCEPTED}")
    try:
        table = read_table(path, read_bytes(path))
    except FormatError as error:
        hint = error.hint if error.hint and "Accepted" not in error.hint else ACCEPTED
        raise FormatError(error.what, file=error.file, row=error.row, value=error.value, hint=hint) from None
    found = _format_of(table, path)
    rows = _Rows(table, found, path)
    counts = dict.fromkeys(KINDS, 0)
    filled = []
    for row in range(len(table)):
        kind = rows.kind(row)
        counts[kind] += 1
        if kind in FILLED:
            filled.append(row)
    counts["footer"] += rows.ragged()
    if not filled and not any(counts[kind] for kind in ("cancelled", "pending", "open", "balance")):
        raise FormatError(
            f"{found.width} fields, but no row is a buy, a sell or a balance operation", file=path,
            row=int(table.lines[0]), hint=ACCEPTED,
        )  # fmt: skip
    deals = rows.deals(filled)
    return History(path=path, sha256=table.sha256, format=found.name, counts=counts, deals=deals)


def _format_of(table: Table, path: Path) -> HistoryFormat:
    width = table.width
    if width == 15 and all(table.cell(14, row) == "" for row in range(len(table))):
        width = 14  # statements end their lines with a separator
    found = next((known for known in FORMATS if known.width == width), None)
    if found is None:
        names = f": {listed(table.names)}" if table.names else ""
        raise FormatError(
            f"{table.width} fields{names}, no known deal history",
            file=path,
            row=table.header_line,
            hint=ACCEPTED,
        )
    return found


class _Rows:
    """Reads the rows of one table."""

    def __init__(self, table: Table, found: HistoryFormat, path: Path) -> None:
        self.table, self.columns, self.path = table, found.columns, path
        self.decimal_comma = table.separator != ","

    def text(self, column: str, row: int) -> str:
        """Return a cell, nothing where the format lacks the column."""
        return self.table.cell(self.columns[column], row) if column in self.columns else ""

    def kind(self, row: int) -> str:
        """Return what a row is, one of `KINDS`."""
        words = self.text("type", row).lower().split()
        if words[:1] and words[0] in FILLED:
            if len(words) == 1:
                return words[0] if self.text("close_time", row) else "open"
            if words[1] in PENDING:
                return "cancelled" if self.text("close_time", row) else "pending"
        return "balance" if words[:1] and words[0] in MONEY else "footer"

    def ragged(self) -> int:
        """Return the number of lines of another width, which are sums and remarks; a deal among them is an error."""
        lines = self.table.text.tobytes().decode("utf-8", errors="replace").split("\n")
        for line, width in zip(
            self.table.ragged_lines.tolist(), self.table.ragged_counts.tolist(), strict=True
        ):
            cells = {cell.strip(' "').lower() for cell in lines[line - 1].split(self.table.separator)}
            if cells & set(FILLED):
                raise CellError(
                    f"a deal with {width} cells, but the table has {self.table.width} columns", file=self.path,
                    row=line, value=shortened(lines[line - 1]), hint="This line was cut or edited. Export it again.",
                )  # fmt: skip
        return len(self.table.ragged_lines)

    def deals(self, rows: list[int]) -> pl.DataFrame:
        """Return the filled deals among the rows, by opening time."""
        side = [1 if self.text("type", row).lower() == "buy" else -1 for row in rows]
        numbers = {name: [self._number(name, row) for row in rows] for name in NUMBERS}
        if "close_volume" not in self.columns:
            numbers["close_volume"] = numbers["open_volume"]
        frame = pl.DataFrame(
            {
                "line": self.table.lines[rows],
                "symbol": [self.text("symbol", row) for row in rows],
                "side": side,
                "open_clock": self._times("open_time", rows),
                "close_clock": self._times("close_time", rows),
                **numbers,
                "comment": [self.text("comment", row) for row in rows],
            },
            schema_overrides={"line": pl.Int64, "side": pl.Int64, "symbol": pl.String, "comment": pl.String}
            | dict.fromkeys(NUMBERS, pl.Float64),
        )
        late = frame.filter(pl.col("close_clock") < pl.col("open_clock"))
        if len(late):
            raise TimeError(
                "the deal closes before it opens", file=self.path, row=int(late["line"][0]),
                value=int(late["close_clock"][0]), hint="Export the history again.",
            )  # fmt: skip
        net = pl.col("profit") + pl.col("commission") + pl.col("swap") + pl.col("taxes")
        return frame.with_columns(net=net).sort("open_clock", "line", descending=[False, True])

    def _number(self, name: str, row: int) -> float:
        cell = self.text(name, row)
        is_needed = name in ("open_volume", "open_price", "close_price") or (
            name == "close_volume" and name in self.columns
        )
        if not cell and not is_needed:
            return 0.0
        value = number(cell, decimal_comma=self.decimal_comma)
        if value is None or not np.isfinite(value) or (is_needed and value <= 0):
            raise CellError(
                f"{shortened(cell)!r} is no {'positive ' if is_needed else ''}number", file=self.path,
                row=int(self.table.lines[row]), column=name, value=cell, hint="Correct the cell, or delete the line.",
            )  # fmt: skip
        return value

    def _times(self, name: str, rows: list[int]) -> npt.NDArray[np.int64]:
        parsed = parse_times(self.table, self.columns[name], None, path=self.path, date_order=None)
        bad = (parsed.unreadable | parsed.impossible)[rows]
        if bad.any():
            row = rows[int(bad.argmax())]
            raise TimeError(
                f"{shortened(self.text(name, row))!r} is no time", file=self.path, row=int(self.table.lines[row]),
                column=name, value=self.text(name, row), hint="Correct the cell, or delete the line.",
            )  # fmt: skip
        return np.asarray(parsed.seconds[rows], np.int64)
