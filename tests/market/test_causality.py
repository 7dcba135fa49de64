"""The proof of causality finds every planted leak, and nothing where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.causality import lookahead, warmup, with_future_noise
from halfstep.market.features import FEATURE_SETS, FeatureColumn, FeatureSet, feature_table
from halfstep.market.indicators import median_before, rsi
from halfstep.market.synthetic import random_bars

BARS = random_bars(700, seed=12)


def one(name: str, compute: object, warmup_bars: int = 0) -> FeatureSet:
    return FeatureSet(name="planted", version=1, columns=(FeatureColumn(name, compute, warmup_bars),))  # type: ignore[arg-type]


def whole_span_z_score(bars: Bars) -> np.ndarray:
    return (bars.close - bars.close.mean()) / bars.close.std()


def centred_mean(bars: Bars) -> np.ndarray:
    padded = np.pad(bars.close, 2, mode="edge")
    return np.convolve(padded, np.full(5, 0.2), mode="valid")


def next_close(bars: Bars) -> np.ndarray:
    return np.append(bars.close[1:], np.nan)


def back_filled_gap(bars: Bars) -> np.ndarray:
    """A value that is absent after each hole in the bars, filled with the next one that is there."""
    values = bars.close - bars.open
    after = np.flatnonzero(np.diff(bars.time) > bars.timeframe.seconds) + 1
    values[after] = np.nan
    present = np.flatnonzero(np.isfinite(values))
    nearest = np.searchsorted(present, np.arange(len(values)))
    return np.where(nearest < len(present), values[present[np.minimum(nearest, len(present) - 1)]], np.nan)


def back_filled_start(bars: Bars) -> np.ndarray:
    values = rsi(bars.close)
    return np.where(np.isnan(values), values[14] if len(values) > 14 else np.nan, values)


def median_with_the_next_bar(bars: Bars) -> np.ndarray:
    medians = median_before(np.append(bars.volume, 0.0), 20)  # of the 20 values before
    return np.append(medians[2:], np.nan)  # one bar too early: v[t - 18] ... v[t + 1]


LEAKS = [
    whole_span_z_score, centred_mean, next_close, back_filled_gap, back_filled_start, median_with_the_next_bar,
]  # fmt: skip


@pytest.mark.pitfall("T1")
@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.__name__)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_leaks_are_caught(leak: object, seed: int) -> None:
    found = lookahead(BARS, one("x", leak), seed=seed).leaks
    assert found
    assert {"truncation", "future noise"} >= {one.way for one in found}
    assert all(one.column == "x" and one.row <= one.cut and one.difference > 0 for one in found)


def test_the_next_close_is_shown_with_row_and_size() -> None:
    noise = next(leak for leak in lookahead(BARS, one("x", next_close)).leaks if leak.way == "future noise")
    assert noise.difference > 1e-4
    assert noise.row >= 0


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_the_sets_of_the_package_see_no_future(name: str) -> None:
    result = lookahead(BARS, name)
    assert result.leaks == ()
    assert len(result.columns) == 9
    assert len(result.cuts) >= 50
    assert set(range(len(BARS) - 6, len(BARS) - 1)) <= set(result.cuts)


def test_sets_see_no_future_without_volume() -> None:
    volume = np.zeros(len(BARS))
    volume[400:] = 7  # that volume comes later must not show before
    assert lookahead(replace(BARS, volume=volume), "robust9").leaks == ()


@pytest.mark.pitfall("T1")
def test_a_policy_that_peeks_is_caught() -> None:
    def honest(bars: Bars) -> np.ndarray:
        return np.sign(np.diff(bars.close, prepend=bars.close[0]))

    def peeking(bars: Bars) -> np.ndarray:
        return np.append(np.sign(np.diff(bars.close)), 0.0)

    assert lookahead(BARS, None, policy=honest).leaks == ()
    leaks = lookahead(BARS, "robust9", policy=peeking).leaks
    assert {leak.column for leak in leaks} == {"action 0"}
    with pytest.raises(ConfigError, match="policy: 3 rows of actions for"):
        lookahead(BARS, None, policy=lambda _: np.zeros(3))


def test_future_noise_is_a_valid_other_path() -> None:
    noisy = with_future_noise(BARS, 300, np.random.default_rng(0))
    assert len(noisy) == len(BARS)
    for name in ("open", "high", "low", "close", "volume", "spread"):
        np.testing.assert_array_equal(getattr(noisy, name)[:301], getattr(BARS, name)[:301])
        assert (getattr(noisy, name)[301:] != getattr(BARS, name)[301:]).mean() > 0.9


def test_too_little_to_test_is_said() -> None:
    with pytest.raises(CoverageError, match="10 are needed"):
        lookahead(BARS.slice(0, 5))
    with pytest.raises(ConfigError, match="no policy"):
        lookahead(BARS, None)
    with pytest.raises(CoverageError, match="502 are needed"):
        warmup(BARS.slice(0, 400))


@pytest.mark.pitfall("T30")
@pytest.mark.parametrize("name", FEATURE_SETS)
def test_declared_warm_up_suffices(name: str) -> None:
    result = warmup(random_bars(3200, seed=4), name)
    assert result.too_short == ()
    assert result.settled == 500
    assert result.histories == (60, 120, 240, 500, 1000, 2000)
    needed = {column: result.needed(k) for k, column in enumerate(result.columns)}
    assert needed["cci"] == needed["atr"] == 60
    assert needed["rsi"] in (240, 500)
    early = result.differences[0][result.columns.index("rsi")]
    assert 1e-4 < early < 1  # 60 bars are not enough for Wilder's mean


def test_a_warm_up_declared_too_short_is_named() -> None:
    short = one("rsi", lambda bars: rsi(bars.close), 60)
    result = warmup(BARS, short)
    assert result.too_short == ("rsi",)
    longer = one("rsi", lambda bars: rsi(bars.close), 400)
    assert warmup(BARS, longer).too_short == ()


def test_a_column_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'x' of planted/1 has shape \(3,\), must be \(700,\)"):
        feature_table(BARS, one("x", lambda _: np.zeros(3)))
