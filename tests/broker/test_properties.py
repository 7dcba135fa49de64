"""Relations that hold on any market and for any actions: random walks with gaps, spreads 0 to 50, all modes."""

import itertools
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.broker import (
    AccountRules,
    BatchedAccounts,
    MarketTable,
    Outcome,
    Run,
    deals_frame,
    market_table,
    positions_frame,
    reset_accounts,
    run_actions,
    step,
    trades_frame,
)
from halfstep.market.bars import Bars
from halfstep.market.timeframes import Timeframe

from .scenarios import BASE, EURUSD, RULES, USDJPY, market, random_actions, wild_bars

SWAPPED = replace(EURUSD, swap_long=-6.5, swap_short=1.5)
BARS = 150
seeds = st.integers(0, 10_000)


@st.composite
def rule_sets(draw: st.DrawFn, **fixed: object) -> AccountRules:
    """Return rules of any mode."""
    drawn = {
        "leverage": draw(st.sampled_from([1.0, 30.0, 100.0, 500.0])),
        "lot_cap": draw(st.sampled_from([0.5, 5.0, 50.0])),
        "net_opposite": draw(st.booleans()),
        "intrabar": draw(st.sampled_from(["stop_first", "target_first", "adaptive", "mt5_ohlc"])),
        "gap_fill": draw(st.sampled_from(["conservative", "market", "level"])),
        "zero_level": draw(st.sampled_from(["reject", "none"])),
        "commission": draw(st.sampled_from([0.0, 3.5])),
        "slippage_points": draw(st.sampled_from([0, 3])),
        "slippage_random_points": draw(st.sampled_from([0, 4])),
        "hold_band_steps": draw(st.sampled_from([0, 5])),
        "close_at_end": draw(st.booleans()),
        "delay_bars": draw(st.sampled_from([0, 1])),
    }
    return AccountRules(**(drawn | fixed))  # type: ignore[arg-type]


def played(rules: AccountRules, seed: int, bars: Bars | None = None) -> tuple[MarketTable, Run]:
    table = market_table(wild_bars(BARS + 1, seed) if bars is None else bars, SWAPPED, rules)
    return table, run_actions(table, rules, random_actions(BARS, seed, rules.lot_cap), 0, seed=seed)


@given(rule_sets(), seeds)
@pytest.mark.pitfall("T19", "U5")
def test_rewards_balances_and_outcomes_add_up(rules: AccountRules, seed: int) -> None:
    table, run = played(rules, seed)
    floor = rules.floor
    assert run.reward.sum() == pytest.approx(math.log(max(run.equity[-1], floor) / rules.deposit), abs=1e-12)
    deals = deals_frame(run.log, table)
    amounts = (deals["profit"] + deals["swap"] - deals["commission"]).sum()
    assert run.balance[-1] == pytest.approx(rules.deposit + amounts, rel=1e-9, abs=1e-6)
    changed = np.flatnonzero(np.diff(run.balance, prepend=rules.deposit)) + 1
    assert set(run.bar[0] + changed - 1) <= set(deals["bar"].to_list())
    assert np.bincount(run.outcome, minlength=len(Outcome)).tolist() == run.state.outcomes[0].tolist()
    assert run.state.outcomes.sum() == len(run.bar)
    filled = deals.filter(pl.col("reason") == "ACTION")["bar"].unique().sort().to_list()
    assert filled == run.bar[run.outcome == Outcome.FILLED].tolist()
    if run.state.long_.steps[0] == run.state.short_.steps[0] == 0:
        assert trades_frame(deals)["net"].sum() == pytest.approx(run.balance[-1] - rules.deposit, abs=1e-6)
        assert positions_frame(deals, table)["net"].sum() == pytest.approx(
            run.balance[-1] - rules.deposit, abs=1e-6
        )


@given(rule_sets(), seeds)
def test_equity_is_balance_swap_and_profit(rules: AccountRules, seed: int) -> None:
    table = market_table(wild_bars(60, seed), SWAPPED, rules)
    accounts = BatchedAccounts(table, rules, 1)
    accounts.reset(first=0, stop=59)
    for action in random_actions(59, seed, rules.lot_cap):
        accounts.step(action[None])
        state = accounts.state
        row = table.values[state.bar[0]]
        worth = state.balance[0]
        for side, position in ((1, state.long_), (-1, state.short_)):
            quote = row[3] + (row[4] if side < 0 else 0)
            worth += position.swap[0] + side * (quote - position.entry[0]) * 0.01 * position.steps[0]
        assert state.equity[0] == pytest.approx(worth, rel=1e-9, abs=1e-7)
        assert state.equity_worst[0] <= min(state.equity[0], max(state.balance[0], state.equity[0])) + 1e-9
        if rules.net_opposite:
            assert state.long_.steps[0] == 0 or state.short_.steps[0] == 0
        for position in (state.long_, state.short_):
            assert 0 <= position.steps[0] <= round(rules.lot_cap / 0.01)


