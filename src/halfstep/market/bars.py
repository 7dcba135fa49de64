"""Checked bars: one frozen table of open, high, low, close, volume and spread, oldest first.

The constructor tests every invariant, so whoever holds `Bars` may trust them: times strictly rising, prices
finite, positive and consistent, volumes and spreads not negative.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError, DataError, PriceError, QuantityError, TimeError
from halfstep.market.calendar import ServerZone, iso, parse_date
from halfstep.market.timeframes import Timeframe

Prices = npt.NDArray[np.float64]
Side = Literal["bid", "ask"]
Seconds = npt.NDArray[np.int64]
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
            object.__setattr__(self, name, frozen(np.ascontiguousarray(getattr(self, name), kind)))
        check_columns({name: getattr(self, name) for name in COLUMNS})
        if not 0 <= self.digits <= 8:
            raise ConfigError(f"digits: {self.digits}, must be 0 to 8.")

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
        whole, off = on_grid(prices, self.digits)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            raise PriceError(
                f"{prices[row]} is not a whole number of points of {self.symbol} with {self.digits} digits",
                file=self.source.path,
                row=row + 1,
                column=column,
                value=float(prices[row]),
                hint='Give digits= (of a run: --instrument.digits), or pass repair=("snap",) (--data.repair snap) to round.',
            )
        return whole

    @property
    def off_grid(self) -> int:
        """Number of prices further than 0.05 point from the grid; `points` refuses them."""
        return sum(int(on_grid(getattr(self, name), self.digits)[1].sum()) for name in PRICE_COLUMNS)

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

    def concat(self, later: Self) -> Self:
        """Return these bars followed by ``later`` ones of the same symbol, timeframe, digits, side and zone.

        Raises:
            ConfigError: the two differ in one of these.
            TimeError: the later bars do not begin after these end.
        """
        for name in ("symbol", "timeframe", "digits", "side", "volume_kind"):
            ours, theirs = getattr(self, name), getattr(later, name)
            if ours != theirs:
                raise ConfigError(f"{name}: {theirs} after {ours}, must be equal to join bars.")
        if self.zone.name != later.zone.name:
            raise ConfigError(f"zone: {later.zone.name} after {self.zone.name}, must be equal to join bars.")
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in COLUMNS
        }
        return replace(
            self,
            source=Source(format="joined"),
            report=ReadReport(
                notes=tuple(dict.fromkeys(self.report.notes + later.report.notes)),
                repairs=self.report.repairs + later.report.repairs,
            ),
            **columns,
        )

    def covers(self) -> str:
        """Return one sentence on the span of the bars, for messages."""
        server = self.server_time
        return f"The bars cover {iso(int(server[0]))} to {iso(int(server[-1]))}, {len(self):,} of them ({self.zone.name})."


def check_columns(columns: Mapping[str, npt.NDArray[Any]]) -> None:
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
    falls = np.diff(time) <= 0
    if falls.any():
        row = int(falls.argmax()) + 1
        raise TimeError(
            f"{order_fault(time[row - 1], time[row])}, row {row}",
            row=row + 1,
            column="time",
            value=int(time[row]),
            hint=ORDER_HINT if time[row] < time[row - 1] else REPEAT_HINT,
        )
    prices = tuple(columns[name] for name in PRICE_COLUMNS)
    for name, price in zip(PRICE_COLUMNS, prices, strict=True):
        _refuse_first(
            ~is_price(price), price, name, PriceError, "price; it must be finite, above 0 and below 1e9"
        )
    bad = is_misshapen(*prices)
    if bad.any():
        row = int(bad.argmax())
        column, what = shape_fault(*(float(price[row]) for price in prices))
        raise PriceError(what, row=row + 1, column=column, value=float(columns[column][row]), hint=SHAPE_HINT)
    volume, spread = columns["volume"], columns["spread"]
    _refuse_first(
        ~is_volume(volume), volume, "volume", QuantityError, "volume; it must be finite and 0 or more"
    )
    _refuse_first(
        spread < -1, spread, "spread", QuantityError, "spread; it must be 0 or more, or -1 for unknown"
    )


def frozen(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array read-only and owning its memory; a copy unless it is both already."""
    if column.base is not None or column.flags.writeable:
        column = column.copy()
    column.flags.writeable = False
    return column


def on_grid(prices: Prices, digits: int) -> tuple[Prices, npt.NDArray[np.bool_]]:
    """Return prices in whole points, and where they lie further than 0.05 point from the grid."""
    scaled = prices * 10.0**digits
    whole = np.rint(scaled)
    return whole, np.abs(scaled - whole) > GRID_TOLERANCE


DROP_HINT = 'Export the bars again, or pass repair=("drop-bad",) (command line: --repair drop-bad; of halfstep run: --data.repair drop-bad).'
SHAPE_HINT = 'Export the bars again, or pass repair=("widen",) (command line: --repair widen; of halfstep run: --data.repair widen) or ("drop-bad",).'
ORDER_HINT = 'Export the bars again, or pass repair=("sort",) (command line: --repair sort; of halfstep run: --data.repair sort).'
REPEAT_HINT = 'Export the bars again, or pass repair=("dedupe",) (command line: --repair dedupe; of halfstep run: --data.repair dedupe); equal rows only.'


def is_price(values: Prices) -> npt.NDArray[np.bool_]:
    """Return where a number can be a price: finite, above 0, below 1e9."""
    return np.asarray((values > 0) & (values < HIGHEST_PRICE))  # False for NaN


def is_volume(values: Prices) -> npt.NDArray[np.bool_]:
    """Return where a number can be a volume: finite, not negative."""
    return np.asarray((values >= 0) & (values < np.inf))


def is_misshapen(o: Prices, h: Prices, low: Prices, c: Prices) -> npt.NDArray[np.bool_]:
    """Return where four prices contradict each other."""
    return np.asarray((h < o) | (h < c) | (low > o) | (low > c))


def shape_fault(o: float, h: float, low: float, c: float) -> tuple[str, str]:
    """Return the column that contradicts the others, and the four prices in words."""
    high_fails = h < max(o, c)
    name, value, word = ("high", h, "below") if high_fails else ("low", low, "above")
    other = ("open", o) if (o > h if high_fails else o < low) else ("close", c)
    return name, f"{name} {value} is {word} {other[0]} {other[1]} (open {o}, high {h}, low {low}, close {c})"


def order_fault(before: int, here: int) -> str:
    """Return in words what is wrong with the time of a bar that is not later than the one before."""
    word = "repeats" if here == before else "is earlier than"
    return f"{iso(int(here))} UTC {word} the bar before it, {iso(int(before))} UTC"


def _refuse_first(
    bad: npt.NDArray[np.bool_], values: npt.NDArray[Any], name: str, error: type[DataError], rule: str
) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise error(
            f"{values[row]} is no {rule}", row=row + 1, column=name, value=float(values[row]), hint=DROP_HINT
        )
