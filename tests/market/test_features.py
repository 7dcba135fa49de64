"""Features see the past only, and do not depend on level or scale."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import valid_bars

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import PRICE_COLUMNS, Bars
from halfstep.market.features import FEATURE_SETS, compute_features
from halfstep.market.indicators import rsi
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars


@pytest.mark.pitfall("T1")
@pytest.mark.parametrize("name", FEATURE_SETS)
def test_features_do_not_see_the_future(name: str) -> None:
    bars = random_bars(900, seed=1)
    full = compute_features(bars, name).values
    for t in np.random.default_rng(0).integers(150, 899, 20):
        np.testing.assert_array_equal(compute_features(bars.slice(0, int(t) + 1), name).values, full[: t + 1])


@pytest.mark.pitfall("R5")
@pytest.mark.parametrize("name", FEATURE_SETS)
def test_features_of_a_row_share_one_bar(name: str) -> None:
    bars = random_bars(300, seed=2)
    features = compute_features(bars, name)
    ours = features.values[200, features.names.index("rsi")]
    expected = rsi(bars.close[:201])[200]
    assert ours == pytest.approx(expected / 50 - 1 if name == "robust9" else expected, rel=1e-6)
    jumped = {column: getattr(bars, column).copy() for column in PRICE_COLUMNS}
    for column in jumped.values():
        column[201] *= 1.05  # a jump in the next bar
    np.testing.assert_array_equal(
        compute_features(replace(bars, **jumped), name).values[:201], features.values[:201]
    )


@pytest.mark.pitfall("R6")
def test_warm_up_rows_are_absent() -> None:
    features = compute_features(random_bars(600, seed=3), "robust9")
    assert features.first_valid == 120
    assert np.isnan(features.values[:120]).any(axis=1).all()
    assert np.isfinite(features.values[120:]).all()
    assert compute_features(random_bars(600, seed=3), "published9").first_valid == 14


@given(valid_bars(least=130))
def test_robust_features_ignore_the_scale_of_prices(bars: Bars) -> None:
    doubled = replace(bars, **{name: 2 * getattr(bars, name) for name in PRICE_COLUMNS})
    np.testing.assert_array_equal(compute_features(bars).values, compute_features(doubled).values)


def test_gap_and_body_add_up_to_the_close_path() -> None:
    bars = random_bars(400, seed=6)
    values = compute_features(bars).values
    path = np.cumsum(values[1:, 0].astype(float) + values[1:, 1])
    np.testing.assert_allclose(path, 1e4 * np.log(bars.close[1:] / bars.close[0]), atol=1e-2)


@pytest.mark.pitfall("D12")
def test_zero_volume() -> None:
    features = compute_features(replace(random_bars(400, seed=7), volume=np.zeros(400)))
    assert (features.values[120:, 4] == 0).all()
    assert "relative_volume" in features.notes[0]


@pytest.mark.pitfall("T30")
def test_features_settle_within_the_warm_up() -> None:
    bars = random_bars(2000, seed=8)
    full, late = compute_features(bars), compute_features(bars.slice(1000, 2000))
    deviation = full.values[1500:].std(axis=0)
    assert (np.abs(full.values[1500] - late.values[500]) < 1e-6 * deviation + 1e-7).all()


@pytest.mark.pitfall("D1")
def test_volume_feature_keeps_its_range(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    train, test = (
        slice(bars.index_at("2023-01-01"), bars.index_at("2024-01-01")),
        slice(bars.index_at("2024-01-01"), None),
    )
    ours = compute_features(bars).values[:, 4]
    assert (ours[test] > np.quantile(ours[train], 0.99)).sum() == 2  # of 528
    assert (bars.volume[test] > np.quantile(bars.volume[train], 0.99)).mean() == pytest.approx(
        0.127, abs=5e-4
    )


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ConfigError, match=r"features: 'robust8', must be one of robust9, published9"):
        compute_features(random_bars(10, seed=1), "robust8")


def test_rows_are_used_from_where_they_settle() -> None:
    features = compute_features(random_bars(501, seed=9))
    assert features.usable_from() == features.settled == 500
    assert features.usable_from(allow_unsettled=True) == 120
    with pytest.raises(
        CoverageError, match=r"500 bars, but the features of robust9/1 need 501.*allow_unsettled"
    ):
        compute_features(random_bars(500, seed=9)).usable_from()
    with pytest.raises(CoverageError, match="120 bars, but the features of robust9/1 need 121"):
        compute_features(random_bars(120, seed=9)).usable_from(allow_unsettled=True)


def test_names_and_their_order_are_compared() -> None:
    features = compute_features(random_bars(130, seed=9))
    features.require_names(features.names, "the model")
    with pytest.raises(
        ConfigError, match=r"\['gap', 'body'.*, but the model was made with \['body', 'gap'\]"
    ):
        features.require_names(("body", "gap"), "the model")
