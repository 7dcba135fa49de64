"""What doing something simple on the same bars gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halfstep.backtest import baselines
from halfstep.backtest.baselines import Span, baseline_table, random_band, simple_baselines
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import market_table
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars

from .runs import RULES, made_up_table, random_actions, traded

SPAN = Span(first=10, bars=500)


def test_simple_rules_by_hand() -> None:
    rules = replace(RULES, spread_floor_points=0)
    bars = random_bars(60, seed=4)
    table = market_table(bars, instrument("EURUSD", profile="free"), rules)
    actions = np.zeros((40, 6))
    actions[3, :3] = (0.5, 1.0, 1.0)  # one opening; the stop of 1,000 points is never reached
    ours = traded(table, actions, rules=rules)
    flat, long, short, hold = simple_baselines(table, rules, ours, Span(first=10, bars=40))
    assert (flat.name, flat.run.net, flat.run.trades.height) == ("flat", 0.0, 0)
    move = round((bars.close[50] - bars.open[11]) * 1e5)  # opened at the next open, closed with the last bar
    spread = int(bars.spread[11])
    assert long.run.net == pytest.approx(0.5 * (move - spread))
    assert short.run.net == pytest.approx(-0.5 * (move + int(bars.spread[50])))
    assert long.note.startswith("0.50 lots, the median of our openings; price ")
    assert hold.run.net == pytest.approx(0.09 * (move - spread))  # 10,000 pay for 0.09 lots of 110,000
    assert hold.note.startswith("0.09 lots; price")
    lines = {
        row["name"]: row
        for row in baseline_table([flat, long, hold], None, 10_000.0).frame.iter_rows(named=True)
    }
    assert lines["flat"]["profit_factor"] is None
    assert lines["always long"]["percent"] == pytest.approx(long.run.net / 10_000)


def test_requests_that_open_nothing_do_not_set_the_volume() -> None:
    """A policy asks at every bar; only what it opened tells how it trades."""
    table = made_up_table(60)
    actions = np.zeros((40, 6))
    actions[:, :3] = (0.004, 0.5, 0.5)  # refused: under the least lot
    actions[5, 3:] = (0.3, 1.0, 1.0)
    span = Span(first=10, bars=40)
    assert "0.30 lots, the median" in simple_baselines(table, RULES, traded(table, actions), span)[1].note
    idle = traded(table, np.zeros((40, 6)))
    assert (
        "0.01 lots, the least there are: ours opened nothing;"
        in simple_baselines(table, RULES, idle, span)[1].note
    )


def check_price_change(bars: Bars, first: str, stop: str, note: str) -> None:
    table = market_table(bars, instrument("EURUSD"), RULES)
    begin, end = bars.index_at(first), bars.index_at(stop)
    span = Span(first=begin - 1, bars=end - begin)
    idle = traded(table, np.zeros((span.bars, 6)), first=span.first)
    lines = simple_baselines(table, RULES, idle, span)
    assert [line.name for line in lines] == ["flat", "always long", "always short", "buy and hold"]
    assert all(line.note.endswith(note) for line in lines[1:])
    assert np.sign(lines[1].run.net) == np.sign(lines[3].run.net) == np.sign(float(note.split()[-2]))


@pytest.mark.pitfall("D7")
def test_baselines_on_the_reference_span(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    check_price_change(bars, "2023-01-01", "2024-01-01", "price 1.07016 to 1.10360, +3.12 %")
    check_price_change(bars, "2024-01-01", "2024-02-01", "price 1.10437 to 1.08174, -2.05 %")


@pytest.mark.pitfall("D7")
def test_baselines_on_made_up_bars() -> None:
    bars = random_bars(900, seed=4)
    first, stop = bars.index_at("2022-01-10"), bars.index_at("2022-02-01")
    opened, closed = bars.open[first], bars.close[stop - 1]
    change = 100 * (closed / opened - 1)
    check_price_change(
        bars, "2022-01-10", "2022-02-01", f"price {opened:.5f} to {closed:.5f}, {change:+.2f} %"
    )


@pytest.mark.pitfall("U8")
def test_random_baseline_matches_trade_count() -> None:
    table = made_up_table()
    ours = traded(table, random_actions(500, 3))
    band = random_band(table, RULES, ours, SPAN, runs=200, seed=1)
    assert (band.trades == ours.positions.height).all()
    assert ours.positions.height > 20
    assert band.p(0.0) == (1 + (band.nets >= 0).sum()) / 201
    assert (band.low <= band.high).all()
    assert band.low[-1] <= np.quantile(band.nets + RULES.deposit, 0.06)
    again = random_band(table, RULES, ours, SPAN, runs=200, seed=1)
    assert band.nets.tobytes() == again.nets.tobytes()
    other = random_band(table, RULES, ours, SPAN, runs=200, seed=2)
    assert band.nets.tobytes() != other.nets.tobytes()


def test_a_policy_that_is_always_in_the_market_has_as_many_random_positions() -> None:
    """Positions without a gap between them: neighbours on one side must stay two."""
    table = made_up_table()
    actions = np.zeros((500, 6))
    side = (np.arange(500) // 5) % 2 == 0
    actions[side, :3], actions[~side, 3:] = (0.1, 1.0, 1.0), (0.1, 1.0, 1.0)
    ours = traded(table, actions)
    assert ours.positions.height == 100
    assert (random_band(table, RULES, ours, SPAN, runs=200, seed=1).trades == 100).all()
    actions = np.zeros((500, 6))
    side = np.arange(500) % 2 == 0
    actions[side, :3], actions[~side, 3:] = (0.1, 1.0, 1.0), (0.1, 1.0, 1.0)
    ours = traded(table, actions)
    assert ours.positions.height == 500
    assert (random_band(table, RULES, ours, SPAN, runs=100, seed=1).trades == 500).all()


def test_random_positions_take_over_volume_levels_and_time() -> None:
    """One position of three bars, 0.3 lots, target 500 and stop 400 points: every random one is like it or cut short."""
    table = made_up_table()
    actions = np.zeros((500, 6))
    actions[100:103, :3] = (0.3, 0.5, 0.4)
    ours = traded(table, actions)
    assert ours.positions.height == 1
    found = baselines._positions_of(ours)
    np.testing.assert_allclose(found.request, [[0.3, 0.5, 0.4]])
    assert found.bars.tolist() == [3]
    band = random_band(table, RULES, ours, SPAN, runs=300, seed=1)
    assert (band.trades == 1).all()
    assert -(400 + 60) * 0.3 < band.nets.min() < 0 < band.nets.max()  # a stop, and room for a gap
    assert 0.35 < (band.nets > 0).mean() < 0.65


def test_plans_hold_each_position_once_and_for_its_time() -> None:
    held = np.array([3, 5, 1, 8])
    plans = baselines._random_plans(np.random.default_rng(0), held, 40, 50)
    for run in plans.position.T:
        assert [int((run == k).sum()) for k in range(4)] == held.tolist()
        for k in range(4):
            assert np.ptp(np.flatnonzero(run == k)) + 1 == held[k]
    first = np.array([np.flatnonzero(run >= 0)[0] for run in plans.position.T])
    assert first.min() < 3 < 12 < first.max()
    assert abs(plans.side.mean()) < 0.2


def test_memory_bound_does_not_change_what_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made_up_table()
    ours = traded(table, random_actions(500, 3))
    monkeypatch.setattr(baselines, "PLAN_CELLS", 500 * 7)
    band = random_band(table, RULES, ours, SPAN, runs=30, seed=1)
    assert (band.trades == ours.positions.height).all()
    assert len(np.unique(band.nets)) > 25


def test_without_costs_random_trading_earns_nothing_on_average() -> None:
    """A driftless walk, no spread: the mean of random trading lies within three standard errors of 0."""
    rng = np.random.default_rng(2)
    n = 3000
    bars = random_bars(n, seed=1)
    close = np.round(1.1 + np.cumsum(rng.choice([-40, 40], n)) * 1e-5, 5)
    opened = np.concatenate([[1.1], close[:-1]])
    walk = replace(
        bars, open=opened, close=close, high=np.maximum(opened, close), low=np.minimum(opened, close),
        spread=np.zeros(n, np.int32),
    )  # fmt: skip
    rules = AccountRules(close_at_end=True, spread_floor_points=0)
    table = market_table(walk, instrument("EURUSD", profile="free"), rules)
    ours = traded(table, random_actions(2900, 1), rules=rules)
    band = random_band(table, rules, ours, Span(first=10, bars=2900), runs=1000, seed=1)
    error = band.nets.std() / np.sqrt(len(band.nets))
    assert abs(band.nets.mean()) < 3 * error


def test_no_positions() -> None:
    table = made_up_table()
    band = random_band(table, RULES, traded(table, np.zeros((500, 6))), SPAN, runs=100, seed=1)
    assert (band.nets == 0).all()
    assert band.p(0.0) == 1.0
