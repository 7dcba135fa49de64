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

from halfstep.errors import (
    ConfigError,
    DataError,
    PriceError,
    QuantityError,
)
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
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.identity import UNKNOWN_SYMBOL, digits_of
from halfstep.market.instruments import preset_of
from halfstep.market.layout import Format
from halfstep.market.timeframes import Timeframe

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


def prices_in_units(
    columns: dict[str, Values],
    symbol: str,
    options: ReadOptions,
    notes: list[str],
    faults: list[Fault],
    spelled: dict[str, str],
    lines: Seconds,
) -> int:
    """Return the digits; turn points into prices where that was said, and name prices that look like points."""
    if symbol == UNKNOWN_SYMBOL:
        notes.append(
            "neither the file nor its name says the symbol; name it with symbol= (command line: --symbol; of halfstep run: --data.symbol)"
        )
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
    digits = options.digits
    if digits is None:
        digits = (
            preset.digits if preset else digits_of(np.concatenate([columns[name] for name in PRICE_COLUMNS]))
        )
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
    known, is_bad = is_bad, is_bad.copy()
    for name in PRICE_COLUMNS:
        bad = ~is_price(columns[name]) & ~known
        _add_values(faults, "price", PriceError, spelled.get(name, name), columns[name], bad, lines)
        is_bad |= bad
    for name, good in (("volume", is_volume(columns["volume"])), ("spread", _is_spread(columns["spread"]))):
        bad = ~good & ~known
        _add_values(faults, name, QuantityError, spelled.get(name, name), columns[name], bad, lines)
        is_bad |= bad
    misshapen = is_misshapen(*(columns[name] for name in PRICE_COLUMNS)) & ~is_bad
    _add_shapes(faults, columns, spelled, misshapen, lines)
    steps = np.diff(columns["time"][~is_bad])
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


def _add_values(
    faults: list[Fault],
    word: str,
    error: type[DataError],
    column: str,
    values: Values,
    bad: Mask,
    lines: Seconds,
) -> None:
    """Add the fault of numbers that cannot be what they should be: a price, a volume, a spread."""
    if not bad.any():
        return
    rows = np.flatnonzero(bad)

    def describe(k: int) -> tuple[str, object]:
        value = float(values[rows[k]])
        return f"{value} is no {word}; it must be {_RULES[word]}", value

    faults.append(
        Fault(
            code="price" if word == "price" else "quantity",
            error=error,
            column=column,
            lines=lines[rows],
            describe=describe,
            hint=DROP_HINT,
        )
    )


def _add_shapes(
    faults: list[Fault],
    columns: dict[str, npt.NDArray[Any]],
    spelled: dict[str, str],
    misshapen: Mask,
    lines: Seconds,
) -> None:
    """Add the faults of rows whose four prices contradict each other, of the high and of the low."""
    fails_above = (columns["high"] < columns["open"]) | (columns["high"] < columns["close"])
    for name, bad in (("high", misshapen & fails_above), ("low", misshapen & ~fails_above)):
        if bad.any():
            rows = np.flatnonzero(bad)

            def describe(k: int, rows: npt.NDArray[np.intp] = rows, name: str = name) -> tuple[str, object]:
                four = (float(columns[price][rows[k]]) for price in PRICE_COLUMNS)
                return shape_fault(*four)[1], float(columns[name][rows[k]])

            faults.append(
                Fault(
                    code="ohlc",
                    error=PriceError,
                    column=spelled.get(name, name),
                    lines=lines[rows],
                    describe=describe,
                    hint=SHAPE_HINT,
                )
            )


def _is_spread(values: Values) -> Mask:
    return np.asarray((values >= -1) & (values <= LARGEST_SPREAD) & (values == np.rint(values)))


_RULES = {
    "price": "finite, above 0 and below 1e9",
    "volume": "finite and 0 or more",
    "spread": "a whole number of points, 0 or more, or -1 for unknown",
}
