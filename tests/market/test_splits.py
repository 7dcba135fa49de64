"""Spans by dates, purged, and never outside the bars."""

from collections.abc import Callable
from pathlib import Path

import pytest

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.read import default_bars, read_bars
from halfstep.market.splits import (
    DEFAULT_SPLIT,
    REFERENCE_SPLIT,
    Split,
    choose_split,
    split_spans,
    training_origins,
)
from halfstep.market.synthetic import random_bars


@pytest.mark.pitfall("T4")
def test_split_is_purged() -> None:
    assert training_origins((0, 800), 24)[-1] == 775


def test_the_default_split_has_its_published_sizes() -> None:
    bars = default_bars()
    assert choose_split(bars) == DEFAULT_SPLIT
    spans = split_spans(bars, DEFAULT_SPLIT)
    assert spans.train[0] == 626
    assert [b - a for a, b in (spans.train, spans.validation, spans.test)] == [4585, 527, 487]


def test_the_reference_split_has_its_published_sizes(shared_data: Callable[[str], Path]) -> None:
    bars = read_bars(shared_data("EURUSD_H1_mt5_2022-01_2024-01.csv.gz"))
    assert choose_split(bars) == REFERENCE_SPLIT
    spans = split_spans(bars, REFERENCE_SPLIT)
    assert [b - a for a, b in (spans.train, spans.validation, spans.test)] == [5198, 1009, 528]


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
    with pytest.raises(ConfigError, match="must be disjoint"):
        Split(
            train=("2022-01-01", "2022-03-01"),
            validation=("2022-02-01", "2022-04-01"),
            test=("2022-04-01", "2022-05-01"),
        )
