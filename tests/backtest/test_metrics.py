"""Rows against numbers worked out by hand; no figure is ever NaN."""

import json
import math
from typing import Any

import empyrical
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.backtest import breakdown, ratios
from halfstep.backtest.definitions import DEFINITIONS, OURS, TESTER
from halfstep.backtest.figures import Row
from halfstep.backtest.metrics import Metrics, Surroundings, compute_metrics, daily_levels
from halfstep.backtest.run import TestRun
from halfstep.broker.outcomes import Outcome
from halfstep.broker.rules import AccountRules
from halfstep.market.timeframes import DAY, HOUR

from .runs import CLOSE, HOLD, golden_run, made_up_table, random_actions, run_of, traded

NETS = [-100.0, 300, 500, -50, 800, -120, -80, 450, 20, -20]
SIDES = [1, 1, -1, 1, -1, -1, 1, 1, -1, 1]
MONEY = [d.key for d in (*TESTER, *OURS) if d.unit == "money"]


def texts(metrics: Metrics) -> dict[str, str]:
    return {row.key: row.text.replace("\u00a0", ",") for row in (*metrics.tester, *metrics.ours)}


def test_rows_come_in_the_order_of_their_definitions() -> None:
    metrics = compute_metrics(run_of(NETS))
    assert [row.key for row in metrics.tester] == [d.key for d in TESTER]
    assert [row.key for row in metrics.ours] == [d.key for d in OURS]
    assert len(DEFINITIONS) == len(set(DEFINITIONS))


def test_ten_trades_by_hand() -> None:
    found = texts(compute_metrics(run_of(NETS, SIDES)))
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
        "win_rate": "50.00% (95 % 23.66% … 76.34%)",
    }  # fmt: skip
    assert {key: found[key] for key in expected} == expected


@pytest.mark.pitfall("T31")
def test_recovery_uses_equity_drawdown() -> None:
    for net, fall, factor in (
        (9159.58, 715.08, "12.81"),
        (27367.49, 791.55, "34.57"),
        (604 * 1.71, 525.26, "1.97"),
    ):
        worst = 10_000 - fall  # the balance never falls: it is the equity that did
        run = run_of([net], deposit=10_000.0, equity=[10_000.0, 10_000 + net], worst=[worst, 10_000 + net])
        assert texts(compute_metrics(run))["recovery_factor"] == factor  # fmt: skip


@pytest.mark.pitfall("T31")
def test_ghpr_counts_trades() -> None:
    run = run_of([9159.58 / 1417] * 1417, deposit=10_000.0)
    assert compute_metrics(run)["ghpr"].value == pytest.approx(1.000459, abs=5e-7)


@pytest.mark.pitfall("T31")
def test_drawdown_episodes_differ() -> None:
    found = ratios.drawdowns(np.array([1000.0, 1200, 1080, 2000, 1850]))
    assert (found.absolute, found.maximal, found.relative_money) == (0, 150, pytest.approx(120))
    assert (found.maximal_share, found.relative) == pytest.approx((0.075, 0.10))
    rows = texts(compute_metrics(run_of([200.0, -120, 920, -150])))
    assert rows["balance_dd_maximal"] == "150.00 (7.50%)"
    assert rows["balance_dd_relative"] == "10.00% (120.00)"
    assert rows["balance_dd_absolute"] == "0.00"


@pytest.mark.pitfall("T31")
def test_z_score() -> None:
    won = np.array([c == "W" for c in "WWLWLLWWWL"])
    z = ratios.z_score(won)
    assert z is not None
    assert z == pytest.approx((0.49, 0.3771), abs=5e-3)
    for value, confidence in ((1.24, 0.7850), (1.68, 0.9070), (2.94, 0.9967)):
        assert ratios.z_confidence(value) == pytest.approx(confidence, abs=1e-4)


def test_equity_rows_use_the_worst_of_each_bar() -> None:
    run = run_of(
        [30.0], deposit=10_000.0, equity=[10020, 10005, 10050, 10030], worst=[9950, 10000, 9900, 9990]
    )
    found = texts(compute_metrics(run))  # fmt: skip
    assert found["equity_dd_maximal"] == "120.00 (1.20%)"
    assert found["equity_dd_absolute"] == "100.00"


