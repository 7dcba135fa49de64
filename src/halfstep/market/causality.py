"""Proof that features and policies see no future, and of how much past a feature needs.

*Truncation*: what is computed from the bars up to t must equal, bit for bit, the rows up to t of what is computed
from all bars. *Future noise*: the same where the bars after t are replaced by another valid random path. A policy
is any function from bars to one row of actions per bar.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from halfstep.errors import ConfigError, CoverageError
from halfstep.market.bars import Bars
from halfstep.market.features import FeatureSet, feature_set, feature_table

CUTS = 50
LAST_ROWS = 5
HISTORIES = (60, 120, 240, 500, 1000, 2000)
SETTLED_BELOW = 1e-6  # standard deviations
ANCHORS = 20

Table = npt.NDArray[np.float64]
Policy = Callable[[Bars], npt.NDArray[np.float64]]
"""From bars to actions, one row per bar (NaN where it does not act): the row of bar t may depend on bars up to t."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """A column that depends on bars after its row."""

    column: str
    way: str
    """``truncation`` or ``future noise``."""
    cut: int
    """Last bar that was left as it is."""
    row: int
    """First row that differs."""
    difference: float
    """Largest absolute difference; infinite where a value appears or vanishes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LookAhead:
    """Result of `lookahead`.

    Attributes:
        columns: what was tested: features, then actions.
        cuts: bars after which the future was cut off or replaced.
        leaks: the worst leak of each column and way; empty: nothing depends on the future.
    """

    columns: tuple[str, ...]
    cuts: tuple[int, ...]
    leaks: tuple[Leak, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmUp:
    """Result of `warmup`.

    Attributes:
        columns: of the set.
        declared: warm-up that the set declares for each column, bars.
        histories: tested numbers of earlier bars, rising; the declared warm-up of the whole set is among them.
        differences: ``(history, column)``: largest difference from the full history, in the column's standard
            deviation; infinite where a value is still missing.
        settled: the set's declared warm-up.
    """

    columns: tuple[str, ...]
    declared: tuple[int, ...]
    histories: tuple[int, ...]
    differences: npt.NDArray[np.float64]
    settled: int

    def needed(self, column: int) -> int | None:
        """Return the shortest tested history from which on the difference stays below 1e-6, or None."""
        late = np.flatnonzero(self.differences[:, column] >= SETTLED_BELOW)
        first = 0 if len(late) == 0 else int(late[-1]) + 1
        return self.histories[first] if first < len(self.histories) else None

    @property
    def too_short(self) -> tuple[str, ...]:
        """Columns whose value after the set's declared warm-up still depends on where the bars begin."""
        row = self.differences[self.histories.index(self.settled)]
        return tuple(name for name, value in zip(self.columns, row, strict=True) if value >= SETTLED_BELOW)


def lookahead(
    bars: Bars,
    features: str | FeatureSet | None = "robust9",
    *,
    policy: Policy | None = None,
    cuts: int = CUTS,
    seed: int = 0,
) -> LookAhead:
    """Test features, a policy, or both.

    Args:
        bars: at least 10.
        features: a set of the package or your own; None: the policy alone.
        policy: from bars to actions, ``(n, k)``.
        cuts: seeded random cut points; the first valid row, the last five, and the rows before and inside holes of
            the bars (at most ``cuts`` of them) come on top.
        seed: of cut points and noise.

    Raises:
        CoverageError: too few bars.
        ConfigError: nothing to test, negative cuts or seed, or a policy returns another number of rows than there are bars.
    """
    if len(bars) < 10:
        raise CoverageError(f"{len(bars)} bars, but 10 are needed", hint="Give a longer file.")
    if cuts < 0:
        raise ConfigError(f"cuts: {cuts}, must be 0 or more.")
    random = _generator(seed)
    chosen = None if features is None else feature_set(features)
    if chosen is None and policy is None:
        raise ConfigError("features: none, and no policy. Give at least one of the two.")

    def features_of(some: Bars) -> Table:
        with np.errstate(all="ignore"):  # of formulas that divide by zero where there are few bars
            return np.empty((len(some), 0)) if chosen is None else feature_table(some, chosen)

    full = features_of(bars)
    actions = np.empty((len(bars), 0)) if policy is None else _actions(policy, bars)
    names = () if chosen is None else chosen.names
    acts = tuple(f"action {k}" for k in range(actions.shape[1]))
    points = _cut_points(bars, np.concatenate([full, actions], axis=1), cuts, random)
    leaks: dict[tuple[str, str], Leak] = {}
    for cut in points:
        noisy = with_future_noise(bars, cut, random)
        _compare(full, features_of(bars.slice(0, cut + 1)), names, "truncation", cut, leaks)
        _compare(full, features_of(noisy), names, "future noise", cut, leaks)
        if policy is not None:
            _compare(actions, _actions(policy, noisy), acts, "future noise", cut, leaks)
    return LookAhead(columns=(*names, *acts), cuts=points, leaks=tuple(leaks.values()))


def warmup(
    bars: Bars,
    features: str | FeatureSet = "robust9",
    *,
    histories: Sequence[int] = HISTORIES,
    anchors: int = ANCHORS,
    seed: int = 0,
) -> WarmUp:
    """Compare features that begin h bars before a row with those of all bars, for each history h.

    Histories that leave no bar of the file unused are left out, except the declared one.

    Raises:
        CoverageError: the file is no longer than the declared warm-up.
        ConfigError: a negative seed.
    """
    chosen = feature_set(features)
    if len(bars) < chosen.settled + 2:
        raise CoverageError(
            f"{len(bars)} bars, but {chosen.settled + 2} are needed to test a warm-up of {chosen.settled}",
            file=bars.source.path,
            hint="Give a longer file.",
        )
    tested = tuple(sorted({h for h in histories if h < len(bars) - 1} | {chosen.settled}))
    full = feature_table(bars, chosen)
    deviation = np.nanstd(full, axis=0)
    random = _generator(seed)
    differences = np.zeros((len(tested), full.shape[1]))
    for h, history in enumerate(tested):
        rows = random.choice(
            np.arange(history + 1, len(bars)), min(anchors, len(bars) - history - 1), replace=False
        )
        for row in rows.tolist():
            late = feature_table(bars.slice(row - history, row + 1), chosen)[-1]
            differences[h] = np.maximum(differences[h], _in_deviations(late, full[row], deviation))
    return WarmUp(
        columns=chosen.names,
        declared=tuple(column.warmup for column in chosen.columns),
        histories=tested,
        differences=differences,
        settled=chosen.settled,
    )


def with_future_noise(bars: Bars, cut: int, random: np.random.Generator) -> Bars:
    """Return the bars with everything after ``cut`` but the times replaced by another valid random path."""
    n = len(bars) - cut - 1
    if n <= 0:
        return bars
    moves = 0.01 * random.standard_normal((2, n))
    close = bars.close[cut] * np.exp(np.clip(np.cumsum(moves[0]), -2, 2))  # long walks stay plausible prices
    opened = np.concatenate([bars.close[cut : cut + 1], close[:-1]]) * np.exp(0.1 * moves[1])
    wicks = 1 + np.abs(0.01 * random.standard_normal((2, n)))
    paths = {
        "open": opened,
        "close": close,
        "high": np.maximum(opened, close) * wicks[0],
        "low": np.minimum(opened, close) / wicks[1],
    }
    drawn = {
        **{
            name: np.maximum(np.rint(path * 10.0**bars.digits), 1) / 10.0**bars.digits
            for name, path in paths.items()
        },
        "volume": np.rint(np.exp(random.normal(8, 2, n))),
        "spread": random.integers(0, 100, n),
    }
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(bars, name)[: cut + 1], after]) for name, after in drawn.items()
    }
    return replace(bars, **columns)


