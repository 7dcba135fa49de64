"""What doing something simple on the same bars gives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from halfstep.backtest import baselines
from halfstep.backtest.baselines import random_band, simple_baselines
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars

RULES = AccountRules(close_at_end=True)


@pytest.fixture(scope="module")
def table() -> MarketTable:
    return market_table(random_bars(500, seed=4), instrument("EURUSD"), RULES)


def positions(count: int, bars: int = 10, lots: float = 0.1) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "open_bar": [20 * k for k in range(count)],
            "close_bar": [20 * k + bars for k in range(count)],
            "lots": [lots] * count,
        }
    )


def test_simple_rules_by_hand() -> None:
    rules = replace(RULES, spread_floor_points=0)
    bars = random_bars(60, seed=4)
    table = market_table(bars, instrument("EURUSD", profile="free"), rules)
    actions = np.zeros((40, 6))
    actions[3, :3] = (0.5, 1.0, 1.0)  # one opening; the stop of 1,000 points is never reached
    ours = run_actions(table, rules, actions, 10)
    flat, long, short, hold = simple_baselines(table, rules, ours, 10, 40)
    assert (flat.name, flat.net, flat.deals) == ("flat", 0.0, 0.0)
    move = round((bars.close[50] - bars.open[11]) * 1e5)  # opened at the next open, closed with the last bar
    spread = int(bars.spread[11])
    assert long.net == pytest.approx(0.5 * (move - spread))
    assert short.net == pytest.approx(-0.5 * (move + int(bars.spread[50])))
    assert long.note.startswith("0.50 lots, the median of our openings; price ")
    assert hold.net == pytest.approx(0.09 * (move - spread))  # 10,000 pay for 0.09 lots of 110,000
    assert hold.note.startswith("0.09 lots; price")


def test_requests_that_open_nothing_do_not_set_the_volume() -> None:
    """A policy asks at every bar; only what it opened tells how it trades."""
    table = market_table(random_bars(60, seed=4), instrument("EURUSD"), RULES)
    actions = np.zeros((40, 6))
    actions[:, :3] = (0.004, 0.5, 0.5)  # refused: under the least lot
    actions[5, 3:] = (0.3, 1.0, 1.0)
    ours = run_actions(table, RULES, actions, 10)
    assert "0.30 lots, the median" in simple_baselines(table, RULES, ours, 10, 40)[1].note
    idle = run_actions(table, RULES, np.zeros((40, 6)), 10)
    assert "0.01 lots, the median" in simple_baselines(table, RULES, idle, 10, 40)[1].note


@pytest.mark.pitfall("D7")
def test_baselines_on_the_reference_span(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    table = market_table(bars, instrument("EURUSD"), RULES)
    for first, last, note in (
        ("2023-01-01", "2024-01-01", "price 1.07016 to 1.10360, +3.12 %"),
        ("2024-01-01", "2024-02-01", "price 1.10437 to 1.08174, -2.05 %"),
    ):
        begin, end = bars.index_at(first), bars.index_at(last)
        idle = run_actions(table, RULES, np.zeros((end - begin, 6)), begin - 1)
        lines = simple_baselines(table, RULES, idle, begin - 1, end - begin)
        assert all(line.note.endswith(note) for line in lines[1:])
        assert np.sign(lines[1].net) == np.sign(lines[3].net) == np.sign(float(note.split()[-2]))


@pytest.mark.pitfall("U8")
def test_random_baseline_matches_trade_count(table: MarketTable) -> None:
    nets = []
    for runs in (200, 200):
        band = random_band(table, RULES, positions(8), 10, 400, 0.0, runs=runs, seed=1)
        nets.append(band.nets)
        assert band.p == (1 + (band.nets >= 0).sum()) / 201
    assert nets[0].tobytes() == nets[1].tobytes()
    random = np.random.default_rng(0)
    plan = baselines._random_plan(random, np.full(8, 10), np.full(8, 0.1), 400)
    held = (plan[:, 0] + plan[:, 3] > 0).astype(int)
    assert held.sum() == 80
    assert (np.diff(np.concatenate([[0], held])) == 1).sum() == 8  # eight openings, apart from each other
    assert not ((plan[:, 0] > 0) & (plan[:, 3] > 0)).any()


def test_memory_bound_does_not_change_the_numbers(
    table: MarketTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = random_band(table, RULES, positions(8), 10, 400, 0.0, runs=30, seed=1)
    monkeypatch.setattr(baselines, "PLAN_NUMBERS", 6 * 400 * 7)
    parts = random_band(table, RULES, positions(8), 10, 400, 0.0, runs=30, seed=1)
    assert whole.nets.tobytes() == parts.nets.tobytes()


def test_random_trading_pays_its_costs_on_average(table: MarketTable) -> None:
    band = random_band(table, RULES, positions(15), 10, 400, 0.0, runs=2000, seed=1)
    expected = -15 * 0.1 * 10 - 15 * 0.1 * 1  # the floor of ten points, and a little for spreads above it
    error = band.nets.std() / np.sqrt(len(band.nets))
    assert abs(band.nets.mean() - expected) < 4 * error + 2.0


def test_a_random_policy_is_not_better_than_random(table: MarketTable) -> None:
    """Over many random policies p is uniform: at most a tenth may look better than 95 % of random trading."""
    ours = random_band(table, RULES, positions(8), 10, 400, 0.0, runs=100, seed=7).nets
    others = random_band(table, RULES, positions(8), 10, 400, 0.0, runs=1000, seed=8).nets
    significant = sum((1 + (others >= net).sum()) / 1001 <= 0.05 for net in ours)
    assert significant <= 10


def test_no_positions(table: MarketTable) -> None:
    band = random_band(table, RULES, positions(0), 10, 400, 0.0, runs=100, seed=1)
    assert (band.nets == 0).all()
    assert band.p == 1.0
