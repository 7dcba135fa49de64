"""What a network reads of each bar: numbers of the closed bar and its past, never of the future.

A *set* is a named, versioned list of columns; a column is a name, a function of bars, and the number of earlier
bars after which it no longer depends on where the bars begin. Two sets come with the package, both of nine columns.
``published9`` holds the raw numbers of the published series. ``robust9``, the default, holds the same information
scale-free: prices as log ratios in units of 1e-4, volume relative to the median of the 120 bars before. The MACD
signal is left out there, because a 9-bar mean of the main line is a linear function of the window.

Your own set is a `FeatureSet`; `halfstep.market.causality` proves that it sees no future and how long it settles:

    FeatureSet(name="mine", version=1, columns=(FeatureColumn("body", lambda bars: bars.close - bars.open, 0), ...))
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.indicators import atr, cci, macd, median_before, rsi

Column = npt.NDArray[np.float64]

SETTLED = 500  # bars after which a late start of RSI and MACD is below 1e-14 deviations
VOLUME_MEDIAN_BARS = 120


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One number of each bar."""

    name: str
    compute: Callable[[Bars], Column]
    """From bars to ``(n,)`` float64; row t from bars up to t only, NaN where it is not defined yet."""
    warmup: int
    """Earlier bars after which the value does not depend on where the bars begin."""
    reads_volume: bool = False
    """Says nothing where bars have no volume."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSet:
    """A named, versioned list of columns; change the version with any formula."""

    name: str
    version: int
    columns: tuple[FeatureColumn, ...]
    path: tuple[str, ...] = ()
    """Columns whose sum over bars is the close path."""

    def __post_init__(self) -> None:
        if not self.columns or len(set(self.names)) < len(self.columns):
            raise ConfigError(
                f"features: {self.name} has columns {self.names}, must be at least one, each once."
            )
        if not set(self.path) <= set(self.names):
            raise ConfigError(f"features: path {self.path} of {self.name}, must be among {self.names}.")

    @property
    def id(self) -> str:
        """Name and version, for checkpoints and stores."""
        return f"{self.name}/{self.version}"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def settled(self) -> int:
        """First row that no longer depends on where the bars begin."""
        return max(column.warmup for column in self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """Features of every bar.

    Attributes:
        values: ``(n, columns)`` float32; row t uses bars up to t only and is usable from the close of bar t on.
        names: column names, in order.
        first_valid: first row from which on no value is missing.
        settled: first row that no longer depends on where the bars begin.
        set_id: name and version of the set.
        path: names of the columns whose sum over bars is the close path.
        notes: what a reader of results should know.
        bars_hash: `halfstep.market.Bars.hash` of the bars.
    """

    values: npt.NDArray[np.float32]
    names: tuple[str, ...]
    first_valid: int
    settled: int
    set_id: str
    path: tuple[str, ...]
    notes: tuple[str, ...]
    bars_hash: str

    def require_names(self, names: tuple[str, ...], whose: str) -> None:
        """Raise ConfigError unless the columns are exactly ``names`` in this order; ``whose`` says who needs them."""
        if self.names != names:
            raise ConfigError(
                f"features: {list(self.names)}, but {whose} was made with {list(names)}. Use that set."
            )

    def usable_from(self, *, allow_unsettled: bool = False) -> int:
        """Return the first row a pipeline may take: `settled`, or `first_valid` where unsettled rows are allowed.

        Raises:
            CoverageError: there is no such row.
        """
        first = self.first_valid if allow_unsettled else max(self.first_valid, self.settled)
        if first >= len(self.values):
            raise CoverageError(
                f"{len(self.values)} bars, but the features of {self.set_id} need {first + 1}",
                hint="Give earlier bars" + ("." if allow_unsettled else ", or pass allow_unsettled=True."),
            )
        return first


def feature_set(name: str | FeatureSet) -> FeatureSet:
    """Return a set by name.

    Raises:
        ConfigError: no set has that name.
    """
    if isinstance(name, FeatureSet):
        return name
    if name not in FEATURE_SETS:
        raise ConfigError(f"features: {name!r}, must be one of {', '.join(FEATURE_SETS)}.")
    return FEATURE_SETS[name]


def feature_table(bars: Bars, chosen: FeatureSet) -> Column:
    """Return the features of all bars in float64, ``(n, columns)``.

    Raises:
        ConfigError: a function of the set returns another shape.
    """
    table = np.empty((len(chosen.columns), len(bars)))
    for row, column in zip(table, chosen.columns, strict=True):
        values = np.asarray(column.compute(bars), np.float64)
        if values.shape != (len(bars),):
            raise ConfigError(
                f"features: column {column.name!r} of {chosen.id} has shape {values.shape}, must be ({len(bars)},)."
            )
        row[:] = values
    return table.T


def compute_features(bars: Bars, name: str | FeatureSet = "robust9") -> Features:
    """Return the features of all bars, computed in float64 and stored in float32.

    Args:
        bars: any.
        name: a set of the package, or your own.

    Raises:
        ConfigError: no set has that name.
    """
    chosen = feature_set(name)
    table = feature_table(bars, chosen)
    missing = np.flatnonzero(~np.isfinite(table).all(axis=1))
    silent = (
        [column.name for column in chosen.columns if column.reads_volume] if not bars.volume.any() else []
    )
    values = table.astype(np.float32)
    return Features(
        values=values,
        names=chosen.names,
        first_valid=int(missing[-1]) + 1 if len(missing) else 0,
        settled=chosen.settled,
        set_id=chosen.id,
        path=chosen.path,
        notes=tuple(f"the bars have no volume: feature {column!r} is 0 everywhere" for column in silent),
        bars_hash=bars.hash,
    )


def _gap(bars: Bars) -> Column:
    gap = np.full(len(bars), np.nan)
    gap[1:] = 1e4 * np.log(bars.open[1:] / bars.close[:-1])
    return gap


def _relative_volume(bars: Bars) -> Column:
    return np.log((1 + bars.volume) / (1 + median_before(bars.volume, VOLUME_MEDIAN_BARS)))


_ROBUST9 = FeatureSet(
    name="robust9",
    version=1,
    columns=(
        FeatureColumn("gap", _gap, 1),
        FeatureColumn("body", lambda bars: 1e4 * np.log(bars.close / bars.open), 0),
        FeatureColumn("upper", lambda bars: 1e4 * np.log(bars.high / bars.open), 0),
        FeatureColumn("lower", lambda bars: 1e4 * np.log(bars.low / bars.open), 0),
        FeatureColumn("relative_volume", _relative_volume, VOLUME_MEDIAN_BARS, reads_volume=True),
        FeatureColumn("rsi", lambda bars: rsi(bars.close) / 50 - 1, SETTLED),
        FeatureColumn("cci", lambda bars: cci(bars.high, bars.low, bars.close) / 100, 13),
        FeatureColumn("atr", lambda bars: 1e4 * atr(bars.high, bars.low, bars.close) / bars.close, 14),
        FeatureColumn("macd", lambda bars: 1e4 * macd(bars.close)[0] / bars.close, SETTLED),
    ),
    path=("gap", "body"),
)
_PUBLISHED9 = FeatureSet(
    name="published9",
    version=1,
    columns=(
        FeatureColumn("close_open", lambda bars: bars.close - bars.open, 0),
        FeatureColumn("high_open", lambda bars: bars.high - bars.open, 0),
        FeatureColumn("low_open", lambda bars: bars.low - bars.open, 0),
        FeatureColumn("volume", lambda bars: bars.volume / 1000, 0, reads_volume=True),
        FeatureColumn("rsi", lambda bars: rsi(bars.close), SETTLED),
        FeatureColumn("cci", lambda bars: cci(bars.high, bars.low, bars.close), 13),
        FeatureColumn("atr", lambda bars: atr(bars.high, bars.low, bars.close), 14),
        FeatureColumn("macd", lambda bars: macd(bars.close)[0], SETTLED),
        FeatureColumn("macd_signal", lambda bars: macd(bars.close)[1], SETTLED),
    ),
    path=("close_open",),
)
FEATURE_SETS: Mapping[str, FeatureSet] = MappingProxyType(
    {set_.name: set_ for set_ in (_ROBUST9, _PUBLISHED9)}
)
"""The sets of the package by name."""
