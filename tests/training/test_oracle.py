"""Labels of the oracle: the page's golden, mirror images, what they may see, what they earn."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import market_table
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import planted_bars
from halfstep.training.oracle import OracleTable, oracle_labels, oracle_table

O = 110_000.0  # noqa: E741  # the open of the equations
FLAT = np.zeros(1)
EQUITY = np.array([10_000.0])


def oracle_of(
    future: list[tuple[float, float, float]], *, spread: float = 10.0, **changes: float
) -> OracleTable:
    """Return bars whose decision is at bar 0 and whose next bars are given as (h, l, c) from the next open."""
    rows = [[O, O, O, O, spread, 0.0], *([O, O + h, O + low, O + c, spread, 0.0] for h, low, c in future)]
    values: dict[str, object] = {
        "bars": np.array(rows), "stop": len(rows), "scale": 1000.0, "least_target": 2.0, "min_edge_points": None,
        "lot_step": 0.01, "lot_min": 0.01, "lot_cap": 1.0, "horizon": 24,
    }  # fmt: skip
    return OracleTable(**(values | changes))  # type: ignore[arg-type]


def label(oracle: OracleTable, lots: float = 0.0, equity: float = 10_000.0) -> list[float]:
    labels = oracle_labels(oracle, np.array([0]), np.array([equity]), np.array([lots]))
    return [round(float(x), 6) for x in labels[0]]


GOLDEN = [(2.0, -9.0, -5.0), (65.0, -2.0, 60.0), (50.0, 10.0, 20.0), (25.0, -40.0, -30.0)]


def mirrored(future: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    return [(-low, -h, -c) for h, low, c in future]


def test_oracle_labels() -> None:
    # c: the maximum 60 comes at 2, the minimum -30 later and is smaller: long until bar 2.
    # tp = 65 - 10 = 55 points, sl = 10 + 9 + 1 = 20 points, 10,000 / 100 hundredths = 1 lot
    assert label(oracle_of(GOLDEN)) == [1.0, 0.055, 0.020, 0, 0, 0]
    assert label(oracle_of(mirrored(GOLDEN))) == [0, 0, 0, 1.0, 0.055, 0.020]


def test_a_larger_move_undoes_an_earlier_one() -> None:
    # -80 at bar 3 undoes +30 at bar 1, so only the bars before it count: +30, +10 => long until bar 1
    future = [(35.0, -1.0, 30.0), (20.0, 5.0, 10.0), (10.0, -90.0, -80.0)]
    assert label(oracle_of(future)) == [1.0, 0.025, 0.012, 0, 0, 0]
    # equal sizes: the earlier one is taken
    assert label(oracle_of([(35.0, -1.0, 30.0), (0.0, -31.0, -30.0)])) == [1.0, 0.025, 0.012, 0, 0, 0]
    # all closes alike: the sign of the last, over all bars
    assert label(oracle_of([(35.0, -1.0, 30.0), (45.0, -3.0, 30.0)])) == [1.0, 0.035, 0.014, 0, 0, 0]
    assert label(oracle_of([(35.0, -1.0, 0.0)])) == [0.0] * 6


def test_nothing_is_done_without_an_edge() -> None:
    tp = 55.0
    assert label(oracle_of(GOLDEN, spread=10.0, min_edge_points=tp))[0] == 1.0
    assert label(oracle_of(GOLDEN, spread=10.0, min_edge_points=tp + 0.5)) == [0.0] * 6
    with_commission = oracle_of(GOLDEN)
    with_commission.bars[:, 5] = 45.5  # leaves 9.5, less than the spread
    assert label(with_commission) == [0.0] * 6
    assert label(oracle_of(GOLDEN, scale=19.0)) == [0.0] * 6  # the stop is out of reach
    assert label(oracle_of(GOLDEN, scale=20.0)) == [1.0, 1.0, 1.0, 0, 0, 0]  # and the target cut


def test_volume_follows_equity_on_the_grid() -> None:
    assert label(oracle_of(GOLDEN), equity=2_599.0)[0] == pytest.approx(0.25)
    assert label(oracle_of(GOLDEN), equity=99.0) == [0.0] * 6
    assert label(oracle_of(GOLDEN, lot_cap=0.5))[0] == 0.5


def test_a_stop_is_at_least_what_the_broker_takes() -> None:
    quiet = [(60.0, 5.0, 50.0)]  # sl = 10 - 5 + 1 = 6, the broker takes above 1 + 10
    assert label(oracle_of(quiet)) == [1.0, 0.05, 0.012, 0, 0, 0]


def test_a_position_keeps_its_side_while_there_is_profit() -> None:
    # held long: best close at bar 2; held short: best close at bar 4, tp = 40 - 10
    assert label(oracle_of(GOLDEN), lots=0.3) == [0.3, 0.055, 0.020, 0, 0, 0]
    assert label(oracle_of(GOLDEN), lots=-0.3) == [0, 0, 0, 0.3, 0.030, 0.076]
    assert label(oracle_of(mirrored(GOLDEN)), lots=0.3) == [0.3, 0.030, 0.076, 0, 0, 0]
    falling = [(-1.0, -30.0, -20.0), (-15.0, -50.0, -40.0)]
    assert label(oracle_of(falling), lots=0.3) == [0.0] * 6  # close
    # the stop at full scale (60 points from the ask) is hit in bar 2: its better close does not count
    stopped = [(15.0, -5.0, 12.0), (90.0, -50.0, 80.0)]
    assert label(oracle_of(stopped, scale=60.0), lots=0.3) == [
        0.3,
        round(5 / 60, 6),
        round(16 / 60, 6),
        0,
        0,
        0,
    ]
    assert label(oracle_of(stopped[1:], scale=60.0), lots=0.3) == [0.0] * 6


def by_hand(oracle: OracleTable, bar: int, equity: float, lots: float) -> list[float]:
    """The page's rules, one decision at a time and with 1-based bars."""
    o, s = oracle.bars[bar + 1, 0], oracle.bars[bar + 1, 4]
    m = min(oracle.horizon, oracle.stop - 1 - bar)
    h, low, c = ({k: oracle.bars[bar + k, col] - o for k in range(1, m + 1)} for col in (1, 2, 3))
    if lots == 0:
        while True:
            i, j = max(range(1, m + 1), key=lambda k: c[k]), min(range(1, m + 1), key=lambda k: c[k])
            if m == 1 or i == j:
                side, big_k = (0 if c[m] == 0 else math.copysign(1, c[m])), m
                break
            e, f = min(i, j), max(i, j)
            if abs(c[e]) >= abs(c[f]):
                side, big_k = (1 if e == i else -1), e
                break
            m = f - 1
    else:
        side = math.copysign(1, lots)
        alive = list(
            itertools.takewhile(
                lambda k: (s - low[k] if side > 0 else h[k] + s) < oracle.scale, range(1, m + 1)
            )
        )
        if not alive:
            return [0.0] * 6
        big_k = max(alive, key=lambda k: side * c[k])
    if side == 0:
        return [0.0] * 6
    highest, lowest = max(h[k] for k in range(1, big_k + 1)), min(low[k] for k in range(1, big_k + 1))
    tp, sl = (highest - s, s - lowest + 1) if side > 0 else (-lowest - s, highest + s + 1)
    sl = max(sl, oracle.least_target + s)
    if lots == 0:
        volume = min(math.floor(equity / 100 + 1e-9) / 100, oracle.lot_cap)
        if sl > oracle.scale or tp < s or tp < oracle.least_target or volume < oracle.lot_min:
            return [0.0] * 6
    else:
        volume = abs(lots)
        if tp <= 0:
            return [0.0] * 6
    part = [volume, min(max(tp, oracle.least_target) / oracle.scale, 1), min(sl / oracle.scale, 1)]
    return [*part, 0, 0, 0] if side > 0 else [0, 0, 0, *part]


