"""Execution rules one by one, with the numbers that published engines get wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from halfstep.broker import (
    AccountRules,
    BatchedAccounts,
    Outcome,
    Run,
    deals_frame,
    log_reward,
    market_table,
    relative_components,
    reset_accounts,
    run_actions,
    step,
    weighted_reward,
)
from halfstep.broker._kernel import hash32, slipped
from halfstep.broker.engine import form
from halfstep.broker.rules import rules_hash
from halfstep.broker.table import MarketTable
from halfstep.errors import ActionError, ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument
from halfstep.market.state import account_vector
from halfstep.market.timeframes import Timeframe

from .scenarios import (
    BACKENDS,
    BASE,
    EURUSD,
    RULES,
    TUESDAY,
    A,
    Z,
    bars_of,
    buy,
    market,
    random_actions,
    sell,
    wild_bars,
)

DAY = 86_400


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def play(
    table: MarketTable, actions: list[list[float]], rules: AccountRules = RULES, backend: str = "single"
) -> Run:
    return run_actions(table, rules, np.array(actions, float), 0, backend=backend)  # type: ignore[arg-type]


@pytest.mark.pitfall("T2")
def test_orders_fill_at_the_next_open(backend: str) -> None:
    """Decided at the close 1.10000; the next bar opens at 1.10050."""
    table = market("50/60/40/50")
    assert deals_frame(play(table, [A], backend=backend).log, table)["price"][0] == pytest.approx(1.10060)
    sold = play(table, [sell(0.10, 300, 200)], backend=backend)
    assert deals_frame(sold.log, table)["price"][0] == pytest.approx(1.10050)


@pytest.mark.pitfall("T5")
def test_costs_by_hand(backend: str) -> None:
    rules = replace(RULES, commission=3.5, close_at_end=True)
    long = play(market("0/100/-10/100", rules=rules), [buy(1, 900, 900)], rules, backend)
    assert long.balance[0] == pytest.approx(10_083)
    short = play(market("0/10/-100/-100", rules=rules), [sell(1, 900, 900)], rules, backend)
    assert short.balance[0] == pytest.approx(10_083)


@pytest.mark.pitfall("T6")
def test_swap_nights(backend: str) -> None:
    """-5.00 a night for one lot, triple on Wednesday."""
    of = replace(EURUSD, swap_long=-5.0)

    def paid(days: int) -> float:
        times = [TUESDAY - 3600, TUESDAY, TUESDAY + days * DAY]
        table = market("0/20/-20/0;0/20/-20/0", of=of, times=times)
        return float(play(table, [buy(1, 900, 900)] * 2, backend=backend).state.long_.swap[0])

    assert paid(2) == pytest.approx(-20.0)  # Tuesday and Wednesday night
    times = [TUESDAY + 3 * DAY - 3600, TUESDAY + 3 * DAY, TUESDAY + 6 * DAY]
    weekend = play(
        market("0/20/-20/0;0/20/-20/0", of=of, times=times), [buy(1, 900, 900)] * 2, backend=backend
    )
    assert weekend.state.long_.swap[0] == pytest.approx(-5.0)


def test_swap_as_percent_a_year() -> None:
    """-3.6 % a year of 1 lot at 1.10000: 0.01 % of 110,000 USD = 11.00 USD a night."""
    of = replace(EURUSD, swap_mode="percent", swap_long=-3.6)
    table = market("0/20/-20/0;0/20/-20/0", of=of, times=[TUESDAY - 3600, TUESDAY, TUESDAY + DAY])
    run = play(table, [buy(1, 900, 900)] * 2)
    assert run.state.long_.swap[0] == pytest.approx(-11.0)


@pytest.mark.pitfall("T7")
def test_stop_comes_first_when_a_bar_touches_both(backend: str) -> None:
    """Long at 1.10010, stop 1.09900, target 1.10200, bar 1.10000 / 1.10300 / 1.09800."""
    table = market("0/300/-200/0")
    run = play(table, [buy(0.10, 190, 110)], backend=backend)
    assert deals_frame(run.log, table)["price"][-1] == pytest.approx(1.09900)
    assert run.ambiguous == 1
    rules = replace(RULES, intrabar="m1")
    order = "0/300/-20/200;200/210/-200/-100;-100/0/-150/-50;-50/10/-60/0"
    real = market("0/300/-200/0", rules=rules, detail=order)
    run = play(real, [buy(0.10, 190, 110)], rules, backend)
    assert deals_frame(run.log, real)["price"][-1] == pytest.approx(1.10200)
    assert run.ambiguous == 0


@pytest.mark.pitfall("T8")
def test_stops_are_live_in_the_entry_bar(backend: str) -> None:
    table = market("0/20/-150/0")
    run = play(table, [buy(0.10, 300, 110)], backend=backend)
    assert deals_frame(run.log, table)["price"].to_list() == pytest.approx([1.10010, 1.09900])


@pytest.mark.pitfall("T9")
def test_a_gapped_stop_fills_at_the_open(backend: str) -> None:
    """Stop 1.09500, next open 1.09000 after a weekend; the mode of MetaTrader's tester is separate."""
    times = [TUESDAY + 3 * DAY - 3600, TUESDAY + 3 * DAY, TUESDAY + 6 * DAY]
    for rules, price in ((RULES, 1.09000), (replace(RULES, gap_fill="level"), 1.09500)):
        table = market("0/20/-20/0;-1000/-990/-1010/-1000", rules=rules, times=times)
        run = play(table, [buy(0.10, 900, 510), Z], rules, backend)
        assert deals_frame(run.log, table)["price"][-1] == pytest.approx(price)
    mt5 = AccountRules.mt5(lot_cap=2.0)
    assert (mt5.intrabar, mt5.gap_fill, mt5.lot_cap) == ("mt5_ohlc", "level", 2.0)


