"""How sure a figure is: intervals, how much of it search and luck explain, and the sentence that compares optimizers."""

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

Z95 = 1.959963984540054
SEEDS_FOR_A_VERDICT = 5
EULER_GAMMA = 0.5772156649015329
LEAST_RETURNS = 20
CHUNK = 2**20  # numbers drawn at once

Floats = npt.NDArray[np.float64]


def wilson_interval(won: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    >>> [round(100 * x, 1) for x in wilson_interval(11, 26)]
    [25.5, 61.1]
    """
    share, z2 = won / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def binomial_tail(won: int, n: int) -> float:
    """Return P(X <= won) of n fair coins.

    >>> round(binomial_tail(11, 26), 4)
    0.2786
    """
    k = np.arange(1, won + 1)
    log_choices = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1) / k))])
    return min(1.0, float(np.exp(log_choices - n * math.log(2)).sum()))


def interquartile_mean(values: Floats) -> float:
    """Return the mean after cutting floor(n / 4) values at each end.

    >>> interquartile_mean(np.array([1.0, 2, 3, 4, 100]))
    3.0
    """
    ordered = np.sort(values, axis=None)
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def seed_interval(values: Floats, *, draws: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the interquartile mean, by resampling the seeds.

    Args:
        values: one per seed, ``(seed,)``; or ``(month, seed)``, then seeds are drawn within each month and the mean
            is over all values (stratified, as Agarwal et al. 2021).
        draws: number of resamples.
        seed: of the generator.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    ordered = np.sort(np.atleast_2d(values), axis=1)  # the order of the seeds must not matter
    months, n = ordered.shape
    cut = months * n // 4
    means = np.empty(draws)
    chunk = max(1, CHUNK // (months * n))
    for begin in range(0, draws, chunk):
        count = min(chunk, draws - begin)
        picks = generator.integers(0, n, (count, months, n))
        drawn = np.take_along_axis(ordered[None], picks, axis=2).reshape(count, -1)
        drawn.sort(axis=1)
        means[begin : begin + count] = drawn[:, cut : months * n - cut].mean(axis=1)
    return percentile_interval(means)


def percentile_interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds that leave out equal shares of the draws at both ends."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def stationary_bootstrap(values: Floats, *, mean_block: float, draws: int, seed: int) -> Floats:
    """Return sums of resampled values (Politis and Romano 1994): geometric blocks that wrap round the end.

    A draw strings blocks together, each from a uniform start and of geometric length with the given mean, until it
    is as long as the series.

    Args:
        values: ``(n,)`` or ``(n, columns)``; the columns of a row stay together.
        mean_block: mean length of a block, at least 1.
        draws: number of draws.
        seed: of the generator.

    Returns:
        ``(draws,)`` or ``(draws, columns)``.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    n = len(values)
    twice = np.concatenate([values, values])
    sums = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(twice, axis=0)])
    totals = np.zeros((draws, *values.shape[1:]))
    open_ = np.arange(draws)  # draws that are not full yet
    left = np.full(draws, n)
    while len(open_):
        start = generator.integers(0, n, len(open_))
        length = np.minimum(generator.geometric(1 / mean_block, len(open_)), left)
        totals[open_] += sums[start + length] - sums[start]
        left = left - length
        open_, left = open_[left > 0], left[left > 0]
    return totals


def bars_of_a_block(bars: int, bars_per_day: float, mean_holding_bars: float) -> float:
    """Return the mean block for per-bar returns: a day or twice the mean holding, at most a quarter of the bars."""
    return max(1.0, min(bars / 4, max(bars_per_day, 2 * mean_holding_bars)))


