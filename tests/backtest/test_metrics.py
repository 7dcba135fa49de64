"""Rows against numbers worked out by hand; no figure is ever NaN."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from halfstep.backtest import statistics as s
from halfstep.backtest.metrics import Path, Row, compute_rows, drawdowns, z_score

NETS = [-100.0, 300, 500, -50, 800, -120, -80, 450, 20, -20]
SIDES = [1, 1, -1, 1, -1, -1, 1, 1, -1, 1]


def path(
    nets: list[float],
    sides: list[int] | None = None,
    equity: list[float] | None = None,
    worst: list[float] | None = None,
    deposit: float = 1000.0,
    years: float = 1.0,
) -> Path:
    balance = deposit + np.cumsum(nets) if nets else np.array([deposit])
    equities = np.array(equity if equity is not None else balance, float)
    return Path(
        deposit=deposit, balance=equities, equity=equities, equity_worst=np.array(worst if worst is not None else equities, float),
        margin=np.zeros(len(equities)), lots=np.zeros(len(equities)), years=years,
        trades=pl.DataFrame({"side": sides or [1] * len(nets), "net": nets}, schema={"side": pl.Int64, "net": pl.Float64}),
        positions=pl.DataFrame(schema={"open_time": pl.Int64, "close_time": pl.Int64, "mfe": pl.Float64, "mae": pl.Float64, "net": pl.Float64}),
        deals=2 * len(nets),
    )  # fmt: skip


def texts(rows: list[Row]) -> dict[str, str]:
    return {row.key: row.text.replace("\u00a0", ",") for row in rows}


def test_ten_trades_by_hand() -> None:
    found = texts(compute_rows(path(NETS, SIDES)))
    expected = {
        "net_profit": "1,700.00", "gross_profit": "2,070.00", "gross_loss": "-370.00", "profit_factor": "5.59",
        "expected_payoff": "170.00", "balance_dd_absolute": "100.00", "balance_dd_maximal": "200.00 (8.16%)",
        "balance_dd_relative": "10.00% (100.00)", "ahpr": "1.1222 (12.22%)", "ghpr": "1.1044 (10.44%)",
        "lr_correlation": "0.95", "lr_standard_error": "234.81", "z_score": "1.01 (68.57%)",
        "short_trades": "4 (75.00%)", "long_trades": "6 (33.33%)", "profit_trades": "5 (50.00%)",
        "loss_trades": "5 (50.00%)", "largest_profit": "800.00", "largest_loss": "-120.00",
        "average_profit": "414.00", "average_loss": "-74.00", "max_consecutive_wins": "2 (800.00)",
        "max_consecutive_losses": "2 (-200.00)", "max_consecutive_profit": "800.00 (2)",
        "max_consecutive_loss": "-200.00 (2)", "average_consecutive_wins": "2", "average_consecutive_losses": "1",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.pitfall("T31")
def test_drawdown_episodes_differ() -> None:
    absolute, most, most_share, share, share_money = drawdowns(np.array([1000.0, 1200, 1080, 2000, 1850]))
    assert (absolute, most, share_money) == (0, 150, pytest.approx(120))
    assert (most_share, share) == pytest.approx((0.075, 0.10))


@pytest.mark.pitfall("T31")
def test_z_score() -> None:
    won = np.array([c == "W" for c in "WWLWLLWWWL"])
    z = z_score(won)
    assert z is not None
    assert z == pytest.approx((0.49, 0.3771), abs=5e-3)
    for value, confidence in ((1.24, 0.7850), (1.68, 0.9070), (2.94, 0.9967)):
        assert math.erf(value / math.sqrt(2)) == pytest.approx(confidence, abs=1e-4)


def test_equity_rows_use_the_worst_of_each_bar() -> None:
    rows = compute_rows(
        path([30.0], equity=[10020, 10005, 10050, 10030], worst=[9950, 10000, 9900, 9990], deposit=10_000.0)
    )
    found = texts(rows)
    assert found["equity_dd_maximal"] == "120.00 (1.20%)"
    assert found["equity_dd_absolute"] == "100.00"


def test_sharpe_counts_only_bars_on_which_equity_changed() -> None:
    rows = compute_rows(path([50.0], equity=[10010, 10010, 9990, 10050], deposit=10_000.0, years=3 / 6574.5))
    assert texts(rows)["sharpe_ratio"] == "40.92"


@pytest.mark.pitfall("T28")
@pytest.mark.parametrize("nets", [[], [5.0], [5.0, 6.0, 7.0], [-5.0, -6.0, -7.0], [0.0, 0.0], [-2000.0]])
def test_degenerate_results(nets: list[float]) -> None:
    for row in compute_rows(path(nets)):
        assert row.value is None or math.isfinite(row.value), row
        assert "nan" not in row.text.lower()
        assert "inf" not in row.text.lower()
        assert "-0.00" not in row.text


@given(st.lists(st.floats(-500, 500), max_size=40))
def test_relations_of_rows(nets: list[float]) -> None:
    found = {
        row.key: row.value for row in compute_rows(path(nets, [1 if k % 2 else -1 for k in range(len(nets))]))
    }
    assert found["net_profit"] == pytest.approx(sum(nets), abs=1e-6)
    assert (
        found["short_trades"] + found["long_trades"]
        == found["profit_trades"] + found["loss_trades"]
        == len(nets)
    )  # type: ignore[operator]


@pytest.mark.pitfall("T26")
def test_few_trades_carry_an_interval() -> None:
    assert [round(100 * x, 1) for x in s.wilson_interval(11, 26)] == [25.5, 61.1]
    assert s.binomial_tail(11, 26) == pytest.approx(0.2786, abs=5e-5)
    assert [round(100 * x, 1) for x in s.wilson_interval(5, 10)] == [23.7, 76.3]


def test_interquartile_mean() -> None:
    assert s.interquartile_mean(np.arange(1.0, 11)) == 5.5
    assert s.interquartile_mean(np.array([1.0, 2, 3, 4, 100])) == 3.0
    values = np.array([3.0, 1, 2, 5, 4])
    assert s.seed_interval(values, draws=500, seed=1) == s.seed_interval(
        values[::-1].copy(), draws=500, seed=1
    )


@given(st.floats(-30, 30), st.integers(1, 60))
def test_student_t_equals_scipy(t: float, freedom: int) -> None:
    # near t = 0 the argument v / (v + t^2) rounds to 1, which costs about the root of the float's precision
    assert s.student_t_cdf(t, freedom) == pytest.approx(float(stats.t.cdf(t, freedom)), abs=2e-8)


def test_the_equivalence_sentence() -> None:
    reference = np.array([0.398, 0.402, 0.400, 0.401, 0.399])
    found = s.compare_paired(
        "adam_mini",
        reference + np.array([-0.002, 0.001, 0.003, -0.001, 0.0]),
        "adamw",
        reference,
        margin=0.01,
    )
    assert found is not None
    assert found.sentence == (
        "adam_mini - adamw: +0.00020 (95 % -0.00219 … +0.00259), 5 seeds; within ±1 % (±0.00400): shown, p = 0.0058"
    )
    worse = s.compare_paired("x", reference * 1.03, "adamw", reference, margin=0.01)
    assert worse is not None
    assert worse.sentence.endswith("worse")
    assert s.compare_paired("x", reference[:2], "adamw", reference[:2], margin=0.01) is None
    same = s.compare_paired("x", reference, "adamw", reference, margin=0.01)
    assert same is not None
    assert same.p == 0


def test_the_bootstrap_knows_constants_and_means() -> None:
    constant = s.stationary_bootstrap(np.full(50, 0.01), mean_block=5.0, draws=200, seed=1)
    np.testing.assert_allclose(constant, 0.5)
    noise = np.random.default_rng(0).normal(0.1, 1, 400)
    draws = s.stationary_bootstrap(noise, mean_block=1.0001, draws=4000, seed=2)
    assert draws.mean() == pytest.approx(noise.sum(), abs=2)
    assert draws.std() == pytest.approx(noise.std() * 20, rel=0.1)
