"""How many configurations were tried: one line per trial, which only grows.

A search that looks at N results finds a good one by luck. The deflated Sharpe ratio (Bailey and López de Prado 2014)
takes N and the variance of the trials' Sharpe ratios into account; both come from here, so that nobody states them by
hand. A trial is one configuration whose validation or test figure was computed. Its seeds are no further trials,
because results are read over all seeds; a changed program or other bars are.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from halfstep import files

REGISTRY = Path("runs") / "registry.jsonl"
"""Where every program of one working folder writes its trials."""

Observation = Literal["bar", "day"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One configuration with one seed, and what came out of it.

    Attributes:
        program: verb that made it.
        run: folder of the run.
        configuration: hash of everything that decides the result but the seed: settings, optimizer, program, bars.
        optimizer, seed: of the training.
        is_made_up: the bars come from a generator; such trials count among themselves only.
        span: what the figure was computed on.
        days: first day and day after the last of that span.
        figure: name of the number that was looked at, such as ``log_growth``.
        value: the number; None for a trial that failed.
        sharpe: Sharpe ratio per observation, by kind of observation; None where it is not defined.
    """

    program: str
    run: str
    configuration: str
    optimizer: str
    seed: int
    is_made_up: bool
    span: Literal["validation", "test"]
    days: tuple[str, str]
    figure: str
    value: float | None
    sharpe: dict[str, float | None]

    @property
    def identity(self) -> tuple[str, str, int, str, str, str]:
        """What makes two lines the same trial, recorded twice by a continued run."""
        return self.run, self.configuration, self.seed, self.span, self.figure, self.days[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialCount:
    """What the deflated Sharpe ratio needs to know of a search.

    Attributes:
        n: configurations tried.
        sharpe_variance: of their Sharpe ratios per observation (ddof 1), each the mean over its seeds; 0 below two.
    """

    n: int
    sharpe_variance: float


def record_trials(trials: Iterable[Trial], path: Path = REGISTRY) -> None:
    """Append each trial that the registry does not hold yet, as one line in one write."""
    known = {_identity(entry) for entry in files.read_json_lines(path)}
    fresh = [trial for trial in trials if trial.identity not in known]
    stamp = datetime.now(UTC).isoformat(timespec="seconds")
    files.append_json_lines(path, [{"time": stamp, **asdict(trial)} for trial in fresh])


def count_trials(path: Path = REGISTRY, *, is_made_up: bool, observation: Observation) -> TrialCount:
    """Return how many configurations were tried, on any bars and span, and how much their Sharpe ratios vary.

    A configuration's Sharpe ratio is that of its tests where it was tested, else that of its validation.

    Args:
        is_made_up: count the trials on made-up bars instead of those on real ones.
        observation: unit of the Sharpe ratios, as in the figure that is to be deflated.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for entry in files.read_json_lines(path):
        if entry["is_made_up"] is is_made_up:
            spans = found.setdefault(entry["configuration"], {"validation": [], "test": []})
            sharpe = entry["sharpe"].get(observation)
            if sharpe is not None:
                spans[entry["span"]].append(sharpe)
    ratios = [
        np.mean(spans["test"] or spans["validation"]) for spans in found.values() if any(spans.values())
    ]
    variance = float(np.var(ratios, ddof=1)) if len(ratios) > 1 else 0.0
    return TrialCount(n=len(found), sharpe_variance=variance)


def sharpe_per_observation(returns: Float64[np.ndarray, " observation"]) -> float | None:
    """Return mean / deviation (ddof 1) of returns, not annualised; None without two returns or any deviation.

    >>> sharpe_per_observation(np.array([0.01, 0.03]))
    1.4142135623730951
    """
    deviation = returns.std(ddof=1) if len(returns) > 1 else 0.0
    return float(returns.mean() / deviation) if deviation > 0 else None


def sharpe_by_observation(
    log_growth: Float64[np.ndarray, " bar"], day: Int64[np.ndarray, " bar"]
) -> dict[str, float | None]:
    """Return the Sharpe ratios of a path's simple returns per bar and per day.

    Args:
        log_growth: ln(equity / equity before) of each bar.
        day: number of the server's day of each bar.
    """
    _, first = np.unique(day, return_index=True)
    days = np.add.reduceat(log_growth, first) if len(log_growth) else log_growth
    return {
        "bar": sharpe_per_observation(np.expm1(log_growth)),
        "day": sharpe_per_observation(np.expm1(days)),
    }


def _identity(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (*(entry[key] for key in ("run", "configuration", "seed", "span", "figure")), entry["days"][0])