@pytest.mark.pitfall("T10")
def test_short_levels_are_tested_on_the_ask(backend: str) -> None:
    """Spread 10: a stop at 1.10100 is hit by a bid of 1.10095, a target of 1.09900 is not by a bid of 1.09895."""
    table = market("0/95/-10/0")
    assert play(table, [sell(0.10, 300, 100)], backend=backend).lots[-1] == 0
    assert play(market("0/10/-105/0"), [sell(0.10, 100, 300)], backend=backend).lots[-1] == pytest.approx(
        -0.10
    )
    assert play(market("0/10/-110/0"), [sell(0.10, 100, 300)], backend=backend).lots[-1] == 0


@pytest.mark.pitfall("T11")
def test_a_wick_through_the_stop_out_liquidates(backend: str) -> None:
    """1,500 USD, one lot at 1.10010, margin 1,100.10: level 1.0906005; low 1.09050, close 1.10000."""
    rules = replace(RULES, deposit=1500.0, zero_level="none")
    run = play(market("0/20/-950/0", rules=rules), [[1, 1, 0, 0, 0, 0]], rules, backend)
    assert run.status == 1
    assert run.equity[0] <= 550.05
    assert run.equity[0] == pytest.approx(1500 - 950)  # 1.09060, the grid price below 1.0906005


@pytest.mark.pitfall("T12")
def test_stop_before_stop_out(backend: str) -> None:
    rules = replace(RULES, deposit=1500.0, zero_level="none")
    table = market("0/20/-950/0", rules=rules)
    run = play(table, [buy(1, 1000, 510)], rules, backend)
    assert deals_frame(run.log, table)["price"][-1] == pytest.approx(1.09500)
    assert deals_frame(run.log, table)["reason"][-1] == "SL"
    assert run.status == 2


