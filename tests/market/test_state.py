"""The account as twelve numbers, and time as harmonics."""

from datetime import UTC, datetime

import numpy as np
import pytest

from halfstep.market.state import account_vector, harmonic, time_harmonics


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
