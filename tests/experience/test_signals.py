"""Recorded deals are replayed when they have happened, by the account's own engine, and compared with the record."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from halfstep.broker.engine import run_actions
from halfstep.broker.rules import AccountRules
from halfstep.broker.table import MarketTable, market_table
from halfstep.errors import SignalError
from halfstep.experience.histories import History, read_history
from halfstep.experience.signals import (
    Replay,
    SignalSettings,
    actions_of,
    in_words,
    leaking,
    replay_history,
)
from halfstep.market.bars import Bars
from halfstep.market.calendar import ServerZone
from halfstep.market.instruments import instrument
from halfstep.market.read import read_bars
from halfstep.market.timeframes import DAY, HOUR, Timeframe

RULES = AccountRules(spread_floor_points=10, leverage=500.0)
HEADER = "Time;Type;Volume;Symbol;Price;S/L;T/P;Time;Price;Commission;Swap;Profit;Comment"
MONDAY = 1_675_641_600  # 2023-02-06 00:00
TIMES = (("06 08:30", "06 11:30"), ("06 10:30", "06 13:30"))


def bars_of(count: int = 120, *, skip: int = 0, step: float = 0.0001) -> Bars:
    """Return hours on a slope: the open of bar i is 1.10000 + i steps; ``skip`` days fall out."""
    index = np.arange(count)
    opens, nexts, lasts = (np.round(1.1 + step * (index + k), 5) for k in (0, 1, -1))
    time = MONDAY + HOUR * index + DAY * skip * (index >= 60)
    return Bars(
        time=time, open=opens, high=nexts, low=lasts, close=nexts,
        volume=np.ones(count), spread=np.zeros(count, np.int32), symbol="EURUSD", timeframe=Timeframe.H1, digits=5,
        zone=ServerZone("UTC"),
    )  # fmt: skip


def table_of(bars: Bars) -> MarketTable:
    free = replace(instrument("EURUSD"), swap_long=0.0, swap_short=0.0)
    return market_table(bars, free, RULES)


def deal(
    opened: str, closed: str, *, side: str = "Buy", lots: float = 0.1, price: float = 0.0, left: float = 0.0,
    tp: str = "", sl: str = "", symbol: str = "EURUSD",
) -> str:  # fmt: skip
    """Return a line of a history; prices default to those of the slope at these times."""

    def at(text: str) -> float:
        day, clock = text.split(" ")
        hour, minute = clock.split(":")
        return round(1.1 + 0.0001 * (24 * (int(day) - 6) + int(hour) + int(minute) / 60), 5)

    return (
        f"2023.02.{opened}:00;{side};{lots};{symbol};{price or at(opened)};{sl};{tp};2023.02.{closed}:00;"
        f"{left or at(closed)};-0.70;;1.00;"
    )


def history_of(tmp_path: Path, *lines: str) -> History:
    path = tmp_path / "signals.csv"
    path.write_text("\n".join((HEADER, *lines)), encoding="utf-8")
    return read_history(path)


def replayed(tmp_path: Path, *lines: str, bars: Bars | None = None, **settings: object) -> Replay:
    table = table_of(bars or bars_of())
    return replay_history(history_of(tmp_path, *lines), table, RULES, SignalSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.pitfall("R8")
def test_a_deal_is_replayed_after_it_happened(tmp_path: Path) -> None:
    made = replayed(tmp_path, deal("06 10:17", "06 13:40", sl="1.0999", tp="1.1020"))
    (row,) = made.deals.to_dicts()
    assert (row["entry_bar"], row["exit_bar"], row["status"]) == (11, 14, "used")
    (group,) = made.groups
    action, account = group.action[0], group.account[0]
    assert (
        np.atleast_1d(group.first_bar)[0] == 10
    )  # decided at the close of 10:00-11:00, executed at the open of 11:00
    np.testing.assert_array_equal(action[:, 0], np.float32([0.1, 0.1, 0.1, 0]))
    assert (action[:, 1:] == 0).all()  # no target, no stop
    # in at the ask of the 11:00 open, out at the bid of the 14:00 open: 3 * 10 - 10 points of 0.1 lots
    assert account[-1, 0] - RULES.deposit == pytest.approx(2.0, abs=1e-3)
    assert row["replayed_net"] == pytest.approx(2.0)
    assert (row["timed_points"], row["replayed_points"]) == (pytest.approx(30), pytest.approx(20))
    assert row["recorded_points"] == pytest.approx(34)  # 10:17 to 13:40 on the slope


@pytest.mark.pitfall("R8")
def test_an_exact_open_is_in_time_and_short_deals_are_counted(tmp_path: Path) -> None:
    made = replayed(
        tmp_path, deal("06 10:00", "06 12:00"), deal("06 10:10", "06 10:50"), deal("06 15:00", "06 15:00")
    )
    assert made.counts == {"shorter than a bar": 2, "used": 1}
    used = made.deals.filter(made.deals["status"] == "used").to_dicts()[0]
    assert (used["entry_bar"], used["exit_bar"]) == (10, 12)


@pytest.mark.pitfall("R8")
def test_the_close_price_has_no_influence_unless_asked_for(tmp_path: Path) -> None:
    lines = [deal("06 10:17", "06 20:40", left=left) for left in (1.1021, 1.1008)]
    honest = [replayed(tmp_path, line).groups[0] for line in lines]
    assert honest[0].action.tobytes() == honest[1].action.tobytes()
    leaky = [replayed(tmp_path, line, impute_levels="exit_price").groups[0].action[0] for line in lines]
    # a win becomes a target, a loss a stop; from the ask at the decision's close: 1.10110 + 10 points
    assert leaky[0][0, 1] == pytest.approx((1.1021 - 1.1012) / 0.01, abs=1e-6)
    assert leaky[0][0, 2] == 0
    assert leaky[1][0, 1] == 0
    assert leaky[1][0, 2] == pytest.approx((1.1012 - 1.1008) / 0.01, abs=1e-6)


def test_imputed_levels_mark_the_episodes() -> None:
    assert leaking(["history 12ab", "noise"]) == ()
    assert leaking(["history 12ab exit_price", "noise", "history 12ab exit_price"]) == (
        "history 12ab exit_price",
    )
    assert SignalSettings(impute_levels="exit_price").is_leaking
    assert not SignalSettings(use_file_tp=True).is_leaking


def test_open_deals_add_up_and_are_netted(tmp_path: Path) -> None:
    made = replayed(
        tmp_path,
        deal("06 10:30", "06 16:30", lots=0.1),
        deal("06 11:30", "06 14:30", lots=0.2),
        deal("06 12:30", "06 18:30", side="Sell", lots=0.15),
    )
    action = made.groups[0].action[0]
    bought = [0.1, 0.3, 0.15, 0.15, 0, 0, 0, 0, 0]  # executed at the opens of 11:00 to 19:00
    sold = [0, 0, 0, 0, 0.05, 0.05, 0.15, 0.15, 0]
    np.testing.assert_allclose(action[:, 0], bought, atol=1e-6)
    np.testing.assert_allclose(action[:, 3], sold, atol=1e-6)


def test_volumes_are_scaled_and_cut(tmp_path: Path) -> None:
    lines = [deal("06 10:30", "06 12:30", lots=0.8), deal("07 10:30", "07 12:30", lots=0.02)]
    made = replayed(tmp_path, *lines, lot_scale=2.0)
    assert made.deals["status"].to_list() == ["cut", "used"]
    assert made.deals["lots"].to_list() == [1.0, 0.04]
    small = replayed(tmp_path, *lines, lot_scale=0.25)
    assert small.counts == {"below the least lot": 1, "used": 1}
    with pytest.raises(ValueError, match=r"lot_scale: 0\.0, must be above 0"):
        SignalSettings(lot_scale=0.0)


def test_targets_of_the_file_on_request(tmp_path: Path) -> None:
    near, far = deal("06 10:30", "06 13:30", tp="1.1020"), deal("06 10:40", "06 12:30", tp="1.1030")
    table = table_of(bars_of())
    settings = SignalSettings(use_file_tp=True)

    def fractions(*lines: str) -> np.ndarray:
        made = replay_history(history_of(tmp_path, *lines), table, RULES, settings)
        return actions_of(made.deals, table, settings)[1][:, 1]

    # decided at the closes 1.1011, 1.1012 (bid; the ask is 10 points higher): 80 and 70 points of 1000
    np.testing.assert_allclose(fractions(near), [0.08, 0.07, 0.06, 0], atol=1e-9)
    np.testing.assert_allclose(fractions(near, far), [0.18, 0.17, 0.06, 0], atol=1e-9)  # the farthest of both
    np.testing.assert_allclose(fractions(near, deal("06 10:40", "06 12:30")), [0, 0, 0.06, 0], atol=1e-9)
    np.testing.assert_allclose(fractions(deal("06 10:30", "06 12:30", tp="1.2")), 0)  # beyond the scale
    short = deal("06 10:30", "06 12:30", side="Sell", tp="1.0950")
    made = replay_history(history_of(tmp_path, short), table, RULES, settings)
    np.testing.assert_allclose(actions_of(made.deals, table, settings)[1][:2, 4], [0.61, 0.62], atol=1e-9)


@pytest.mark.pitfall("D19")
def test_another_zone_is_refused_with_the_shift_that_would_fit(tmp_path: Path) -> None:
    hours = [(day, hour) for day in (6, 7, 8) for hour in (8, 10, 12)]
    steep = bars_of(step=0.001)
    early = [  # each price is that of seven hours later
        deal(
            f"{d:02d} {h - 7:02d}:30",
            f"{d:02d} {h:02d}:30",
            price=round(1.1 + 0.001 * (24 * (d - 6) + h + 0.5), 5),
        )
        for d, h in hours
    ]
    with pytest.raises(
        SignalError, match=r"0\.0% of 9 open prices.*must be 90%; shifted by \+7 h.*100\.0%.*clock UTC"
    ):
        replayed(tmp_path, *early, bars=steep)
    assert replayed(tmp_path, *early, bars=steep, zone="Etc/GMT+7").match.share == 1.0
    for symbol in ("eurusd.", "EURUSDm", "#EURUSD"):
        assert replayed(tmp_path, deal(*TIMES[0], symbol=symbol)).counts == {"used": 1}
    with pytest.raises(SignalError, match=r"0 deals of EURUSD.*symbols in the file: GBPUSD"):
        replayed(tmp_path, deal(*TIMES[0], symbol="GBPUSD"))
    assert replayed(tmp_path, deal(*TIMES[0]), deal(*TIMES[1], symbol="GBPUSD")).counts == {
        "another symbol": 1, "used": 1,
    }  # fmt: skip


def test_a_hole_in_the_bars_makes_two_episodes(tmp_path: Path) -> None:
    # bars 0-59 from the 6th, the rest ten days later
    late = "2023.02.19 00:30:00;Buy;0.1;EURUSD;1.1072;;;2023.02.19 03:30:00;1.1075;;;1.00;"
    across = "2023.02.08 09:30:00;Buy;0.1;EURUSD;1.1057;;;2023.02.19 03:30:00;1.1075;;;1.00;"
    made = replayed(tmp_path, deal("06 10:17", "06 13:40"), late, across, bars=bars_of(skip=10))
    assert made.counts == {"open across a hole in the bars": 1, "used": 2}
    assert [np.atleast_1d(group.first_bar)[0] for group in made.groups] == [10, 72]
    after = replayed(tmp_path, deal("10 20:30", "11 10:30"), deal("06 10:17", "06 13:40"))
    assert after.counts == {"closed after the bars": 1, "used": 1}


def test_deals_after_ruin_are_not_called_used(tmp_path: Path) -> None:
    # short 1 lot against a slope of 200 points an hour: 10,000 are gone within three days
    def priced(opened: str, closed: str, **given: object) -> str:
        day, hour = int(opened[:2]), int(opened[3:5])
        return deal(opened, closed, price=round(1.1 + 0.002 * (24 * (day - 6) + hour + 0.5), 5), **given)  # type: ignore[arg-type]

    made = replayed(
        tmp_path, priced("06 10:30", "09 18:30", side="Sell", lots=1.0), priced("10 10:30", "10 12:30"),
        bars=bars_of(step=0.002),
    )  # fmt: skip
    assert made.groups[0].terminated[0]
    assert made.counts == {"after the account's ruin": 1, "used": 1}
    assert made.deals["entry_bar"].to_list() == [11, -1]
    assert made.fidelity is not None
    assert made.fidelity.deals == 1


def test_the_same_engine_gives_the_same_account(tmp_path: Path) -> None:
    lines = [deal("06 10:30", "06 16:30"), deal("06 12:30", "07 09:30", side="Sell", lots=0.25)]
    table = table_of(bars_of())
    made = replay_history(history_of(tmp_path, *lines), table, RULES, SignalSettings())
    first, actions = actions_of(made.deals, table, SignalSettings())
    run = run_actions(table, replace(RULES, zero_level="none"), actions, first)
    np.testing.assert_allclose(run.equity, made.groups[0].account[0, 1:, 1], rtol=1e-6)
    assert made.tally.decisions == len(actions) == made.groups[0].length[0]
    assert made.fidelity is not None
    assert made.fidelity.same_sign == 0.5  # both recorded nets are +0.30; going short on a rising slope loses
    assert made.fidelity.recorded_net == pytest.approx(0.6)


@pytest.mark.pitfall("D19", "R8")
def test_replay_of_the_shared_history(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("USDJPY_H1_mt5_2012_2022-03.csv.gz"), zone="server-eu")
    history = read_history(shared_data("USDJPY_signal_history_mt4_2019-12_2023-02.csv.gz"))
    rules = AccountRules()
    table = market_table(bars, instrument("USDJPY"), rules)
    made = replay_history(history, table, rules, SignalSettings())
    assert made.match.deals == 884
    assert made.match.share == pytest.approx(0.989, abs=0.002)
    assert made.match.shares[HOUR] == pytest.approx(0.719, abs=0.003)
    assert made.match.shares[-HOUR] == pytest.approx(0.376, abs=0.003)
    assert made.match.best_shift == 0
    assert made.counts == {"closed after the bars": 919, "shorter than a bar": 165, "used": 719}
    fidelity = made.fidelity
    assert fidelity is not None
    assert fidelity.correlation == pytest.approx(0.77, abs=0.03)
    assert fidelity.timed_points == pytest.approx(22, abs=3)
    assert fidelity.recorded_points == pytest.approx(51, abs=3)
    assert fidelity.median_difference == pytest.approx(55, abs=3)
    assert fidelity.replayed_points == pytest.approx(
        fidelity.timed_points - 12, abs=0.01
    )  # the spread's floor
    assert "22.0 points a deal instead of 50.8 before costs, 10.0 after" in in_words(fidelity, "H1")[0]
    with pytest.raises(SignalError, match=r"-2 h it would be 82\.7%"):
        replay_history(history, table, rules, SignalSettings(zone="UTC"))