def _generator(seed: int) -> np.random.Generator:
    if seed < 0:
        raise ConfigError(f"seed: {seed}, must be 0 or more.")
    return np.random.Generator(np.random.Philox(seed))


def _actions(policy: Policy, bars: Bars) -> Table:
    actions = np.asarray(policy(bars), np.float64)
    if actions.ndim == 1:
        actions = actions[:, None]
    if len(actions) != len(bars):
        raise ConfigError(
            f"policy: {len(actions)} rows of actions for {len(bars)} bars, must be one per bar."
        )
    return actions


def _cut_points(bars: Bars, full: Table, cuts: int, random: np.random.Generator) -> tuple[int, ...]:
    """Return the rows after which the future is taken away.

    Random rows miss a leak that shows at few bars only: where bars or values are missing, or volume is 0. Such rows
    and those before them are tried too.
    """
    n = len(bars)
    present = np.isfinite(full)
    appears = np.flatnonzero((present[1:] != present[:-1]).any(axis=1)) + 1
    holes = np.flatnonzero(np.diff(bars.time) > bars.timeframe.seconds)
    odd = np.flatnonzero((bars.volume == 0) | (bars.spread < 0) | (bars.high == bars.low))
    if len(odd) > n // 2:
        odd = odd[:0]  # the rule, not the exception
    special = np.unique(np.concatenate([appears, appears - 1, holes, holes + 1, odd, odd - 1]))
    special = special[(special >= 0) & (special < n - 1)]
    if len(special) > cuts:
        special = random.choice(special, cuts, replace=False)
    drawn = random.integers(0, n - 1, cuts)
    first = np.flatnonzero(present.all(axis=1))[:1]
    last = np.arange(n - 1 - LAST_ROWS, n - 1)
    points = np.unique(np.concatenate([special, drawn, first, first - 1, last]))
    return tuple(int(point) for point in points if 0 <= point < n - 1)


def _compare(
    full: Table, other: Table, names: Sequence[str], way: str, cut: int, leaks: dict[tuple[str, str], Leak]
) -> None:
    """Add or worsen the leak of each column in which the rows up to the cut differ; NaN equals NaN."""
    full, other = full[: cut + 1], other[: cut + 1]
    differs = ~((full == other) | (np.isnan(full) & np.isnan(other)))
    for column in np.flatnonzero(differs.any(axis=0)).tolist():
        rows = np.flatnonzero(differs[:, column])
        with np.errstate(invalid="ignore"):
            gaps = np.abs(full[rows, column] - other[rows, column])
        size = float("inf") if not np.isfinite(gaps).all() else float(gaps.max())
        key = (names[column], way)
        known = leaks.get(key)
        row = int(rows[0]) if known is None else min(known.row, int(rows[0]))
        if known is None or size > known.difference or row < known.row:
            leaks[key] = Leak(
                column=names[column],
                way=way,
                cut=cut if known is None or size > known.difference else known.cut,
                row=row,
                difference=size if known is None else max(size, known.difference),
            )


def _in_deviations(late: Table, full: Table, deviation: Table) -> Table:
    """Return |late - full| / deviation; 0 where both are missing or equal, infinite where one is missing."""
    gaps = np.abs(late - full)
    same = (late == full) | (np.isnan(late) & np.isnan(full))
    scaled = np.divide(
        gaps, deviation, out=np.full_like(gaps, np.inf), where=(deviation > 0) & np.isfinite(gaps)
    )
    return np.where(same, 0.0, scaled)
