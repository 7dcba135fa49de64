"""Intervals, deflated Sharpe ratio and overfitting against published numbers, hand-made ones and simulations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halfstep.backtest import statistics as s


def test_wilson_and_coin_by_hand() -> None:
    assert [round(100 * x, 1) for x in s.wilson_interval(11, 26)] == [25.5, 61.1]
    assert [round(100 * x, 1) for x in s.wilson_interval(5, 10)] == [23.7, 76.3]
    assert s.wilson_interval(0, 5)[0] == 0.0
    assert s.binomial_tail(11, 26) == pytest.approx(0.2786, abs=5e-5)


@given(st.integers(1, 3000), st.floats(0, 1))
def test_the_coin_equals_scipy(n: int, share: float) -> None:
    won = int(share * n)
    assert s.binomial_tail(won, n) == pytest.approx(float(stats.binom.cdf(won, n, 0.5)), rel=1e-9)


def test_interquartile_mean() -> None:
    assert s.interquartile_mean(np.arange(1.0, 11)) == 5.5
    assert s.interquartile_mean(np.array([1.0, 2, 3, 4, 100])) == 3.0


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_seeds_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    a, b = (s.seed_interval(np.array(each), draws=300, seed=1) for each in (values, shuffled))
    assert a == b
    assert min(values) - 1e-9 <= a[0] <= a[1] <= max(values) + 1e-9


def test_seeds_are_drawn_within_their_month() -> None:
    """Two months far apart: drawing seeds across months would mix them, and widen the interval a hundredfold."""
    months = np.array([[0.0, 0.1, 0.2, 0.3], [100.0, 100.1, 100.2, 100.3]])
    low, high = s.seed_interval(months, draws=2000, seed=1)
    assert 49 < low < high < 51


def test_constant_returns_have_no_width() -> None:
    constant = s.stationary_bootstrap(np.full(50, 0.01), mean_block=5.0, draws=200, seed=1)
    np.testing.assert_allclose(constant, 0.5)
    assert s.percentile_interval(constant) == pytest.approx((0.5, 0.5))


def test_blocks_of_one_are_the_ordinary_bootstrap() -> None:
    noise = np.random.default_rng(0).normal(0.1, 1, 400)
    draws = s.stationary_bootstrap(noise, mean_block=1.0, draws=4000, seed=2)
    assert draws.mean() == pytest.approx(noise.sum(), abs=2)
    assert draws.std() == pytest.approx(noise.std() * 20, rel=0.05)


def test_blocks_keep_what_follows_what() -> None:
    """An alternating series sums to nearly nothing in blocks of even length, and to +-root n without blocks."""
    alternating = np.tile([1.0, -1.0], 200)
    blocked = s.stationary_bootstrap(alternating, mean_block=50.0, draws=2000, seed=1)
    single = s.stationary_bootstrap(alternating, mean_block=1.0, draws=2000, seed=1)
    assert blocked.std() < 4 < 18 < single.std() < 22


def test_the_columns_of_a_draw_stay_together() -> None:
    values = np.random.default_rng(1).normal(0, 1, 90)
    both = s.stationary_bootstrap(np.stack([values, 2 * values], axis=1), mean_block=5.0, draws=50, seed=3)
    np.testing.assert_allclose(both[:, 1], 2 * both[:, 0])
    np.testing.assert_allclose(both[:, 0], s.stationary_bootstrap(values, mean_block=5.0, draws=50, seed=3))


def coverage(n: int, mean_block: float, simulations: int) -> float:
    rng = np.random.default_rng(5)
    inside = 0
    for k in range(simulations):
        draws = s.stationary_bootstrap(rng.normal(0, 1, n), mean_block=mean_block, draws=1000, seed=k)
        low, high = s.percentile_interval(draws)
        inside += low <= 0 <= high
    return inside / simulations


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    assert 0.93 <= coverage(500, 2.0, 2000) <= 0.97


@pytest.mark.pitfall("T25")
def test_deflated_sharpe_published_example() -> None:
    sharpe, variance = 2.5 / 250**0.5, 0.5 / 250
    for trials, threshold, probability in ((100, 0.1132, 0.9004), (46, 0.1004, 0.9505), (88, 0.1111, 0.9102)):
        found = s.deflated_sharpe(sharpe, 1250, -3.0, 10.0, trials=trials, variance=variance)
        assert found == pytest.approx((threshold, probability), abs=5e-5)
    alone = s.deflated_sharpe(sharpe, 1250, -3.0, 10.0, trials=1, variance=variance)
    assert alone == pytest.approx((0.0, 0.9999969), abs=1e-7)
    assert s.deflated_sharpe(sharpe, 19, 0.0, 3.0, trials=1, variance=0.0) is None
    assert (
        s.deflated_sharpe(1.0, 100, 5.0, 1.0, trials=1, variance=0.0) is None
    )  # the root's content is negative


@given(st.floats(0.01, 0.3), st.integers(20, 3000), st.integers(2, 500), st.floats(1e-5, 1e-2))
def test_deflated_sharpe_falls_with_trials_and_rises_with_time(sharpe: float, n: int, trials: int, v: float) -> None:  # fmt: skip
    def probability(n: int, trials: int) -> float:
        found = s.deflated_sharpe(sharpe, n, 0.0, 3.0, trials=trials, variance=v)
        assert found is not None
        return found[1]

    assert probability(n, trials + 1) <= probability(n, trials)
    threshold = s.deflated_sharpe(sharpe, n, 0.0, 3.0, trials=trials, variance=v)
    assert threshold is not None
    if sharpe > threshold[0]:
        assert probability(n + 1, trials) >= probability(n, trials)


def test_moments_of_known_distributions() -> None:
    rng = np.random.default_rng(0)
    found = s.moments(rng.exponential(1.0, 200_000))
    assert found is not None
    assert (found.sharpe, found.skew, found.kurtosis) == pytest.approx((1.0, 2.0, 9.0), rel=0.05)
    assert s.moments(np.full(50, 0.01)) is None
    assert s.moments(rng.normal(size=19)) is None


ROWS = [(2, 1, 0), (1, -1, 0), (3, 0, 1), (1, 2, -1), (-2, 1, 2), (-1, 0, 1), (0, 2, 3), (-1, 1, -2)]


def test_overfitting_by_hand() -> None:
    logits = s.overfitting_logits(np.array(ROWS, float), blocks=4)
    assert logits is not None
    np.testing.assert_allclose(logits, [-np.log(3), -np.log(3), np.log(3), np.log(3), 0, 0], atol=1e-12)
    assert (logits <= 0).mean() == pytest.approx(0.667, abs=5e-4)
    dropped = s.overfitting_logits(
        np.array([(9.0, -9, 4), *ROWS]), blocks=4
    )  # the remainder goes at the front
    np.testing.assert_array_equal(dropped, logits)


def test_one_trial_better_everywhere_is_not_overfitted() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (400, 5))
    noise[:, 3] += 3
    logits = s.overfitting_logits(noise)
    assert logits is not None
    assert len(logits) == 12_870
    assert (logits > 0).all()
    twins = s.overfitting_logits(np.repeat(noise[:, :1], 4, axis=1))
    assert twins is not None
    np.testing.assert_allclose(twins, 0.0, atol=1e-12)  # equal trials: the middle rank
    assert s.overfitting_logits(noise[:, :1]) is None
    assert s.overfitting_logits(noise[:15]) is None


def test_noise_is_overfitted_half_of_the_time() -> None:
    shares = []
    for seed in range(50):
        logits = s.overfitting_logits(np.random.default_rng(seed).normal(0, 1, (400, 20)))
        assert logits is not None
        shares.append((logits <= 0).mean())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.1)


def test_block_ratios() -> None:
    model, naive = np.ones((100, 3)), np.full((100, 3), 2.0)
    np.testing.assert_allclose(s.block_ratio_draws(model, naive, block=24, draws=20, seed=1), 0.5)
    rng = np.random.default_rng(0)
    noisy = s.block_ratio_draws(
        rng.exponential(1, (2400, 1)), rng.exponential(1, (2400, 1)), block=24, draws=2000, seed=1
    )
    assert noisy.mean() == pytest.approx(1.0, abs=0.1)
    assert noisy.std() == pytest.approx(np.sqrt(2 / 2400), rel=0.3)


@given(st.floats(-30, 30), st.integers(1, 60))
def test_student_t_equals_scipy(t: float, freedom: int) -> None:
    # near t = 0 the argument v / (v + t^2) rounds to 1, which costs about the root of the float's precision
    assert s.student_t_cdf(t, freedom) == pytest.approx(float(stats.t.cdf(t, freedom)), abs=2e-8)
