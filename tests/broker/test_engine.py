"""Golden scenarios with exact arithmetic, in the three forms of one transition function; then relations.

EURUSD, 10,000 USD, leverage 100, stop-out 50 %, spread 10, level scale 1000, no commission or swap unless given.
Prices are points above 1.10000; a bar is open/high/low/close of the BID; one point of 0.10 lots is 0.10 USD.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.broker import _kernel
from halfstep.broker.deals import deals_frame, positions_frame, trades_frame
from halfstep.broker.engine import BatchedAccounts, Run, run_actions
from halfstep.broker.outcomes import Flag, Outcome
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.errors import ActionError, ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone, parse_date
from halfstep.market.instruments import Instrument, instrument
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe

EURUSD = replace(instrument("EURUSD"), swap_long=0.0, swap_short=0.0)
RULES = AccountRules(lot_cap=100.0)
FLAT = [0.0] * 6
BACKENDS = ("python", "single", "batch")
TUESDAY = parse_date("2023-06-06") + 12 * 3600


def buy(lots: float, tp: float, sl: float) -> list[float]:
    return [lots, tp / 1000, sl / 1000, 0, 0, 0]


def sell(lots: float, tp: float, sl: float) -> list[float]:
    return [0, 0, 0, lots, tp / 1000, sl / 1000]


A = buy(0.10, 300, 200)


def market(bars: str, *, rules: AccountRules = RULES, of: Instrument = EURUSD, **options: Any) -> MarketTable:
    """Return a table whose bar 0 is a doji at the base price, followed by ``"o/h/l/c; o/h/l/c"``."""
    base = options.get("base", 110_000)
    rows = [[0, 0, 0, 0], *([float(x) for x in bar.split("/")] for bar in bars.split(";"))]
    points = np.array(rows) + base
    n = len(points)
    spread = options.get("spread", 10)
    made = Bars(
        time=np.array(options.get("times", TUESDAY + 3600 * np.arange(n))),
        **{name: points[:, k] / 10**of.digits for k, name in enumerate(("open", "high", "low", "close"))},
        volume=np.ones(n),
        spread=np.full(n, spread, np.int32),
        symbol=of.symbol,
        timeframe=Timeframe.H1,
        digits=of.digits,
        side=options.get("side", "bid"),
        zone=ServerZone("UTC"),
    )
    return market_table(made, of, rules, atr_points=np.full(n, options.get("atr", 0.0)))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def play(table: MarketTable, actions: list[list[float]], rules: AccountRules, backend: str) -> Run:
    return run_actions(table, rules, np.array(actions, float), 0, backend=backend)  # type: ignore[arg-type]


GOLDENS: dict[str, tuple[str, list[list[float]], dict[str, Any], dict[str, Any]]] = {
    "G01": ("0/150/-100/100", [A], {}, {"equity": 10_009, "balance": 10_000, "worst": 9_989, "margin": 110.01}),
    "G02": ("0/150/-100/100;100/120/80/90", [A, FLAT], {}, {"balance": 10_009, "rewards": [math.log(1.0009), 0]}),
    "G03": ("0/100/-150/-100", [sell(0.10, 300, 200)], {}, {"equity": 10_009, "worst": 9_989, "margin": 110.0}),
    "G04": ("0/50/-200/-150", [A], {}, {"balance": 9_980, "worst": 9_980}),
    "G05": ("0/310/-50/250", [A], {}, {"balance": 10_030, "worst": 9_994}),
    "G06 stop": ("0/320/-200/50", [A], {}, {"balance": 9_980, "ambiguous": 1}),
    "G06 target": ("0/320/-200/50", [A], {"intrabar": "target_first"}, {"balance": 10_030, "ambiguous": 1}),
    "G06 adaptive": ("0/320/-200/50", [A], {"intrabar": "adaptive"}, {"balance": 9_980}),
    "G06 mt5": ("0/320/-200/50", [A], {"intrabar": "mt5_ohlc"}, {"balance": 9_980}),
    "G07 stop": ("0/310/-400/-50", [A], {}, {"balance": 9_980}),
    "G07 adaptive": ("0/310/-400/-50", [A], {"intrabar": "adaptive"}, {"balance": 10_030}),
    "G07 mt5": ("0/310/-400/-50", [A], {"intrabar": "mt5_ohlc"}, {"balance": 10_030}),
    "G08 stop": ("0/250/-330/50", [sell(0.10, 300, 200)], {}, {"balance": 9_980}),
    "G08 adaptive": ("0/250/-330/50", [sell(0.10, 300, 200)], {"intrabar": "adaptive"}, {"balance": 9_980}),
    "G08 mt5": ("0/250/-330/50", [sell(0.10, 300, 200)], {"intrabar": "mt5_ohlc"}, {"balance": 10_030}),
    "G10": ("0/20/-20/0;-300/-250/-320/-280", [A, FLAT], {}, {"balance": 9_969}),
    "G10 level": ("0/20/-20/0;-300/-250/-320/-280", [A, FLAT], {"gap_fill": "level"}, {"balance": 9_980}),
    "G11": ("0/20/-20/0;-300/-250/-320/-280", [A, A], {}, {"balance": 9_969, "equity": 9_970, "sl": -490, "tp": 10}),
    "G12": ("0/20/-20/0;400/420/380/410", [A, FLAT], {}, {"balance": 10_030}),
    "G12 market": ("0/20/-20/0;400/420/380/410", [A, FLAT], {"gap_fill": "market"}, {"balance": 10_039}),
    "G13": ("0/195/-10/0", [sell(0.10, 300, 200)], {}, {"balance": 9_980}),
    "G13 held": ("0/189/-10/0", [sell(0.10, 300, 200)], {}, {"balance": 10_000, "equity": 9_999}),
    "G15": (
        "0/150/-100/100;100/120/40/50", [buy(0.30, 300, 200), A], {},
        {"balance": 10_018, "equity": 10_022, "sl": -90, "entry": 10},
    ),
    "G16": (
        "0/50/-50/40;90/150/60/130", [A, buy(0.30, 300, 200)], {},
        {"entry": 70, "sl": -100, "tp": 400, "equity": 10_018},
    ),
    "G17": (
        "0/50/-50/40;90/150/60/60;50/80/20/70", [A, A, A], {},
        {"sl": -100, "tp": 360, "equity": 10_006, "flags": [0, 0, Flag.SL_KEPT]},
    ),
    "G18": (
        "0/50/-50/40;100/120/50/60", [A, sell(0.20, 300, 200)], {},
        {"balance": 10_009, "equity": 10_015, "deals": 3},
    ),
    "G19": ("0/150/-100/100", [[0.30, 0.3, 0.2, 0.20, 0.3, 0.2]], {}, {"equity": 10_009, "flags": [Flag.NETTED]}),
    "G19 equal": ("0/150/-100/100;100/120/80/90", [A, [0.2, 0.3, 0.2, 0.2, 0.3, 0.2]], {}, {"balance": 10_009}),
    "G20": ("0/150/-100/100", [buy(0.004, 300, 200)], {}, {"equity": 10_000, "outcomes": [Outcome.BELOW_MIN_LOT]}),
    "G20 held": (
        "0/150/-100/100;100/120/80/90", [A, buy(0.004, 300, 200)], {},
        {"balance": 10_009, "outcomes": [Outcome.FILLED, Outcome.FILLED], "flags": [0, Flag.CLOSED_BY_CHECK]},
    ),
    "G22 sl": ("0/20/-1/0", [buy(0.10, 300, 11)], {}, {"outcomes": [Outcome.SL_TOO_CLOSE], "equity": 10_000}),
    "G22 sl ok": ("0/20/-1/0", [buy(0.10, 300, 12)], {}, {"outcomes": [Outcome.FILLED], "sl": -2}),
    "G22 tp": ("0/5/-1/0", [buy(0.10, 1, 200)], {}, {"outcomes": [Outcome.TP_TOO_CLOSE], "equity": 10_000}),
    "G22 tp ok": ("0/5/-1/0", [buy(0.10, 2, 200)], {}, {"outcomes": [Outcome.FILLED], "tp": 12}),
    "G23 in": ("0/150/-100/100", [A], {"commission": 3.5}, {"balance": 9_999.65}),
    "G23": ("0/150/-100/100;100/120/80/90", [A, FLAT], {"commission": 3.5}, {"balance": 10_008.30}),
    "G26 10": ("0/20/-20/0", [buy(10, 300, 200)], {}, {"outcomes": [Outcome.NO_MONEY], "equity": 10_000}),
    "G26 9.10": ("0/20/-20/0", [buy(9.10, 300, 200)], {}, {"outcomes": [Outcome.NO_MONEY]}),
    "G26 9.09": ("0/20/-20/0", [buy(9.09, 300, 200)], {}, {"outcomes": [Outcome.FILLED], "margin": 9_999.909}),
    "G27": (
        "0/20/-1500/-100", [[5, 1, 0, 0, 0, 0]], {"zero_level": "none"},
        {"balance": 2_750, "status": 1, "rewards": [math.log(0.275)]},
    ),
    "G27 held": ("0/20/-1439/-100", [[5, 1, 0, 0, 0, 0]], {"zero_level": "none"}, {"worst": 2_755, "equity": 9_450}),
    "G28": ("0/1500/-20/100", [[0, 0, 0, 5, 1, 0]], {"zero_level": "none"}, {"balance": 2_750, "status": 1}),
    "G29": ("0/20/-1500/-100", [buy(5, 1000, 1000)], {}, {"balance": 5_000, "status": 2}),
    "G29 tie": ("0/20/-1500/-100", [buy(5, 1000, 1450)], {}, {"balance": 2_750, "status": 2}),
    "G29 stop-out": ("0/20/-1500/-100", [buy(5, 1000, 1451)], {}, {"balance": 2_750, "status": 1}),
    "G30": (
        "0/20/-20/0;-2500/-2400/-2600/-2450", [[5, 1, 0, 0, 0, 0]] * 2, {"zero_level": "none"},
        {"balance": -2_550, "status": 1, "rewards": [math.log(0.995), math.log(100 / 9_950)],
         "outcomes": [Outcome.FILLED, Outcome.STOPPED_OUT]},
    ),
    "G31": ("0/150/-100/100", [A], {"commission": 3.5, "close_at_end": True}, {"balance": 10_008.30, "status": 2}),
    "G31 open": ("0/150/-100/100", [A], {"commission": 3.5}, {"equity": 10_008.65, "status": 2, "lots": 0.10}),
    "G32": ("0/150/-200/100", [A], {"slippage_points": 2}, {"balance": 9_979.60}),
    "G32 tp": ("0/310/-100/100", [A], {"slippage_points": 2}, {"balance": 10_029.80}),
    "G33": (
        "0/150/-100/100;100/120/40/50", [A, [float("nan"), 0, 0, 0, 0, 0]], {},
        {"equity": 10_004, "outcomes": [Outcome.FILLED, Outcome.NONFINITE], "sl": -190, "tp": 310},
    ),
    "G42 kept": (
        "0/50/-50/0;0/50/-50/0", [A, buy(0.12, 300, 200)], {"hold_band_steps": 2},
        {"lots": 0.10, "outcomes": [Outcome.FILLED, Outcome.HELD]},
    ),
    "G42 moved": ("0/50/-50/0;0/50/-50/0", [A, buy(0.13, 300, 200)], {"hold_band_steps": 2}, {"lots": 0.13}),
}  # fmt: skip


def observed(run: Run, accounts_floats: np.ndarray, base: int) -> dict[str, Any]:
    return {
        "equity": run.equity[-1], "balance": run.balance[-1], "worst": run.equity_worst[-1], "margin": run.margin[-1],
        "lots": run.lots[-1], "rewards": run.reward, "outcomes": run.outcome, "flags": run.flags,
        "status": run.status, "ambiguous": run.ambiguous, "deals": int(run.log.counts[0]),
    }  # fmt: skip


def state_after(
    table: MarketTable, actions: list[list[float]], rules: AccountRules, backend: str
) -> np.ndarray:
    accounts = BatchedAccounts(table, rules, 1, backend=backend)  # type: ignore[arg-type]
    accounts.reset(first=0, stop=len(actions))
    for action in actions:
        accounts.step(np.array([action], float))
    return accounts.floats[0]


def check(name: str, backend: str, base: int) -> None:
    bars, actions, options, expected = GOLDENS[name]
    rules = replace(RULES, **options)
    table = market(bars, rules=rules, base=base)
    run = play(table, actions, rules, backend)
    seen = observed(run, np.zeros(0), base)
    floats = state_after(table, actions, rules, backend)
    seen |= {
        "entry": floats[_kernel.ENTRY] - base,
        "sl": floats[_kernel.SL] - base,
        "tp": floats[_kernel.TP] - base,
    }
    for key, value in expected.items():
        np.testing.assert_allclose(seen[key], value, rtol=0, atol=1e-6, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.pitfall("T7", "T8", "T9", "T10", "R14")
def test_golden_scenario(name: str, backend: str) -> None:
    check(name, backend, 110_000)


@pytest.mark.parametrize(
    "name", [name for name in GOLDENS if int(name[1:3]) <= 25 or 31 <= int(name[1:3]) <= 33]
)
def test_golden_scenario_at_another_price_level(name: str) -> None:
    if "margin" in GOLDENS[name][3]:
        pytest.skip("margin depends on the price level")
    check(name, "single", 115_000)


@pytest.mark.pitfall("T16")
def test_lot_steps(backend: str) -> None:
    for volume, steps in [(0.00999, 0), (float(np.float32(0.01)), 1), (0.0149, 1), (0.015, 2), (0.256, 26), (0.9999, 100),
                          (0.29, 29), (0.57, 57), (1.15, 115)]:  # fmt: skip
        run = play(market("0/20/-20/0"), [buy(volume, 300, 200)], RULES, backend)
        assert round(run.lots[-1] / 0.01) == steps


@pytest.mark.pitfall("T6")
def test_swap_nights(backend: str) -> None:
    """Three bars that open Tuesday 12:00, Wednesday 00:00 and Thursday 00:00: nights 0, 1, 3."""
    times = [
        TUESDAY - 3600,
        TUESDAY,
        parse_date("2023-06-07"),
        parse_date("2023-06-08"),
        parse_date("2023-06-08") + 3600,
    ]
    swapped = replace(EURUSD, swap_long=-6.5, swap_short=1.5)
    bars = "0/20/-20/10;0/20/-20/10;0/20/-20/10;10/20/0/10"
    run = play(market(bars, of=swapped, times=times), [A, A, A, FLAT], RULES, backend)
    assert run.equity[2] == pytest.approx(10_000 - 2.60)
    assert run.balance[2] == 10_000
    assert run.balance[3] == pytest.approx(9_997.40)
    short = [sell(0.10, 300, 200)] * 3
    bars = "0/20/-20/-10;0/20/-20/-10;0/20/-20/-10"
    assert play(market(bars, of=swapped, times=times[:4]), short, RULES, backend).equity[2] == pytest.approx(
        10_000.60
    )


def test_a_partial_close_realises_its_share_of_the_swap(backend: str) -> None:
    times = [TUESDAY - 3600, TUESDAY, parse_date("2023-06-07")]
    swapped = replace(EURUSD, swap_long=-6.5)
    run = play(
        market("0/20/-20/10;10/20/0/10", of=swapped, times=times), [buy(0.30, 300, 200), A], RULES, backend
    )
    assert run.balance[1] == pytest.approx(9_998.70)
    assert run.equity[1] == pytest.approx(9_998.05)


@pytest.mark.pitfall("D11")
def test_ask_bars_become_bid(backend: str) -> None:
    run = play(market("10/160/-90/110", side="ask"), [A], RULES, backend)
    assert (run.equity[0], run.equity_worst[0]) == pytest.approx((10_009, 9_989))


@pytest.mark.pitfall("D2")
def test_spread_floor() -> None:
    assert play(market("0/150/-100/100", spread=0), [A], RULES, "single").equity[0] == pytest.approx(10_009)
    free = replace(RULES, spread_floor_points=0)
    assert play(market("0/150/-100/100", spread=0, rules=free), [A], free, "single").equity[
        0
    ] == pytest.approx(10_010)
    assert market("0/150/-100/100", spread=-1).values[1, _kernel.SPREAD] == 10


@pytest.mark.pitfall("R2")
def test_flat_penalty_is_per_bar(backend: str) -> None:
    rules = replace(RULES, idle_lots=1.0)
    run = play(market("0/1/0/0;0/1/0/0;0/1/0/0", rules=rules, atr=100), [FLAT] * 3, rules, backend)
    np.testing.assert_allclose(run.components[:, 2], [-100.0] * 3)
    assert (run.reward == 0).all()


def test_profit_in_a_currency_that_is_the_base(backend: str) -> None:
    """USDJPY: 490 points of 10 JPY each, at 150.500."""
    jpy = replace(instrument("USDJPY"), swap_long=0.0, swap_short=0.0)
    rules = replace(RULES, spread_floor_points=10)
    run = play(
        market("0/600/-100/500", of=jpy, base=150_000, rules=rules), [buy(0.10, 1000, 300)], rules, backend
    )
    assert run.equity[0] == pytest.approx(10_032.5581395, abs=1e-6)
    assert run.margin[0] == pytest.approx(100.0)
    none = replace(rules, zero_level="none")
    ruined = play(
        market("0/20/-20000/-100", of=jpy, base=150_000, rules=none), [[5, 1, 0, 0, 0, 0]], none, backend
    )
    assert ruined.balance[0] == pytest.approx(2_499.6447734, abs=1e-6)
    assert ruined.status == 1


@pytest.mark.pitfall("T15")
def test_a_touched_level_is_hit(backend: str) -> None:
    """Long at 1.08001 with a stop 137 points below; the low is 1.07864, as text says and as floats do not."""
    bars = "0/10/-127/-100"
    run = play(market(bars, base=107_991), [buy(0.10, 300, 137)], RULES, backend)
    assert run.balance[0] == pytest.approx(10_000 - 13.70)


@pytest.mark.pitfall("T11")
@pytest.mark.pitfall("T12")
def test_a_wick_through_the_stop_out_liquidates(backend: str) -> None:
    rules = replace(RULES, deposit=1500.0, zero_level="none")
    wick = market("0/20/-950/0", rules=rules)
    run = play(wick, [[1, 1, 0, 0, 0, 0]], rules, backend)
    assert run.status == 1
    assert run.equity[0] <= 550.05
    stopped = play(wick, [[1, 1, 0.510, 0, 0, 0]], rules, backend)  # 1.10010 - 510 points = 1.09500
    assert stopped.status == 2
    assert stopped.balance[0] == pytest.approx(1500 - 510)


@pytest.mark.pitfall("T13")
def test_bankruptcy_is_final(backend: str) -> None:
    rules = replace(RULES, zero_level="none")
    table = market("0/20/-20/0;-2500/-2400/-2600/-2450;0/9000/0/9000", rules=rules)
    accounts = BatchedAccounts(table, rules, 1, backend=backend)  # type: ignore[arg-type]
    accounts.reset(first=0, stop=3)
    action = np.array([[5, 1, 0, 0, 0, 0.0]])
    for _ in range(2):
        accounts.step(action)
    before = accounts.floats.copy()
    result = accounts.step(action)
    assert result.reward[0] == 0
    np.testing.assert_array_equal(accounts.floats, before)
    assert not accounts.is_running


@pytest.mark.pitfall("T2")
def test_orders_fill_at_the_next_open() -> None:
    run = play(market("50/60/40/50"), [A], RULES, "single")
    assert deals_frame(run.log, market("50/60/40/50"))["price"][0] == pytest.approx(1.10060)


@pytest.mark.pitfall("T5")
def test_costs_by_hand() -> None:
    rules = replace(RULES, commission=3.5, close_at_end=True, lot_cap=1.0)
    assert play(market("0/100/-10/100", rules=rules), [buy(1, 900, 900)], rules, "single").balance[
        0
    ] == pytest.approx(10_083)
    assert play(market("0/10/-110/-110", rules=rules), [sell(1, 900, 900)], rules, "single").balance[
        0
    ] == pytest.approx(10_093)


def random_actions(n: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    actions = generator.random((n, 6))
    actions[:, [0, 3]] *= generator.random((n, 2)) < 0.6
    actions[generator.random(n) < 0.5] = np.nan  # hold
    return actions


@pytest.mark.pitfall("T17")
def test_batch_equals_single() -> None:
    rules = replace(RULES, leverage=500.0, lot_cap=20.0, slippage_points=1, commission=3.5)
    table = market_table(random_bars(260, seed=3), instrument("EURUSD"), rules)
    actions = np.stack([random_actions(250, seed) for seed in range(600)], axis=1)  # (bars, accounts, 6)
    actions[..., [0, 3]] *= 20
    batch = BatchedAccounts(table, rules, 600, backend="batch")
    batch.reset(first=1, stop=251)
    equity = np.stack([(batch.step(a), batch.floats[:, _kernel.EQUITY].copy())[1] for a in actions])
    assert len(set(batch.ints[:, _kernel.STATUS])) == 2  # some are ruined, some are not
    for account in (0, 1, 17, 599):
        for form in ("single", "python"):
            run = run_actions(table, rules, actions[:, account], 1, backend=form)
            np.testing.assert_array_equal(run.equity, equity[: len(run.equity), account])


@pytest.mark.pitfall("T19")
@given(st.integers(0, 1000))
def test_rewards_and_balances_add_up(seed: int) -> None:
    rules = replace(RULES, leverage=300.0, lot_cap=5.0, commission=3.5, close_at_end=True, slippage_points=2)
    table = market_table(random_bars(200, seed=seed % 7), instrument("EURUSD"), rules)
    run = run_actions(table, rules, random_actions(190, seed) * [5, 1, 1, 5, 1, 1], 1)
    floor = rules.floor
    assert run.reward.sum() == pytest.approx(math.log(max(run.equity[-1], floor) / rules.deposit), abs=1e-12)
    deals = deals_frame(run.log, table)
    assert trades_frame(deals)["net"].sum() == pytest.approx(run.balance[-1] - rules.deposit, abs=1e-6)
    assert positions_frame(deals, table)["net"].sum() == pytest.approx(
        run.balance[-1] - rules.deposit, abs=1e-6
    )
    assert np.bincount(run.outcome, minlength=8).sum() == len(run.bar)


@pytest.mark.pitfall("T14")
@given(st.integers(0, 1000))
def test_long_and_short_mirror(seed: int) -> None:
    rules = replace(RULES, spread_floor_points=0, leverage=500.0)
    free = replace(EURUSD, spread_floor_points=0)
    bars = replace(random_bars(120, seed=seed % 5), spread=np.zeros(120, np.int32))
    mirrored = replace(
        bars, open=2.2 - bars.open, high=2.2 - bars.low, low=2.2 - bars.high, close=2.2 - bars.close
    )
    actions = random_actions(110, seed)
    ours = run_actions(market_table(bars, free, rules), rules, actions, 1)
    theirs = run_actions(market_table(mirrored, free, rules), rules, actions[:, [3, 4, 5, 0, 1, 2]], 1)
    np.testing.assert_allclose(ours.equity, theirs.equity, atol=1e-9)


def test_wrong_use_is_named() -> None:
    table = market("0/1/0/0")
    accounts = BatchedAccounts(table, RULES, 2)
    with pytest.raises(CoverageError, match="an episode from bar 0 to 9, but the market has bars 0 to 1"):
        accounts.reset(first=0, stop=9)
    with pytest.raises(ActionError, match=r"shape \(1, 6\), must be \(2, 6\)"):
        accounts.step(np.zeros((1, 6)))
    with pytest.raises(ConfigError, match="currency: 'CHF', must be EUR or USD"):
        market("0/1/0/0", rules=replace(RULES, currency="CHF"))
    with pytest.raises(ConfigError, match="stop_out: 2, must lie between 0 and 1"):
        AccountRules(stop_out=2)
