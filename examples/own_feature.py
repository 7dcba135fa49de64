"""A feature of your own, and the proof that it sees no future. Run: python examples/own_feature.py."""

import numpy as np

from halfstep.market.bars import Bars
from halfstep.market.causality import lookahead, warmup
from halfstep.market.features import FeatureColumn, FeatureSet
from halfstep.market.synthetic import random_bars


def momentum(bars: Bars) -> np.ndarray:
    """Return the log return of the last 12 bars."""
    out = np.full(len(bars), np.nan)
    out[12:] = 1e4 * np.log(bars.close[12:] / bars.close[:-12])
    return out


def peeking(bars: Bars) -> np.ndarray:
    """Return the return against the mean of all bars: the mean knows the future."""
    return 1e4 * np.log(bars.close / bars.close.mean())


bars = random_bars(3000, seed=1)
for column in (FeatureColumn("momentum", momentum, 12), FeatureColumn("peeking", peeking, 0)):
    mine = FeatureSet(name="mine", version=1, columns=(column,))
    leaks = lookahead(bars, mine).leaks
    print(
        f"{column.name}: "
        + (
            f"depends on the future, first in row {leaks[0].row} ({leaks[0].way})"
            if leaks
            else "no leak in 50 cuts"
        )
    )
found = warmup(bars, FeatureSet(name="mine", version=1, columns=(FeatureColumn("momentum", momentum, 12),)))
print(f"momentum: settled after {found.needed(0)} earlier bars, {found.declared[0]} declared")
