"""Bars keep their invariants, or say which row breaks one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from strategies import valid_bars

from halfstep import errors
from halfstep.market.bars import PRICE_COLUMNS, Bars
from halfstep.market.calendar import ServerZone
from halfstep.market.synthetic import random_bars

BARS = random_bars(50, seed=1)


def changed(column: str, row: int, value: float) -> dict[str, np.ndarray]:
    copy = getattr(BARS, column).copy()
    copy[row] = value
    return {column: copy}


@pytest.mark.parametrize(
    ("column", "value", "error", "words"),
    [
        ("time", 0, errors.TimeError, "is earlier than the bar before it"),
        ("time", int(BARS.time[6]), errors.TimeError, "repeats the bar before it"),
        ("open", float("nan"), errors.PriceError, "nan is no price"),
        ("close", 0.0, errors.PriceError, "0.0 is no price"),
        ("low", -1.0, errors.PriceError, "-1.0 is no price"),
        ("high", 1e9, errors.PriceError, "1000000000.0 is no price"),
        ("high", 1.0, errors.PriceError, "high 1.0 is below"),
        ("low", 2.0, errors.PriceError, "low 2.0 is above"),
        ("volume", -1.0, errors.QuantityError, "-1.0 is no volume"),
        ("volume", float("inf"), errors.QuantityError, "inf is no volume"),
        ("spread", -2, errors.QuantityError, "-2 is no spread"),
    ],
)
def test_a_broken_invariant_names_row_and_column(
    column: str, value: float, error: type[errors.DataError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        replace(BARS, **changed(column, 7, value))
    assert caught.value.row == 8
    assert caught.value.column == column
    assert caught.value.hint


def test_columns_are_copied_and_read_only() -> None:
    close = BARS.close.copy()
    bars = replace(BARS, close=close)
    close[0] = 9.0
    assert bars.close[0] == BARS.close[0]
    with pytest.raises(ValueError, match="read-only"):
        bars.close[0] = 9.0
    assert all(getattr(bars.slice(3, 9), name).flags.c_contiguous for name in PRICE_COLUMNS)


def test_points_are_whole_and_noise_is_forgiven() -> None:
    noisy = BARS.close.astype(np.float32).astype(np.float64)
    bars = replace(BARS, close=noisy, high=np.maximum(BARS.high, noisy), low=np.minimum(BARS.low, noisy))
    np.testing.assert_array_equal(bars.points("close"), np.rint(BARS.close * 1e5))
    off = replace(BARS, **changed("open", 3, float(BARS.low[3]) + 0.000002))
    assert (BARS.off_grid, off.off_grid) == (0, 1)
    with pytest.raises(errors.PriceError, match="is not a whole number of points") as caught:
        off.points("open")
    assert caught.value.row == 4
    assert 'repair=("snap",)' in str(caught.value)


@pytest.mark.pitfall("D15")
def test_a_bar_is_known_after_it_closes() -> None:
    assert (BARS.close_time - BARS.time == 3600).all()


@given(valid_bars(least=4))
def test_slices_join_to_the_whole(bars: Bars) -> None:
    middle = len(bars) // 2
    assert bars.slice(0, middle).concat(bars.slice(middle, len(bars))).hash == bars.hash


def test_bars_that_do_not_fit_are_not_joined() -> None:
    first, second = BARS.slice(0, 20), BARS.slice(20, 50)
    for other, words in [
        (replace(second, side="ask"), "side: ask after bid"),
        (replace(second, symbol="GBPUSD"), "symbol: GBPUSD after EURUSD"),
        (replace(second, digits=4), "digits: 4 after 5"),
        (replace(second, zone=ServerZone("UTC")), "zone: UTC after server-eu"),
    ]:
        with pytest.raises(errors.ConfigError, match=words):
            first.concat(other)
    with pytest.raises(errors.TimeError, match="is earlier than"):
        second.concat(first)


def test_spans_outside_are_refused() -> None:
    with pytest.raises(errors.CoverageError, match="bars 10 to 60 asked of 50"):
        BARS.slice(10, 60)
    with pytest.raises(errors.CoverageError, match="The bars cover 2022-01-03 00:00 to 2022-01-05 01:00, 50"):
        BARS.between("2023-01-01", "2024-01-01")
