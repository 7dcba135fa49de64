"""Piecewise linear representation: two searches, the definition, an independent library, and a dynamic programme."""

import itertools

import numpy as np
import pytest
import ruptures
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from halfstep.nn.plr import Plr, fit_segments
from halfstep.nn.turning_points import turning_points_by_scan, turning_points_in_parallel

from .cases import noise


def knots_by_definition(s: list[float], threshold: float) -> list[int]:
    """Return the turning points, by the sentences of the docstring."""

    def is_maximum(v: list[float], i: int) -> bool:
        older = newer = False
        for j in range(i - 1, -1, -1):
            if v[j] > v[i]:
                break
            if v[j] <= v[i] - threshold:
                older = True
                break
        for j in range(i + 1, len(v)):
            if v[j] >= v[i]:
                break
            if v[j] <= v[i] - threshold:
                newer = True
                break
        return older and newer

    inner = [i for i in range(1, len(s) - 1) if is_maximum(s, i) or is_maximum([-value for value in s], i)]
    return [0, *inner, len(s) - 1]


def knots(s: list[float], threshold: float, find: object = turning_points_by_scan) -> list[int]:
    row = torch.tensor([s], dtype=torch.float64)
    return find(row, threshold)[0].nonzero().flatten().tolist()  # type: ignore[operator]


def segments(s: list[float], threshold: float, slots: int = 9) -> Tensor:
    """Return the used slots of a series."""
    out = Plr(threshold, slots)(torch.tensor([[s]], dtype=torch.float64))[0, 0]
    return out[out[:, 2] > 0]


