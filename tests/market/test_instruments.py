"""Presets of symbols, and what a wrong contract is told."""

import pytest

from halfstep.errors import ConfigError
from halfstep.market.instruments import Instrument, instrument


@pytest.mark.parametrize("name", ["EURUSD", "EURUSDm", "eurusd.", "EURUSD_raw"])
def test_suffixes_and_case_do_not_matter(name: str) -> None:
    assert instrument(name).symbol == "EURUSD"


def test_point_values() -> None:
    assert instrument("EURUSD").point_value == 1.0
    assert instrument("USDJPY").point_value == 100.0
    assert instrument("XAUUSD.F").point_value == 1.0
    assert instrument("EURUSD").point == 1e-5


def test_profiles_change_the_costs() -> None:
    assert (instrument("GBPUSD").spread_floor_points, instrument("GBPUSD").commission) == (14, 0.0)
    assert (
        instrument("GBPUSD", profile="raw").spread_floor_points,
        instrument("GBPUSD", profile="raw").commission,
    ) == (2, 3.5)
    free = instrument("GBPUSD", profile="free")
    assert (free.spread_floor_points, free.commission, free.swap_long, free.swap_short) == (0, 0, 0, 0)


def test_a_symbol_without_preset_says_what_is_missing() -> None:
    with pytest.raises(
        ConfigError,
        match=r"'US30' has no preset \(those are EURUSD, .*not stated: quote, digits, contract_size, ",
    ) as found:
        instrument("US30", swap_long=-5.0)
    assert "--instrument.contract-size 1 " in str(found.value)
    assert "swap-long" not in str(found.value)
    with pytest.raises(ConfigError, match="not stated: spread_floor_points, swap_long, swap_short"):
        instrument("USDCHF")
    with pytest.raises(
        ConfigError, match="not stated: contract_size, level_scale_points, spread_floor_points"
    ):
        instrument("XAGUSD")


COSTS = {"spread_floor_points": 15, "swap_long": 4.0, "swap_short": -10.0}


def test_a_pair_without_preset_is_known_by_its_name() -> None:
    franc = instrument("usdchf.m", **COSTS)
    assert (franc.symbol, franc.base, franc.quote, franc.digits) == ("USDCHF", "USD", "CHF", 5)
    assert (franc.contract_size, franc.sessions, franc.spread_floor_points) == (100_000, "fx", 15)
    yen = instrument("EURJPY", **COSTS)
    assert (yen.digits, yen.point_value, yen.level_scale_points) == (3, 100.0, 1000)
    assert instrument("EURJPY", digits=2, **COSTS).level_scale_points == 100  # 1.00 yen as before
    assert instrument("USDCHF", profile="free").swap_short == 0.0  # nothing to state where nothing costs


def test_an_index_is_what_is_stated() -> None:
    dow = instrument("US30", quote="USD", digits=1, contract_size=5.0, level_scale_points=3000, **COSTS)
    assert (dow.base, dow.point_value, dow.sessions) == ("US30", 0.5, "always")
    assert (dow.commission, dow.swap_long) == (0.0, 4.0)


def test_other_digits_keep_the_money() -> None:
    """Gold of 3 digits, euro of 4: as many points as hold the same price; what is stated is in the new points."""
    gold, fine = instrument("XAUUSD"), instrument("XAUUSD", digits=3)
    assert (fine.spread_floor_points, fine.level_scale_points) == (250, 20_000)
    assert fine.swap_long * fine.point_value == pytest.approx(gold.swap_long * gold.point_value)
    coarse = instrument("EURUSD", digits=4)
    assert (coarse.spread_floor_points, coarse.level_scale_points) == (1, 100)
    assert coarse.swap_long == pytest.approx(-0.65)
    assert instrument("GBPUSD", digits=4).spread_floor_points == 2  # 1.4 old points: never less than before
    assert instrument("EURUSD", digits=4, swap_long=-3.0).swap_long == -3.0
    assert instrument("EURUSD", digits=4, profile="raw").spread_floor_points == 1
    assert instrument("BTCUSD", digits=3).swap_long == -20.0  # percent a year


def test_swaps_are_not_read_in_another_unit() -> None:
    """-6.5 points a night are not -6.5 % a year."""
    for given in ({}, {"swap_long": -3.0}):
        with pytest.raises(ConfigError, match=r"swap_mode: 'percent', but the swaps of EURUSD are in points"):
            instrument("EURUSD", swap_mode="percent", **given)
    stated = instrument("EURUSD", swap_mode="percent", swap_long=-3.0, swap_short=1.0)
    assert (stated.swap_mode, stated.swap_long, stated.swap_short) == ("percent", -3.0, 1.0)
    assert instrument("EURUSD", swap_mode="points") == instrument("EURUSD")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digits", 9),
        ("lot_step", 0.0),
        ("lot_min", 0.015),
        ("commission", -1.0),
        ("swap_days", (1, 1)),
        ("swap_long", float("nan")),
    ],
)
def test_a_wrong_contract_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        Instrument(symbol="EURUSD", base="EUR", quote="USD", **{field: value})  # type: ignore[arg-type]
