"""What a network reads of each bar: nine numbers of the closed bar and its past, never of the future.

Two sets, both of nine columns. ``published9`` holds the raw numbers of the published series. ``robust9``, the
default, holds the same information scale-free: prices as log ratios in units of 1e-4, volume relative to the
median of the 120 bars before. The MACD signal is left out there, because a 9-bar mean of the main line is a
linear function of the window.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError
from halfstep.market.bars import Bars
from halfstep.market.indicators import atr, cci, macd, median_before, rsi

Column = npt.NDArray[np.float64]

SETTLED = 500  # bars after which a late start of RSI and MACD is below 1e-14 deviations
VOLUME_MEDIAN_BARS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSet:
    """A named, versioned list of columns."""

    name: str
    version: int
    columns: tuple[str, ...]
    compute: Callable[[Bars], dict[str, Column]]
    path: tuple[str, ...]
    """Columns whose sum over bars is the close path."""
    reads_volume: str
    """The column that is 0 where bars have no volume."""

    @property
    def id(self) -> str:
        """Name and version, for checkpoints and stores."""
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """Features of every bar.

    Attributes:
        values: ``(n, 9)`` float32; row t uses bars up to t only and is usable from the close of bar t on.
        names: column names, in order.
        first_valid: first row without NaN.
        settled: first row that no longer depends on where the bars begin.
        set_id: name and version of the set.
        path: names of the columns whose sum over bars is the close path.
        notes: what a reader of results should know.
    """

    values: npt.NDArray[np.float32]
    names: tuple[str, ...]
    first_valid: int
    settled: int
    set_id: str
    path: tuple[str, ...]
    notes: tuple[str, ...]


def compute_features(bars: Bars, name: str = "robust9") -> Features:
    """Return the features of all bars, computed in float64.

    Raises:
        ConfigError: no set has that name.
    """
    if name not in FEATURE_SETS:
        raise ConfigError(f"features: {name!r}, must be one of {', '.join(FEATURE_SETS)}.")
    chosen = FEATURE_SETS[name]
    columns = chosen.compute(bars)
    notes = []
    if not bars.volume.any():
        columns[chosen.reads_volume] = np.zeros(len(bars))
        notes.append(f"the bars have no volume: feature {chosen.reads_volume!r} is 0 everywhere")
    table = np.stack([columns[column] for column in chosen.columns], axis=1)
    valid = np.flatnonzero(np.isfinite(table).all(axis=1))
    return Features(
        values=table.astype(np.float32),
        names=chosen.columns,
        first_valid=int(valid[0]) if len(valid) else len(bars),
        settled=SETTLED,
        set_id=chosen.id,
        path=chosen.path,
        notes=tuple(notes),
    )


def _robust9(bars: Bars) -> dict[str, Column]:
    o, h, low, c = bars.open, bars.high, bars.low, bars.close
    before = np.concatenate([[np.nan], c[:-1]])
    usual = median_before(bars.volume, VOLUME_MEDIAN_BARS)
    return {
        "gap": 1e4 * np.log(o / before),
        "body": 1e4 * np.log(c / o),
        "upper": 1e4 * np.log(h / o),
        "lower": 1e4 * np.log(low / o),
        "relative_volume": np.log((1 + bars.volume) / (1 + usual)),
        "rsi": rsi(c) / 50 - 1,
        "cci": cci(h, low, c) / 100,
        "atr": 1e4 * atr(h, low, c) / c,
        "macd": 1e4 * macd(c)[0] / c,
    }


def _published9(bars: Bars) -> dict[str, Column]:
    main, signal = macd(bars.close)
    return {
        "close_open": bars.close - bars.open,
        "high_open": bars.high - bars.open,
        "low_open": bars.low - bars.open,
        "volume": bars.volume / 1000,
        "rsi": rsi(bars.close),
        "cci": cci(bars.high, bars.low, bars.close),
        "atr": atr(bars.high, bars.low, bars.close),
        "macd": main,
        "macd_signal": signal,
    }


FEATURE_SETS: Mapping[str, FeatureSet] = MappingProxyType(
    {
        "robust9": FeatureSet(
            name="robust9",
            version=1,
            columns=("gap", "body", "upper", "lower", "relative_volume", "rsi", "cci", "atr", "macd"),
            compute=_robust9,
            path=("gap", "body"),
            reads_volume="relative_volume",
        ),
        "published9": FeatureSet(
            name="published9",
            version=1,
            columns=(
                "close_open",
                "high_open",
                "low_open",
                "volume",
                "rsi",
                "cci",
                "atr",
                "macd",
                "macd_signal",
            ),
            compute=_published9,
            path=("close_open",),
            reads_volume="volume",
        ),
    }
)