def block_ratio_draws(numerator: Floats, denominator: Floats, *, block: int, draws: int, seed: int) -> Floats:
    """Return draws of sum(numerator) / sum(denominator) over resampled blocks of consecutive origins.

    Args:
        numerator, denominator: ``(origin, ...)``; blocks that are not full are left out at the front.
        block: origins of a block.
        draws: number of draws.
        seed: of the generator.

    Returns:
        ``(draws, ...)``.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    blocks = len(numerator) // block
    first = len(numerator) - blocks * block
    parts = [a[first:].reshape(blocks, block, -1).sum(axis=1) for a in (numerator, denominator)]
    counts = generator.multinomial(blocks, np.full(blocks, 1 / blocks), draws).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (counts @ parts[0]) / (counts @ parts[1])
    return np.asarray(found.reshape(draws, *numerator.shape[1:]), np.float64)


def deflated_sharpe(
    sharpe: float, n: int, skew: float, kurtosis: float, *, trials: int, variance: float
) -> tuple[float, float] | None:
    """Return the Sharpe ratio that the best of many trials reaches by luck, and the chance that ours is above it.

    SR0 = root(V) ((1 - g) Q(1 - 1/N) + g Q(1 - 1/(N e))), g Euler's constant, Q the normal quantile; 0 for one trial.
    DSR = Phi((SR - SR0) root(T - 1) / root(1 - g3 SR + (g4 - 1) / 4 SR^2)).

    Args:
        sharpe: SR per return, not annual.
        n: T, number of returns.
        skew, kurtosis: g3 and g4 of the returns; 0 and 3 for normal ones.
        trials: N, configurations that were looked at.
        variance: V of the trials' Sharpe ratios, per return.

    References:
        Bailey and López de Prado (2014), The deflated Sharpe ratio.

    >>> [round(x, 4) for x in deflated_sharpe(2.5 / 250**0.5, 1250, -3.0, 10.0, trials=100, variance=0.5 / 250)]
    [0.1132, 0.9004]
    """
    normal = NormalDist()
    threshold = 0.0
    if trials > 1:
        high = normal.inv_cdf(1 - 1 / trials)
        higher = normal.inv_cdf(1 - 1 / (trials * math.e))
        threshold = math.sqrt(variance) * ((1 - EULER_GAMMA) * high + EULER_GAMMA * higher)
    spread = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if n < LEAST_RETURNS or spread <= 0:
        return None
    return threshold, normal.cdf((sharpe - threshold) * math.sqrt(n - 1) / math.sqrt(spread))


@dataclass(frozen=True, slots=True)
class Moments:
    """Of returns: Sharpe ratio per return (population deviation), their number, skew and kurtosis (3 = normal)."""

    sharpe: float
    n: int
    skew: float
    kurtosis: float


def moments(returns: Floats) -> Moments | None:
    """Return the moments of returns, or None for fewer than 20 or such as do not vary."""
    if len(returns) < LEAST_RETURNS:
        return None
    mean, deviation = float(returns.mean()), float(returns.std())
    if deviation <= 1e-9 * float(np.abs(returns).max()):
        return None
    z = (returns - mean) / deviation
    return Moments(mean / deviation, len(returns), float((z**3).mean()), float((z**4).mean()))


def overfitting_logits(returns: Float64[np.ndarray, "bar trial"], blocks: int | None = None) -> Floats | None:
    """Return, for each split of the bars in halves, the logit of the in-sample winner's rank out of sample.

    The bars are cut into S contiguous blocks. For each choice of S/2 of them: the trial with the best Sharpe ratio
    there (of equal ones the first; no deviation counts as 0), its rank r among the N trials in the other half
    (1 = worst, ties averaged), w = r / (N + 1), logit = ln(w / (1 - w)). The probability of overfitting is the
    share of logits at or below 0.

    Args:
        returns: of each trial.
        blocks: S, even; default 16, or 8 below 384 bars. Bars that are left over are dropped at the front.

    Returns:
        ``(C(S, S/2),)``, or None for fewer than two trials or two bars a block.

    References:
        Bailey, Borwein, López de Prado and Zhu (2017), The probability of backtest overfitting.
    """
    bars, trials = returns.shape
    s = blocks or (16 if bars >= 384 else 8)
    size = bars // s
    if trials < 2 or size < 2:
        return None
    shift = returns.mean(axis=0)
    parts = (returns[bars - s * size :] - shift).reshape(s, size, trials)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)  # (block, trial)
    halves = np.array(list(itertools.combinations(range(s), s // 2)))
    inside = np.zeros((len(halves), s))
    np.put_along_axis(inside, halves, 1.0, axis=1)
    count = size * s // 2
    in_sample = _sharpes(inside @ sums, inside @ squares, count, shift)
    outside = _sharpes((1 - inside) @ sums, (1 - inside) @ squares, count, shift)
    near = 1e-12 * np.maximum(1.0, np.abs(in_sample).max(axis=1, keepdims=True))
    winner = (in_sample >= in_sample.max(axis=1, keepdims=True) - near).argmax(axis=1)
    ours = np.take_along_axis(outside, winner[:, None], axis=1)
    near = 1e-12 * np.maximum(1.0, np.abs(ours))
    below, equal = (outside < ours - near).sum(axis=1), (np.abs(outside - ours) <= near).sum(axis=1)
    w = (below + (equal + 1) / 2) / (trials + 1)
    return np.asarray(np.log(w / (1 - w)), np.float64)


def _sharpes(sums: Floats, squares: Floats, count: int, shift: Floats) -> Floats:
    """Return mean / deviation (n - 1) from sums of values less ``shift``; 0 where they do not vary."""
    variance = (squares - sums**2 / count) / (count - 1)
    mean = sums / count + shift
    varies = variance > 1e-18 + 1e-12 * mean**2
    return np.where(varies, mean / np.sqrt(np.where(varies, variance, 1.0)), 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A paired comparison of one optimizer with another, over seeds.

    Attributes:
        difference: mean of figure(X) - figure(reference).
        interval: its 95 % t-interval.
        margin: half-width of the equivalence region.
        p: of two one-sided tests; below 0.05 the two are equivalent within the margin.
        sentence: the same in words, with every number.
    """

    difference: float
    interval: tuple[float, float]
    margin: float
    p: float
    sentence: str


