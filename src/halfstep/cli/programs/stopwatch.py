"""Times of pieces of work that take turns, and what is made of them: medians, quartiles, ratios."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Times = dict[str, list[float]]

LEAST_ROUNDS = 3


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 3,
    before: Mapping[str, Callable[[], Any]] | None = None,
    clock: Callable[[], float] | None = None,
    limit: float = math.inf,
) -> Times:
    """Time each piece of work once a round, A B A B ...; ``before`` runs untimed ahead of the work of that name.

    Args:
        works: by name.
        rounds: that count; ``warmup`` more go before them, because the first ones compile and allocate.
        before: by the names of works, not necessarily all.
        clock: gives seconds. Default: `time.perf_counter`.
        limit: seconds after which no further round begins once `LEAST_ROUNDS` count.

    Returns:
        Seconds of every round, by name.
    """
    now = time.perf_counter if clock is None else clock
    times: Times = {name: [] for name in works}
    end = time.monotonic() + limit
    for number in range(warmup + rounds):
        if number >= warmup + LEAST_ROUNDS and time.monotonic() >= end:
            break
        for name, work in works.items():
            if before and name in before:
                before[name]()
            start = now()
            work()
            elapsed = now() - start
            if number >= warmup:
                times[name].append(elapsed)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile; of one value, that value three times."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def ratio(times: Times, slow: str, fast: str) -> float:
    """Return how many times as long ``slow`` takes as ``fast``: the ratio of the medians."""
    return statistics.median(times[slow]) / statistics.median(times[fast])
