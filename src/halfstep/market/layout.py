"""Which column of a table means what, and what its export format leaves unsaid.

A *layout* maps the meanings (date, clock, open, ..., spread) to columns; a *format* adds the habits of whoever
wrote the file: the clock of its times, the side of its prices, the kind of its volume.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from halfstep.errors import ColumnError, ConfigError, FormatError
from halfstep.market import _cells
from halfstep.market.bars import PRICE_COLUMNS, Side, VolumeKind
from halfstep.market.sniff import NUMBER, Table, listed, plain_name, shortened

DATE_NAMES = ("date", "time", "datetime", "timestamp", "gmttime", "localtime", "utc", "opentime")
TICK_VOLUME_NAMES = ("tickvol", "tickvolume", "tickqty")
PLAIN_VOLUME_NAMES = ("volume", "vol")
REAL_VOLUME_NAMES = ("realvolume",)
_HEADERLESS = {
    7: ("date", "clock", "open", "high", "low", "close", "volume"),
    6: ("date", "open", "high", "low", "close", "volume"),
}
_SIDE = re.compile(r"(?<![A-Za-z])(ask|bid)(?![A-Za-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """What an export format leaves unsaid."""

    name: str
    """In words."""
    zone: str | None = None
    """The clock of times without an offset; None: nobody knows."""
    volume_kind: VolumeKind = "quote"
    """Unit of the volumes."""
    is_metatrader: bool = False
    """Times are the server's even where they look like Unix time, and prices are always bids."""


