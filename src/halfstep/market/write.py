"""Bars to files that read back equal: Parquet, plain CSV, or the layout of a MetaTrader 5 export.

Files appear whole or not at all: they are written under a temporary name, flushed to the disk and renamed.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from halfstep import files
from halfstep.errors import TimeError
from halfstep.market.bars import PRICE_COLUMNS, Bars
from halfstep.market.parquet import write_parquet
from halfstep.market.timeframes import DAY

CHUNK = 100_000  # bars turned into text at a time


def write_bars(bars: Bars, path: str | Path) -> None:
    """Write bars in the form that the file's name asks for.

    Args:
        path: ``.csv``: time (UTC, ISO with Z), open, high, low, close, volume, spread. ``.mt5.csv``: the layout of
            MetaTrader 5's export, in server time. Anything else: Parquet with every attribute in its metadata,
            which alone reads back with the same hash without being told symbol, digits, side and zone.

    Raises:
        TimeError: ``.mt5.csv`` cannot say when a bar opens, because the server's clock shows that hour twice.
    """
    path = Path(path)
    name = path.name.lower()
    with files.replacing(path) as temporary:
        if name.endswith(".mt5.csv"):
            _write_lines(temporary, _mt5_lines(bars))
        elif name.endswith(".csv"):
            _write_lines(temporary, _csv_lines(bars))
        else:
            write_parquet(bars, temporary)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="ascii", newline="") as stream:
        stream.writelines(lines)


def _csv_lines(bars: Bars) -> Iterable[str]:
    yield "time,open,high,low,close,volume,spread\n"
    for part in _parts(bars):
        stamps = np.datetime_as_string(bars.time[part].astype("datetime64[s]"))
        numbers = zip(
            *(map(_shortest, getattr(bars, name)[part].tolist()) for name in (*PRICE_COLUMNS, "volume")),
            strict=True,
        )
        for stamp, cells, spread in zip(stamps, numbers, bars.spread[part].tolist(), strict=True):
            yield f"{stamp}Z,{','.join(cells)},{spread}\n"


def _mt5_lines(bars: Bars) -> Iterable[str]:
    server = bars.server_time
    again, never = bars.zone.to_utc_where_it_exists(server)
    wrong = never | (again != bars.time)
    if wrong.any():
        row = int(wrong.argmax())
        raise TimeError(
            "the server's clock shows this hour twice, and an export in server time cannot say which is meant",
            row=row + 1,
            value=int(bars.time[row]),
            hint="Write .csv or .parquet instead.",
        )
    has_clock = bars.timeframe.seconds < DAY or bool((server % DAY).any())
    clock = "<TIME>\t" if has_clock else ""
    yield f"<DATE>\t{clock}<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\t<SPREAD>\r\n"
    for part in _parts(bars):
        stamps = np.datetime_as_string(server[part].astype("datetime64[s]"))
        prices = zip(*(getattr(bars, name)[part].tolist() for name in PRICE_COLUMNS), strict=True)
        volumes, spreads = bars.volume[part].tolist(), bars.spread[part].tolist()
        for stamp, four, volume, spread in zip(stamps, prices, volumes, spreads, strict=True):
            date, time = str(stamp).split("T")
            when = date.replace("-", ".") + (f"\t{time}" if has_clock else "")
            cells = "\t".join(_fixed(price, bars.digits) for price in four)
            yield f"{when}\t{cells}\t{_shortest(volume)}\t0\t{spread}\r\n"


def _parts(bars: Bars) -> list[slice]:
    return [slice(begin, begin + CHUNK) for begin in range(0, len(bars), CHUNK)]


def _shortest(value: float) -> str:
    """Return the shortest text that reads back as the same number, without ``.0``."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _fixed(price: float, digits: int) -> str:
    """Return the price with its digits where that reads back as the same number, else the shortest text."""
    text = f"{price:.{digits}f}"
    return text if float(text) == price else repr(price)
