"""The account as twelve numbers, and time as harmonics."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.features import compute_features
from halfstep.market.state import account_vector, all_windows, harmonic, time_harmonics, windows
from halfstep.market.synthetic import random_bars

FEATURES = compute_features(random_bars(400, seed=2))  # first valid row 120


def at(text: str) -> np.ndarray:
    return np.array(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))


def test_an_hour_old_position_as_a_vector() -> None:
    before = np.array([10_000, 10_000, 0, 0, 0, 0, 0, 0.0])
    now = np.array([10_000, 10_009, 0.1, 0, 9, 0, 8.1, float(at("2023-06-15T13:00"))])
    vector = account_vector(now, before, floor=100)
    np.testing.assert_allclose(vector[:8], [0, 1.0009, 0.0009, 0.1, 0, 0.0009, 0, 0.00081], rtol=1e-6)
    np.testing.assert_allclose(vector[8:], [0.06808685, 0.21643961, 0.46726863, -0.25881905], atol=5e-8)


def test_harmonics_of_a_winter_midnight() -> None:
    np.testing.assert_allclose(
        time_harmonics(at("2023-01-02T00:00")), [0.23867277, -0.30901699, -0.43388374, 0], atol=5e-9
    )


@pytest.mark.pitfall("R7")
def test_day_harmonic() -> None:
    sine, cosine = harmonic(at("2024-01-01T06:00"), 86_400)
    assert (sine, cosine) == pytest.approx((1, 0), abs=1e-6)


def test_a_ruined_account_stays_finite() -> None:
    broke = np.array([-2550.0, -2550, 0, 0, 0, 0, 0, 0])
    vector = account_vector(broke, np.array([0.0, 0, 0, 0, 0, 0, 0, 0]), floor=100)
    assert np.isfinite(vector).all()
    assert vector[1] == pytest.approx(-25.5)


@given(st.lists(st.integers(239, 399), min_size=1, max_size=20))
def test_windows_are_rows_in_time_order(bars: list[int]) -> None:
    t = np.array(bars)
    found = windows(FEATURES, t)
    assert found.shape == (len(t), 120, 9)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, FEATURES.values[t[:, None] + np.arange(-119, 1)])
    np.testing.assert_array_equal(found[:, -1], FEATURES.values[t])  # the newest bar is the last row
    np.testing.assert_array_equal(found[:, 0], FEATURES.values[t - 119])


def test_all_windows_are_a_view() -> None:
    found = all_windows(FEATURES.values, 120)
    assert found.shape == (281, 120, 9)
    assert np.shares_memory(found, FEATURES.values)
    np.testing.assert_array_equal(found[120:], windows(FEATURES, np.arange(239, 400)))
    for length in (1, 7, 400):
        np.testing.assert_array_equal(all_windows(FEATURES.values, length)[-1], FEATURES.values[-length:])


@pytest.mark.parametrize("bar", [-1, 0, 119, 238, 400])
def test_no_window_before_the_features_are_valid_or_after_the_bars(bar: int) -> None:
    with pytest.raises(
        CoverageError, match=rf"no window of 120 rows ends at bar {bar}\b.*bars 239 to 399"
    ) as caught:
        windows(FEATURES, np.array([300, bar]))
    assert "239" in str(caught.value)
    assert windows(FEATURES, np.array([124]), length=5).shape == (1, 5, 9)
    with pytest.raises(CoverageError, match="ends at bar 123"):
        windows(FEATURES, np.array([123]), length=5)


@pytest.mark.pitfall("R7")
def test_harmonics_are_exact_at_any_date() -> None:
    days = np.arange(0, 40_000) * 86_400  # to 2079; float32 seconds are 128 s apart
    for hour, expected in ((0, 0.0), (6, 1.0), (18, -1.0)):
        np.testing.assert_array_equal(harmonic(days + hour * 3600, 86_400)[0], expected)
    minutes = time_harmonics(at("2024-01-01T00:00") + 60 * np.arange(1000))
    assert len(np.unique(minutes[:, 2])) == 1000  # of the week, by the minute


@given(st.integers(0, 2**31))
def test_long_and_short_of_an_account_are_alike(seed: int) -> None:
    now, before = np.random.default_rng(seed).normal(10_000, 3_000, (2, 5, 8))
    mirror = [0, 1, 3, 2, 5, 4, 6, 7]
    ours, theirs = (account_vector(a, b, floor=100) for a, b in ((now, before), (now[:, mirror], before)))
    np.testing.assert_array_equal(theirs, ours[:, [0, 1, 2, 4, 3, 6, 5, 7, 8, 9, 10, 11]])


def test_a_floor_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="floor: 0, must be above 0"):
        account_vector(np.zeros(8), np.zeros(8), floor=0)


def test_huge_accounts_are_clipped() -> None:
    now = np.array([1e12, -1e12, 0, 0, 1e12, -1e12, 0, 0])
    vector = account_vector(now, np.array([100.0, 100, 0, 0, 0, 0, 0, 0]), floor=100)
    assert (vector[[0, 5]] == 1e6).all()
    assert (vector[[1, 2, 6]] == -1e6).all()
