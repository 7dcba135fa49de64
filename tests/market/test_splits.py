"""Spans by dates, purged, and never outside the bars."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import COLUMNS, Bars
from halfstep.market.calendar import parse_date
from halfstep.market.read import default_bars, read_bars
from halfstep.market.splits import (
    DEFAULT_SPLIT,
    REFERENCE_SPLIT,
    Split,
    choose_split,
    split_spans,
    training_origins,
    training_spans,
    walk_forward,
)
from halfstep.market.synthetic import random_bars


@pytest.mark.pitfall("T4")
def test_split_is_purged() -> None:
    # a sample of origin t reaches to bar t + 24, and the test begins at bar 800
    assert training_origins((0, 800), 24)[-1] == 775
    assert training_origins((100, 124), 24) == range(100, 100)
    before, after = training_spans((0, 1000), [(800, 900)], embargo_bars=24)
    assert training_origins(before, 24) == range(776)
    assert training_origins(after, 24) == range(924, 976)


Span = tuple[int, int]
spans = st.tuples(st.integers(0, 300), st.integers(1, 100)).map(lambda pair: (pair[0], sum(pair)))


@given(spans, st.lists(spans, max_size=4), st.integers(0, 40), st.integers(0, 40))
def test_training_keeps_away_from_held_out_blocks(
    span: Span, held_out: list[Span], horizon: int, embargo: int
) -> None:
    parts = training_spans(span, held_out, embargo_bars=embargo)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(parts))
    origins = [t for part in parts for t in training_origins(part, horizon)]
    closed = {bar for first, stop in held_out for bar in range(first, stop)}
    embargoed = closed | {bar for _, stop in held_out for bar in range(stop, stop + embargo)}
    assert set(range(*span)) - embargoed == {bar for part in parts for bar in range(*part)}
    assert not any(bar in closed or not bar < span[1] for t in origins for bar in range(t, t + horizon + 1))


@given(st.integers(0, 2**31), st.data())
def test_spans_are_disjoint_ordered_and_purged(seed: int, data: st.DataObject) -> None:
    bars = random_bars(2600, seed=seed)  # 2022-01-03 to 2022-06-02
    days = data.draw(st.lists(st.integers(40, 145), min_size=6, max_size=6, unique=True).map(sorted))
    cuts = [(date(2022, 1, 3) + timedelta(days=day)).isoformat() for day in days]
    if data.draw(st.booleans()):  # spans that touch
        cuts[2], cuts[4] = cuts[1], cuts[3]
    split = Split(
        train=(cuts[0], cuts[1]), validation=(cuts[2], cuts[3]), test=(cuts[4], cuts[5]), warmup_bars=620
    )
    try:
        found = split_spans(bars, split)
    except CoverageError:
        short = [
            bars.index_at(b) - bars.index_at(a) < 2 * split.purge_bars
            for a, b in (split.train, split.validation, split.test)
        ]
        assert any(short) or bars.index_at(cuts[0]) < 620
        return
    in_order = (found.train, found.validation, found.test)
    assert found.train[0] >= 620
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(in_order))
    assert found.test[1] <= len(bars)
    for (first, stop), dates in zip(in_order, (split.train, split.validation, split.test), strict=True):
        server = bars.server_time[first:stop]
        assert parse_date(dates[0]) <= server[0] <= server[-1] < parse_date(dates[1])
        assert first == 0 or bars.server_time[first - 1] < parse_date(dates[0])
        origins = training_origins((first, stop), split.purge_bars)
        assert origins[0] == first
        assert origins[-1] + split.purge_bars == stop - 1


def months_of(first: str, n: int) -> list[str]:
    return [str(np.datetime64(first) + k) for k in range(n)]


def without(bars: Bars, *months: str) -> Bars:
    """Return the bars but those of some months."""
    keep = ~np.isin(bars.server_time.astype("datetime64[s]").astype("datetime64[M]").astype(str), months)
    return replace(bars, **{name: getattr(bars, name)[keep] for name in COLUMNS})


def test_walk_forward_tests_each_month_once() -> None:
    bars = random_bars(12_900, seed=3)  # 2022-01-03 to 2024-01-24
    found = walk_forward(bars)
    assert found.skipped == ()
    # the warm-up takes January and a part of February: twelve months from March, two to decide, then the tests
    assert [split.test[0][:7] for split in found.splits] == months_of("2023-05", 8)
    first = found.splits[0]
    assert first.train == ("2022-03-01", "2023-03-01")
    assert first.validation == ("2023-03-01", "2023-05-01")
    assert first.test == ("2023-05-01", "2023-06-01")
    assert found.splits[1].train == ("2022-04-01", "2023-04-01")
    for split in found.splits:
        assert split_spans(bars, split).train[0] >= 620
        assert split.train_all == (split.train[0], split.test[0])


WALK = random_bars(7_700, seed=4)  # 2022-01-03 to 2023-03-27, whole months from March 2022 to February 2023


@given(
    st.integers(1, 4), st.integers(1, 2), st.integers(1, 3), st.integers(0, 2), st.booleans(),
    st.sets(st.sampled_from(months_of("2022-03", 12)), max_size=3),
)  # fmt: skip
def test_no_month_is_tested_twice(
    train: int, validation: int, test: int, extra: int, anchored: bool, holes: set[str]
) -> None:
    bars = without(WALK, *holes)
    found = walk_forward(
        bars, train_months=train, validation_months=validation, test_months=test, step_months=test + extra,
        anchored=anchored,
    )  # fmt: skip
    whole = [month for month in months_of("2022-03", 12) if month not in holes]
    inner = [hole for hole in sorted(holes) if whole[0] < hole < whole[-1]]
    assert list(found.skipped) == inner
    tested: list[str] = []
    for split in found.splits:
        a, b = (np.datetime64(day, "M") for day in split.test)
        mine = [month for month in np.arange(a, b).astype(str).tolist() if month in whole]
        assert len(mine) == test
        tested += mine
        held = split_spans(bars, replace(split, purge_bars=0))
        assert held.train[1] == held.validation[0]
        assert held.validation[1] == held.test[0]
        assert split.train[0] == f"{whole[0]}-01" or not anchored
    assert len(set(tested)) == len(tested)
    if extra == 0:  # no month between is left out, either
        start = train + validation
        assert tested == whole[start : start + len(tested)]
        assert len(whole) - start - len(tested) < test


def test_too_little_history_for_a_walk_is_refused() -> None:
    bars = random_bars(3000, seed=1)
    with pytest.raises(
        CoverageError, match="3 whole months after the warm-up of 620 bars, but 15 are needed"
    ):
        walk_forward(bars)
    found = walk_forward(bars, train_months=1, validation_months=1)
    assert [split.test for split in found.splits] == [("2022-05-01", "2022-06-01")]
    with pytest.raises(CoverageError, match="0 whole months"):
        walk_forward(random_bars(100, seed=1))


def test_a_walk_that_tests_a_month_twice_is_refused() -> None:
    bars = random_bars(3000, seed=1)
    with pytest.raises(ConfigError, match=r"step_months: 1, must be at least test_months \(2\)"):
        walk_forward(bars, test_months=2)
    for name in ("train_months", "validation_months", "test_months", "step_months"):
        with pytest.raises(ConfigError, match=f"{name}: 0, must be at least 1"):
            walk_forward(bars, **{name: 0})


def test_a_month_that_the_bars_begin_within_is_not_used() -> None:
    bars = random_bars(3000, seed=1, start="2022-01-17")
    found = walk_forward(bars, train_months=1, validation_months=1, warmup_bars=0)
    assert found.splits[0].train == ("2022-02-01", "2022-03-01")
    with pytest.raises(CoverageError, match="the train span 2022-01-01 to 2022-03-01 is not inside the bars"):
        split_spans(
            bars,
            Split(
                train=("2022-01-01", "2022-03-01"),
                validation=("2022-03-01", "2022-04-01"),
                test=("2022-04-01", "2022-05-01"),
                warmup_bars=0,
            ),
        )


def test_the_default_split_has_its_published_sizes() -> None:
    bars = default_bars()
    assert choose_split(bars) == DEFAULT_SPLIT
    spans = split_spans(bars, DEFAULT_SPLIT)
    assert spans.train[0] == 626
    assert [b - a for a, b in (spans.train, spans.validation, spans.test)] == [4585, 527, 487]
    assert DEFAULT_SPLIT.train_all == ("2017-02-07", "2017-12-01")


def test_the_reference_split_has_its_published_sizes(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    assert choose_split(bars) == REFERENCE_SPLIT
    spans = split_spans(bars, REFERENCE_SPLIT)
    assert [b - a for a, b in (spans.train, spans.validation, spans.test)] == [5198, 1009, 528]
    first, stop = (bars.index_at(day) for day in REFERENCE_SPLIT.train_all)
    assert (first, stop) == (spans.train[0], spans.test[0])
    assert stop - first == 6207


def test_walk_forward_over_the_reference_bars(shared_data: Callable[[str], Path]) -> None:
    found = walk_forward(read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz")))
    # the bars end within January 2024, at its last trading hour
    assert [split.test[0][:7] for split in found.splits] == months_of("2023-05", 9)
    assert found.skipped == ()


def test_other_bars_are_split_by_months() -> None:
    bars = random_bars(3000, seed=1)  # 2022-01-03 to 2022-06-24
    split = choose_split(bars)
    assert (split.validation, split.test) == (("2022-05-01", "2022-06-01"), ("2022-06-01", "2022-06-25"))
    spans = split_spans(bars, split)
    assert spans.train[1] == spans.validation[0]
    assert spans.validation[1] == spans.test[0]
    assert spans.test[1] == len(bars)


def test_short_bars_still_split_and_too_short_ones_are_refused() -> None:
    spans = split_spans(random_bars(1500, seed=1), choose_split(random_bars(1500, seed=1)))
    assert spans.train[0] >= 620
    with pytest.raises(CoverageError, match="the warm-up alone takes 620"):
        choose_split(random_bars(700, seed=1))


def test_spans_outside_the_bars_are_refused() -> None:
    bars = random_bars(3000, seed=1)
    with pytest.raises(
        CoverageError, match="the test span 2024-01-01 to 2024-02-01 is not inside the bars"
    ) as caught:
        split_spans(
            bars,
            Split(
                train=("2022-03-01", "2022-05-01"),
                validation=("2022-05-01", "2022-06-01"),
                test=("2024-01-01", "2024-02-01"),
            ),
        )
    assert "The bars cover 2022-01-03 00:00 to 2022-06-24 23:00" in str(caught.value)
    with pytest.raises(CoverageError, match="but 620 are needed"):
        split_spans(
            bars,
            Split(
                train=("2022-01-10", "2022-04-01"),
                validation=("2022-04-01", "2022-05-01"),
                test=("2022-05-01", "2022-06-01"),
            ),
        )


def test_overlapping_spans_are_refused() -> None:
    with pytest.raises(CoverageError, match="must be disjoint"):
        Split(
            train=("2022-01-01", "2022-03-01"),
            validation=("2022-02-01", "2022-04-01"),
            test=("2022-04-01", "2022-05-01"),
        )
