"""Tables of deals, trades and positions, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from halfstep.broker import (
    AccountRules,
    BatchedAccounts,
    Run,
    deals_frame,
    positions_frame,
    run_actions,
    trades_frame,
)
from halfstep.broker.table import MarketTable
from halfstep.errors import HalfstepError

from .scenarios import RULES, TUESDAY, USDJPY, A, Z, buy, market, sell


def play(table: MarketTable, actions: list[list[float]], rules: AccountRules = RULES) -> Run:
    return run_actions(table, rules, np.array(actions, float), 0)


def test_a_deal_tells_everything() -> None:
    rules = replace(RULES, commission=3.5, slippage_points=2)
    table = market("0/150/-100/100;100/120/80/90", rules=rules)
    deals = deals_frame(play(table, [A, Z], rules).log, table)
    assert deals.row(1, named=True) == {
        "account": 0, "bar": 2, "time": TUESDAY + 2 * 3600, "phase": "ACTION", "side": 1, "entry": "out",
        "reason": "ACTION", "steps": 10, "lots": pytest.approx(0.10), "price": pytest.approx(1.10098),
        "entry_price": pytest.approx(1.10012), "sl": pytest.approx(1.09810), "tp": pytest.approx(1.10310),
        "spread_points": 10.0, "slippage_points": 2.0, "commission": pytest.approx(0.35), "swap": 0.0,
        "profit": pytest.approx(8.60), "balance": pytest.approx(10_000 - 0.70 + 8.60), "ambiguous": False,
    }  # fmt: skip


def test_times_of_deals() -> None:
    """By an action at the bar's open, inside the bar at its close."""
    table = market("0/20/-200/0")
    assert deals_frame(play(table, [A]).log, table)["time"].to_list() == [TUESDAY + 3600, TUESDAY + 7200]


def test_netting_joins_a_reversal() -> None:
    table = market("0/50/-50/40;100/120/50/60;50/60/40/50")
    run = play(table, [A, sell(0.20, 300, 200), Z])
    hedged = deals_frame(run.log, table)
    netted = deals_frame(run.log, table, account_mode="netting")
    assert hedged["entry"].to_list() == ["in", "out", "in", "out"]
    assert netted["entry"].to_list() == ["in", "in/out", "out"]
    row = netted.row(1, named=True)
    assert (row["side"], row["lots"], row["profit"]) == (-1, pytest.approx(0.30), pytest.approx(9.0))
    assert netted["profit"].sum() == pytest.approx(hedged["profit"].sum())
    assert netted["balance"].to_list()[-1] == hedged["balance"].to_list()[-1]
    closed = play(market("0/50/-50/40;100/120/50/60"), [A, Z])
    assert deals_frame(closed.log, table, account_mode="netting").height == 2


def test_trades_share_the_entry_commission() -> None:
    rules = replace(RULES, commission=10.0)
    table = market("0/50/-50/40;100/120/50/60;50/60/40/50", rules=rules)
    run = play(table, [buy(0.30, 300, 200), A, Z], rules)
    trades = trades_frame(deals_frame(run.log, table))
    assert trades["lots"].to_list() == pytest.approx([0.20, 0.10])
    assert trades["net"].to_list() == pytest.approx([18.0 - 2 - 2, 4.0 - 1 - 1])
    assert trades["net"].sum() == pytest.approx(run.balance[-1] - 10_000)


def test_a_position_from_opening_to_close() -> None:
    """0.10 at +10, 0.20 more at +100 (mean +70), all out at +40; best at +130, worst at the low of -50."""
    table = market("0/50/-50/40;90/150/60/130;40/50/30/40")
    run = play(table, [A, buy(0.30, 300, 200), Z])
    position = positions_frame(deals_frame(run.log, table), table).row(0, named=True)
    assert position["lots"] == pytest.approx(0.30)
    assert position["open_price"] == pytest.approx(1.10070)
    assert position["close_price"] == pytest.approx(1.10040)
    assert position["profit"] == pytest.approx(-9.0)
    assert position["mfe"] == pytest.approx(0.30 * (150 - 70))
    assert position["mae"] == pytest.approx(-9.0)
    assert (position["open_bar"], position["close_bar"], position["reason"]) == (1, 3, "ACTION")


def test_sides_held_together_are_positions_of_their_own() -> None:
    rules = replace(RULES, net_opposite=False)
    table = market("0/150/-100/100;100/120/40/50;50/60/40/50", rules=rules)
    both = [0.20, 0.3, 0.2, 0.10, 0.3, 0.2]
    run = play(table, [both, sell(0.10, 300, 200), Z], rules)
    positions = positions_frame(deals_frame(run.log, table), table)
    assert positions["side"].to_list() == [1, -1]
    assert positions["profit"].to_list() == pytest.approx([18.0, -6.0])
    assert positions["net"].sum() == pytest.approx(run.balance[-1] - 10_000)


def test_excursions_in_the_base_currency() -> None:
    table = market("0/600/-100/500;500/510/490/500", of=USDJPY, base=150_000)
    run = play(table, [buy(0.10, 1000, 300), Z])
    position = positions_frame(deals_frame(run.log, table), table).row(0, named=True)
    spread = table.values[1, 4]
    assert position["mfe"] == pytest.approx((600 - spread) * 10 / 150.6)
    assert position["mae"] == pytest.approx((-100 - spread) * 10 / 149.9)


def test_nothing_traded_gives_empty_tables() -> None:
    table = market("0/1/0/0")
    deals = deals_frame(play(table, [Z]).log, table)
    assert deals.height == trades_frame(deals).height == positions_frame(deals, table).height == 0


def test_a_full_log_is_an_error_not_a_gap() -> None:
    table = market("0/20/-20/0;0/20/-20/0")
    accounts = BatchedAccounts(table, RULES, 1, log_capacity=1)
    accounts.reset(first=0, stop=2)
    for action in (A, Z):
        accounts.step(np.array([action]))
    with pytest.raises(HalfstepError, match=r"2 deals of account 0, room for 1\. Give a larger log_capacity"):
        deals_frame(accounts.log, table)