@given(rule_sets(), seeds)
@pytest.mark.pitfall("T13")
def test_the_end_is_final(rules: AccountRules, seed: int) -> None:
    """Terminated and truncated exclude each other; equity never rises from ruin; nothing moves afterwards."""
    table = market_table(wild_bars(BARS, seed, step=300), SWAPPED, rules)
    accounts = BatchedAccounts(table, rules, 1)
    accounts.reset(first=0, stop=BARS - 1)
    state = accounts.state
    for action in random_actions(BARS + 5, seed, rules.lot_cap):
        before, was = state.copy(), int(state.status[0])
        result = accounts.step(action[None])
        assert np.isfinite(accounts.vectors()).all()
        if was:
            assert result.reward[0] == 0
            np.testing.assert_array_equal(state.floats, before.floats)
            np.testing.assert_array_equal(state.ints, before.ints)
            np.testing.assert_array_equal(state.counts, before.counts)
    assert state.status[0] in (1, 2)
    if state.equity[0] <= rules.floor:
        assert state.status[0] == 1


@given(rule_sets(zero_level="none"), seeds)
@pytest.mark.pitfall("T14")
def test_long_and_short_mirror(rules: AccountRules, seed: int) -> None:
    """Prices p to 2.2 - p, sides and swaps swapped, spread 0: equal equity."""
    rules = replace(
        rules, spread_floor_points=0, leverage=500.0, lot_cap=0.3, slippage_random_points=0, net_opposite=seed % 2 == 0
    )  # fmt: skip
    bars = wild_bars(BARS + 1, seed, spreads=0, step=30)
    bars = replace(bars, spread=np.zeros(BARS + 1, np.int32))
    mirrored = replace(
        bars, open=2.2 - bars.open, high=2.2 - bars.low, low=2.2 - bars.high, close=2.2 - bars.close
    )
    if rules.intrabar == "mt5_ohlc":  # a first doji has a colour of its own
        rules = replace(rules, intrabar="stop_first")
    other = replace(SWAPPED, swap_long=1.5, swap_short=-6.5)
    actions = random_actions(BARS, seed, rules.lot_cap)
    ours = run_actions(market_table(bars, SWAPPED, rules), rules, actions, 0)
    theirs = run_actions(market_table(mirrored, other, rules), rules, actions[:, [3, 4, 5, 0, 1, 2]], 0)
    np.testing.assert_allclose(ours.equity, theirs.equity, rtol=0, atol=1e-9 * rules.deposit)


@given(seeds, st.sampled_from(["commission", "slippage_points", "swap", "spread"]))
@pytest.mark.pitfall("T5")
def test_costs_never_help(seed: int, cost: str) -> None:
    """The same fills with any cost raised never leave more equity; no levels, so that the fills are the same."""
    rules = replace(RULES, zero_level="none", leverage=500.0, lot_cap=0.2)
    bars = wild_bars(BARS + 1, seed, step=20)
    actions = random_actions(BARS, seed, 0.2)
    actions[:, [1, 2, 4, 5]] = 0.0

    def equity(dear: bool) -> np.ndarray:
        more = {"commission": 7.0, "slippage_points": 3} if dear else {}
        own = replace(rules, **{cost: more[cost]} if cost in more else {})
        swap = 4.0 if dear and cost == "swap" else 0.0
        own = replace(own, spread_floor_points=60 if dear and cost == "spread" else 10)
        of = replace(SWAPPED, swap_long=-6.5 - swap, swap_short=1.5 - swap)
        run = run_actions(market_table(bars, of, own), own, actions, 0)
        assert run.status == 2
        return run.equity

    cheap, dear = equity(False), equity(True)
    assert (dear <= cheap + 1e-9).all()
    assert dear[-1] < cheap[-1]