@pytest.mark.pitfall("T13")
def test_bankruptcy_is_final(backend: str) -> None:
    rules = replace(RULES, zero_level="none")
    table = market("0/20/-20/0;-2500/-2400/-2600/-2450;0/9000/0/9000", rules=rules)
    accounts = BatchedAccounts(table, rules, 1, backend=backend)  # type: ignore[arg-type]
    accounts.reset(first=0, stop=3)
    action = np.array([[5, 1, 0, 0, 0, 0.0]])
    for _ in range(2):
        accounts.step(action)
    before = accounts.state.copy()
    result = accounts.step(action)
    assert result.reward[0] == 0
    np.testing.assert_array_equal(accounts.state.floats, before.floats)
    assert not accounts.is_running


@pytest.mark.pitfall("T15")
def test_money_adds_up() -> None:
    """10,000 and 100,000 round trips that win 0.01 each are 11,000.00; float32 would end at 10,976.56."""
    n = 100_000
    rules = replace(RULES, spread_floor_points=0, zero_level="none")
    opens = (BASE + np.arange(2 * n + 2) % 2) / 1e5  # bought at 0 in even bars, sold at 1 in odd ones
    bars = Bars(
        time=TUESDAY + 60 * np.arange(len(opens)), open=opens, high=opens, low=opens, close=opens,
        volume=np.ones(len(opens)), spread=np.zeros(len(opens), np.int32), symbol="EURUSD", timeframe=Timeframe.M1,
        digits=5,
    )  # fmt: skip
    plan = np.zeros((2 * n, 6))
    plan[::2, 0] = 0.01
    run = run_actions(market_table(bars, EURUSD, rules), rules, plan, 1)
    assert run.log.counts[0] == 2 * n
    assert run.balance[-1] == pytest.approx(11_000, abs=1e-6)
    added = np.full(n + 1, 0.01, np.float32)
    added[0] = 10_000
    assert np.add.accumulate(added)[-1] == pytest.approx(10_976.56, abs=0.01)


@pytest.mark.pitfall("T15")
def test_a_touched_level_is_hit(backend: str) -> None:
    """Long at 1.08001 with a stop 137 points below; the low is 1.07864, as text says and as floats do not."""
    assert 1.08001 - 137 * 0.00001 < 1.07864
    run = play(market("0/10/-127/-100", base=107_991), [buy(0.10, 300, 137)], backend=backend)
    assert run.balance[0] == pytest.approx(10_000 - 13.70)


@pytest.mark.pitfall("T16")
def test_lot_steps(backend: str) -> None:
    for volume, lots in [(0.29, 0.29), (0.57, 0.57), (1.15, 1.15), (0.004, 0.0)]:
        run = play(market("0/20/-20/0"), [buy(volume, 300, 200)], backend=backend)
        assert run.lots[-1] == pytest.approx(lots, abs=1e-12)
    assert run.outcome[0] == Outcome.BELOW_MIN_LOT


@pytest.mark.pitfall("T19")
def test_rewards_add_up(backend: str) -> None:
    equity, before = np.array([10_100.0, 9_999.0]), np.array([10_000.0, 10_100.0])
    rewards = log_reward(equity, before, 100.0)
    np.testing.assert_allclose(rewards, [0.00995033, -0.01005034], atol=5e-9)
    assert rewards.sum() == pytest.approx(math.log(0.9999), abs=1e-15)
    run = play(market("0/150/-100/100;100/120/40/50"), [A, A], backend=backend)
    np.testing.assert_allclose(run.reward, log_reward(run.equity, np.array([10_000, run.equity[0]]), 100.0))


@pytest.mark.pitfall("T20")
def test_a_reverse_survives_another_exit(backend: str) -> None:
    """The gap stops the long out, and the sell order of the same bar is filled all the same."""
    run = play(market("0/20/-20/0;-300/-250/-320/-280"), [A, sell(0.10, 300, 200)], backend=backend)
    assert run.lots[-1] == pytest.approx(-0.10)
    assert run.balance[-1] == pytest.approx(9_969)
    assert run.outcome[-1] == Outcome.FILLED


