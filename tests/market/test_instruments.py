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


def test_an_unknown_symbol_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'ABC', must begin with one of EURUSD, GBPUSD"):
        instrument("ABC")


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
