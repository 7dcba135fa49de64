"""Rates into the account's currency, for symbols of which it is neither the base nor the quote currency."""

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.calendar import iso
from halfstep.market.timeframes import DAY, HOUR, Timeframe

__all__ = ["Rate", "conversion_rates"]

Column = npt.NDArray[np.float64]
Rate = float | Column | Bars

OLDEST = 7 * DAY  # beyond its own timeframe a close may be so old: weekends and holidays, not an ended file


def conversion_rates(rate: Rate, bars: Bars, *, base: str, quote: str, name: str = "rate") -> Column:
    """Return how much of ``quote`` one unit of ``base`` is worth while each bar is traded, ``(n,)``.

    Bars of a connecting symbol give their last close known at each bar's open: the close of the newest one that has
    ended by then. It is taken as the file shows it, BID or ASK; of the symbol the other way round its inverse.

    Args:
        rate: a number for all bars, one number a bar ``(n,)``, or bars of the symbol ``base`` + ``quote`` or
            ``quote`` + ``base`` of any timeframe up to D1, whatever the broker appends to its name.
        bars: that are traded.
        base, quote: currencies, such as GBP and USD.
        name: of the argument, for messages.

    Raises:
        ConfigError: rates that are not finite and above 0, of another length, or of another symbol.
        CoverageError: a bar opens before the first close is known, or more than a week after the last one.

    Example:
        >>> from halfstep.market.synthetic import random_bars
        >>> bars = random_bars(4, seed=1)
        >>> conversion_rates(1.25, bars, base="GBP", quote="USD").tolist()
        [1.25, 1.25, 1.25, 1.25]
        >>> rates = conversion_rates(bars, bars.slice(2, 4), base="USD", quote="EUR")
        >>> bool((rates == 1 / bars.close[1:3]).all())
        True
    """
    if isinstance(rate, Bars):
        return _known_closes(rate, bars, base=base, quote=quote, name=name)
    rates = np.asarray(rate, np.float64)
    n = len(bars)
    if rates.shape not in ((), (n,)) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ConfigError(
            f"{name}: {rates if rates.shape == () else f'shape {rates.shape}'}, must be one finite rate above 0, or "
            f"one a bar, ({n},). Or give bars of {base}{quote}."
        )
    return np.broadcast_to(rates, n)


def _known_closes(rate: Bars, bars: Bars, *, base: str, quote: str, name: str) -> Column:
    symbol = rate.symbol.upper()
    if not symbol.startswith((base + quote, quote + base)):
        raise ConfigError(f"{name}: bars of {rate.symbol}, must be of {base}{quote} or {quote}{base}.")
    if rate.timeframe.seconds > Timeframe.D1.seconds:
        raise ConfigError(
            f"{name}: {rate.timeframe.name} bars of {rate.symbol}, must be of D1 or a finer timeframe."
        )
    ends = _ends(rate)
    newest = np.searchsorted(ends, bars.time, side="right") - 1
    age = np.where(newest >= 0, bars.time - ends[newest], np.iinfo(np.int64).max)
    too_old = age > OLDEST + rate.timeframe.seconds
    if too_old.any():
        row = int(too_old.argmax())
        raise CoverageError(
            f"{name}: no close of {rate.symbol} is known at the open of bar {row + 1}, "
            f"{iso(int(bars.server_time[row]))} ({bars.zone.name}), that is at most a week old",
            file=rate.source.path,
            hint=f"{rate.covers()} Give {rate.symbol} from before the first to the last bar that is traded.",
        )
    closes = rate.close[newest]
    return closes if symbol.startswith(base + quote) else 1 / closes


def _ends(bars: Bars) -> npt.NDArray[np.int64]:
    """Return the UTC second at which each bar has ended, also where the clock is put back inside it."""
    if bars.timeframe.seconds <= HOUR:
        return bars.close_time
    on_server, _ = bars.zone.to_utc_where_it_exists(bars.server_time + bars.timeframe.seconds)
    return np.maximum(bars.close_time, on_server)
