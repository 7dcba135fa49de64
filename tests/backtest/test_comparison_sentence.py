"""The sentence that compares two optimizers: golden line, both directions, no verdict from few seeds."""

import numpy as np
import pytest
from scipy import stats

from halfstep.backtest.statistics import compare_paired

DIFFERENCES = np.array([-0.002, 0.001, 0.003, -0.001, 0.000])
ADAMW = np.array([0.38, 0.39, 0.40, 0.41, 0.42])  # mean 0.4


def test_equivalence_sentence() -> None:
    found = compare_paired("adam_mini", ADAMW + DIFFERENCES, "adamw", ADAMW, margin=0.01)
    assert found is not None
    assert found.sentence == (
        "adam_mini - adamw: +0.00020 (95 % -0.00219 … +0.00259), 5 seeds; within ±1 % (±0.00400): shown, p = 0.0058"
    )
    same = compare_paired("adam_mini", ADAMW, "adamw", ADAMW, margin=0.01)
    assert same is not None
    assert same.p == 0.0
    assert same.sentence.endswith("shown, p = 0")
    worse = compare_paired("sgd", 1.03 * ADAMW, "adamw", ADAMW, margin=0.01)
    assert worse is not None
    assert worse.sentence.endswith("; worse")
    assert ": not shown, p = 1" in worse.sentence
    assert compare_paired("adam_mini", ADAMW[:2], "adamw", ADAMW[:2], margin=0.01) is None
    assert compare_paired("adam_mini", ADAMW[:4], "adamw", ADAMW[:4], margin=0.01) is None


def test_equal_differences_are_decided_by_the_margin_alone() -> None:
    reference = np.full(5, 0.5)
    inside = compare_paired("x", reference + 0.00390625, "adamw", reference, margin=0.01)
    outside = compare_paired("x", reference + 0.0078125, "adamw", reference, margin=0.01)
    assert inside is not None
    assert outside is not None
    assert (inside.p, outside.p) == (0.0, 1.0)
    assert inside.sentence.endswith(": shown, p = 0; worse")  # equivalent within 1 %, and measurably worse


def test_of_log_growth_the_greater_is_better() -> None:
    reference = np.array([-0.02, -0.01, -0.03, -0.02, -0.02])  # a losing month: the margin is of its size
    found = compare_paired(
        "adam_mini", reference + 0.01 + DIFFERENCES, "adamw", reference, margin=0.01, greater_is_better=True
    )
    assert found is not None
    assert found.margin == pytest.approx(0.0002)
    assert found.sentence.endswith("; better")
    losses = compare_paired("adam_mini", reference + 0.01 + DIFFERENCES, "adamw", reference, margin=0.01)
    assert losses is not None
    assert losses.sentence.endswith("; worse")


@pytest.mark.parametrize("n", [5, 10, 30])
def test_interval_and_p_equal_scipy(n: int) -> None:
    generator = np.random.default_rng(n)
    reference = 0.4 + 0.01 * generator.standard_normal(n)
    losses = reference + 0.002 * generator.standard_normal(n)
    found = compare_paired("x", losses, "adamw", reference, margin=0.01)
    assert found is not None
    d, delta = losses - reference, 0.01 * reference.mean()
    p = max(
        stats.ttest_1samp(d, -delta, alternative="greater").pvalue,
        stats.ttest_1samp(d, delta, alternative="less").pvalue,
    )
    assert found.p == pytest.approx(p, rel=1e-9, abs=1e-13)
    interval = stats.ttest_1samp(d, 0.0).confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-9)