def test_plr_by_hand() -> None:
    s = [0.0, 1, 2, 1.2, 3, 2.5, 0]
    for find in (turning_points_by_scan, turning_points_in_parallel):
        assert knots(s, 1.0, find) == [0, 4, 6]
        assert knots(s, 0.75, find) == [0, 2, 3, 4, 6]
    expected = torch.tensor([[0.62, 0.20, 2 / 3], [-1.5, 10 / 3, 1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(segments(s, 1.0), expected, rtol=1e-12, atol=1e-12)
    slots = Plr(1.0, 5)(torch.tensor([[s]], dtype=torch.float64))[0, 0]
    assert not slots[:3].any()  # unused ones are in front
    torch.testing.assert_close(slots[3:], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.pitfall("N23")
def test_segments_cover_the_series() -> None:
    up = [float(k) for k in range(7)]
    slopes, values, shares = segments(up + up[-2::-1], 1.0).T
    assert slopes.tolist() == pytest.approx([1.0, -1.0])
    assert values.tolist() == pytest.approx([0.0, 6.0])
    assert shares.tolist() == [0.5, 0.5]  # not 0.4615 each


levels = st.integers(-6, 6).map(float)  # few values, so that ties are common
free = st.floats(-10, 10, allow_nan=False).map(lambda value: round(value, 3))
thresholds = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])


@given(
    st.one_of(st.lists(levels, min_size=2, max_size=24), st.lists(free, min_size=2, max_size=24)), thresholds
)
@pytest.mark.pitfall("N23")
def test_plr_definition(s: list[float], threshold: float) -> None:
    expected = knots_by_definition(s, threshold)
    assert knots(s, threshold) == expected
    assert knots(s, threshold, turning_points_in_parallel) == expected
    inner = [s[k] for k in expected[1:-1]]
    assert all(abs(b - a) >= threshold for a, b in itertools.pairwise(inner))
    turns = np.sign(np.diff(inner))
    assert np.all(turns[1:] == -turns[:-1])  # maxima and minima alternate
    found = segments(s, threshold, len(s))
    assert found[:, 2].sum().item() == pytest.approx(1.0)
    for (a, b), (slope, value, share) in zip(itertools.pairwise(expected), found.tolist(), strict=True):
        line = np.polyfit(np.arange(b - a + 1), s[a : b + 1], 1)
        assert (slope, value) == pytest.approx(tuple(line), abs=1e-9)
        assert share == pytest.approx((b - a) / (len(s) - 1))


@given(st.lists(free, min_size=2, max_size=24, unique=True), thresholds)
def test_a_reversed_series_mirrors(s: list[float], threshold: float) -> None:
    forward, backward = segments(s, threshold, len(s)), segments(s[::-1], threshold, len(s))
    torch.testing.assert_close(backward[:, 2], forward[:, 2].flip(0))
    torch.testing.assert_close(backward[:, 0], -forward[:, 0].flip(0), rtol=1e-9, atol=1e-9)


@given(
    st.lists(levels, min_size=2, max_size=24),
    thresholds,
    st.sampled_from([0.25, 2.0, 8.0]),
    st.integers(-5, 5),
)
def test_scale_and_level(s: list[float], threshold: float, a: float, b: int) -> None:
    plain, moved = segments(s, threshold, 30), segments([a * v + b for v in s], a * threshold, 30)
    torch.testing.assert_close(moved[:, 0], a * plain[:, 0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(moved[:, 1], a * plain[:, 1] + b, rtol=1e-9, atol=1e-9)
    assert torch.equal(moved[:, 2], plain[:, 2])


def test_overflow_keeps_the_newest() -> None:
    s = [0.0, 5, 0, 4, 0, 3, 0]
    every = segments(s, 1.0)
    few = segments(s, 1.0, 3)
    assert torch.equal(few[1:], every[-2:])
    slope, value = np.polyfit(np.arange(5), s[:5], 1)
    assert few[0].tolist() == pytest.approx([slope, value, 4 / 6])  # everything before, as one line
    assert segments(s, 1.0, 1)[0, 2].item() == 1.0
    assert segments([1.0, 2.0], 1.0, 40).tolist() == [[1.0, 1.0, 1.0]]


def zigzag(random: np.random.Generator) -> tuple[list[float], list[int]]:
    """Return a noise-free series and its inner turning points; legs have at least five bars and one unit."""
    value, at, sign = 0.0, 0, 1.0
    s, turns = [0.0], []
    for _ in range(random.integers(2, 6)):
        bars, step = int(random.integers(5, 12)), random.uniform(0.3, 1.0)
        s += [value + sign * step * k for k in range(1, bars + 1)]
        value, at, sign = s[-1], at + bars, -sign
        turns.append(at)
    return s, turns[:-1]


@pytest.mark.pitfall("N23")
def test_plr_against_ruptures() -> None:
    random = np.random.default_rng(0)
    for _ in range(12):
        s, turns = zigzag(random)
        assert knots(s, 1.0)[1:-1] == turns
        search = ruptures.Dynp(model="clinear", min_size=3, jump=1).fit(np.array(s)[:, None])
        theirs = search.predict(n_bkps=len(turns))
        assert knots(s, 1.0)[1:-1] == [end - 1 for end in theirs[:-1]]


def squared_errors(s: np.ndarray) -> np.ndarray:
    """Return the squared error of the best line from bar a to bar b, both included."""
    n = len(s)
    cost = np.zeros((n, n))
    for a in range(n):
        for b in range(a + 2, n):
            x = np.arange(b - a + 1)
            cost[a, b] = np.square(s[a : b + 1] - np.polyval(np.polyfit(x, s[a : b + 1], 1), x)).sum()
    return cost


def test_random_walks_are_fitted_nearly_as_well_as_possible() -> None:
    random = np.random.default_rng(1)
    for _ in range(6):
        s = random.standard_normal(60).cumsum()
        s = (s - s.mean()) / s.std()
        ends = knots(s.tolist(), 0.7)
        cost = squared_errors(s)
        ours = sum(cost[a, b] for a, b in itertools.pairwise(ends))
        best = np.full((len(ends), 60), np.inf)
        best[0, 0] = 0
        for count in range(1, len(ends)):
            for b in range(1, 60):
                best[count, b] = min(best[count - 1, a] + cost[a, b] for a in range(b))
        optimum = best[len(ends) - 1, 59]
        assert optimum <= ours + 1e-9
        assert ours <= 2.5 * optimum


def test_plr_gradcheck() -> None:
    layer = Plr(0.7, 4, differentiable=True)
    x = noise(2, 3, 12, dtype=torch.float64).cumsum(2)
    found = turning_points_by_scan(x.flatten(0, 1), 0.7)
    for shift in (-1e-2, 1e-2):  # no turning point is about to change
        moved = x + shift * noise(2, 3, 12, seed=1, dtype=torch.float64).sign()
        assert torch.equal(turning_points_by_scan(moved.flatten(0, 1), 0.7), found)
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(),))
    assert not Plr(0.7, 4)(x).requires_grad


def test_types_and_errors() -> None:
    series = noise(2, 3, 40).cumsum(2)
    exact = Plr(0.5, 8)(series.double())
    torch.testing.assert_close(Plr(0.5, 8)(series).double(), exact, rtol=1e-4, atol=1e-5)
    assert Plr(0.5, 8)(series.bfloat16()).dtype == torch.bfloat16
    level = 1e6  # prefix sums are centred and in float64
    far = fit_segments(series[0].double() + level, turning_points_by_scan(series[0], 0.5), 8)
    near = fit_segments(series[0].double(), turning_points_by_scan(series[0], 0.5), 8)
    torch.testing.assert_close(far[..., 0], near[..., 0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"threshold: 0\.0, must be above 0"):
        Plr(0.0, 3)
    with pytest.raises(ValueError, match="max_segments: 0, must be at least 1"):
        Plr(1.0, 0)
    with pytest.raises(ValueError, match="x: 1 bars, must be at least 2"):
        Plr(1.0, 3)(torch.ones(1, 1, 1))