@pytest.mark.pitfall("T20")
def test_netting(backend: str) -> None:
    run = play(market("0/20/-20/0"), [[0.30, 0.3, 0.2, 0.10, 0.3, 0.2]], backend=backend)
    assert (run.buy_lots[0], run.sell_lots[0]) == (pytest.approx(0.20), 0)


@pytest.mark.pitfall("U5")
def test_every_decision_is_accounted_for(backend: str) -> None:
    """A policy that always asks 0.004 lots: every decision ends as "below the least lot"."""
    run = play(market(";".join(["0/20/-20/0"] * 20)), [buy(0.004, 300, 200)] * 20, backend=backend)
    assert run.state.outcomes[0].tolist() == [0, 0, 0, 20, 0, 0, 0, 0]


@pytest.mark.pitfall("R1")
def test_floating_profit_is_rewarded() -> None:
    balance = np.array([10_000.0, 10_000.0])
    components = np.array([[0.0, 100.0, 0.0], [0.0, -100.0, 0.0]])
    relative = relative_components(components, balance, 100.0)
    np.testing.assert_allclose(relative[:, 1], [0.01, -0.01])
    np.testing.assert_allclose(weighted_reward(components, balance, (1.0, 0.5, 1.0), 100.0), [0.005, -0.005])
    run = play(market("0/1020/-100/1010"), [buy(0.10, 5000, 500)])  # up 1000 points: +100
    assert relative_components(run.components, np.array([10_000.0]), 100.0)[0, 1] == pytest.approx(0.01)


@pytest.mark.pitfall("R2")
def test_flat_penalty_is_per_bar(backend: str) -> None:
    """ATR 0.00100, one lot: 100.00, one hundredth of the balance, on each of three bars, of the newest bar's ATR."""
    rules = replace(RULES, idle_lots=1.0)
    bars = bars_of("0/1/0/0;0/1/0/0;0/1/0/0")
    atr = np.array([100.0, 100.0, 100.0, 7.0])
    run = play(market_table(bars, EURUSD, rules, atr_points=atr), [Z] * 3, rules, backend)
    np.testing.assert_allclose(run.components[:, 2], [-100.0] * 3)
    np.testing.assert_allclose(
        relative_components(run.components, np.full(3, 10_000.0), 100.0)[:, 2], [-0.01] * 3
    )
    older = np.array([5000.0, 100.0, 100.0, 100.0])
    other = play(market_table(bars, EURUSD, rules, atr_points=older), [Z] * 3, rules, backend)
    np.testing.assert_allclose(other.components[1:, 2], [-100.0] * 2)
    assert (run.reward == 0).all()


@pytest.mark.pitfall("D2")
def test_spread_floor() -> None:
    """Every fill pays at least the floor; a missing spread is the last known one, at least the floor."""
    bars = replace(bars_of("0/9/0/0;0/9/0/0;0/9/0/0;0/9/0/0"), spread=np.array([-1, 25, -1, 0, 3], np.int32))
    table = market_table(bars, EURUSD, RULES)
    assert table.values[:, 4].tolist() == [10, 25, 25, 10, 10]
    assert table.floored_spreads == pytest.approx(3 / 5)
    assert market_table(bars, EURUSD, replace(RULES, cost_scale=2.0)).values[:, 4].tolist() == [
        20,
        50,
        50,
        20,
        20,
    ]
    assert market_table(bars, EURUSD, replace(RULES, cost_scale=0.0)).values[:, 4].tolist() == [0] * 5
    rules = replace(RULES, close_at_end=True)
    cheap = market("0/9/0/0", rules=rules, spread=0)
    assert play(cheap, [buy(1, 900, 900)], rules).balance[0] <= 10_000 - 10


@pytest.mark.pitfall("D11")
def test_ask_bars_become_bid(backend: str) -> None:
    table = market("10/160/-90/110", side="ask")
    assert table.values[1, 3] * 1e-5 == pytest.approx(1.10100)
    round_trip = play(market("10/10/10/10;10/10/10/10", side="ask"), [buy(1, 900, 900), Z], backend=backend)
    assert round_trip.balance[-1] == pytest.approx(9_990)  # one spread


