"""Which steps training sees, in which order; nothing here grows with the number of steps."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halfstep.errors import StoreError
from halfstep.experience.episode import SOURCES, Doubles, Indices
from halfstep.experience.seeds import generator
from halfstep.experience.store import EpisodeStore

_ROUNDS = 8  # of the cipher below; from 6 on, tests of uniformity pass


@dataclass(frozen=True, slots=True, eq=False)
class Origins:
    """Steps that training may begin from, numbered 0 to n - 1.

    Attributes:
        episode: episodes that have any, rising.
        first: first usable step of each.
        end: number of usable steps up to and with each.
    """

    episode: Indices
    first: Indices
    end: Indices

    def __len__(self) -> int:
        return int(self.end[-1])

    def at(self, rows: Indices) -> tuple[Indices, Indices]:
        """Return (episode, step) of origins by number, ``(rows,)`` each."""
        place = np.searchsorted(self.end, rows, side="right")
        before = np.where(place > 0, self.end[place - 1], 0)
        return self.episode[place], self.first[place] + rows - before


def usable_origins(
    store: EpisodeStore, horizon: int, span: tuple[int, int], *, bootstrap: bool = False
) -> Origins:
    """Return every step whose target of ``horizon`` rewards lies inside the span.

    Ruin ends a sum, so terminated episodes are usable to their end; truncated ones only where no reward is missing.

    Args:
        span: first bar, and the bar after the last whose prices a target may know.
        bootstrap: targets take what a truncated episode has, so that none of its steps is left out.

    Raises:
        StoreError: there is none; the message counts the episodes by source.
    """
    is_whole = store.first_bar + store.length < span[1]  # its last account is known inside the span
    last = np.where(is_whole, store.length, np.minimum(store.length, span[1] - horizon - store.first_bar))
    if not bootstrap:
        last = np.where(store.terminated, last, np.minimum(last, store.length - horizon + 1))
    first = np.maximum(0, span[0] - store.first_bar)
    counts = np.maximum(0, last - first)
    episode = np.flatnonzero(counts)
    if not len(episode):
        found = np.bincount(store.source, minlength=len(SOURCES))
        counted = ", ".join(f"{n} {name}" for name, n in zip(SOURCES, found, strict=True) if n) or "none"
        raise StoreError(
            f"{store.folder}: episodes by source: {counted}; no step has {horizon} bars after it inside the training "
            "span. Collect trajectories over this span first."
        )
    return Origins(episode, first[episode], np.cumsum(counts[episode]))


class Shuffled:
    """A permutation of 0 to n - 1 in constant memory: indexed like an array, each number comes exactly once.

    A number x < a b is split into (x div b, x mod b); each round adds a keyed hash of one half to the other, modulo
    its size, which can be undone and so maps the a b numbers one to one. What falls outside n is mapped again.

    References:
        Black, Rogaway: Ciphers with arbitrary finite domains, CT-RSA 2002 (generalised Feistel, cycle walking).
    """

    def __init__(self, n: int, random: np.random.Generator) -> None:
        self._n = n
        self._root = max(1, int(np.ceil(np.sqrt(n))))
        while self._root**2 < n:
            self._root += 1
        self._keys = random.integers(0, 2**64, (_ROUNDS, 1), dtype=np.uint64)

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, places: slice | Indices) -> Indices:
        if isinstance(places, slice):
            places = np.arange(*places.indices(self._n))
        numbers = self._encrypt(np.asarray(places, np.uint64))
        outside = np.flatnonzero(numbers >= self._n)
        while len(outside):
            numbers[outside] = self._encrypt(numbers[outside])
            outside = outside[numbers[outside] >= self._n]
        return numbers.astype(np.int64)

    def _encrypt(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        root = np.uint64(self._root)
        left, right = numbers // root, numbers % root
        for key in self._keys:
            left, right = right, (left + _mixed(right ^ key)) % root
        return left * root + right


def epoch_order(n: int, *, seed: int, epoch: int) -> Shuffled:
    """Return a permutation that depends on (seed, epoch) only: each origin once per epoch."""
    return Shuffled(n, generator(seed, "epoch order", epoch))


def uniform_rows(n: int, number: int, size: int, *, seed: int) -> Indices:
    """Return batch ``number`` of origins without replacement: epochs follow each other without a gap.

    Args:
        n: number of origins. A batch that ends an epoch goes on with the next.
    """
    places = number * size + np.arange(size)
    epochs = places // n
    rows = np.empty(size, np.int64)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
        chosen = epochs == epoch
        rows[chosen] = epoch_order(n, seed=seed, epoch=epoch)[places[chosen] % n]
    return rows


def weighted_rows(origins: Origins, weights: Doubles, n: int, random: np.random.Generator) -> Indices:
    """Draw ``n`` origins with replacement: an episode by its weight, then one of its origins uniformly.

    Args:
        weights: of each episode of the store; those without an origin are left out.
    """
    counts = np.diff(origins.end, prepend=0)
    cumulative = np.cumsum(weights[origins.episode])
    chosen = np.searchsorted(cumulative, random.random(n) * cumulative[-1], side="right")
    return np.asarray(
        origins.end[chosen] - counts[chosen] + (random.random(n) * counts[chosen]).astype(np.int64)
    )


def episode_returns(store: EpisodeStore, discount: float) -> Doubles:
    """Return each episode's discounted sum of every reward component from its first step, ``(episode, 3)``."""
    if discount == store.header.discount:
        return store.discounted_return
    sums = [discount ** np.arange(len(e.reward)) @ e.reward.astype(np.float64) for e in store.episodes()]
    return np.array(sums).reshape(-1, store.discounted_return.shape[1])


def return_weights(returns: Doubles) -> Doubles:
    """Return the sampling probability of each episode from its return (the published rule).

    With M = max s, lo = min s - 0.1 |M| and P80 the linear percentile: k = P80 - M (-1 if 0),
    e_j = exp(|s_j - M| / k), q_j = (s_j - lo) / (M - lo), w_j = q_j / (q_j + 0.9) e_j; all equal where M <= lo.

    Args:
        returns: sum of the three components of `episode_returns`, ``(episode,)``.

    Raises:
        StoreError: a return is not finite.

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


def _mixed(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return a hash of each number (the finaliser of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
