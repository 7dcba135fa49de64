"""Clocks against the zone database, and nights of swap by hand."""

import zoneinfo
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.errors import ConfigError, TimeError
from halfstep.market.calendar import ServerZone, parse_date, rollover_days, session_label

FX = (1, 1, 3, 1, 1, 0, 0)


def stamps(*texts: str) -> np.ndarray:
    return np.array([int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) for text in texts])


@given(st.integers(parse_date("1999-01-01"), parse_date("2037-12-31")))
def test_offsets_equal_the_zone_database(moment: int) -> None:
    for name, key, shift in (("server-eu", "Europe/Athens", 0), ("server-us", "America/New_York", 7 * 3600)):
        delta = datetime.fromtimestamp(moment, zoneinfo.ZoneInfo(key)).utcoffset()
        assert delta is not None
        assert ServerZone(name).offset(np.array([moment]))[0] == delta.total_seconds() + shift
    zone = ServerZone("server-us")
    there = zone.to_server(np.array([moment]))
    assert zone.to_utc(there)[0] in (
        moment,
        moment - 3600,
    )  # the repeated hour of autumn: its first occurrence


def test_a_skipped_hour_does_not_exist() -> None:
    with pytest.raises(TimeError, match="2023-03-26 03:30 does not exist on the clock server-eu"):
        ServerZone("server-eu").to_utc(stamps("2023-03-26T02:30", "2023-03-26T03:30"))


def test_a_repeated_hour_is_told_apart_by_order() -> None:
    utc = ServerZone("server-eu").to_utc(stamps("2023-10-29T03:30", "2023-10-29T03:30", "2023-10-29T04:30"))
    assert list(np.diff(utc)) == [3600, 3600]


@pytest.mark.pitfall("T6")
def test_nights_of_a_week_add_up_to_seven() -> None:
    utc = ServerZone("UTC")
    tuesday_to_thursday = stamps(
        "2023-06-06T12:00", "2023-06-07T00:00", "2023-06-07T12:00", "2023-06-08T00:00"
    )
    assert list(rollover_days(tuesday_to_thursday, utc, FX)) == [0, 1, 0, 3]
    over_the_weekend = stamps("2023-06-09T12:00", "2023-06-12T12:00")
    assert list(rollover_days(over_the_weekend, utc, FX)) == [0, 1]
    assert rollover_days(stamps("2023-06-05T12:00", "2023-06-12T12:00"), utc, FX)[1] == 7


def test_nights_follow_the_servers_midnight() -> None:
    # 21:00 UTC in June is midnight of server-eu; the bar that opens there carries the night
    hours = stamps("2023-06-06T20:00", "2023-06-06T21:00", "2023-06-06T22:00")
    assert list(rollover_days(hours, ServerZone("server-eu"), FX)) == [0, 1, 0]


def test_an_unknown_zone_is_named() -> None:
    with pytest.raises(ConfigError, match="zone: 'Mars/Base', must be one of server-eu"):
        ServerZone("Mars/Base")


def test_sessions_by_the_hour() -> None:
    day = parse_date("2024-02-29") + 3600 * np.arange(24)
    expected = ["Asian"] * 7 + ["European"] * 6 + ["American"] * 9 + ["Asian"] * 2
    for within in (0, 3599):
        assert session_label(day + within).tolist() == expected
    assert session_label(stamps("1969-12-31T23:00", "1970-01-01T00:00")).tolist() == ["Asian", "Asian"]
