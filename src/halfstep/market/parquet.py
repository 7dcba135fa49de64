"""Parquet files: ours, which carry every attribute and read back bit-equal, and other people's."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from halfstep.errors import CellError, ColumnError, FormatError, HalfstepError, TimeError
from halfstep.market.bars import COLUMNS, PRICE_COLUMNS, Bars
from halfstep.market.calendar import ServerZone
from halfstep.market.identity import symbol_of
from halfstep.market.layout import DATE_NAMES, FORMATS, PLAIN_VOLUME_NAMES, TICK_VOLUME_NAMES, Format
from halfstep.market.raw import Facts, Fault, RawBars, ReadOptions, finish, prices_in_units
from halfstep.market.sniff import listed, plain_name, shortened
from halfstep.market.timeframes import Timeframe

KEY = "halfstep.bars"
VERSION = 1
LATEST = 4_133_980_800  # 2101-01-01
MILLISECONDS_ABOVE = 10**11


def write_parquet(bars: Bars, path: Path) -> None:
    """Write all columns and, in the metadata, all attributes."""
    facts = {
        "version": VERSION,
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.name,
        "digits": bars.digits,
        "side": bars.side,
        "zone": {"name": bars.zone.name, "is_assumed": bars.zone.is_assumed},
        "volume_kind": bars.volume_kind,
        "format": bars.source.format,
        "origin": {"path": str(bars.source.path or ""), "sha256": bars.source.sha256},
        "notes": bars.report.notes,
        "repairs": bars.report.repairs,
    }
    frame = pl.DataFrame({name: getattr(bars, name) for name in COLUMNS})
    frame.write_parquet(path, metadata={KEY: json.dumps(facts)})


def parquet_bars(path: Path, data: bytes, options: ReadOptions) -> RawBars:
    """Return the rows of a Parquet file.

    Raises:
        FormatError: damaged.
        ColumnError: a needed column is absent or of a kind that holds no numbers or times.
        TimeError: the times state no zone.
    """
    frame, metadata = _loaded(path, data)
    facts = _facts(path, metadata)
    names = {plain_name(name): name for name in reversed(frame.columns)}
    spelled = _spelled(path, names, frame)
    if frame.height == 0:
        raise FormatError("the file holds no bars", file=path, hint="Export it again.")
    faults: list[Fault] = []
    lines = np.arange(1, frame.height + 1)
    is_bad = np.zeros(frame.height, bool)
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in (*PRICE_COLUMNS, "volume", "spread"):
        if name in spelled:
            columns[name] = _numbers(path, frame[spelled[name]], lines, is_bad, faults)
    columns.setdefault("volume", np.zeros(frame.height))
    columns.setdefault("spread", np.full(frame.height, -1.0))
    if options.volume_kind == "none":
        columns["volume"] = np.zeros(frame.height)
    found = facts.format if facts else _format(names)
    notes = list(facts.notes) if facts else [f"read as {found.name}"]
    time, clock, stated = _times(
        path, frame[spelled["date"]], options, facts, found, lines, is_bad, faults, notes
    )
    columns = {"time": time, **columns}
    symbol = options.symbol or (facts.symbol if facts else symbol_of(path))
    if facts is not None and options.digits is None and options.price_unit == "price":
        digits = facts.digits
    else:
        digits = prices_in_units(columns, symbol, options, notes, faults, spelled, lines)
    return finish(
        path=path,
        format=found,
        sha256=hashlib.sha256(data).hexdigest(),
        columns=columns,
        spelled=spelled,
        lines=lines,
        faults=faults,
        is_bad=is_bad,
        clock=clock,
        is_clock_stated=stated,
        has_clock=True,
        notes=notes,
        symbol=symbol,
        digits=digits,
        facts=facts,
    )


def _loaded(path: Path, data: bytes) -> tuple[pl.DataFrame, dict[str, str]]:
    try:
        metadata = pl.read_parquet_metadata(io.BytesIO(data))
        return pl.read_parquet(io.BytesIO(data)), metadata
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        # damaged files raise almost anything, also the panic of polars, which is no Exception
        text = shortened(" ".join(str(error).split()), 120)
        raise FormatError(
            f"a damaged Parquet file: {text}", file=path, hint="Copy or export it again."
        ) from None


def _facts(path: Path, metadata: dict[str, str]) -> Facts | None:
    if KEY not in metadata:
        return None
    try:
        facts = json.loads(metadata[KEY])
        name = str(facts["format"])
        known = next((one for one in FORMATS.values() if one.name == name), Format(name=name))
        return Facts(
            symbol=str(facts["symbol"]),
            timeframe=Timeframe.parse(str(facts["timeframe"])),
            digits=int(facts["digits"]),
            side=facts["side"],
            zone=ServerZone(str(facts["zone"]["name"]), bool(facts["zone"]["is_assumed"])),
            volume_kind=facts["volume_kind"],
            format=known,
            notes=tuple(str(note) for note in facts["notes"]),
            repairs=tuple(str(repair) for repair in facts["repairs"]),
        )
    except (ValueError, TypeError, KeyError, HalfstepError) as error:
        raise FormatError(
            f"the metadata of these bars are damaged ({type(error).__name__})",
            file=path,
            hint="Import them again with: halfstep data import FILE",
        ) from None


def _spelled(path: Path, names: dict[str, str], frame: pl.DataFrame) -> dict[str, str]:
    wanted = {
        "date": DATE_NAMES,
        **{name: (name, name[0]) for name in PRICE_COLUMNS},
        "volume": (*TICK_VOLUME_NAMES, *PLAIN_VOLUME_NAMES),
        "spread": ("spread",),
    }
    spelled = {}
    for meaning, candidates in wanted.items():
        name = next((names[candidate] for candidate in candidates if candidate in names), None)
        if name is not None:
            spelled[meaning] = name
        elif meaning not in ("volume", "spread"):
            sought = "time" if meaning == "date" else meaning
            raise ColumnError(
                f"no column {sought!r} among {listed(frame.columns)}",
                file=path,
                column=sought,
                hint="Needed are time, open, high, low and close; optional are volume and spread.",
            )
    return spelled


def _format(names: dict[str, str]) -> Format:
    return FORMATS["mt5-python" if set(TICK_VOLUME_NAMES[:2]) & set(names) else "parquet"]


def _numbers(
    path: Path,
    column: pl.Series,
    lines: npt.NDArray[np.int64],
    is_bad: npt.NDArray[np.bool_],
    faults: list[Fault],
) -> npt.NDArray[np.float64]:
    if not column.dtype.is_numeric():
        raise ColumnError(
            f"column {column.name!r} holds {column.dtype}, not numbers",
            file=path,
            column=column.name,
            hint="Convert it to float64 and write the file again.",
        )
    _mark_nulls(column, lines, is_bad, faults)
    return np.array(column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy(), np.float64)


def _mark_nulls(
    column: pl.Series, lines: npt.NDArray[np.int64], is_bad: npt.NDArray[np.bool_], faults: list[Fault]
) -> None:
    if column.null_count() == 0:
        return
    bad = column.is_null().to_numpy() & ~is_bad
    if bad.any():
        faults.append(
            Fault(
                code="cell",
                error=CellError,
                column=column.name,
                lines=lines[bad],
                describe=lambda _: ("an empty cell is not a number or a time", None),
                hint='Fill it, or pass repair=("drop-bad",) (command line: --repair drop-bad; of halfstep run: --data.repair drop-bad).',
            )
        )
        is_bad |= bad


def _times(
    path: Path,
    column: pl.Series,
    options: ReadOptions,
    facts: Facts | None,
    found: Format,
    lines: npt.NDArray[np.int64],
    is_bad: npt.NDArray[np.bool_],
    faults: list[Fault],
    notes: list[str],
) -> tuple[npt.NDArray[np.int64], ServerZone, bool]:
    kind = column.dtype
    if not (kind.is_integer() or isinstance(kind, pl.Datetime) or kind == pl.Date):
        raise ColumnError(
            f"column {column.name!r} holds {kind}, not times",
            file=path,
            column=column.name,
            hint="Convert it to a datetime or to int64 seconds since 1970 (UTC) and write the file again.",
        )
    _mark_nulls(column, lines, is_bad, faults)
    if kind.is_integer():
        seconds = np.array(column.cast(pl.Int64, strict=False).fill_null(0).to_numpy(), np.int64)
        if len(seconds) and np.median(seconds) > MILLISECONDS_ABOVE:
            seconds //= 1000
            notes.append("times were read as milliseconds")
    else:
        seconds = np.array(column.dt.epoch("s").fill_null(0).to_numpy(), np.int64)
    outside = ((seconds < 0) | (seconds >= LATEST)) & ~is_bad
    if outside.any():
        values = seconds[outside]
        faults.append(
            Fault(
                code="time",
                error=TimeError,
                column=column.name,
                lines=lines[outside],
                describe=lambda k: (f"{values[k]} is no second from 1970 to 2100", int(values[k])),
                hint='Write the file again, or pass repair=("drop-bad",).',
            )
        )
        is_bad |= outside
        seconds[outside] = 0
    is_utc = kind.is_integer() or getattr(kind, "time_zone", None) is not None
    if facts is not None and is_utc:
        return seconds, (facts.zone if options.zone is None else ServerZone(options.zone)), True
    if is_utc and not (kind.is_integer() and found.is_metatrader):
        return seconds, ServerZone(options.zone or "UTC"), True
    chosen = options.zone or found.zone
    if chosen is None:
        raise TimeError(
            "the times state no zone",
            file=path,
            row=1,
            column=column.name,
            hint='Say which clock they show: zone="UTC", "server-eu", ... (command line: --zone; of halfstep run: --data.zone).',
        )
    clock = ServerZone(chosen, is_assumed=options.zone is None)
    if clock.is_assumed:
        notes.append(f"the file states no time zone; read as {chosen} (the habit of its format)")
    good = np.flatnonzero(~is_bad)
    utc = np.zeros(len(seconds), np.int64)
    utc[good], never = clock.to_utc_where_it_exists(seconds[good])
    if never.any():
        rows = good[never]
        local = seconds[rows]
        faults.append(
            Fault(
                code="time",
                error=TimeError,
                column=column.name,
                lines=lines[rows],
                describe=lambda k: (f"second {local[k]} does not exist on the clock {chosen}", int(local[k])),
                hint="Name the right clock with zone= (command line: --zone; of halfstep run: --data.zone).",
            )
        )
        is_bad[rows] = True
    return utc, clock, False
