"""Statistics come from the training rows, travel with the model, and refuse anything else."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import PRICE_COLUMNS, Bars
from halfstep.market.features import Features, compute_features
from halfstep.market.normaliser import Kind, Normaliser
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars

KINDS: tuple[Kind, ...] = ("none", "standard", "robust")
FITTED: tuple[Kind, ...] = ("standard", "robust")


def features_of(values: np.ndarray, *, first_valid: int = 0) -> Features:
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"column{k}" for k in range(values.shape[1])),
        first_valid=first_valid,
        settled=first_valid,
        set_id="made/1",
        path=(),
        notes=(),
        bars_hash="a" * 64,
    )


# the training rows are 1 to 4: 1 2 3 6 (mean 3, population deviation sqrt(3.5); quartiles 1.75, 2.5, 3.75) and a
# column that stands still
TABLE = features_of(np.array([[900.0, 7], [1, 5], [2, 5], [3, 5], [6, 5], [-900, 8]]))
ROWS = (1, 5)


@pytest.mark.parametrize(
    ("kind", "centre", "scale"),
    [("none", 0.0, 1.0), ("standard", 3.0, 3.5**0.5), ("robust", 2.5, 2 / 1.349)],
)
def test_each_kind_by_hand(kind: Kind, centre: float, scale: float) -> None:
    made = Normaliser.fit(TABLE, ROWS, kind)
    assert (made.centre[0], made.scale[0]) == pytest.approx((centre, scale), rel=1e-15)
    assert (made.names, made.rows, made.bars_hash) == (TABLE.names, ROWS, TABLE.bars_hash)
    out = made.apply(TABLE)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(
        out[:, 0], ((TABLE.values[:, 0].astype(float) - made.centre[0]) / made.scale[0]).astype(np.float32)
    )
    if kind != "none":
        np.testing.assert_array_equal(out[:, 1], [2, 0, 0, 0, 0, 3])  # scale 1, and a note


def test_a_column_without_spread_is_noted() -> None:
    assert Normaliser.fit(TABLE, ROWS).notes == ()
    assert Normaliser.fit(TABLE, ROWS, "standard").notes == (
        "feature 'column1' has standard deviation 0 in the training rows: its scale is 1",
    )
    rare = features_of(
        np.array([[0.0], [0], [0], [0], [9], [0], [0], [0]])
    )  # varies, but not in its middle half
    made = Normaliser.fit(rare, (0, 8), "robust")
    assert made.scale == (1.0,)
    assert made.notes == ("feature 'column0' has interquartile range 0 in the training rows: its scale is 1",)


@given(st.integers(0, 2**31), st.integers(0, 30), st.integers(2, 30), st.sampled_from(KINDS))
def test_rows_outside_the_training_rows_do_not_matter(seed: int, first: int, length: int, kind: Kind) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(3, 2, (60, 4))
    changed = np.full_like(values, np.nan)
    changed[first : first + length] = values[first : first + length]
    rows = (first, first + length)
    ours, theirs = (Normaliser.fit(features_of(table), rows, kind) for table in (values, changed))
    assert ours == theirs
    assert ours.hash == theirs.hash


@given(st.integers(0, 2**31), st.floats(1e-6, 1e6), st.sampled_from(FITTED))
def test_level_and_unit_of_a_column_do_not_matter(seed: int, unit: float, kind: Kind) -> None:
    values = np.random.default_rng(seed).normal(3, 2, (60, 1))
    ours, theirs = (
        Normaliser.fit(features_of(table), (0, 50), kind).apply(features_of(table))
        for table in (values, unit * (values - 3))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.pitfall("T3")
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_come_from_the_training_span(kind: Kind) -> None:
    bars, (first, stop) = random_bars(1200, seed=11), (500, 1000)
    prices = {name: getattr(bars, name).copy() for name in PRICE_COLUMNS}
    for column in prices.values():
        column[stop:] *= 1e2
    volume = bars.volume.copy()
    volume[stop:] *= 1e6
    plain, changed = compute_features(bars), compute_features(replace(bars, **prices, volume=volume))
    scaled = replace(
        plain, values=np.concatenate([plain.values[:stop], plain.values[stop:] * np.float32(1e6)])
    )
    made = Normaliser.fit(plain, (first, stop), kind)
    for other in (changed, scaled):
        assert not np.array_equal(other.values[stop:], plain.values[stop:])
        theirs = Normaliser.fit(other, (first, stop), kind)
        assert (theirs.centre, theirs.scale) == (made.centre, made.scale)
    if kind != "none":  # the test could fail: rows of the test span would have changed them
        assert Normaliser.fit(scaled, (first, stop + 1), kind).centre != made.centre


def assert_close_open_is_normalised(bars: Bars, rows: tuple[int, int]) -> None:
    features = compute_features(bars, "published9")
    out = Normaliser.fit(features, rows, "standard").apply(features)[slice(*rows), 0].astype(float)
    assert out.std() == pytest.approx(1, abs=1e-5)
    raw = features.values[slice(*rows), 0].astype(float)
    assert raw.std() == pytest.approx(0.00103, abs=5e-6)
    swamped = (raw - raw.mean()) / np.sqrt(raw.var() + 1e-5)  # a layer's default eps under the root
    assert swamped.std() == pytest.approx(0.31, abs=5e-3)


@pytest.mark.pitfall("M14")
def test_small_features_are_normalised(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    assert_close_open_is_normalised(bars, (bars.index_at("2023-01-01"), bars.index_at("2024-01-01")))


@pytest.mark.pitfall("M14")
def test_small_made_up_features_are_normalised() -> None:
    bars, rows = random_bars(6000, seed=12, volatility=9e-4), (500, 5500)
    spread = float(np.std((bars.close - bars.open)[slice(*rows)]))
    unit = 0.00103 / spread
    prices = {name: unit * getattr(bars, name) for name in PRICE_COLUMNS}
    assert_close_open_is_normalised(replace(bars, **prices), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_text_reads_back_to_the_bit(kind: Kind) -> None:
    features = compute_features(random_bars(700, seed=13))
    made = Normaliser.fit(features, (120, 600), kind)
    back = Normaliser.from_json(made.to_json(), bars_hash=features.bars_hash)
    assert back == made
    np.testing.assert_array_equal(back.apply(features), made.apply(features))


def test_the_hash_covers_everything_that_decides() -> None:
    made = Normaliser.fit(TABLE, ROWS, "standard")
    others = [
        replace(made, kind="robust"), replace(made, names=("column1", "column0")),
        replace(made, centre=(3.0, np.nextafter(5.0, 6))), replace(made, scale=(1.0, 1.0)),
        replace(made, rows=(0, 5)), replace(made, bars_hash="b" * 64),
    ]  # fmt: skip
    assert len({made.hash, *(other.hash for other in others)}) == 7


@pytest.mark.pitfall("T3")
def test_evaluation_needs_its_statistics() -> None:
    made = Normaliser.fit(TABLE, ROWS, "standard")
    with pytest.raises(ConfigError, match="none stored with the model"):
        Normaliser.from_json(None)
    with pytest.raises(ConfigError, match="fitted on bars aaaaaaaa, but the model was trained on bbbbbbbb"):
        Normaliser.from_json(made.to_json(), bars_hash="b" * 64)
    other = replace(TABLE, names=("column1", "column0"))
    with pytest.raises(ConfigError, match=r"\['column1', 'column0'\].*\['column0', 'column1'\]"):
        made.apply(other)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"kind": "standard"}', "\x00"])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the stored statistics are damaged"):
        Normaliser.from_json(text)


def test_edited_statistics_are_refused() -> None:
    facts = json.loads(Normaliser.fit(TABLE, ROWS, "standard").to_json())
    facts["centre"][0] += 1e-9
    with pytest.raises(ConfigError, match="damaged"):
        Normaliser.from_json(json.dumps(facts))
    facts["sha256"] = hashlib.sha256(b"").hexdigest()
    with pytest.raises(ConfigError, match="damaged"):
        Normaliser.from_json(json.dumps(facts))


@pytest.mark.parametrize("rows", [(-1, 3), (3, 3), (4, 2), (0, 7)])
def test_rows_outside_the_features_are_refused(rows: tuple[int, int]) -> None:
    with pytest.raises(CoverageError, match="of 6"):
        Normaliser.fit(TABLE, rows, "standard")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_with_missing_values_are_refused(kind: Kind) -> None:
    features = compute_features(random_bars(300, seed=14))
    with pytest.raises(CoverageError, match="rows 119 to 200 hold missing values") as caught:
        Normaliser.fit(features, (119, 200), kind)
    assert "row 120 or later" in str(caught.value)
    assert Normaliser.fit(features, (120, 200), kind).rows == (120, 200)


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="normaliser: 'minmax', must be one of none, standard, robust"):
        Normaliser.fit(TABLE, ROWS, "minmax")  # type: ignore[arg-type]