@given(rule_sets(slippage_random_points=0), seeds)
@pytest.mark.pitfall("T5")
def test_mid_price_identity(rules: AccountRules, seed: int) -> None:
    """net = mid-price results - spread cost - slippage - commission + swap, spread cost of a fill = lots s/2."""
    table, run = played(replace(rules, close_at_end=True), seed)
    deals = deals_frame(run.log, table)
    side = deals["side"].to_numpy() * np.where(deals["entry"].to_numpy() == "in", 1, -1)  # +1 buys, -1 sells
    lots, spread, slip = (deals[name].to_numpy() for name in ("lots", "spread_points", "slippage_points"))
    price = deals["price"].to_numpy() * 1e5
    mid = price - side * (spread / 2 + slip)
    costs = (lots * (spread / 2 + slip)).sum()
    net = -(side * mid * lots).sum() - costs - deals["commission"].sum() + deals["swap"].sum()
    if run.state.long_.steps[0] == run.state.short_.steps[0] == 0:
        assert run.balance[-1] - rules.deposit == pytest.approx(net, abs=1e-5)


@given(seeds, st.sampled_from(["stop_first", "target_first", "adaptive", "mt5_ohlc"]))
def test_stop_first_is_never_better_on_one_bar(seed: int, intrabar: str) -> None:
    rules = replace(RULES, leverage=500.0, intrabar=intrabar, spread_floor_points=0)
    bars = wild_bars(3, seed, spreads=5, step=150)
    action = np.random.default_rng(seed).random((1, 6)) * [0.2, 0.2, 0.2, 0.2, 0.2, 0.2]
    careful = replace(rules, intrabar="stop_first")
    theirs = run_actions(market_table(bars, EURUSD, rules), rules, action, 0)
    ours = run_actions(market_table(bars, EURUSD, careful), careful, action, 0)
    assert ours.equity[-1] <= theirs.equity[-1] + 1e-9


def cut(bars: Bars, seed: int) -> Bars:
    """Return gapless quarters that resample to the bars exactly, with the bars' spread."""
    generator = np.random.default_rng(seed)
    points = np.stack([bars.points(name) for name in ("open", "high", "low", "close")], axis=1)  # type: ignore[arg-type]
    rows = []
    for opened, high, low, close in points:
        path = [opened, *generator.permutation([high, low]), np.rint(generator.uniform(low, high)), close]
        for a, b in itertools.pairwise(path):
            rows.append([a, max(a, b), min(a, b), b])
    columns = np.array(rows) / 1e5
    return replace(
        bars, time=(bars.time[:, None] + 900 * np.arange(4)).ravel(), open=columns[:, 0], high=columns[:, 1],
        low=columns[:, 2], close=columns[:, 3], volume=np.ones(4 * len(bars)), spread=np.repeat(bars.spread, 4),
        timeframe=Timeframe.M15,
    )  # fmt: skip


@given(seeds, st.booleans())
def test_cutting_a_bar_changes_no_unambiguous_bar(seed: int, net: bool) -> None:
    rules = replace(RULES, leverage=500.0, lot_cap=0.2, net_opposite=net, spread_floor_points=0)
    bars = wild_bars(BARS, seed, step=40)
    bars = replace(bars, spread=np.maximum(bars.spread, 0))
    plain = market_table(bars, EURUSD, rules)
    fine = market_table(bars, EURUSD, replace(rules, intrabar="m1"), detail=cut(bars, seed))
    assert fine.detail is not None
    assert fine.detail.missing == 0
    state = reset_accounts(plain, rules, 1, first=0, stop=BARS - 1)
    for action in random_actions(BARS - 1, seed, 0.2):
        after, _ = step(state, action, plain, rules)
        other, _ = step(state, action, fine, replace(rules, intrabar="m1"))
        if after.ambiguous[0] == state.ambiguous[0] and (net or after.status[0] == 0):
            np.testing.assert_allclose(after.equity, other.equity, rtol=0, atol=1e-9)
            np.testing.assert_allclose(after.floats[:, 6:], other.floats[:, 6:], rtol=0, atol=1e-9)
        if after.status[0]:
            break
        state = after


@given(seeds, st.booleans())
@pytest.mark.pitfall("T20")
def test_trailing_never_retreats(seed: int, net: bool) -> None:
    """The stop of a held position never moves against it, and none outlives a bar whose extreme reaches its stop."""
    rules = replace(RULES, leverage=500.0, lot_cap=0.3, net_opposite=net)
    table = market_table(wild_bars(BARS, seed), EURUSD, rules)
    accounts = BatchedAccounts(table, rules, 1, log_capacity=8 * BARS)
    accounts.reset(first=0, stop=BARS - 1)
    before = accounts.state.copy()
    for action in random_actions(BARS - 1, seed, 0.3):
        accounts.step(action[None])
        now = accounts.state
        row = table.values[now.bar[0]]
        for side, old, new in ((1, before.long_, now.long_), (-1, before.short_, now.short_)):
            if new.steps[0] and old.opened[0] == new.opened[0]:
                assert side * new.sl[0] >= side * old.sl[0]
            if new.steps[0]:
                extreme = row[2] if side > 0 else row[1] + row[4]
                assert side * extreme > side * new.sl[0]
        before = now.copy()


