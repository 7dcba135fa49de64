"""The arithmetic behind the rows: plain functions of paths and nets. None means not defined."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float64

TRADING_DAYS = 252
LEAST_DAYS = 20
LEAST_YEARS = 0.25
NO_LOSS = 1e-12  # of the gross profit: what rounding leaves

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Drawdowns:
    """Falls of a path.

    Attributes:
        absolute: start - lowest point.
        maximal, maximal_share: largest fall in money from a running peak, and its share of that peak.
        relative, relative_money: largest fall as a share of a running peak, and its money; may be another episode.
    """

    absolute: float
    maximal: float
    maximal_share: float | None
    relative: float
    relative_money: float


def drawdowns(path: Float64[np.ndarray, " point"]) -> Drawdowns:
    """Return the drawdowns of a path that starts above 0.

    >>> found = drawdowns(np.array([1000.0, 1200, 1080, 2000, 1850]))
    >>> found.absolute, found.maximal, found.maximal_share, found.relative, found.relative_money
    (0.0, 150.0, 0.075, 0.1, 120.0)
    """
    peak = np.maximum.accumulate(path)
    absolute = max(0.0, float(path[0] - path.min()))
    fall = peak - path
    by_money = int(fall.argmax())
    maximal, maximal_share = float(fall[by_money]), float(fall[by_money] / peak[by_money])
    np.divide(fall, peak, out=fall)
    by_share = int(fall.argmax())
    money = float(peak[by_share] - path[by_share])
    return Drawdowns(absolute, maximal, maximal_share, float(fall[by_share]), money)


def equity_path(deposit: float, worst: Floats, equity: Floats) -> Floats:
    """Return the deposit, then for each bar its worst equity and the one at its close, ``(2 bars + 1,)``."""
    path = np.empty(2 * len(equity) + 1)
    path[0], path[1::2], path[2::2] = deposit, worst, equity
    return path


def profit_factor(nets: Floats) -> float | None:
    """Return gross profit / |gross loss|.

    >>> round(profit_factor(np.array([-100.0, 300, 500, -50])), 2)
    5.33
    """
    profit, loss = float(nets[nets > 0].sum()), -float(nets[nets <= 0].sum())
    return profit / loss if loss > NO_LOSS * profit else None


def mean_growth(balance: Floats) -> float | None:
    """Return AHPR, the mean of B_k / B_{k-1}."""
    if len(balance) < 2 or balance.min() <= 0:
        return None
    return float((balance[1:] / balance[:-1]).mean())


def geometric_growth(balance: Floats) -> float | None:
    """Return GHPR, (B_N / B_0)^(1/N) over N trades.

    >>> round(geometric_growth(np.linspace(10_000, 19_159.58, 1418)), 6)
    1.000459
    """
    n = len(balance) - 1
    return float((balance[-1] / balance[0]) ** (1 / n)) if n and balance[-1] > 0 else None


def sharpe_ratio(levels: Floats, years: float) -> float | None:
    """Return mean / population deviation of the log returns that are not 0, times root(their number / years)."""
    if years <= 0 or levels.min() <= 0:
        return None
    r = np.diff(np.log(levels))
    r = r[r != 0]
    deviation = _deviation(r, 0)
    return None if deviation is None else float(r.mean() / deviation * math.sqrt(len(r) / years))


def sharpe_daily(levels: Floats) -> float | None:
    """Return mean / deviation (n - 1) of the simple returns of daily levels, times root(252).

    >>> round(sharpe_daily(np.array([10_000.0, 10_100, 10_050, 10_200])), 2)
    10.21
    """
    if len(levels) < 3 or levels.min() <= 0:
        return None
    r = levels[1:] / levels[:-1] - 1
    deviation = _deviation(r, 1)
    return None if deviation is None else float(r.mean() / deviation * math.sqrt(TRADING_DAYS))


def _deviation(r: Floats, ddof: int) -> float | None:
    """Return the deviation, or None for fewer than two values or such as differ by rounding only."""
    if len(r) < 2:
        return None
    deviation = float(r.std(ddof=ddof))
    return deviation if deviation > 1e-9 * float(np.abs(r).max()) else None


def annual_growth(start: float, end: float, years: float) -> float | None:
    """Return (end / start)^(1 / years) - 1; None below a quarter of a year.

    >>> round(annual_growth(10_000.0, 12_100.0, 2.0), 12)
    0.1
    """
    return (end / start) ** (1 / years) - 1 if years >= LEAST_YEARS and end > 0 else None


def pearson(a: Floats, b: Floats, least: int = 3) -> float | None:
    """Return the correlation of two series of at least ``least`` values, neither of them constant."""
    if len(a) < least or a.min() == a.max() or b.min() == b.max():
        return None
    x, y = a - a.mean(), b - b.mean()
    scale = math.sqrt(_dot(x, x) * _dot(y, y))
    return min(1.0, max(-1.0, _dot(x, y) / scale)) if scale > 0 else None


def _dot(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> float:
    """Return the sum of products; without the threads of a matrix library, which cost more than they save here."""
    return float((a * b).sum())


def line_error(balance: Floats) -> float | None:
    """Return root(sum of squared residuals about the least-squares line / (points - 2))."""
    n = len(balance)
    if n < 3:
        return None
    x = np.arange(n, dtype=np.float64) - (n - 1) / 2
    y = balance - balance.mean()
    slope = _dot(x, y) / _dot(x, x)
    return math.sqrt(float(((y - slope * x) ** 2).sum()) / (n - 2))


def z_score(won: Bool[np.ndarray, " trade"]) -> tuple[float, float] | None:
    """Return the runs test's Z and its confidence.

    Z = (N (R - 0.5) - P) / root(P (P - N) / (N - 1)), P = 2 W L, R runs of won or lost trades.

    >>> z, confidence = z_score(np.array([c == "W" for c in "WWLWLLWWWL"]))
    >>> round(z, 2), round(confidence, 4)
    (0.49, 0.3771)
    """
    n, w = len(won), int(won.sum())
    p = 2 * w * (n - w)
    if w in (0, n) or p <= n:
        return None
    runs = 1 + int((won[1:] != won[:-1]).sum())
    z = (n * (runs - 0.5) - p) / math.sqrt(p * (p - n) / (n - 1))
    return z, z_confidence(z)


def z_confidence(z: float) -> float:
    """Return erf(|z| / root 2), the share of a normal distribution nearer to its mean than z deviations."""
    return math.erf(abs(z) / math.sqrt(2))


@dataclass(frozen=True, slots=True)
class Runs:
    """Trades of one kind in a row, ``(run,)``: how many, and the sum of their nets."""

    counts: npt.NDArray[np.int64]
    sums: Floats


def runs_of(nets: Floats) -> tuple[Runs, Runs]:
    """Return the runs of won trades and those of lost ones, in order."""
    if len(nets) == 0:
        none = Runs(np.zeros(0, np.int64), np.zeros(0))
        return none, none
    won = nets > 0
    starts = np.concatenate([[0], np.flatnonzero(won[1:] != won[:-1]) + 1])
    counts = np.diff(np.append(starts, len(nets)))
    sums = np.add.reduceat(nets, starts)
    is_won = won[starts]
    return Runs(counts[is_won], sums[is_won]), Runs(counts[~is_won], sums[~is_won])