def compare_paired(
    name: str,
    losses: Float64[np.ndarray, " seed"],
    reference_name: str,
    reference: Float64[np.ndarray, " seed"],
    *,
    margin: float,
    greater_is_better: bool = False,
) -> Comparison | None:
    """Compare figures seed by seed; None for fewer than five seeds, which allow no verdict.

    With d_s = figure(X) - figure(reference), SE = sd / sqrt(n) and the margin D, two one-sided t-tests with n - 1
    degrees of freedom give p = max(P(T > (mean + D) / SE), P(T < (mean - D) / SE)); below 0.05 the two are
    equivalent (Schuirmann 1987). ``better`` and ``worse`` are said where the 95 % interval of d excludes 0.

    Args:
        losses, reference: of the same seeds, in the same order.
        margin: as a fraction of the size of the reference's mean.
        greater_is_better: figures such as log growth, instead of losses.
    """
    n = len(losses)
    if n < SEEDS_FOR_A_VERDICT:
        return None
    d = losses - reference
    mean, error = float(d.mean()), float(d.std(ddof=1) / math.sqrt(n))
    delta = margin * abs(float(reference.mean()))
    if error == 0:
        p = 0.0 if abs(mean) < delta else 1.0
        half = 0.0
    else:
        p = max(
            1 - student_t_cdf((mean + delta) / error, n - 1), student_t_cdf((mean - delta) / error, n - 1)
        )
        half = student_t_quantile(0.975, n - 1) * error
    low, high = mean - half, mean + half
    shown = "shown" if p < 0.05 else "not shown"
    is_better = (mean > 0) is greater_is_better
    verdict = f"; {'better' if is_better else 'worse'}" if low > 0 or high < 0 else ""
    sentence = (
        f"{name} - {reference_name}: {mean:+.5f} (95 % {low:+.5f} … {high:+.5f}), {n} seeds; "
        f"within ±{100 * margin:g} % (±{delta:.5f}): {shown}, p = {p:.2g}{verdict}"
    )
    return Comparison(difference=mean, interval=(low, high), margin=delta, p=p, sentence=sentence)


def student_t_cdf(t: float, freedom: int) -> float:
    """Return P(T <= t) of Student's t, by the regularised incomplete beta function.

    >>> round(student_t_cdf(2.776445, 4), 6)
    0.975
    """
    tail = 0.5 * _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))
    return 1 - tail if t > 0 else tail


def student_t_quantile(p: float, freedom: int) -> float:
    """Return t with P(T <= t) = p, by bisection."""
    low, high = -1e3, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if student_t_cdf(middle, freedom) < p else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return I_x(a, b) by its continued fraction (modified Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = (
        math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(1 - x))
        / a
    )
    tiny = 1e-300
    f, c, d = 1.0, 1.0, 0.0
    for i in range(400):
        m = i // 2
        if i == 0:
            numerator = 1.0
        elif i % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + numerator * d) or tiny)
        c = (1 + numerator / c) or tiny
        f *= c * d
        if abs(1 - c * d) < 1e-15:
            break
    return front * (f - 1)
