"""Groups and headers with given content."""

import numpy as np

from halfstep.broker.rules import AccountRules
from halfstep.experience.episode import Group
from halfstep.experience.store import StoreHeader
from halfstep.market.bars import Bars
from halfstep.market.instruments import instrument

RULES = AccountRules(leverage=500.0)
SPAN = (30, 330)


def store_header(bars: Bars, **changed: object) -> StoreHeader:
    values = {
        "feature_set": "robust9/1",
        "rules": RULES,
        "instrument": instrument("EURUSD"),
        "discount": 0.99,
    }
    return StoreHeader.of(bars, **(values | changed))  # type: ignore[arg-type]


def random_group(lengths: list[int], *, draw: int = 0, first_bar: int = 5, **facts: object) -> Group:
    """Return episodes of given lengths full of random numbers."""
    random, n, steps = np.random.default_rng(draw), len(lengths), max(lengths)
    values = {
        "first_bar": np.full(n, first_bar),
        "account": random.normal(10_000, 50, (n, steps + 1, 7)).astype(np.float32),
        "action": random.random((n, steps, 6)).astype(np.float32),
        "reward": random.normal(0, 1e-3, (n, steps, 3)).astype(np.float32),
        "mark": random.integers(0, 256, (n, steps), np.uint8),
        "length": np.array(lengths),
        "terminated": random.random(n) < 0.5,
        "source": ("policy",) * n,
        "seed": np.arange(n),
        "policy": ("ab12",) * n,
        "initial_balance": np.full(n, 10_000.0),
        "final_equity": random.normal(10_000, 50, n),
        "trades": random.integers(0, 9, n),
    }
    return Group(**(values | facts))  # type: ignore[arg-type]
