"""Golden scenarios with exact arithmetic, each in the three forms of one transition function."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from halfstep.broker import Flag, MarketTable, Outcome, Run, deals_frame, relative_components, run_actions

from .scenarios import BACKENDS, BASE, EURGBP, EURUSD, RULES, TUESDAY, USDJPY, A, Z, buy, market, sell

DAY = 86_400
WEDNESDAY = TUESDAY // DAY * DAY + DAY
SWAPPED = replace(EURUSD, swap_long=-6.5, swap_short=1.5)
QUARTERS = "0/50/-20/40;40/320/30/300;300/310/-200/-150;-150/50/-160/50"
NO_LEVEL = {"zero_level": "none"}
NAN = [float("nan"), 0, 0, 0, 0, 0]
G01 = "0/150/-100/100"
G02 = "0/150/-100/100;100/120/80/90"
QUIET = "0/20/-20/0"


@dataclass(frozen=True)
class Golden:
    """One row: bars, an action for each, rules that differ, what must come out (prices above the base)."""

    id: str
    bars: str
    actions: list[list[float]]
    expected: dict[str, Any]
    rules: dict[str, Any] = field(default_factory=dict)
    market: dict[str, Any] = field(default_factory=dict)


def stop_after(night: int, **options: Any) -> list[int]:
    return [TUESDAY - 3600, TUESDAY, WEDNESDAY, WEDNESDAY + DAY, WEDNESDAY + DAY + 3600][: night + 2]


GOLDENS = [
    Golden("G01", G01, [A], {"entry": 10, "tp": 310, "sl": -190, "equity": 10_009, "balance": 10_000, "worst": 9_989,
                             "margin": 110.01, "level": 90.9826, "rewards": [math.log(1.0009)]}),
    Golden("G02", G02, [A, Z], {"balance": 10_009, "rewards": [0.00089959524, 0], "lots": 0, "price": 100}),
    Golden("G03", "0/100/-150/-100", [sell(0.10, 300, 200)],
           {"entry": 0, "sl": 200, "tp": -300, "equity": 10_009, "worst": 9_989, "margin": 110.0}),
    Golden("G04", "0/50/-200/-150", [A], {"balance": 9_980, "worst": 9_980, "price": -190, "reason": "SL"}),
    Golden("G05", "0/310/-50/250", [A], {"balance": 10_030, "worst": 9_994, "reason": "TP", "ambiguous": 0}),
    Golden("G06", "0/320/-200/50", [A], {"balance": 9_980, "ambiguous": 1, "worst": 9_980}),
    Golden("G06 target_first", "0/320/-200/50", [A], {"balance": 10_030, "ambiguous": 1, "worst": 9_999},
           {"intrabar": "target_first"}),
    Golden("G06 adaptive", "0/320/-200/50", [A], {"balance": 9_980, "ambiguous": 1}, {"intrabar": "adaptive"}),
    Golden("G06 mt5_ohlc", "0/320/-200/50", [A], {"balance": 9_980, "ambiguous": 1}, {"intrabar": "mt5_ohlc"}),
    Golden("G07", "0/310/-400/-50", [A], {"balance": 9_980}),
    Golden("G07 target_first", "0/310/-400/-50", [A], {"balance": 10_030}, {"intrabar": "target_first"}),
    Golden("G07 adaptive", "0/310/-400/-50", [A], {"balance": 10_030}, {"intrabar": "adaptive"}),
    Golden("G07 mt5_ohlc", "0/310/-400/-50", [A], {"balance": 10_030}, {"intrabar": "mt5_ohlc"}),
    Golden("G08", "0/250/-330/50", [sell(0.10, 300, 200)], {"balance": 9_980, "ambiguous": 1}),
    Golden("G08 target_first", "0/250/-330/50", [sell(0.10, 300, 200)], {"balance": 10_030},
           {"intrabar": "target_first"}),
    Golden("G08 adaptive", "0/250/-330/50", [sell(0.10, 300, 200)], {"balance": 9_980}, {"intrabar": "adaptive"}),
    Golden("G08 mt5_ohlc", "0/250/-330/50", [sell(0.10, 300, 200)], {"balance": 10_030}, {"intrabar": "mt5_ohlc"}),
    Golden("G09", "0/320/-200/50", [A], {"balance": 10_030, "ambiguous": 0, "missing": 0, "time": TUESDAY + 5400},
           {"intrabar": "m1"}, {"detail": QUARTERS}),
    Golden("G09 without its quarters", "0/320/-200/50", [A], {"balance": 9_980, "ambiguous": 1, "missing": 1},
           {"intrabar": "m1"}, {"detail": QUARTERS.replace("320", "321")}),
    Golden("G10", f"{QUIET};-300/-250/-320/-280", [A, Z], {"balance": 9_969, "price": -300, "lots": 0}),
    Golden("G10 level", f"{QUIET};-300/-250/-320/-280", [A, Z], {"balance": 9_980}, {"gap_fill": "level"}),
    Golden("G11", f"{QUIET};-300/-250/-320/-280", [A, A],
           {"balance": 9_969, "equity": 9_970, "entry": -290, "sl": -490, "tp": 10}),
    Golden("G12", f"{QUIET};400/420/380/410", [A, Z], {"balance": 10_030}),
    Golden("G12 level", f"{QUIET};400/420/380/410", [A, Z], {"balance": 10_030}, {"gap_fill": "level"}),
    Golden("G12 market", f"{QUIET};400/420/380/410", [A, Z], {"balance": 10_039}, {"gap_fill": "market"}),
    Golden("G13", "0/195/-10/0", [sell(0.10, 300, 200)], {"balance": 9_980}),
    Golden("G13 held", "0/189/-10/0", [sell(0.10, 300, 200)], {"balance": 10_000, "equity": 9_999}),
    Golden("G14", G01, [A], {"equity": 10_009, "balance": 10_000, "worst": 9_989}, {}, {"spread": 0}),
    Golden("G14 not stated", G01, [A], {"equity": 10_009}, {}, {"spread": None}),
    Golden("G14 no floor", G01, [A], {"equity": 10_010}, {"spread_floor_points": 0}, {"spread": 0}),
    Golden("G15", f"{G01};100/120/40/50", [buy(0.30, 300, 200), A],
           {"balance": 10_018, "equity": 10_022, "entry": 10, "sl": -90, "profit": 18.0}),
    Golden("G16", "0/50/-50/40;90/150/60/130", [A, buy(0.30, 300, 200)],
           {"entry": 70, "sl": -100, "tp": 400, "equity": 10_018, "lots": 0.30}),
    Golden("G17", "0/50/-50/40;90/150/60/60;50/80/20/70", [A, A, A],
           {"sl": -100, "tp": 360, "equity": 10_006, "flags": [0, 0, Flag.SL_KEPT]}),
    Golden("G17 two bars", "0/50/-50/40;90/150/60/60", [A, A], {"sl": -100, "tp": 400}),
    Golden("G18", "0/50/-50/40;100/120/50/60", [A, sell(0.20, 300, 200)],
           {"balance": 10_009, "equity": 10_015, "deals": 3, "netting deals": 2, "lots": -0.20}),
    Golden("G19", G01, [[0.30, 0.3, 0.2, 0.20, 0.3, 0.2]],
           {"entry": 10, "tp": 310, "sl": -190, "equity": 10_009, "worst": 9_989, "flags": [Flag.NETTED]}),
    Golden("G19 equal", G02, [A, [0.2, 0.3, 0.2, 0.2, 0.3, 0.2]],
           {"balance": 10_009, "lots": 0, "flags": [0, Flag.NETTED]}),
    Golden("G20", G01, [buy(0.004, 300, 200)], {"equity": 10_000, "outcomes": [Outcome.BELOW_MIN_LOT]}),
    Golden("G20 held", G02, [A, buy(0.004, 300, 200)],
           {"balance": 10_009, "outcomes": [Outcome.FILLED] * 2, "flags": [0, Flag.CLOSED_BY_CHECK]}),
    *(Golden(f"G21 {volume!r}", QUIET, [buy(volume, 300, 200)], {"lots": steps / 100})
      for volume, steps in [(0.00999, 0), (float(np.float32(0.01)), 1), (0.0149, 1), (0.015, 2), (0.256, 26),
                            (0.9999, 100)]),
    Golden("G22 SL 11", "0/20/-1/0", [buy(0.10, 300, 11)], {"outcomes": [Outcome.SL_TOO_CLOSE], "equity": 10_000}),
    Golden("G22 SL 12", "0/20/-1/0", [buy(0.10, 300, 12)], {"outcomes": [Outcome.FILLED], "sl": -2}),
    Golden("G22 TP 1", "0/5/-1/0", [buy(0.10, 1, 200)], {"outcomes": [Outcome.TP_TOO_CLOSE], "equity": 10_000}),
    Golden("G22 TP 2", "0/5/-1/0", [buy(0.10, 2, 200)], {"outcomes": [Outcome.FILLED], "tp": 12}),
    Golden("G23 in", G01, [A], {"balance": 9_999.65}, {"commission": 3.5}),
    Golden("G23", G02, [A, Z], {"balance": 10_008.30}, {"commission": 3.5}),
    Golden("G24", "0/20/-20/10;0/20/-20/10;0/20/-20/10", [A] * 3,
           {"equity": 9_997.40, "balance": 10_000, "swap": -2.60}, {}, {"of": SWAPPED, "times": stop_after(2)}),
    Golden("G24 closed", "0/20/-20/10;0/20/-20/10;0/20/-20/10;10/20/0/10", [A, A, A, Z],
           {"balance": 9_997.40}, {}, {"of": SWAPPED, "times": stop_after(3)}),
    Golden("G24 short", "0/20/-20/-10;0/20/-20/-10;0/20/-20/-10", [sell(0.10, 300, 200)] * 3,
           {"equity": 10_000.60, "swap": 0.60}, {}, {"of": SWAPPED, "times": stop_after(2)}),
    Golden("G24 weekend", "0/20/-20/10;0/20/-20/10", [A] * 2, {"swap": -0.65}, {},
           {"of": SWAPPED, "times": [TUESDAY + 3 * DAY - 3600, TUESDAY + 3 * DAY, TUESDAY + 6 * DAY]}),
    Golden("G25", "0/20/-20/10;10/20/0/10", [buy(0.30, 300, 200), A],
           {"balance": 9_998.70, "equity": 9_998.05, "swap": -0.65}, {}, {"of": SWAPPED, "times": stop_after(1)}),
    *(Golden(f"G26 {lots}", QUIET, [buy(lots, 300, 200)], {"outcomes": [Outcome.NO_MONEY], "equity": 10_000})
      for lots in (10, 9.10)),
    *(Golden(f"G26 {lots}", QUIET, [buy(lots, 300, 200)], {"outcomes": [Outcome.FILLED], "margin": margin})
      for lots, margin in ((9.09, 9_999.909), (9, 9_900.90))),
    Golden("G27", "0/20/-1500/-100", [[5, 1, 0, 0, 0, 0]],
           {"balance": 2_750, "status": 1, "rewards": [-1.2909842], "price": -1440, "reason": "STOP_OUT"}, NO_LEVEL),
    Golden("G27 held", "0/20/-1439/-100", [[5, 1, 0, 0, 0, 0]],
           {"worst": 2_755, "equity": 9_450, "status": 2, "margin": 5_500.50}, NO_LEVEL),
    Golden("G28", "0/1500/-20/100", [[0, 0, 0, 5, 1, 0]],
           {"balance": 2_750, "status": 1, "price": 1450}, NO_LEVEL),
    Golden("G28 held", "0/1439/-20/100", [[0, 0, 0, 5, 1, 0]], {"margin": 5_500.0, "status": 2}, NO_LEVEL),
    Golden("G29", "0/20/-1500/-100", [buy(5, 1000, 1000)], {"balance": 5_000, "status": 2, "price": -990}),
    Golden("G29 1449", "0/20/-1500/-100", [buy(5, 1000, 1449)], {"balance": 2_755, "status": 2, "reason": "SL"}),
    Golden("G29 tie", "0/20/-1500/-100", [buy(5, 1000, 1450)], {"balance": 2_750, "status": 2, "reason": "SL"}),
    Golden("G29 1451", "0/20/-1500/-100", [buy(5, 1000, 1451)],
           {"balance": 2_750, "status": 1, "reason": "STOP_OUT"}),
    Golden("G30", f"{QUIET};-2500/-2400/-2600/-2450", [[5, 1, 0, 0, 0, 0]] * 2,
           {"balance": -2_550, "status": 1, "rewards": [math.log(0.995), -4.6001576],
            "outcomes": [Outcome.FILLED, Outcome.STOPPED_OUT], "sum of rewards": math.log(0.01)}, NO_LEVEL),
    Golden("G31", G01, [A], {"balance": 10_008.30, "status": 2, "lots": 0, "reason": "END"},
           {"commission": 3.5, "close_at_end": True}),
    Golden("G31 open", G01, [A], {"equity": 10_008.65, "status": 2, "lots": 0.10}, {"commission": 3.5}),
    Golden("G32", "0/150/-200/100", [A], {"balance": 9_979.60, "price": -192, "entry price": 12},
           {"slippage_points": 2}),
    Golden("G32 TP", "0/310/-100/100", [A], {"balance": 10_029.80, "price": 310}, {"slippage_points": 2}),
    Golden("G33", f"{G01};100/120/40/50", [A, NAN],
           {"equity": 10_004, "outcomes": [Outcome.FILLED, Outcome.NONFINITE], "sl": -190, "tp": 310, "lots": 0.10}),
    Golden("G34", G01, [[0.20, 0.3, 0.2, 0.10, 0.3, 0.2]],
           {"equity": 10_007, "margin": 220.0166667, "worst": 9_987, "buy": 0.20, "sell": 0.10},
           {"net_opposite": False}),
    Golden("G35", "0/20/-1500/-100", [[5, 1, 0, 1, 1, 0]],
           {"equity": 10_450, "balance": 11_000, "status": 2, "buy": 5, "sell": 0, "reason": "TP", "price": -1000},
           {"net_opposite": False, **NO_LEVEL}),
    Golden("G36", "10/160/-90/110", [A], {"entry": 10, "tp": 310, "sl": -190, "equity": 10_009, "worst": 9_989}, {},
           {"side": "ask"}),
    Golden("G37", f"{QUIET};0/150/-100/100", [A, A],
           {"equity": 10_009, "deal bars": [2], "outcomes": [Outcome.HELD, Outcome.FILLED]}, {"delay_bars": 1}),
    Golden("G38", "0/0/0/0", [Z], {"components": [0, 0, -1.20], "rewards": [0]}, {"idle_lots": 0.01}, {"atr": 120}),
    Golden("G38 one lot", "0/0/0/0", [Z], {"components": [0, 0, -100.0], "relative": [0, 0, -0.0100]},
           {"idle_lots": 1.0}, {"atr": 100}),
    Golden("G39", "0/600/-100/500", [buy(0.10, 1000, 300)], {"equity": 10_032.5581395, "margin": 100.0}, {},
           {"of": USDJPY, "base": 150_000}),
    Golden("G40", "0/20/-20000/-100", [[5, 1, 0, 0, 0, 0]],
           {"balance": 2_499.6447734, "status": 1, "price": -2_207}, NO_LEVEL, {"of": USDJPY, "base": 150_000}),
    Golden("G41", G01, [A], {"equity": 10_011.25, "margin": 110.0}, {},
           {"of": EURGBP, "base": 85_000, "rates": (1.25, 1.10)}),
    Golden("G42 kept", "0/50/-50/0;0/50/-50/0", [A, buy(0.12, 300, 200)],
           {"lots": 0.10, "outcomes": [Outcome.FILLED, Outcome.HELD]}, {"hold_band_steps": 2}),
    Golden("G42 moved", "0/50/-50/0;0/50/-50/0", [A, buy(0.13, 300, 200)], {"lots": 0.13}, {"hold_band_steps": 2}),
]  # fmt: skip
SHIFTED = [golden for golden in GOLDENS if int(golden.id[1:3]) <= 25 or 31 <= int(golden.id[1:3]) <= 33]


def observed(run: Run, table: MarketTable, base: int) -> dict[str, Any]:
    """Return what the rows may speak of; prices in points above the base."""
    floor = RULES.floor
    held = run.state.long_ if run.lots[-1] > 0 else run.state.short_
    deals = deals_frame(run.log, table)
    scale = 10**table.instrument.digits
    out = deals.filter(deals["entry"] == "out")
    return {
        "equity": run.equity[-1], "balance": run.balance[-1], "worst": run.equity_worst[-1], "margin": run.margin[-1],
        "level": run.state.margin_level[0], "lots": run.lots[-1], "buy": run.buy_lots[-1], "sell": run.sell_lots[-1],
        "rewards": run.reward, "sum of rewards": run.reward.sum(), "components": run.components[-1],
        "relative": relative_components(run.components, run.balance - run.components[:, 0], floor)[-1],
        "outcomes": run.outcome, "flags": run.flags, "status": run.status, "ambiguous": run.ambiguous,
        "missing": run.detail_missing, "deals": len(deals), "deal bars": deals["bar"].to_numpy(),
        "netting deals": len(deals_frame(run.log, table, account_mode="netting")),
        "entry": held.entry[0] - base, "sl": held.sl[0] - base, "tp": held.tp[0] - base, "swap": held.swap[0],
        "price": out["price"][-1] * scale - base if len(out) else None,
        "entry price": out["entry_price"][-1] * scale - base if len(out) else None,
        "profit": out["profit"][-1] if len(out) else None,
        "reason": out["reason"][-1] if len(out) else None,
        "time": out["time"][-1] if len(out) else None,
    }  # fmt: skip


def check(golden: Golden, backend: str, shift: int = 0, without: tuple[str, ...] = ()) -> None:
    rules = replace(RULES, **golden.rules)
    base = golden.market.get("base", BASE) + shift
    table = market(golden.bars, rules=rules, **(golden.market | {"base": base}))
    run = run_actions(table, rules, np.array(golden.actions, float), 0, backend=backend)  # type: ignore[arg-type]
    seen = observed(run, table, base)
    for key, value in golden.expected.items():
        if key in without:
            continue
        if isinstance(value, str):
            assert seen[key] == value, f"{golden.id}: {key}"
        else:
            atol = 5e-7 if key != "level" else 5e-5
            np.testing.assert_allclose(seen[key], value, rtol=0, atol=atol, err_msg=f"{golden.id}: {key}")
    assert run.state.outcomes.sum() == len(run.bar)


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.id)
@pytest.mark.pitfall("R14")
def test_golden_scenario(golden: Golden) -> None:
    for backend in BACKENDS:
        check(golden, backend)


@pytest.mark.parametrize("golden", SHIFTED, ids=lambda golden: golden.id)
def test_golden_scenario_at_another_price_level(golden: Golden) -> None:
    for backend in BACKENDS:
        check(golden, backend, shift=5_000, without=("margin", "level"))