def test_slippage_is_drawn_from_the_seed() -> None:
    assert [hash32(x) for x in (1, 2, 12345)] == [824515495, 1722258072, 1747545881]
    assert [slipped(1.0, 4.0, 1.0, 7, bar, 6) for bar in range(1, 9)] == [3, 3, 2, 4, 3, 4, 3, 5]
    rules = replace(RULES, slippage_points=1, slippage_random_points=4)
    text = ";".join(["0/20/-20/0"] * 8)
    table = market(text, rules=rules)
    for backend in BACKENDS:
        seen = []
        for bar in range(1, 9):
            plan = np.zeros((8, 6))
            plan[bar - 1] = A
            run = run_actions(table, rules, plan, 0, seed=7, backend=backend)  # type: ignore[arg-type]
            seen.append(float(deals_frame(run.log, table)["slippage_points"][0]))
        assert seen == [3, 3, 2, 4, 3, 4, 3, 5]


def test_costs_scale() -> None:
    """At scale 0 nothing is paid, at 2 everything twice; a swap that is received stays."""
    of = replace(EURUSD, swap_long=-6.5, swap_short=1.5)
    times = [TUESDAY - 3600, TUESDAY, TUESDAY + DAY]
    nets = {}
    for scale in (0.0, 1.0, 2.0):
        rules = replace(RULES, commission=3.5, slippage_points=2, cost_scale=scale, close_at_end=True)
        table = market("0/20/-20/0;0/20/-20/0", rules=rules, of=of, times=times)
        nets[scale] = play(table, [buy(1, 900, 900)] * 2, rules).balance[-1] - 10_000
        short = play(table, [sell(1, 900, 900)] * 2, rules)
        assert short.state.deals[0] == 2
    assert nets[0.0] == 0
    assert nets[1.0] == pytest.approx(-10 - 2 - 7 - 6.5)
    assert nets[2.0] == pytest.approx(2 * nets[1.0])


def test_levels_below_zero_are_dropped(backend: str) -> None:
    rules = replace(RULES, leverage=1000.0)
    of = replace(EURUSD, level_scale_points=200_000)
    table = market("0/20/-20/0", rules=rules, of=of)
    run = play(table, [[0, 0, 0, 0.1, 1.0, 0.5]], rules, backend)
    assert run.state.short_.tp[0] == 0
    assert run.state.short_.sl[0] == 110_000 + 100_000
    assert run.state.flags[0].tolist() == [0, 0, 0, 1, 0]


def test_absurd_requests_do_no_harm(backend: str) -> None:
    """Huge finite numbers are cut to the cap or refused, in every form alike; infinities are refused."""
    table = market("0/20/-20/0;0/20/-20/0")
    run = play(table, [[1e300, 1e300, 1e300, 0, 0, 0], [0, 0, 0, 0, 0, math.inf]], backend=backend)
    assert run.outcome.tolist() == [Outcome.NO_MONEY, Outcome.NONFINITE]
    assert (
        play(table, [[0.1, 1e300, 0.2, -1e300, -1e300, -1e300], Z], backend=backend).outcome[0]
        == Outcome.FILLED
    )
    assert play(table, [[0.1, -5.0, 0.2, 0, 0, 0], Z], backend=backend).outcome[0] == Outcome.TP_TOO_CLOSE


def test_volume_by_equity(backend: str) -> None:
    """0.10 lots per 10,000 at an equity of 20,000 are 0.20 lots."""
    rules = replace(RULES, deposit=20_000.0, volume_unit="lots_per_10k")
    run = play(market("0/20/-20/0", rules=rules), [A], rules, backend)
    assert run.lots[-1] == pytest.approx(0.20)


