"""Bars from files: MetaTrader exports, other providers' CSV, Parquet, and the bars of the installation.

What a file does not state is taken from its format's habits and written into ``bars.report.notes``; what
contradicts itself is refused with the line, the column and the way out. Nothing is repaired without being asked.
"""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.errors import (
    CellError,
    ColumnError,
    ConfigError,
    DataError,
    FormatError,
    MissingInputError,
    PriceError,
    TimeError,
)
from halfstep.market.bars import PRICE_COLUMNS, Bars, ReadReport, Side, Source, VolumeKind, check_columns
from halfstep.market.calendar import ServerZone
from halfstep.market.instruments import PRESETS
from halfstep.market.table import Table, find_column, plain_name, read_bytes, read_table
from halfstep.market.timeframes import Timeframe
from halfstep.market.times import parse_times

REPAIRS = ("drop-bad", "sort", "dedupe", "widen", "drop-last")
PARQUET_KEY = "halfstep.bars"
INTEGER_POINTS_ABOVE = 20_000.0

_DATE = ("date", "datetime", "timestamp", "gmttime", "localtime", "utc", "opentime", "time")
_TICK_VOLUME = ("tickvol", "tickvolume", "tickqty")
_VOLUME = (*_TICK_VOLUME, "volume", "vol")
_HEADERLESS = {
    7: ("date", "time", "open", "high", "low", "close", "tickvol"),
    6: ("time", "open", "high", "low", "close", "tickvol"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Habits:
    """What an export format leaves unsaid."""

    name: str
    zone: str | None
    volume_kind: VolumeKind


def read_bars(
    path: str | Path,
    *,
    symbol: str | None = None,
    timeframe: str | Timeframe | None = None,
    zone: str | None = None,
    side: Side | None = None,
    digits: int | None = None,
    date_order: str | None = None,
    fxcm_side: Side = "bid",
    repair: Sequence[str] = (),
) -> Bars:
    """Return the checked bars of a file.

    Args:
        path: MetaTrader 5 or 4 export, CSV of another provider, or Parquet; text may be packed as ``.gz``.
        symbol: default: from the file's name.
        timeframe: default: from the file's name, else the most frequent step between bars.
        zone: the clock of the file's times; default: the text's own offset, else the format's habit.
        side: whether prices are bids or asks; default: bid, ask where the file's name holds ``ASK``.
        digits: decimals of a price; default: the preset of the symbol, else the fewest that hold 99 % of prices.
        date_order: ``"dmy"`` or ``"mdy"`` for dates with slashes that nothing else decides.
        fxcm_side: which side of a bid/ask table to read.
        repair: names of `REPAIRS`, applied in this order and counted: ``drop-bad`` rows whose cells or prices
            fail, ``sort``, ``dedupe`` equal rows, ``widen`` high and low to hold open and close, ``drop-last``.

    Raises:
        MissingInputError, FormatError, ColumnError, CellError, TimeError, PriceError, QuantityError: by what
            is wrong; each names the file, the line (for Parquet the row) and the way out.
    """
    path = Path(path)
    unknown = [name for name in repair if name not in REPAIRS]
    if unknown:
        raise ConfigError(f"repair: {unknown[0]!r}, must be one of {', '.join(REPAIRS)}.")
    data = read_bytes(path)
    if data[:4] == b"PAR1":
        return _read_parquet(
            path, data, symbol=symbol, timeframe=timeframe, zone=zone, side=side, digits=digits
        )
    table = read_table(path, data)
    table, fxcm = _named(table, path, fxcm_side)
    habits = _habits(table, fxcm=fxcm)
    notes = [f"read as {habits.name}"]
    columns, lines = _numbers(table, path, drop_bad="drop-bad" in repair)
    times, clock = _times(table, path, zone=zone, habits=habits, date_order=date_order, notes=notes)
    columns["time"] = times[lines.kept]
    order = lines.numbers
    if len(times) > 1 and (np.diff(columns["time"]) < 0).all():
        columns, order = {name: column[::-1] for name, column in columns.items()}, order[::-1]
        notes.append("the file runs from new to old; turned round")
    columns, order, repairs = _repaired(columns, order, repair, dropped=lines.dropped)
    volume_kind: VolumeKind = habits.volume_kind if columns["volume"].any() else "none"
    try:
        check_columns(columns)  # before anything is guessed from them
        name = symbol or _symbol_of(path)
        frame = _timeframe(path, columns["time"], timeframe)
        return Bars(
            **columns,
            symbol=name,
            timeframe=frame,
            digits=digits if digits is not None else _digits(name, columns, path),
            side=side or ("ask" if "ASK" in path.name.upper() else "bid"),
            zone=clock,
            volume_kind=volume_kind,
            source=Source(format=habits.name, path=path, sha256=table.sha256),
            report=ReadReport(notes=tuple(notes), repairs=tuple(repairs)),
        )
    except DataError as error:
        row = None if error.row is None else int(order[error.row - 1])
        raise type(error)(
            error.what, file=path, row=row, column=error.column, value=error.value, hint=error.hint
        ) from None


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


@dataclass(frozen=True, slots=True)
class _Lines:
    kept: npt.NDArray[np.intp]
    numbers: npt.NDArray[np.int64]
    dropped: int


def _named(table: Table, path: Path, fxcm_side: Side) -> tuple[Table, bool]:
    """Give a headerless table of known shape its names, and a bid/ask table the names of one side."""
    if table.names is None:
        names = _HEADERLESS.get(len(table.columns))
        if names is None:
            raise ColumnError(
                f"{len(table.columns)} columns and no header",
                file=path,
                row=1,
                hint="Known without a header: date,time,O,H,L,C,V and datetime,O,H,L,C,V. Add a header line.",
            )
        return _renamed(table, names), False
    plain = [plain_name(name) for name in table.names]
    if "type" in plain and ("profit" in plain or "ticket" in plain):
        raise FormatError(
            "a trade history, not a table of bars",
            file=path,
            row=1,
            hint="Give the bars that these trades were made on.",
        )
    if f"{fxcm_side}open" in plain:
        return _renamed(table, tuple(name.removeprefix(fxcm_side) for name in plain)), True
    return table, False


def _renamed(table: Table, names: tuple[str, ...]) -> Table:
    return Table(
        names=names, columns=table.columns, lines=table.lines, separator=table.separator, sha256=table.sha256
    )


def _habits(table: Table, *, fxcm: bool) -> _Habits:
    plain = {plain_name(name) for name in table.names or ()}
    first = table.columns[0][0] or ""
    if table.separator == ";" and len(first) == 15:
        return _Habits(name="HistData export", zone="est", volume_kind="none")
    if fxcm:
        return _Habits(name="FXCM table", zone="UTC", volume_kind="tick")
    if plain & {"tickvol", "tickvolume"}:
        return _Habits(name="MetaTrader export", zone="server-eu", volume_kind="tick")
    if "gmttime" in plain:
        return _Habits(name="Dukascopy export", zone="UTC", volume_kind="quote")
    if "ASK" in "".join(table.names or ()).upper():
        return _Habits(name="CSV", zone="UTC", volume_kind="quote")
    return _Habits(name="CSV", zone=None, volume_kind="quote")


def _numbers(table: Table, path: Path, *, drop_bad: bool) -> tuple[dict[str, npt.NDArray[Any]], _Lines]:
    """Return price, volume and spread columns as numbers, and which rows they come from."""
    found: dict[str, pl.Series] = {}
    positions = {name: find_column(table, path, (name, name[0])) for name in PRICE_COLUMNS}
    missing = [name for name, position in positions.items() if position is None]
    if missing:
        raise ColumnError(
            f"no column {missing[0]!r} in the header {list(table.names or ())}",
            file=path,
            row=1,
            hint="Bars need time, open, high, low and close.",
        )
    positions["volume"] = find_column(table, path, _VOLUME)
    positions["spread"] = find_column(table, path, ("spread",))
    for name, position in positions.items():
        if position is not None:
            text = table.columns[position].str.replace_all(r"[\s\u00a0]", "")
            if table.separator in ";\t":
                text = text.str.replace(",", ".", literal=True)
            found[name] = text
    values = {name: text.cast(pl.Float64, strict=False) for name, text in found.items()}
    bad = pl.Series(np.zeros(len(table.lines), bool))
    for name, column in values.items():
        unusable = column.is_null() | ~column.is_finite().fill_null(value=False)
        if unusable.any() and not drop_bad:
            row = int(unusable.arg_true()[0])
            raise CellError(
                f"{found[name][row]!r} is not a number",
                file=path,
                row=int(table.lines[row]),
                column=name,
                value=found[name][row],
                hint='Correct this line, or pass repair=("drop-bad",) (command line: --data.repair drop-bad).',
            )
        bad |= unusable
    kept = np.flatnonzero(~bad.to_numpy())
    n = len(kept)
    columns: dict[str, npt.NDArray[Any]] = {name: column.to_numpy()[kept] for name, column in values.items()}
    columns.setdefault("volume", np.zeros(n))
    columns["spread"] = (
        columns["spread"].astype(np.int32) if "spread" in columns else np.full(n, -1, np.int32)
    )
    return columns, _Lines(kept, table.lines[kept], len(table.lines) - n)


def _times(
    table: Table, path: Path, *, zone: str | None, habits: _Habits, date_order: str | None, notes: list[str]
) -> tuple[npt.NDArray[np.int64], ServerZone]:
    date, clock = find_column(table, path, _DATE), find_column(table, path, ("time",))
    if date is None:
        raise ColumnError(
            f"no column of times in the header {list(table.names or ())}",
            file=path,
            row=1,
            hint="Name it time, date or timestamp.",
        )
    text = table.columns[date]
    if clock is not None and clock != date:
        text = text + " " + table.columns[clock]
    name = (table.names or ("time",))[date]
    seconds, stated = parse_times(text, path=path, lines=table.lines, column=name, date_order=date_order)
    if stated.all():
        return seconds, ServerZone(zone or "UTC", is_assumed=False)
    chosen = zone or habits.zone
    if stated.any() or chosen is None:
        raise TimeError(
            "the times state no zone" if not stated.any() else "only some times state their offset from UTC",
            file=path,
            row=int(table.lines[int(np.flatnonzero(~stated)[0])]),
            column=name,
            hint='Say which clock they show: zone="UTC", "server-eu", ... (command line: --data.zone).',
        )
    clock_zone = ServerZone(chosen, is_assumed=zone is None)
    if zone is None:
        notes.append(f"the file states no time zone; read as {chosen} (the habit of its format)")
    try:
        return clock_zone.to_utc(seconds), clock_zone
    except TimeError as error:
        row = int(table.lines[(error.row or 1) - 1])
        raise TimeError(
            error.what, file=path, row=row, column=name, value=text[(error.row or 1) - 1], hint=error.hint
        ) from None


def _repaired(
    columns: dict[str, npt.NDArray[Any]], lines: npt.NDArray[np.int64], repair: Sequence[str], *, dropped: int
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64], list[str]]:
    log: list[str] = []

    def keep(rows: npt.NDArray[Any]) -> None:
        nonlocal columns, lines
        columns, lines = {name: column[rows] for name, column in columns.items()}, lines[rows]

    if "drop-bad" in repair:
        prices = np.stack([columns[name] for name in PRICE_COLUMNS])
        good = (prices > 0).all(0) & (columns["volume"] >= 0) & (columns["spread"] >= -1)
        log.append(f"drop-bad: {dropped + int((~good).sum())} rows")
        keep(good)
    if "sort" in repair:
        order = np.argsort(columns["time"], kind="stable")
        log.append(f"sort: {int((order != np.arange(len(order))).sum())} rows moved")
        keep(order)
    if "dedupe" in repair and len(lines):
        same = np.ones(len(lines), bool)
        same[0] = False
        for column in columns.values():
            same[1:] &= column[1:] == column[:-1]
        log.append(f"dedupe: {int(same.sum())} rows")
        keep(~same)
    if "widen" in repair:
        high = np.maximum(columns["high"], np.maximum(columns["open"], columns["close"]))
        low = np.minimum(columns["low"], np.minimum(columns["open"], columns["close"]))
        log.append(f"widen: {int(((high != columns['high']) | (low != columns['low'])).sum())} rows")
        columns = {**columns, "high": high, "low": low}
    if "drop-last" in repair and len(lines) > 1:
        log.append("drop-last: 1 row")
        keep(np.arange(len(lines) - 1))
    return columns, lines, log


def _symbol_of(path: Path) -> str:
    name = path.name.upper()
    found = [symbol for symbol in PRESETS if symbol in name]
    if len(found) != 1:
        raise ConfigError(
            f"{path}: the file's name names no known symbol. Say which with symbol= (command line: --data.symbol EURUSD)."
        )
    return found[0]


def _timeframe(path: Path, time: npt.NDArray[np.int64], given: str | Timeframe | None) -> Timeframe:
    if given is not None:
        return Timeframe.parse(given)
    if len(time) < 2:
        raise TimeError("one bar tells no timeframe", file=path, hint="Say which with timeframe=.")
    steps, counts = np.unique(np.diff(time), return_counts=True)
    usual, share = int(steps[counts.argmax()]), counts.max() / counts.sum()
    found = {28 * 86_400: "MN1", 29 * 86_400: "MN1", 31 * 86_400: "MN1"}.get(usual)
    frame = (
        Timeframe[found] if found else next((frame for frame in Timeframe if frame.seconds == usual), None)
    )
    if frame is None or share < 0.5:
        raise TimeError(
            f"the usual step between bars is {usual} s ({share:.0%} of them)",
            file=path,
            hint="Say the timeframe with timeframe=, or export one timeframe.",
        )
    return frame


def _digits(symbol: str, columns: dict[str, npt.NDArray[Any]], path: Path) -> int:
    preset = next((preset for name, preset in PRESETS.items() if symbol.upper().startswith(name)), None)
    if preset is not None and preset.digits >= 3 and np.median(columns["close"]) > INTEGER_POINTS_ABOVE:
        raise PriceError(
            "prices look like whole points",
            file=path,
            column="close",
            hint="Divide them by 10^digits before.",
        )
    if preset is not None:
        return preset.digits
    for digits in range(9):
        scaled = columns["close"] * 10.0**digits
        if (np.abs(scaled - np.rint(scaled)) < 1e-6 * 10.0**digits).mean() >= 0.99:
            return digits
    return 8


def _read_parquet(path: Path, data: bytes, **given: Any) -> Bars:
    try:
        frame = pl.read_parquet(data)
        metadata = pl.read_parquet_metadata(data)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise FormatError(
            f"a damaged Parquet file: {error}", file=path, hint="Copy or export it again."
        ) from None
    missing = [name for name in ("time", *PRICE_COLUMNS) if name not in frame.columns]
    if missing:
        raise ColumnError(
            f"no column {missing[0]!r} among {frame.columns}", file=path, hint="Rename the columns."
        )
    facts: dict[str, Any] = json.loads(metadata.get(PARQUET_KEY, "{}"))
    n = frame.height
    time = frame["time"]
    if isinstance(time.dtype, pl.Datetime):
        time = time.dt.epoch("s")
    zone = given["zone"] or facts.get("zone", {}).get("name")
    if zone is None and frame["time"].dtype == pl.Datetime:
        raise TimeError(
            "the times state no zone", file=path, column="time", hint='Say which with zone="UTC" or another.'
        )
    columns: dict[str, npt.NDArray[Any]] = {
        name: frame[name].cast(pl.Float64).to_numpy() for name in PRICE_COLUMNS
    }
    columns["volume"] = (
        frame["volume"].cast(pl.Float64).to_numpy() if "volume" in frame.columns else np.zeros(n)
    )
    columns["spread"] = (
        frame["spread"].cast(pl.Int32).to_numpy() if "spread" in frame.columns else np.full(n, -1, np.int32)
    )
    clock = ServerZone(zone or "UTC", is_assumed=facts.get("zone", {}).get("is_assumed", False))
    seconds = time.cast(pl.Int64).to_numpy()
    columns["time"] = seconds if facts or zone is None else clock.to_utc(seconds)
    name = given["symbol"] or facts.get("symbol") or _symbol_of(path)
    frame_length = given["timeframe"] or facts.get("timeframe")
    try:
        return Bars(
            **columns,
            symbol=name,
            timeframe=_timeframe(path, columns["time"], frame_length),
            digits=given["digits"] or facts.get("digits") or _digits(name, columns, path),
            side=given["side"] or facts.get("side", "bid"),
            zone=clock,
            volume_kind=facts.get("volume_kind", "quote"),
            source=Source(format=facts.get("format", "Parquet"), path=path),
            report=ReadReport(notes=tuple(facts.get("notes", ())), repairs=tuple(facts.get("repairs", ()))),
        )
    except DataError as error:
        raise type(error)(
            error.what, file=path, row=error.row, column=error.column, value=error.value, hint=error.hint
        ) from None
