"""Writes and samples a store, and prints the resident size after each stage: FOLDER GROUPS EPISODES-PER-GROUP STEPS."""

import re
import sys
from pathlib import Path

import numpy as np

from halfstep.broker.rules import AccountRules
from halfstep.experience.episode import Group
from halfstep.experience.sampling import uniform_rows, usable_origins
from halfstep.experience.store import EpisodeStore, StoreHeader
from halfstep.market.instruments import instrument
from halfstep.market.synthetic import random_bars


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(folder: Path, groups: int, size: int, length: int) -> None:
    bars = random_bars(length + 50, seed=1)
    rules, traded = AccountRules(), instrument("EURUSD")
    header = StoreHeader.of(bars, feature_set="none", rules=rules, instrument=traded, discount=0.99)
    store = EpisodeStore.create(folder, header, bars)
    random = np.random.default_rng(0)
    group = Group(
        first_bar=np.full(size, 20), account=random.random((size, length + 1, 7), np.float32),
        action=random.random((size, length, 6), np.float32), reward=random.random((size, length, 3), np.float32),
        mark=np.zeros((size, length), np.uint8), length=np.full(size, length), terminated=np.zeros(size, np.bool_),
        source=("noise",) * size, seed=np.arange(size), policy=("noise",) * size,
        initial_balance=np.full(size, 1e4), final_equity=np.full(size, 1e4), trades=np.zeros(size, np.int64),
    )  # fmt: skip
    for number in range(groups):
        store.write(f"r0-g{number}", group)
    print(resident())
    store = EpisodeStore.open(folder)
    print(resident())
    origins = usable_origins(store, 24, (0, len(bars)))
    for number in range(300):
        store.gather(*origins.at(uniform_rows(len(origins), number, 256, seed=1)), horizon=24)
    print(resident())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