def test_both_sides_meet_the_stop_out(backend: str) -> None:
    """Hedged one to one with a wide spread of losses: the worse side goes first, and the episode ends."""
    rules = replace(RULES, net_opposite=False, zero_level="none", deposit=6_000.0)
    calm = play(market("0/20/-20/0;0/20/-30/-20", rules=rules), [[5, 1, 0, 4.5, 1, 0]] * 2, rules, backend)
    assert calm.status == 2
    assert (calm.buy_lots[-1], calm.sell_lots[-1]) == (5, 4.5)
    rules = replace(rules, deposit=5_600.0)
    table = market("0/20/-20/0;0/20/-6000/-5900", rules=rules)
    run = play(table, [[5, 10, 0, 4.5, 10, 0]] * 2, rules, backend)
    deals = deals_frame(run.log, table)
    assert run.status == 1
    forced = deals.filter(deals["reason"] == "STOP_OUT")
    assert forced["side"].to_list() == [1, -1]  # the long loses at the low; then the short, worst at the high
    np.testing.assert_allclose(forced["price"], [1.04000, 1.10030])


def test_a_step_changes_nothing_it_was_given() -> None:
    table = market("0/150/-100/100;100/120/80/90")
    state = reset_accounts(table, RULES, 1, first=0, stop=2)
    before = state.copy()
    after, result = step(state, np.array(A), table, RULES)
    np.testing.assert_array_equal(state.floats, before.floats)
    assert (after.equity[0], after.long_.steps[0]) == (pytest.approx(10_009), 10)
    assert after.margin_level[0] == pytest.approx(90.9826, abs=1e-4)
    assert result.executed[0].tolist() == A
    last, _ = step(after, np.array(Z), table, RULES)
    assert last.status[0] == 2
    assert last.seed.dtype == np.uint32


@pytest.mark.parametrize("net", [True, False])
def test_vectors_are_those_of_the_market_floor(net: bool) -> None:
    """The compiled account vector equals `account_vector` of the eight numbers, bit for bit."""
    rules = replace(RULES, leverage=500.0, lot_cap=2.0, net_opposite=net)
    table = market_table(wild_bars(200, 1), EURUSD, rules)
    accounts = BatchedAccounts(table, rules, 8)
    accounts.reset(first=0, stop=199)
    previous = accounts.numbers()
    plans = np.stack([random_actions(199, seed, 2.0) for seed in range(8)], axis=1)
    for actions in plans:
        running = accounts.state.status == 0
        accounts.step(actions)
        now = accounts.numbers()
        expected = account_vector(now, previous, floor=rules.floor)
        np.testing.assert_array_equal(accounts.vectors()[running], expected[running])
        previous = now


def test_numbers_of_an_hour_old_position() -> None:
    table = market("0/150/-100/100")
    accounts = BatchedAccounts(table, RULES, 1)
    accounts.reset(first=0, stop=1)
    accounts.step(np.array([A]))
    np.testing.assert_allclose(accounts.numbers()[0], [10_000, 10_009, 0.10, 0, 9.0, 0, 8.10, TUESDAY + 3600])
    np.testing.assert_allclose(
        accounts.vectors()[0, :8], [0, 1.0009, 0.0009, 0.1, 0, 0.0009, 0, 0.00081], rtol=1e-5
    )


def test_delay_holds_every_action_back(backend: str) -> None:
    rules = replace(RULES, delay_bars=2, lot_cap=5.0)
    table = market_table(wild_bars(60, 4), EURUSD, rules)
    actions = np.nan_to_num(random_actions(50, 1, 5.0))
    late = run_actions(table, rules, actions, 0, backend=backend)  # type: ignore[arg-type]
    now = replace(rules, delay_bars=0)
    by_hand = run_actions(table, now, np.concatenate([np.zeros((2, 6)), actions[:-2]]), 0)
    np.testing.assert_array_equal(late.equity, by_hand.equity)
    accounts = BatchedAccounts(table, rules, 1, backend=backend)  # type: ignore[arg-type]
    accounts.reset(first=0, stop=50)
    equity = []
    for action in actions:
        accounts.step(action[None])
        equity.append(accounts.state.equity[0])
    np.testing.assert_array_equal(equity[: len(late.equity)], late.equity)


