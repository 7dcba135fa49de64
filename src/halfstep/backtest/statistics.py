"""How sure a figure is: intervals, and the sentence that compares two optimizers."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Z95 = 1.959963984540054
SEEDS_FOR_A_VERDICT = 5


def wilson_interval(won: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    >>> [round(100 * x, 1) for x in wilson_interval(11, 26)]
    [25.5, 61.1]
    """
    share, z2 = won / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return middle - half, middle + half


def binomial_tail(won: int, n: int) -> float:
    """Return P(X <= won) of n fair coins.

    >>> round(binomial_tail(11, 26), 4)
    0.2786
    """
    return float(sum(math.comb(n, k) for k in range(won + 1)) / 2**n)


def interquartile_mean(values: Float64[np.ndarray, " seed"]) -> float:
    """Return the mean after cutting floor(n / 4) values at each end.

    >>> interquartile_mean(np.array([1.0, 2, 3, 4, 100]))
    3.0
    """
    cut = len(values) // 4
    return float(np.sort(values)[cut : len(values) - cut].mean())


def seed_interval(values: Float64[np.ndarray, " seed"], *, draws: int, seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of the interquartile mean, by resampling the seeds."""
    generator = np.random.Generator(np.random.Philox(seed))
    ordered = np.sort(values)  # the order of the seeds must not matter
    picks = np.sort(ordered[generator.integers(0, len(values), (draws, len(values)))], axis=1)
    cut = len(values) // 4
    means = picks[:, cut : len(values) - cut].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def stationary_bootstrap(
    returns: Float64[np.ndarray, " bar"], *, mean_block: float, draws: int, seed: int
) -> Float64[np.ndarray, " draw"]:
    """Return sums of resampled returns (Politis and Romano 1994): geometric blocks that wrap round the end."""
    generator = np.random.Generator(np.random.Philox(seed))
    n = len(returns)
    position = generator.integers(0, n, draws)
    totals = np.zeros(draws)
    for _ in range(n):
        totals += returns[position]
        restart = generator.random(draws) < 1 / mean_block
        position = np.where(restart, generator.integers(0, n, draws), (position + 1) % n)
    return totals


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