@pytest.fixture(scope="module")
def planted() -> OracleTable:
    rules = AccountRules()
    return oracle_table(market_table(planted_bars(900, seed=4), instrument("EURUSD"), rules), rules, stop=880)


def test_many_labels_equal_the_rules_one_by_one(planted: OracleTable) -> None:
    random = np.random.default_rng(1)
    bar = random.integers(0, 879, 400)
    equity, lots = random.uniform(50, 30_000, 400), random.choice([0.0, 0.0, 0.2, -0.7], 400)
    labels = oracle_labels(planted, bar, equity, lots)
    expected = [
        by_hand(planted, *case) for case in zip(bar.tolist(), equity.tolist(), lots.tolist(), strict=True)
    ]
    np.testing.assert_allclose(labels, np.array(expected), rtol=1e-6)
    assert (labels[:, 0] > 0).any()
    assert (labels[:, 3] > 0).any()
    assert (labels.sum(axis=1) == 0).any()


@pytest.mark.pitfall("T4")
def test_labels_see_the_horizon_and_the_span_only(planted: OracleTable) -> None:
    def labels_with(changed: int, bar: int) -> bytes:
        bars = planted.bars.copy()
        bars[changed:, :4] -= 700.0  # a jump
        other = replace(planted, bars=bars)
        cases = np.full(3, bar), np.full(3, 10_000.0), np.array([0.0, 0.5, -0.5])
        return oracle_labels(other, *cases).tobytes()

    unchanged = [labels_with(900, bar) for bar in range(300, 330)]
    assert [labels_with(bar + 25, bar) for bar in range(300, 330)] == unchanged
    assert [labels_with(bar + 24, bar) for bar in range(300, 330)] != unchanged
    assert labels_with(880, 870) == labels_with(900, 870)  # the span ends at 880
    with pytest.raises(ValueError, match="bar: 879 to 879, must lie in 0 to 878"):
        oracle_labels(planted, np.array([879]), EQUITY, FLAT)


def test_commission_becomes_points() -> None:
    rules = AccountRules()
    for symbol, points in (("EURUSD", 7.0), ("USDJPY", 7.0 / (100 / 110.0))):
        bars = planted_bars(300, seed=4)
        if symbol == "USDJPY":
            prices = {name: getattr(bars, name) * 100 for name in ("open", "high", "low", "close")}
            bars = replace(bars, symbol=symbol, digits=3, **prices)
        traded = instrument(symbol, profile="raw")
        oracle = oracle_table(market_table(bars, traded, rules), rules, stop=300)
        assert oracle.bars[0, 5] == pytest.approx(points, rel=0.01)


def test_following_the_labels_earns_more_than_anything_else(planted: OracleTable) -> None:
    """The labels are executed by the broker itself: they must be takeable, and worth taking."""
    rules = AccountRules(close_at_end=True)
    table = market_table(planted_bars(900, seed=4), instrument("EURUSD"), rules)
    bars = np.arange(200, 700)
    labels = oracle_labels(planted, bars, np.full(500, 10_000.0), np.zeros(500)).astype(np.float64)
    run = run_actions(table, rules, labels, 200)
    hold = run_actions(table, rules, np.tile([1.0, 1, 1, 0, 0, 0], (500, 1)), 200)
    backwards = run_actions(table, rules, labels[:, [3, 4, 5, 0, 1, 2]], 200)
    assert run.equity[-1] > 40_000 > hold.equity[-1]
    assert backwards.equity[-1] < 2_000
