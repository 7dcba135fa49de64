"""Writes and samples a store, and prints the resident size after each stage: FOLDER GROUPS EPISODES-PER-GROUP STEPS."""

import re
import sys
from pathlib import Path

from halfstep.broker.rules import AccountRules
from halfstep.cli.programs.bench_markets import empty_store, market, random_group
from halfstep.experience.sampling import uniform_rows, usable_origins
from halfstep.experience.store import EpisodeStore


def resident() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(folder: Path, groups: int, size: int, length: int) -> None:
    rules = AccountRules()
    table = market(length + 30, rules)
    store = empty_store(folder, table, rules)
    group = random_group(size, length)
    for number in range(groups):
        store.write(f"r0-g{number}", group)
    print(resident())
    store = EpisodeStore.open(folder)
    print(resident())
    origins = usable_origins(store, 24, (0, len(table)))
    for number in range(300):
        store.gather(*origins.at(uniform_rows(len(origins), number, 256, seed=1)), horizon=24)
    print(resident())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
