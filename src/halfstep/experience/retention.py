"""Which episodes a store keeps: pure rules over the facts of all of them, oldest first."""

import numpy as np
import numpy.typing as npt

from halfstep.experience.episode import SOURCES

Mask = npt.NDArray[np.bool_]

PUBLISHED_EPISODES = 500
LEAST_PROFIT = 10.0
LEAST_SIGNAL_PROFIT = -10_000.0
_GO_FIRST = ("policy", "noise")


def all_kept(source: npt.NDArray[np.uint8], max_episodes: int) -> Mask:
    """Keep every pass, losing ones too; beyond the bound the oldest go, signals never.

    >>> all_kept(np.array([3, 2, 0, 1, 0], np.uint8), 2).tolist()  # signal, scripted, policy, noise, policy
    [True, True, False, False, False]
    """
    kept = np.ones(len(source), np.bool_)
    first = np.isin(source, [SOURCES.index(name) for name in _GO_FIRST])
    then = ~first & (source != SOURCES.index("signal"))
    order = np.concatenate([np.flatnonzero(first), np.flatnonzero(then)])
    kept[order[: max(0, len(source) - max_episodes)]] = False
    return kept


def published_kept(
    source: npt.NDArray[np.uint8],
    profit: npt.NDArray[np.float64],
    final_equity: npt.NDArray[np.float64],
    *,
    most: int = PUBLISHED_EPISODES,
) -> Mask:
    """Keep what the published programs keep: winners, and of those the ones with the greatest final equity.

    A pass enters with a profit of at least 10 (a signal: at least -10,000) that is not 0. At ``most`` episodes a new
    one takes the place of the stored one with the least final equity, if its own is not smaller.
    """
    least = np.where(source == SOURCES.index("signal"), LEAST_SIGNAL_PROFIT, LEAST_PROFIT)
    stored: list[int] = []
    for episode in np.flatnonzero((profit >= least) & (profit != 0)).tolist():
        if len(stored) < most:
            stored.append(episode)
            continue
        worst = min(range(most), key=lambda place: final_equity[stored[place]])
        if final_equity[episode] >= final_equity[stored[worst]]:
            stored[worst] = episode
    kept = np.zeros(len(source), np.bool_)
    kept[stored] = True
    return kept
