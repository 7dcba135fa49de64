"""The same orders under other assumptions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from halfstep.backtest.baselines import Span
from halfstep.backtest.run import TestRun, make_test_run
from halfstep.backtest.sensitivity import (
    Case,
    ambiguous_table,
    fragile_banners,
    replay_cases,
    rerun_cases,
    same_actions,
    sensitivity_table,
)
from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.timeframes import HOUR, Timeframe

from .runs import FIRST, RULES, made_up_table, random_actions, run_of, traded

KEYS = [
    "base", "costs_0", "costs_1", "costs_2", "stop_first", "target_first", "adaptive", "mt5_ohlc", "gap_level", "delay",
    "metatrader",
]  # fmt: skip


def replayed(table: MarketTable, actions: np.ndarray, rules: AccountRules, first: int) -> tuple[Case, ...]:
    return replay_cases(table, rules, actions, Span(first=first, bars=len(actions)))


def test_a_replay_repeats_the_test_and_costs_only_hurt() -> None:
    table = made_up_table()
    actions = random_actions(500, 3)
    run = traded(table, actions)
    cases = replayed(table, same_actions(run, 500), RULES, 10)
    assert [case.key for case in cases] == KEYS
    lines = {row["key"]: row for row in sensitivity_table(cases).frame.iter_rows(named=True)}
    assert lines["base"]["net"] == lines["costs_1"]["net"] == lines["stop_first"]["net"] == run.net
    assert lines["base"]["difference"] == 0.0
    assert lines["costs_0"]["net"] > lines["base"]["net"] > lines["costs_2"]["net"]
    assert lines["delay"]["net"] != lines["base"]["net"]
    assert lines["delay"]["difference"] == lines["delay"]["net"] - run.net


def spiked() -> tuple[MarketTable, np.ndarray, AccountRules]:
    """Return bars each of which touches stop and target of a long position, the target in an earlier quarter."""
    n = 11
    points = np.tile([0, 320, -220, 50], (n, 1)) + 110_000
    bars = Bars(
        time=FIRST + HOUR * np.arange(n), volume=np.ones(n), spread=np.full(n, 10, np.int32),
        **{name: points[:, k] / 1e5 for k, name in enumerate(("open", "high", "low", "close"))},
        symbol="EURUSD", timeframe=Timeframe.H1, digits=5,
    )  # fmt: skip
    quarters = np.tile(
        [[0, 50, -20, 40], [40, 320, 30, 300], [300, 310, -220, -150], [-150, 50, -160, 50]], (n, 1)
    )
    quarters += 110_000
    finer = Bars(
        time=FIRST + HOUR // 4 * np.arange(4 * n), volume=np.ones(4 * n), spread=np.full(4 * n, 10, np.int32),
        **{name: quarters[:, k] / 1e5 for k, name in enumerate(("open", "high", "low", "close"))},
        symbol="EURUSD", timeframe=Timeframe.M15, digits=5,
    )  # fmt: skip
    rules = AccountRules(close_at_end=True)
    table = market_table(bars, instrument("EURUSD"), rules, detail=finer)
    return table, np.tile([0.1, 0.3, 0.2, 0, 0, 0], (10, 1)), rules


@pytest.mark.pitfall("T23")
def test_both_bar_orders_are_reported() -> None:
    table, actions, rules = spiked()
    cases = replayed(table, actions, rules, 0)
    lines = {row["key"]: row for row in sensitivity_table(cases).frame.iter_rows(named=True)}
    assert lines["stop_first"]["net"] == pytest.approx(-200.0)
    assert lines["target_first"]["net"] == pytest.approx(300.0)
    assert lines["target_first"]["difference"] == pytest.approx(500.0)
    assert lines["m1"]["net"] == pytest.approx(300.0)  # the quarters know that the target came first
    assert (lines["base"]["ambiguous"], lines["base"]["ambiguous_share"]) == (10, 1.0)
    assert (lines["m1"]["ambiguous"], lines["m1"]["ambiguous_share"]) == (0, 0.0)
    positions = list(ambiguous_table(cases).frame.iter_rows())
    assert positions == [
        ("as tested", 10, pytest.approx(-200.0)),
        ("stop_first", 10, pytest.approx(-200.0)),
        ("target_first", 10, pytest.approx(300.0)),
    ]
    [banner] = fragile_banners(cases)
    assert banner.key == "only_target_first"
    assert banner.text == (
        "Profit only if a target counts before a stop inside the same bar: 300.00 then, -200.00 the other way round."
    )


def case(key: str, net: float) -> Case:
    run: TestRun = run_of([net])
    return Case(key=key, name=key, run=run)


@pytest.mark.pitfall("T23")
def test_a_profit_without_costs_carries_a_banner() -> None:
    others = (case("target_first", -3.0), case("stop_first", -3.0))
    [banner] = fragile_banners((case("costs_0", 5.0), case("costs_1", -1.0), *others))
    assert banner.text == "Profit only without costs: 5.00 without, -1.00 with them."
    assert fragile_banners((case("costs_0", 5.0), case("costs_1", 1.0), *others)) == []


def test_a_policy_that_never_looks_at_its_account_decides_the_same_again() -> None:
    market, span = made_up_table(300), Span(first=10, bars=200)
    actions = random_actions(200, 3)
    replays = replay_cases(market, RULES, actions, span)
    reruns = rerun_cases(
        market,
        RULES,
        lambda table, rules: make_test_run(run_actions(table, rules, actions, 10), actions, table, rules),
    )
    assert [case.key for case in reruns] == [f"rerun_{case.key}" for case in replays[1:]]
    assert [case.run.net for case in reruns] == [case.run.net for case in replays[1:]]
    lines = sensitivity_table(replays, reruns).frame
    assert lines.height == len(replays) + len(reruns)
    assert lines["difference"][0] == 0


def test_a_policy_that_looks_at_its_account_decides_otherwise() -> None:
    market, span = made_up_table(100), Span(first=10, bars=40)

    def decide(table: MarketTable, rules: AccountRules) -> TestRun:
        """Stay long with a volume that follows the equity, so other costs are other volumes."""
        actions, equity = np.tile([0.1, 1.0, 1.0, 0.0, 0.0, 0.0], (40, 1)), rules.deposit
        for bar in range(40):
            actions[bar, 0] = 0.1 + 0.01 * (int(equity) % 7)
            equity = run_actions(table, rules, actions[: bar + 1], 10).equity[-1]
        return make_test_run(run_actions(table, rules, actions, 10), actions, table, rules)

    base = decide(market, RULES)
    replayed = {case.key: case.run for case in replay_cases(market, RULES, base.asked, span)}
    decided = {case.key: case.run for case in rerun_cases(market, RULES, decide)}
    assert decided["rerun_costs_1"].net == base.net
    assert (decided["rerun_costs_0"].asked != base.asked).any()
    assert decided["rerun_costs_0"].net != replayed["costs_0"].net


def test_real_quarters_decide_the_order(shared_data: Callable[[str], Path]) -> None:
    """The broker's own M15 bars inside its H1 bars: every bar is covered, and nothing is ambiguous above a quarter."""
    hours, quarters = (
        read_bars(shared_data(f"EURUSD_{name}_mt5_2022-01_2024-01.csv.gz"), symbol="EURUSD")
        for name in ("H1", "M15")
    )
    rules = AccountRules(lot_cap=1.0, leverage=500.0, deposit=1e6, intrabar="m1")
    table = market_table(hours, instrument("EURUSD"), rules, detail=quarters)
    assert table.detail is not None
    assert table.detail.missing == 0
    generator = np.random.default_rng(1)
    actions = generator.random((12_000, 6)) * [0.2, 0.05, 0.05, 0.2, 0.05, 0.05]
    actions[:, [1, 2, 4, 5]] += 0.03  # 30 to 80 points: stops and targets that hours do touch both of
    cases = replayed(table, actions, rules, 1)
    rows = {row["key"]: row for row in sensitivity_table(cases).frame.iter_rows(named=True)}
    careful, real = rows["stop_first"], rows["m1"]
    assert careful["ambiguous"] > 100
    assert real["ambiguous"] < careful["ambiguous"] / 2
    assert real["ambiguous_share"] == real["ambiguous"] / real["trades"]
    assert next(case.run.detail_missing for case in cases if case.key == "m1") == 0
    assert careful["net"] < real["net"] < rows["target_first"]["net"]