@pytest.mark.pitfall("T17")
@pytest.mark.parametrize("leverage", [1.0, 30.0, 500.0])
@pytest.mark.parametrize("net", [True, False])
def test_batch_equals_single(leverage: float, net: bool) -> None:
    """10,000 random actions in the plain, the compiled and the batched form, bit for bit; deals too."""
    rules = AccountRules(
        leverage=leverage, lot_cap=3.0, slippage_points=1, slippage_random_points=3, commission=3.5, net_opposite=net,
        intrabar="adaptive", deposit=500_000.0,
    )  # fmt: skip
    n = 10_000 if leverage == 500.0 else 1_000
    table = market_table(wild_bars(n + 1, 5, step=40), SWAPPED, rules)
    actions = np.stack([random_actions(n, seed, 0.5 + seed) for seed in range(3)], axis=1)
    batch = BatchedAccounts(table, rules, 3, log_capacity=8 * n, backend="batch")
    batch.reset(first=0, stop=n, seed=np.arange(3))
    batch.play(actions)
    assert (batch.state.deals > 100).all()
    for account in range(3):
        for form in ("single", "python"):
            run = run_actions(table, rules, actions[:, account], 0, seed=account, backend=form)  # type: ignore[arg-type]
            np.testing.assert_array_equal(run.state.floats[0], batch.state.floats[account])
            np.testing.assert_array_equal(run.state.counts[0], batch.state.counts[account])
            np.testing.assert_array_equal(run.log.of(0), batch.log.of(account))


def test_many_accounts_equal_each_alone_in_any_order() -> None:
    """4,096 accounts from bars of their own; permuting them permutes the results."""
    rules = AccountRules(leverage=500.0, lot_cap=5.0)
    table = market_table(wild_bars(400, 3, step=250), SWAPPED, rules)
    generator = np.random.default_rng(0)
    first = generator.integers(0, 200, 4096)
    actions = generator.random((60, 4096, 6)) * [5, 1, 1, 5, 1, 1]
    order = generator.permutation(4096)
    one, other = BatchedAccounts(table, rules, 4096), BatchedAccounts(table, rules, 4096)
    one.reset(first=first, stop=first + 150)
    other.reset(first=first[order], stop=first[order] + 150)
    for action in actions:
        a, b = one.step(action), other.step(action[order])
        np.testing.assert_array_equal(a.reward[order], b.reward)
    np.testing.assert_array_equal(one.state.floats[order], other.state.floats)
    assert len(set(one.state.status)) == 2
    for account in (0, 2047, 4095):
        run = run_actions(table, rules, actions[:, account], int(first[account]), backend="python")
        if run.status == 1:
            assert one.state.equity[account] == run.equity[-1]
        else:
            np.testing.assert_array_equal(run.state.floats[0], one.state.floats[account])


@given(seeds)
def test_both_transitions_agree_where_one_side_is_asked(seed: int) -> None:
    """Actions of one side at a time leave at most one side held, so the rules of both sides are those of one."""
    rules = replace(RULES, leverage=500.0, lot_cap=5.0, slippage_random_points=3, commission=2.0)
    table = market_table(wild_bars(BARS + 1, seed), SWAPPED, rules)
    actions = random_actions(BARS, seed, 5.0)
    actions[np.arange(BARS), 3 * (np.random.default_rng(seed).random(BARS) < 0.5)] = 0.0
    netted = run_actions(table, rules, actions, 0, seed=seed)
    both = run_actions(table, replace(rules, net_opposite=False), actions, 0, seed=seed)
    np.testing.assert_allclose(netted.equity, both.equity, rtol=1e-12)
    np.testing.assert_allclose(netted.equity_worst, both.equity_worst, rtol=1e-12)
    np.testing.assert_array_equal(netted.outcome, both.outcome)
    np.testing.assert_array_equal(netted.flags, both.flags)
    np.testing.assert_array_equal(netted.log.counts, both.log.counts)


@given(rule_sets(), seeds)
def test_money_scales_with_the_deposit(rules: AccountRules, seed: int) -> None:
    """Ten times the deposit and the lots: ten times the money, away from the least lot and the cap."""
    rules = replace(rules, lot_cap=1.0, hold_band_steps=0)
    bars = wild_bars(BARS + 1, seed, step=20)
    actions = random_actions(BARS, seed)
    actions[:, [0, 3]] = np.where(np.isnan(actions[:, [0, 3]]), np.nan, np.rint(actions[:, [0, 3]] * 9) / 10)
    larger = replace(rules, deposit=100_000.0, lot_cap=10.0)
    one = run_actions(market_table(bars, SWAPPED, rules), rules, actions, 0)
    ten = run_actions(market_table(bars, SWAPPED, larger), larger, actions * [10, 1, 1, 10, 1, 1], 0)
    np.testing.assert_allclose(ten.equity, 10 * one.equity, rtol=1e-9, atol=1e-6)


