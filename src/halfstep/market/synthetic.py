"""Made-up bars: for tests of the machinery and for showing that learning works, never for results."""

from typing import Literal

import numpy as np

from halfstep.market.bars import Bars, ReadReport, Source
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.timeframes import DAY, Timeframe

Signal = Literal["volume", "earlier", "range", "session"]
"""Where a planted sign can be seen."""

EARLIER_BARS = 3

NOTE = "these bars are made up by a random generator; nothing about a market follows from them"


def random_bars(n: int, *, seed: int, start: str = "2022-01-03", volatility: float = 5e-4) -> Bars:
    """Return n hourly bars of a random walk with weekends, gaps, spreads and tick volumes.

    Args:
        n: number of bars.
        seed: of the generator; equal seeds give equal bars.
        start: first server date; bars run Monday 00:00 to Friday 23:00 of the server's clock.
        volatility: standard deviation of an hour's log return.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    returns = volatility * generator.standard_normal(n)
    volume = np.rint(np.exp(generator.normal(7.5, 0.5, n)))
    return _bars(returns, volume, generator, start)


def planted_bars(
    n: int,
    *,
    seed: int,
    edge: float = 6e-4,
    noise: float = 5e-4,
    start: str = "2022-01-03",
    signal: Signal = "volume",
) -> Bars:
    """Return hourly bars that tell the next bar's direction.

    A hidden sign b_t makes the log return of bar t + 1 ``edge * b_t + noise * N(0, 1)``. It keeps its value with
    probability 0.9, and is seen in the volume or in the range of bar t, high where b_t = +1 and low where it is -1; or
    in the volume three bars earlier, where it keeps its value with probability 0.7; or it is the session: +1 in the
    hours from 6 to 17 of the server's clock.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    ahead = EARLIER_BARS if signal == "earlier" else 0
    flips = np.where(generator.random(n + ahead) < (0.7 if ahead else 0.9), 1, -1)
    signs = planted_session(_hours(n, start)) if signal == "session" else np.cumprod(flips)
    sign = signs[:n]
    returns = noise * generator.standard_normal(n)
    returns[1:] += edge * sign[:-1]
    seen = signs[ahead:] if signal in ("volume", "earlier") else 0
    volume = np.rint(1000 * np.exp(1.0 * seen + 0.1 * generator.standard_normal(n)))
    return _bars(
        returns, volume, generator, start, reach=np.where(sign > 0, 3.0, 0.5) if signal == "range" else 1.0
    )


def planted_session(server_time: np.ndarray) -> np.ndarray:
    """Return the hidden sign of ``planted_bars(..., signal="session")`` at server seconds."""
    hour = server_time // 3600 % 24
    return np.where((hour >= 6) & (hour < 18), 1, -1)


def _hours(n: int, start: str) -> np.ndarray:
    """Return the server seconds of n hourly bars, Monday 00:00 to Friday 23:00."""
    hours = np.arange(2 * n + 200, dtype=np.int64) * 3600 + parse_date(start)
    weekday = (hours // DAY + 3) % 7
    return hours[weekday < 5][:n]


def _bars(
    returns: np.ndarray,
    volume: np.ndarray,
    generator: np.random.Generator,
    start: str,
    reach: np.ndarray | float = 1.0,
) -> Bars:
    n = len(returns)
    close = np.rint(1.1e5 * np.exp(np.cumsum(returns)))  # points
    gap = np.where(generator.random(n) < 0.05, np.rint(generator.normal(0, 10, n)), 0)
    before = np.concatenate([[1.1e5], close[:-1]])
    opened = before + gap
    wicks = np.rint(reach * np.abs(generator.normal(0, 25, (2, n))))
    high = np.maximum(opened, close) + wicks[0]
    low = np.minimum(opened, close) - wicks[1]
    zone = ServerZone("server-eu")
    return Bars(
        time=zone.to_utc(_hours(n, start)),
        open=opened / 1e5,
        high=high / 1e5,
        low=low / 1e5,
        close=close / 1e5,
        volume=volume,
        spread=generator.integers(0, 15, n).astype(np.int32),
        symbol="EURUSD",
        timeframe=Timeframe.H1,
        digits=5,
        zone=zone,
        volume_kind="tick",
        source=Source(format="made up"),
        report=ReadReport(notes=(NOTE,)),
    )