def test_sharpe_counts_only_bars_on_which_equity_changed() -> None:
    run = run_of([50.0], deposit=10_000.0, equity=[10010, 10010, 9990, 10050], years=3 / 6574.5)
    assert texts(compute_metrics(run))["sharpe_ratio"] == "40.92"


def test_position_rows_by_hand() -> None:
    held = [HOUR, 26 * HOUR + 61, 2 * HOUR, HOUR]
    run = run_of([9.0, -20, 30, -5], mfe=[14.0, 2, 31, 6], mae=[-11.0, -20, -6, -9], held=held)
    found = texts(compute_metrics(run))
    assert [found[key] for key in ("corr_profit_mfe", "corr_profit_mae", "corr_mfe_mae")] == [
        "0.98",
        "0.85",
        "0.76",
    ]
    assert (found["holding_min"], found["holding_max"], found["holding_mean"]) == ("1:00:00", "1 d 2:01:01", "7:30:15")  # fmt: skip


def test_margin_level_is_the_lowest_while_a_position_was_held() -> None:
    run = run_of(
        [10.0], equity=[1000, 990, 1010], worst=[400, 950, 1010], margin=[0, 100, 200], deposit=1000.0
    )
    assert texts(compute_metrics(run))["margin_level"] == "505.00%"
    assert texts(compute_metrics(run_of([10.0])))["margin_level"] == "--"


@pytest.mark.pitfall("T24")
@pytest.mark.parametrize("seconds", [60, HOUR, DAY, 7 * DAY])
def test_growth_does_not_depend_on_sampling(seconds: int) -> None:
    bars = 2 * 365.25 * DAY / seconds
    n = min(int(bars), 20_000)
    equity = 10_000 * 1.21 ** (np.arange(1, n + 1) / n)
    row = compute_metrics(run_of([2100.0], deposit=10_000.0, equity=equity, years=2.0, seconds=seconds))["growth_annual"]  # fmt: skip
    assert row.text == "10.00%"
    assert "time stamps" in row.definition
    assert ratios.annual_growth(10_000.0, 12_100.0, 0.2) is None


@pytest.mark.pitfall("U10")
def test_the_deposit_that_pays_more_is_named() -> None:
    run = run_of([3.5], deposit=1000.0, years=1 / 12)
    row = compute_metrics(run, Surroundings(risk_free=0.04))["risk_free"]
    assert row.text.replace("\u00a0", ",") == "3.33 (3.50)"


def test_daily_sharpe_takes_the_last_equity_of_a_server_day() -> None:
    levels = np.array([10_000.0, 10_100, 10_050, 10_200])
    assert ratios.sharpe_daily(levels) == pytest.approx(10.21, abs=5e-3)
    equity = np.repeat(levels[1:], 24)
    equity[::24] += 37.0  # hours inside a day do not count
    run = run_of([200.0], deposit=10_000.0, equity=equity)
    np.testing.assert_array_equal(daily_levels(run), levels)
    assert compute_metrics(run)["sharpe_daily"].note.startswith("fewer than 20 days")


def test_empyrical_agrees_on_drawdown_and_daily_sharpe() -> None:
    """Conventions aligned: empyrical's drawdown is negative and relative, its Sharpe ratio of simple returns, n - 1."""
    rng = np.random.default_rng(3)
    returns = rng.normal(0.0005, 0.01, 300)
    levels = 10_000 * np.concatenate([[1.0], np.cumprod(1 + returns)])
    assert ratios.sharpe_daily(levels) == pytest.approx(float(empyrical.sharpe_ratio(returns)), rel=1e-12)
    assert ratios.drawdowns(levels).relative == pytest.approx(
        -float(empyrical.max_drawdown(returns)), rel=1e-9
    )
    run = run_of([1.0], deposit=10_000.0, equity=levels[1:], seconds=DAY)
    assert compute_metrics(run)["sharpe_daily"].value == pytest.approx(float(empyrical.sharpe_ratio(returns)))


def finite(row: Row) -> None:
    for value in (row.value, row.second, *(row.interval or ())):
        assert value is None or math.isfinite(value), row
    assert not any(word in row.text.lower().split("(")[0] for word in ("nan", "inf")), row
    assert "-0.00" not in row.text.replace("-0.00%", "-0.00")
    if row.text == "--":
        assert row.note


