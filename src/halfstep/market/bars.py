"""Checked bars: one frozen table of open, high, low, close, volume and spread, oldest first.

The constructor tests every invariant, so whoever holds `Bars` may trust them: times strictly rising, prices
finite, positive and consistent, volumes and spreads not negative.
"""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from halfstep.errors import CoverageError, PriceError, QuantityError, TimeError
from halfstep.market.calendar import ServerZone, iso, parse_date
from halfstep.market.timeframes import Timeframe

Prices = npt.NDArray[np.float64]
Side = Literal["bid", "ask"]
VolumeKind = Literal["tick", "real", "quote", "none"]

COLUMNS = ("time", "open", "high", "low", "close", "volume", "spread")
PRICE_COLUMNS = ("open", "high", "low", "close")
HIGHEST_PRICE = 1e9
GRID_TOLERANCE = 0.05  # of a point: noise of text and float32


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where bars came from."""

    format: str = "memory"
    """Name of the export format."""
    path: Path | None = None
    """The file."""
    sha256: str = ""
    """Of the file's bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadReport:
    """What a reader assumed and changed; the report of a run prints every line."""

    notes: tuple[str, ...] = ()
    """Assumptions and conversions."""
    repairs: tuple[str, ...] = ()
    """Repairs that were asked for, with counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bars:
    """Bars of one symbol, one timeframe and one side of the price.

    Attributes:
        time: UTC second at which each bar opens, ``(n,)`` int64; a bar is known only at its `close_time`.
        open, high, low, close: prices, ``(n,)`` float64.
        volume: ``(n,)`` float64, in units of ``volume_kind``.
        spread: points, ``(n,)`` int32; -1 = not stated.

    Raises:
        TimeError, PriceError, QuantityError: an invariant does not hold; ``row`` is the first bad row, from 1.
    """

    time: npt.NDArray[np.int64]
    open: Prices
    high: Prices
    low: Prices
    close: Prices
    volume: Prices
    spread: npt.NDArray[np.int32]
    symbol: str
    timeframe: Timeframe
    digits: int
    side: Side = "bid"
    zone: ServerZone = field(default_factory=lambda: ServerZone("UTC"))
    volume_kind: VolumeKind = "tick"
    source: Source = field(default_factory=Source)
    report: ReadReport = field(default_factory=ReadReport)

    def __post_init__(self) -> None:
        for name in COLUMNS:
            kind = np.int64 if name == "time" else np.int32 if name == "spread" else np.float64
            column = np.ascontiguousarray(getattr(self, name), kind)
            if column.base is not None or column.flags.writeable:
                column = column.copy()
            column.flags.writeable = False
            object.__setattr__(self, name, column)
        check_columns({name: getattr(self, name) for name in COLUMNS})

    def __len__(self) -> int:
        return len(self.time)

    @property
    def close_time(self) -> npt.NDArray[np.int64]:
        """UTC second at which each bar is known: its open plus the timeframe."""
        return self.time + self.timeframe.seconds

    @property
    def server_time(self) -> npt.NDArray[np.int64]:
        """What the server's clock shows at each bar's open."""
        return self.zone.to_server(self.time)

    @property
    def hash(self) -> str:
        """SHA-256 of the columns (little-endian) and of symbol, timeframe, digits, side and zone."""
        digest = hashlib.sha256()
        for name in COLUMNS:
            column = getattr(self, name)
            digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        identity = (self.symbol, self.timeframe.name, str(self.digits), self.side, self.zone.name)
        digest.update("|".join(identity).encode())
        return digest.hexdigest()

    def points(self, column: Literal["open", "high", "low", "close"]) -> Prices:
        """Return prices as float64 whole numbers of points, the form in which touched levels compare exactly.

        Raises:
            PriceError: a price lies further than 0.05 point from the grid.
        """
        prices = getattr(self, column)
        scaled = prices * 10.0**self.digits
        whole = np.rint(scaled)
        off = np.abs(scaled - whole) > GRID_TOLERANCE
        if off.any():
            row = int(np.flatnonzero(off)[0])
            raise PriceError(
                f"{prices[row]} is not a whole number of points of {self.symbol} with {self.digits} digits",
                file=self.source.path,
                row=row + 1,
                column=column,
                value=float(prices[row]),
                hint='Give digits=, or pass repair=("snap",) to round to the grid.',
            )
        return np.asarray(whole, np.float64)

    def slice(self, start: int, stop: int) -> Self:
        """Return bars ``start`` to ``stop - 1`` by index."""
        if not 0 <= start < stop <= len(self):
            raise CoverageError(
                f"bars {start} to {stop} asked of {len(self)}", hint="Ask for a span inside the file."
            )
        return replace(self, **{name: getattr(self, name)[start:stop] for name in COLUMNS})

    def index_at(self, date: str) -> int:
        """Return the index of the first bar whose server date is ``date`` (``2023-06-01``) or later; may be n."""
        return int(np.searchsorted(self.server_time, parse_date(date)))

    def between(self, first: str, last: str) -> Self:
        """Return the bars of the half-open range of server dates ``[first, last)``."""
        start, stop = self.index_at(first), self.index_at(last)
        if start >= stop:
            raise CoverageError(
                f"no bar between {first} and {last}", file=self.source.path, hint=self.covers()
            )
        return self.slice(start, stop)

    def covers(self) -> str:
        """Return one sentence on the span of the bars, for messages."""
        server = self.server_time
        return f"The bars cover {iso(int(server[0]))} to {iso(int(server[-1]))}, {len(self):,} of them ({self.zone.name})."


def check_columns(columns: dict[str, npt.NDArray[np.generic]]) -> None:
    """Raise the error of the first invariant that a set of columns breaks.

    Args:
        columns: arrays of equal length under the names of `COLUMNS`.
    """
    time = columns["time"]
    lengths = {len(column) for column in columns.values()}
    if lengths != {len(time)} or len(time) == 0:
        raise TimeError(
            f"columns of {sorted(lengths)} rows", hint="Bars need columns of one length, at least 1."
        )
    step = np.diff(time.astype(np.int64))
    if (step <= 0).any():
        row = int(np.flatnonzero(step <= 0)[0])
        word, way = ("repeats", "dedupe") if step[row] == 0 else ("is earlier than", "sort")
        raise TimeError(
            f"{iso(int(time[row + 1]))} UTC {word} the bar before it, {iso(int(time[row]))} UTC",
            row=row + 2,
            column="time",
            value=int(time[row + 1]),
            hint=f'Export the bars again, or pass repair=("{way}",) (command line: --data.repair {way}).',
        )
    o, h, low, c = (columns[name].astype(np.float64) for name in PRICE_COLUMNS)
    for name, price in zip(PRICE_COLUMNS, (o, h, low, c), strict=True):
        _refuse_first(~(np.isfinite(price) & (price > 0) & (price < HIGHEST_PRICE)), price, name)
    bad = (h < np.maximum(o, c)) | (low > np.minimum(o, c))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise PriceError(
            f"open {o[row]}, high {h[row]}, low {low[row]}, close {c[row]} contradict each other",
            row=row + 1,
            column="high" if h[row] < max(o[row], c[row]) else "low",
            value=float(h[row]),
            hint='Export the bars again, or pass repair=("widen",) (command line: --data.repair widen).',
        )
    volume, spread = columns["volume"].astype(np.float64), columns["spread"].astype(np.int64)
    for name, bad, values in (
        ("volume", ~(volume >= 0) | np.isinf(volume), volume),
        ("spread", spread < -1, spread),
    ):
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise QuantityError(
                f"{values[row]} is no {name}",
                row=row + 1,
                column=name,
                value=float(values[row]),
                hint='Export the bars again, or pass repair=("drop-bad",).',
            )


def _refuse_first(bad: npt.NDArray[np.bool_], price: Prices, name: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise PriceError(
            f"{price[row]} is no price; it must be finite, above 0 and below 1e9",
            row=row + 1,
            column=name,
            value=float(price[row]),
            hint='Export the bars again, or pass repair=("drop-bad",).',
        )