@given(seeds)
def test_a_price_level_changes_no_profit(seed: int) -> None:
    rules = replace(RULES, leverage=500.0, lot_cap=0.2)
    bars = wild_bars(BARS + 1, seed, step=20)
    lifted = replace(bars, **{name: getattr(bars, name) + 0.05 for name in ("open", "high", "low", "close")})
    actions = random_actions(BARS, seed, 0.2)
    here = run_actions(market_table(bars, EURUSD, rules), rules, actions, 0)
    there = run_actions(market_table(lifted, EURUSD, rules), rules, actions, 0)
    assert here.status == there.status == 2
    np.testing.assert_allclose(here.equity, there.equity, rtol=0, atol=1e-7)


@given(rule_sets(idle_lots=0.1), seeds)
@pytest.mark.pitfall("R2")
def test_idle_component_only_on_flat_bars(rules: AccountRules, seed: int) -> None:
    table = market_table(wild_bars(BARS + 1, seed), EURUSD, rules, atr_points=np.full(BARS + 1, 100.0))
    run = run_actions(table, rules, random_actions(BARS, seed, rules.lot_cap), 0)
    held = (run.executed[:, 0] > 0) | (run.executed[:, 3] > 0)
    np.testing.assert_allclose(run.components[:, 2], np.where(held, 0.0, -10.0))
    flat = run_actions(table, rules, np.zeros((BARS, 6)), 0)
    assert (flat.reward == 0).all()
    assert flat.log.counts[0] == 0
    assert (flat.outcome == Outcome.HELD).all()


@pytest.mark.pitfall("T16")
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_lot_step_survives_rounding(kind: type) -> None:
    """Lots n * 0.01 for n = 1 ... 10,000 give n steps."""
    rules = replace(RULES, leverage=1e6, deposit=1e9)
    table = market("0/20/-20/0", rules=rules)
    steps = np.arange(1, 10_001)
    actions = np.zeros((len(steps), 6))
    actions[:, 0] = (steps * 0.01).astype(kind)
    actions[:, 1:3] = 0.3
    accounts = BatchedAccounts(table, rules, len(steps))
    accounts.reset(first=0, stop=1)
    accounts.step(actions)
    np.testing.assert_array_equal(accounts.state.long_.steps, steps)


@given(seeds, st.booleans())
def test_margin_covers_every_opening(seed: int, net: bool) -> None:
    """A position opened from nothing binds no more than the balance; refusals happen, and are counted."""
    rules = replace(RULES, leverage=30.0, lot_cap=50.0, net_opposite=net, zero_level="none")
    table = market_table(wild_bars(BARS + 1, seed), EURUSD, rules)
    run = run_actions(table, rules, random_actions(BARS, seed, 3.0), 0)
    held = (run.buy_lots > 0) | (run.sell_lots > 0)
    was_flat = np.concatenate([[True], ~held[:-1]])
    balance = np.concatenate([[rules.deposit], run.balance[:-1]])
    assert (run.margin[held & was_flat] <= balance[held & was_flat]).all()
    assert (run.margin[~held] == 0).all()


@given(seeds)
def test_profits_in_the_base_currency(seed: int) -> None:
    """Equity in USD of a pair quoted in something else = what a plain loop over the deals gives."""
    rules = replace(RULES, lot_cap=0.5, close_at_end=True, leverage=500.0)
    bars = replace(wild_bars(BARS + 1, seed, of=USDJPY, step=30), digits=3)
    table = market_table(bars, USDJPY, rules)
    run = run_actions(table, rules, random_actions(BARS, seed, 0.5), 0)
    deals = deals_frame(run.log, table).filter(pl.col("entry") == "out")
    worth = deals["side"] * (deals["price"] - deals["entry_price"]) * 100_000 * deals["lots"] / deals["price"]
    np.testing.assert_allclose(deals["profit"].to_numpy(), worth.to_numpy(), rtol=1e-6, atol=1e-6)
    assert run.balance[-1] == pytest.approx(rules.deposit + worth.sum(), abs=1e-4)


def test_base_is_where_the_scenarios_say() -> None:
    assert market("0/1/0/0").values[0, 0] == BASE