DEGENERATE = {
    "no trade": run_of([]),
    "one won": run_of([5.0]),
    "one lost": run_of([-5.0]),
    "all won": run_of([5.0, 6, 7]),
    "all lost": run_of([-5.0, -6, -7]),
    "all zero": run_of([0.0, 0, 0]),
    "one bar": run_of([1.0], equity=[1001.0]),
    "no bar": run_of([], equity=[], years=0.0),
    "constant equity": run_of([0.0], equity=[1000.0] * 50),
    "below zero": run_of([-2000.0, 100], equity=[-1000.0, -900]),
    "one day": run_of([1.0, -2, 3], equity=[1000.0 + k % 3 for k in range(24)]),
    "equal growth": run_of([1.0], equity=1000 * 1.001 ** np.arange(1, 40)),
}


@pytest.mark.pitfall("T28")
@pytest.mark.parametrize("run", DEGENERATE.values(), ids=DEGENERATE.keys())
def test_degenerate_results(run: TestRun) -> None:
    metrics = compute_metrics(run)
    for row in (*metrics.tester, *metrics.ours):
        finite(row)
    tables = [
        breakdown.side_table(run), breakdown.outcome_table(run), breakdown.cost_table(run), breakdown.monthly_table(run),
        breakdown.by_time_table(run), breakdown.action_table(run), *breakdown.list_tables(run),
    ]  # fmt: skip
    for table in tables:
        json.dumps(table.frame.to_dicts(), allow_nan=False)
        assert not any(cell == "nan" for line in table.texts() for cell in line)


def values(metrics: Metrics) -> dict[str, Any]:
    return metrics.values()


nets_and_sides = st.lists(
    st.tuples(st.floats(-500, 500).map(lambda x: round(x, 2)), st.sampled_from([1, -1])), max_size=40
)


@given(nets_and_sides)
def test_relations_of_rows(trades: list[tuple[float, int]]) -> None:
    nets, sides = [t[0] for t in trades], [t[1] for t in trades]
    metrics = compute_metrics(run_of(nets, sides, deposit=30_000.0))
    found = values(metrics)
    n = len(nets)
    assert found["net_profit"] == pytest.approx(sum(nets), abs=1e-6)
    assert found["gross_profit"] + found["gross_loss"] == pytest.approx(found["net_profit"], abs=1e-9)
    assert found["short_trades"] + found["long_trades"] == found["profit_trades"] + found["loss_trades"] == n
    for kind in ("balance", "equity"):
        maximal, relative = metrics[f"{kind}_dd_maximal"], metrics[f"{kind}_dd_relative"]
        assert relative.value >= maximal.second - 1e-12  # type: ignore[operator]
        assert maximal.value >= relative.second - 1e-9  # type: ignore[operator]
    for row in (*metrics.tester, *metrics.ours):
        finite(row)


@given(nets_and_sides)
def test_money_scales_and_ratios_stay(trades: list[tuple[float, int]]) -> None:
    nets, sides = [t[0] for t in trades], [t[1] for t in trades]
    one = compute_metrics(run_of(nets, sides, deposit=30_000.0))
    ten = compute_metrics(run_of([10 * net for net in nets], sides, deposit=300_000.0))
    for small, big in zip((*one.tester, *one.ours), (*ten.tester, *ten.ours), strict=True):
        factor = 10.0 if small.key in MONEY else 1.0
        if small.value is None or big.value is None:
            assert small.value is big.value, small.key
        else:
            # returns that hardly differ lose digits when their mean is subtracted
            rel = 1e-3 if small.key == "sharpe_ratio" else 1e-6
            assert big.value == pytest.approx(factor * small.value, rel=rel, abs=1e-6), small.key


@given(nets_and_sides)
def test_bars_without_positions_change_no_trade_row(trades: list[tuple[float, int]]) -> None:
    nets, sides = [t[0] for t in trades], [t[1] for t in trades]
    run = run_of(nets, sides, deposit=30_000.0)
    end = run.equity_end
    longer = run_of(nets, sides, deposit=30_000.0, equity=[*run.equity, end, end, end])
    a, b = values(compute_metrics(run)), values(compute_metrics(longer))
    for key in ("bars", "ticks", "exposure", "sharpe_daily", "constant"):
        a.pop(key), b.pop(key)
    assert a == b


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_z_does_not_change_when_wins_become_losses(won: list[bool]) -> None:
    assert ratios.z_score(np.array(won)) == ratios.z_score(~np.array(won))


