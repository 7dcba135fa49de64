"""Which steps training sees, in which order."""

import numpy as np
import numpy.typing as npt

from halfstep.errors import StoreError
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore

Weights = npt.NDArray[np.float64]


def usable_origins(
    store: EpisodeStore, horizon: int, span: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (episode, step) of every step whose target of ``horizon`` rewards lies inside the span.

    A truncated episode gives no origins whose sum it would cut; a terminated one does, because ruin ends the sum.

    Raises:
        StoreError: there is none.
    """
    last = np.where(store.terminated, store.length, store.length - horizon + 1)
    last = np.minimum(last, span[1] - horizon - store.first_bar)
    skip = np.maximum(0, span[0] - store.first_bar)
    counts = np.maximum(0, last - skip)
    if counts.sum() == 0:
        raise StoreError(
            f"{store.folder}: {len(store)} episodes hold no step with {horizon} bars after it inside the training span. "
            "Collect trajectories over this span first."
        )
    episode = np.repeat(np.arange(len(store)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return episode, within + np.repeat(skip, counts)


def epoch_order(n: int, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return a permutation that depends on (seed, epoch) only: each origin once per epoch."""
    return generator(seed, "epoch order", epoch).permutation(n)


def episode_returns(store: EpisodeStore, discount: float) -> Weights:
    """Return each episode's discounted sum of every reward component from its first step, ``(episode, 3)``."""
    reward = np.asarray(store.column("reward"), np.float64)
    start = np.cumsum(store.length) - store.length
    return np.stack(
        [discount ** np.arange(n) @ reward[s : s + n] for s, n in zip(start, store.length, strict=True)]
    )


def weighted_rows(
    episode: npt.NDArray[np.int64], weights: Weights, n: int, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Draw ``n`` usable origins with replacement: an episode by its weight, then one of its origins uniformly.

    Args:
        episode: of each usable origin, rising, as `usable_origins` returns it.
        weights: of each episode; those without an origin are left out.
    """
    present, first, count = np.unique(episode, return_index=True, return_counts=True)
    cumulative = np.cumsum(weights[present])
    chosen = np.searchsorted(cumulative, random.random(n) * cumulative[-1], side="right")
    return np.asarray(first[chosen] + (random.random(n) * count[chosen]).astype(np.int64), np.int64)


def return_weights(returns: Weights) -> Weights:
    """Return the sampling probability of each episode from its return (the published rule).

    With M = max s, lo = min s - 0.1 |M| and P80 the linear percentile: k = P80 - M (-1 if 0),
    e_j = exp(|s_j - M| / k), q_j = (s_j - lo) / (M - lo), w_j = q_j / (q_j + 0.9) e_j; all equal where M <= lo.

    >>> return_weights(np.array([0.0, 1, 2, 3, 10])).round(6).tolist()
    [0.021558, 0.047214, 0.078104, 0.115542, 0.737581]
    """
    if not np.isfinite(returns).all():
        raise StoreError("returns: not finite. Collect the trajectories again.")
    best = returns.max()
    low = returns.min() - 0.1 * abs(best)
    if best <= low:
        return np.full(len(returns), 1 / len(returns))
    k = np.percentile(returns, 80) - best or -1.0
    share = (returns - low) / (best - low)
    weights = share / (share + 0.9) * np.exp(np.abs(returns - best) / k)
    return np.asarray(weights / weights.sum(), np.float64)