def test_detail_is_checked() -> None:
    bars = bars_of("0/320/-200/50")
    with pytest.raises(ConfigError, match="detail: H1, must be of a finer timeframe than H1"):
        market_table(bars, EURUSD, RULES, detail=bars)
    finer = replace(bars, timeframe=Timeframe.M15, symbol="GBPUSD")
    with pytest.raises(ConfigError, match="detail: GBPUSD bid with 5 digits, must be EURUSD bid"):
        market_table(bars, EURUSD, RULES, detail=finer)
    with pytest.raises(ConfigError, match="intrabar: 'm1', needs finer bars"):
        run_actions(market_table(bars, EURUSD, RULES), replace(RULES, intrabar="m1"), np.zeros((1, 6)), 0)


def test_wrong_use_is_named() -> None:
    table = market("0/1/0/0")
    accounts = BatchedAccounts(table, RULES, 2)
    with pytest.raises(CoverageError, match="an episode from bar 0 to 9, but the market has bars 0 to 1"):
        accounts.reset(first=0, stop=9)
    with pytest.raises(ActionError, match=r"shape \(1, 6\), must be \(2, 6\)"):
        accounts.step(np.zeros((1, 6)))
    with pytest.raises(ActionError, match=r"shape \(2, 6\), must be \(steps, 2, 6\)"):
        accounts.play(np.zeros((2, 6)))
    with pytest.raises(ConfigError, match="currency: 'CHF', must be EUR or USD"):
        market("0/1/0/0", rules=replace(RULES, currency="CHF"))
    with pytest.raises(ConfigError, match="profit_rate: shape"):
        market_table(
            bars_of("0/1/0/0"), EURUSD, replace(RULES, currency="CHF"), profit_rate=np.ones(1), margin_rate=np.ones(2)
        )  # fmt: skip
    with pytest.raises(ConfigError, match="rules: currency, cost_scale, spread_floor_points"):
        BatchedAccounts(table, replace(RULES, cost_scale=2.0), 1)
    with pytest.raises(ConfigError, match="digits: the bars have 5"):
        market_table(bars_of("0/1/0/0"), instrument("USDJPY"), RULES)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_out": 2}, "stop_out: 2, must lie between 0 and 1"),
        ({"leverage": 0}, "leverage: 0, must be above 0"),
        ({"delay_bars": -1}, "delay_bars: -1, must be 0 or more"),
        ({"commission": math.nan}, "commission: nan, must be 0 or more"),
        ({"intrabar": "best"}, "intrabar: best, must be one of stop_first"),
        ({"account_mode": "netting", "net_opposite": False}, "net_opposite: False, must be True where"),
    ],
)
def test_wrong_rules_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AccountRules(**fields)  # type: ignore[arg-type]


def test_the_hash_of_rules_covers_every_field() -> None:
    base = rules_hash(RULES, EURUSD)
    assert base != rules_hash(replace(RULES, delay_bars=1), EURUSD)
    assert base != rules_hash(RULES, replace(EURUSD, swap_long=-1.0))
    assert base == rules_hash(replace(RULES), replace(EURUSD))


def test_compiled_names_hold_the_sources() -> None:
    """The compiler's cache does not look into imported helpers; the names make it notice their changes."""
    assert form("netted", "single").__name__ != form("netted", "batch").__name__
    assert form("hedged", "python").__name__ == "step_hedged"


def test_dojis_take_the_opposite_colour() -> None:
    table = market("0/9/0/5;5/9/0/5;5/9/0/5;5/9/0/0;0/9/0/0")
    assert table.values[:, 10].tolist() == [1, 1, -1, 1, -1, 1]