def test_a_deal_split_in_two_changes_counts_but_no_money() -> None:
    whole = values(compute_metrics(run_of([10.0, -4, 6], deposit=1000.0)))
    split = values(
        compute_metrics(run_of([5.0, 5, -4, 6], deposit=1000.0, equity=[1005.0, 1010, 1006, 1012]))
    )
    for key in (
        "net_profit",
        "gross_profit",
        "gross_loss",
        "profit_factor",
        "balance_dd_maximal",
        "balance_dd_absolute",
    ):
        assert whole[key] == split[key]  # fmt: skip
    assert (whole["total_trades"], split["total_trades"]) == (3, 4)


@pytest.mark.pitfall("T19")
@pytest.mark.parametrize("seed", range(5))
def test_nets_add_up_to_the_change_of_the_balance(seed: int) -> None:
    rules = AccountRules(close_at_end=True, commission=3.5, slippage_points=1)
    run = traded(made_up_table(rules=rules, seed=seed), random_actions(500, seed), rules=rules)
    assert run.trades["net"].sum() == pytest.approx(run.balance[-1] - run.deposit, abs=1e-9)
    assert run.positions["net"].sum() == pytest.approx(run.net, abs=1e-9)
    assert (
        compute_metrics(run)["total_trades"].note == "1 closed by the end of the test"
        or run.buy_lots[-2] + run.sell_lots[-2] == 0
    )
    metrics = compute_metrics(run)  # fmt: skip
    for row in (*metrics.tester, *metrics.ours):
        finite(row)


@pytest.mark.parametrize("seed", range(4))
def test_costs_add_up_and_the_mid_result_is_that_of_mid_prices(seed: int) -> None:
    rules = AccountRules(close_at_end=True, commission=3.5, slippage_points=2)
    run = traded(made_up_table(rules=rules, seed=seed), random_actions(500, seed), rules=rules)
    parts = dict(breakdown.cost_table(run).frame.iter_rows())
    assert sum(money for part, money in parts.items() if part != "net") == pytest.approx(
        parts["net"], abs=1e-9
    )
    assert parts["net"] == pytest.approx(run.net, abs=1e-9)
    mid = 0.0  # from prices alone: what each fill would have been at the middle, without slippage
    for deal in run.deals.iter_rows(named=True):
        bought = (deal["side"] > 0) == (deal["entry"] == "in")
        worse = (deal["spread_points"] / 2 + deal["slippage_points"]) * 1e-5
        mid += (
            (-1 if bought else 1)
            * deal["lots"]
            * 1e5
            * (deal["price"] - worse if bought else deal["price"] + worse)
        )
    assert parts["result at mid prices"] == pytest.approx(mid, abs=1e-4)  # fmt: skip
    assert parts["spread"] < 0
    assert parts["commission"] == pytest.approx(-3.5 * run.deals["lots"].sum())


def test_costs_of_the_golden_scenarios() -> None:
    run = golden_run("0/150/-100/100; 100/120/80/90", [HOLD, CLOSE], commission=3.5)
    parts = {
        "result at mid prices": 10.0,
        "spread": -1.0,
        "slippage": 0.0,
        "commission": -0.7,
        "swap": 0.0,
        "net": 8.3,
    }
    assert dict(breakdown.cost_table(run).frame.iter_rows()) == pytest.approx(parts)
    run = golden_run("0/150/-200/100", [HOLD], slippage_points=2)
    parts |= {"result at mid prices": -19.0, "slippage": -0.4, "commission": 0.0, "net": -20.4}
    assert dict(breakdown.cost_table(run).frame.iter_rows()) == pytest.approx(parts)


def test_excursions_and_holding_of_a_golden_scenario() -> None:
    run = golden_run("0/150/-100/100; 100/120/80/90", [HOLD, CLOSE])
    position = run.positions.row(0, named=True)
    assert (position["mfe"], position["mae"]) == pytest.approx((14.0, -11.0))
    assert position["held_seconds"] == HOUR
    assert run.net == pytest.approx(9.0)