FORMATS = MappingProxyType(
    {
        "mt5": Format(name="MetaTrader 5 export", zone="server-eu", volume_kind="tick", is_metatrader=True),
        "mt5-python": Format(
            name="table of the MetaTrader 5 Python package",
            zone="server-eu",
            volume_kind="tick",
            is_metatrader=True,
        ),
        "mt4": Format(
            name="MetaTrader 4 history export", zone="server-eu", volume_kind="tick", is_metatrader=True
        ),
        "saved-as": Format(
            name="MetaTrader chart saved as text", zone="server-eu", volume_kind="tick", is_metatrader=True
        ),
        "histdata": Format(name="HistData export", zone="est", volume_kind="none"),
        "dukascopy": Format(name="Dukascopy export", zone="UTC"),
        "tradingview": Format(name="TradingView export", zone="UTC"),
        "fxcm": Format(name="FXCM table of bids and asks", zone="UTC", volume_kind="tick"),
        "yfinance": Format(name="yfinance table"),
        "csv": Format(name="CSV"),
        "parquet": Format(name="Parquet"),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where the meanings of a table of bars stand.

    Attributes:
        columns: meaning to position; prices always, ``date`` always, ``clock``, ``volume``, ``real_volume``,
            ``spread``, ``bid_open`` and ``ask_open`` (whose difference is the spread) where there are such columns.
        format: habits of the export.
        notes: columns that were not used.
    """

    columns: dict[str, int]
    format: Format
    notes: tuple[str, ...]


def find_layout(table: Table, path: Path, *, format_name: str | None, fxcm_side: Side) -> Layout:
    """Return the meanings of a table's columns.

    Raises:
        FormatError: a trade history.
        ColumnError: a needed column is absent, or two candidates differ.
        ConfigError: ``format_name`` is unknown.
    """
    if format_name is not None and format_name not in FORMATS:
        raise ConfigError(f"format: {format_name!r}, must be one of {', '.join(FORMATS)}.")
    notes: tuple[str, ...] = ()
    if table.names is None:
        columns, found = _headerless(table, path), _headerless_format(table)
    else:
        names = [plain_name(name) for name in table.names]
        _refuse_trades(names, path, table.header_line)
        columns = _named(table, path, names, fxcm_side)
        found = _format_of(table, names, columns)
        unused = [name for k, name in enumerate(table.names) if k not in columns.values() and name]
        notes = (f"columns not used: {', '.join(map(shortened, unused[:12]))}",) if unused else ()
    return Layout(columns=columns, format=FORMATS[format_name or found], notes=notes)


def says_ask(path: Path) -> bool:
    """Return whether a file's name holds the word ASK, and not BID."""
    return {word.lower() for word in _SIDE.findall(path.name)} == {"ask"}


def _headerless(table: Table, path: Path) -> dict[str, int]:
    names = _HEADERLESS.get(table.width)
    if names is None or not len(table) or not _is_date(table.cell(0, 0)):
        raise ColumnError(
            f"{table.width} columns and no header",
            file=path,
            row=table.header_line,
            hint="Known without a header: date,time,O,H,L,C,V and datetime,O,H,L,C,V. Add a header line.",
        )
    return {name: k for k, name in enumerate(names)}


def _headerless_format(table: Table) -> str:
    if table.width == 7:
        return "mt4"
    return "histdata" if re.fullmatch(r"\d{8} \d{6}", table.cell(0, 0), re.ASCII) else "saved-as"


def _refuse_trades(names: list[str], path: Path, line: int) -> None:
    if "type" in names and ({"profit", "ticket", "order", "deal", "s/l", "sl"} & set(names)):
        raise FormatError(
            "a trade history, not a table of bars",
            file=path,
            row=line,
            hint="These are trades: use the signal reader of halfstep.experience; here give the bars they were made on.",
        )


def _named(table: Table, path: Path, names: list[str], fxcm_side: Side) -> dict[str, int]:
    def choose(wanted: Iterable[str], reads: Callable[[str], bool] = _is_number) -> int | None:
        return _choose(table, path, names, tuple(wanted), reads)

    columns: dict[str, int | None] = {}
    is_quoted = "bidopen" in names or "askopen" in names
    prefix = fxcm_side if is_quoted else ""
    for name in PRICE_COLUMNS:
        columns[name] = choose([prefix + name] if is_quoted else [name, name[0]])
    if columns["close"] is None:
        columns["close"] = choose(["price"])  # investing.com
    missing = [name for name in PRICE_COLUMNS if columns[name] is None]
    if missing:
        raise ColumnError(
            f"no column {prefix + missing[0]!r} in the header {listed(table.names or ())}",
            file=path,
            row=table.header_line,
            column=missing[0],
            hint="Looked for: time (or date), open, high, low, close; optional: volume, spread.",
        )
    if is_quoted:
        columns["bid_open"], columns["ask_open"] = choose(["bidopen"]), choose(["askopen"])
    tick, plain = choose(TICK_VOLUME_NAMES), choose([*PLAIN_VOLUME_NAMES, "v"])
    columns["volume"] = plain if tick is None else tick
    columns["real_volume"] = choose(REAL_VOLUME_NAMES)
    if columns["real_volume"] is None and tick is not None:
        columns["real_volume"] = plain
    columns["spread"] = choose(["spread"])
    columns.update(_time_columns(table, path, names))
    return {name: position for name, position in columns.items() if position is not None}


def _time_columns(table: Table, path: Path, names: list[str]) -> dict[str, int]:
    """Return the column of dates and, where times of the day stand apart, that of clocks."""
    positions = [k for k, name in enumerate(names) if name in DATE_NAMES]
    positions = [k for k in positions if not _is_unreadable_twin(table, names, k)]
    if not positions:
        raise ColumnError(
            f"no column of times in the header {listed(table.names or ())}",
            file=path,
            row=table.header_line,
            hint=f"Looked for: {', '.join(DATE_NAMES)}.",
        )
    dates = [k for k in positions if not len(table) or _is_date(table.cell(k, 0))] or positions[:1]
    clocks = [k for k in positions if k not in dates and _is_clock(table.cell(k, 0))]
    if len(dates) > 1 and not all(_equal(table, dates[0], k) for k in dates[1:]):
        raise _differ(table, path, dates)
    if len(clocks) > 1 and not all(_equal(table, clocks[0], k) for k in clocks[1:]):
        raise _differ(table, path, clocks)
    if clocks and not re.search(r"[: T]", table.cell(dates[0], 0)):
        return {"date": dates[0], "clock": clocks[0]}
    return {"date": dates[0]}


def _is_unreadable_twin(table: Table, names: list[str], k: int) -> bool:
    """Return whether another column has the same name and reads as a time, while this one does not."""
    if names.count(names[k]) < 2 or not len(table):
        return False
    twins = [j for j, name in enumerate(names) if name == names[k]]
    return not _is_time(table.cell(k, 0)) and any(_is_time(table.cell(j, 0)) for j in twins)


def _choose(
    table: Table, path: Path, names: list[str], wanted: tuple[str, ...], reads: Callable[[str], bool]
) -> int | None:
    """Return the column of the first wanted name that the header has; of equal names the first that reads."""
    for name in wanted:
        twins = [k for k, other in enumerate(names) if other == name]
        if len(twins) > 1 and len(table):
            good = [k for k in twins if reads(table.cell(k, 0))]
            if len(good) > 1 and not all(_equal(table, good[0], k) for k in good[1:]):
                raise _differ(table, path, good)
            twins = good or twins
        if twins:
            return twins[0]
    return None


def _differ(table: Table, path: Path, columns: list[int]) -> ColumnError:
    spelled = [shortened((table.names or ())[k]) for k in columns[:5]]
    return ColumnError(
        f"columns {', '.join(f'{k + 1} ({name})' for k, name in zip(columns, spelled, strict=False))} "
        "mean the same and differ",
        file=path,
        row=table.header_line,
        column=spelled[0],
        hint="Rename or delete all but one of them.",
    )


def _equal(table: Table, one: int, other: int) -> bool:
    return all(table.cell(one, row) == table.cell(other, row) for row in range(len(table)))


def _format_of(table: Table, names: list[str], columns: dict[str, int]) -> str:
    found = set(names)
    if "bid_open" in columns or "ask_open" in columns:
        return "fxcm"
    if {"tickvol", "tickvolume"} & found:
        return "mt5-python" if "realvolume" in found else "mt5"
    spelled = (table.names or ())[0]
    if spelled.startswith("<"):
        return "mt5"
    if {"gmttime", "localtime"} & found:
        return "dukascopy"
    if (
        names[:5] == ["timestamp", *PRICE_COLUMNS]
        and len(table)
        and re.search(r"[+-]\d\d:?\d\d$", table.cell(0, 0))
    ):
        return "dukascopy"  # through its Python packages
    if table.ticker is not None or (columns["close"] < columns["high"] < columns["low"] < columns["open"]):
        return "yfinance"
    if names[:5] == ["time", *PRICE_COLUMNS] and len(table):
        first = table.cell(columns["date"], 0)
        if first.endswith("Z") or first.isdecimal():
            return "tradingview"
    return "csv"


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell.replace(" ", "").replace("\u00a0", "")) is not None


def _is_date(cell: str) -> bool:
    return _date_form(cell) != _cells.NO_TIME


def _is_clock(cell: str) -> bool:
    return re.match(r"\d{1,2}:\d{2}|\d{4}$|\d{6}$", cell, re.ASCII) is not None


def _is_time(cell: str) -> bool:
    return _is_date(cell) or _is_clock(cell)


def _date_form(cell: str) -> int:
    text = np.frombuffer(cell.encode(), np.uint8)
    return int(_cells.parse_date(text, 0, len(text))[0])