@pytest.mark.pitfall("U5")
@pytest.mark.parametrize("lots", [0.004, 0.1])
def test_every_decision_is_accounted_for(lots: float) -> None:
    run = traded(made_up_table(), random_actions(500, 1, lots=lots, hold=1))
    frame = breakdown.outcome_table(run).frame.filter(kind="outcome")
    assert frame["count"].sum() == len(run) == 500
    assert frame["share"].sum() == pytest.approx(1.0)
    assert set(frame["name"]) == {outcome.name for outcome in Outcome}
    below = frame.filter(name="BELOW_MIN_LOT")["count"].item()
    asked = int((run.asked[:, [0, 3]] > 0).any(axis=1).sum())
    assert below == (asked if lots == 0.004 else 0)
    hints = [text for key, text in breakdown.remarks_on_actions(run) if "BELOW_MIN_LOT" in text]
    if lots == 0.004:
        assert hints == [
            f"BELOW_MIN_LOT on {100 * asked / 500:.1f} % of the decisions: the policy asks less than 0.01 lots: scale its output or lower lot_min."
        ]
    else:  # fmt: skip
        assert hints == []


@pytest.mark.pitfall("U6")
def test_report_shows_sides_and_actions() -> None:
    actions = np.tile([0.5, 0.2, 0.2, 0, 0, 0], (500, 1))
    run = traded(made_up_table(), actions)
    metrics = compute_metrics(run)
    assert metrics["constant"].value == 6
    assert metrics["one_sided"].text == "100.00%"
    assert metrics["one_sided"].note == "one-sided: long"
    sentences = " ".join(text for _, text in breakdown.remarks_on_actions(run))
    assert "One-sided: at least 95 % of the trades are long." in sentences
    assert "Constant: Buy lots, Buy target, Buy stop" in sentences
    sides = {row["side"]: row for row in breakdown.side_table(run).frame.iter_rows(named=True)}
    assert sides["short"]["trades"] == 0
    assert sides["long"]["trades"] == sides["both"]["trades"] == run.trades.height > 0
    closed = sum(sides["both"][key] for key in ("action", "sl", "tp", "stop_out", "end"))
    assert closed == run.trades.height
    histogram = breakdown.action_table(run).frame.filter(element="Buy lots", kind="raw")
    assert histogram["count"].sum() == 500
    assert histogram.filter(histogram["count"] > 0)["low"].item() == 0.5
    varied = traded(made_up_table(), random_actions(500, 1))
    assert compute_metrics(varied)["constant"].value == 0
    assert compute_metrics(varied)["one_sided"].note == ""


def test_months_add_up() -> None:
    run = traded(made_up_table(2200), random_actions(2100, 2))
    frame = breakdown.monthly_table(run).frame
    assert frame.height >= 3
    assert frame["net"].sum() == pytest.approx(run.net, abs=1e-9)
    assert frame["trades"].sum() == run.trades.height
    growth = np.prod(1 + frame["percent"].to_numpy())
    assert growth == pytest.approx(run.equity_end / run.deposit, rel=1e-12)
    whole = compute_metrics(run)["equity_dd_maximal"].value
    assert whole is not None
    assert frame["drawdown"].max() <= whole + 1e-9
    by_time = breakdown.by_time_table(run).frame
    for by in ("hour", "weekday", "month"):
        part = by_time.filter(by=by)
        assert part["entries"].sum() == run.positions.height
        assert part["profit"].sum() + part["loss"].sum() == pytest.approx(run.trades["net"].sum(), abs=1e-9)
    first = run.positions.row(0, named=True)
    hour = (first["open_time"] // HOUR) % 24
    assert by_time.filter(by="hour", group=hour)["entries"].item() >= 1


def test_weekdays_and_months_by_hand() -> None:
    run = run_of(
        [1.0, -2.0], equity=[1001.0, 999.0], seconds=31 * DAY
    )  # Tuesday 2 January, Friday 2 February 2024
    frame = breakdown.by_time_table(run).frame
    assert frame.filter(by="weekday", group=1)["profit"].item() == 1.0
    assert frame.filter(by="weekday", group=4)["loss"].item() == -2.0
    assert frame.filter(by="month", group=2)["loss"].item() == -2.0
    assert breakdown.monthly_table(run).frame["month"].to_list() == ["2024-01", "2024-02"]
