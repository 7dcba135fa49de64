"""Trajectory store: rate of writing and checking, time to sample a batch, bytes per step, resident memory.

    python benchmarks/bench_store.py                                # 500 year-runs, 3.1 million steps, 0.2 GB
    python benchmarks/bench_store.py --episodes 10000               # 62 million steps, 4 GB

The same rows are also gathered from a memory map of the same files, to show what that costs and what it keeps
resident. Files lie in a temporary folder (TMPDIR) and are deleted at the end.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from halfstep.broker.rules import AccountRules
from halfstep.cli.programs.bench_markets import empty_store, market, random_group
from halfstep.experience.episode import STEP
from halfstep.experience.sampling import uniform_rows, usable_origins
from halfstep.experience.store import EpisodeStore
from measure import arguments, interleaved, machine, report

LENGTH, GROUP, BATCH = 6200, 250, 256
HORIZONS = (1, 24)


def resident() -> dict[str, float]:
    """Return megabytes resident now: in all, and of them pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {
        line.split(":")[0]: int(line.split()[1]) / 1024
        for line in lines
        if line.startswith(("VmRSS", "RssFile"))
    }
    return {"all": found["VmRSS"], "files": found["RssFile"]}


def written(folder: Path, episodes: int) -> tuple[float, int]:
    """Write a store; return seconds and steps."""
    rules = AccountRules()
    store, group = (
        empty_store(folder, market(LENGTH + 30, rules), rules),
        random_group(min(GROUP, episodes), LENGTH),
    )
    start = time.perf_counter()
    for number in range(episodes // len(group)):
        store.write(f"r0-g{number}", group)
    return time.perf_counter() - start, store.steps


class Mapped:
    """The same gathering from memory maps, for comparison."""

    def __init__(self, store: EpisodeStore) -> None:
        self._maps = [
            np.memmap(s.path, STEP, "r", s.rows_at, int(s.facts["length"].sum()))
            for s in store._shards.values()
        ]
        self._store = store

    def gather(self, episode: np.ndarray, step: np.ndarray, horizon: int) -> np.ndarray:
        """Return rows from each place on, ``(batch, horizon)``."""
        shard, row = self._store._shard[episode], self._store._row[episode] + step
        found = np.empty((len(episode), horizon), STEP)
        for number in np.unique(shard):
            chosen = np.flatnonzero(shard == number)
            found[chosen] = self._maps[number][row[chosen, None] + np.arange(horizon)]
        return found


def main() -> None:
    """Write, open and sample one store."""
    parser = arguments("Trajectory store.", rounds=300)
    parser.add_argument("--episodes", type=int, default=500)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-store-"))
    try:
        figures, lines = measured(folder, given.episodes, given.rounds)
    finally:
        shutil.rmtree(folder)
    report({"machine": machine(), **figures}, lines, as_json=given.json, out=given.out)


def measured(folder: Path, episodes: int, rounds: int) -> tuple[dict[str, Any], list[str]]:
    """Return the figures of a store, and lines that show them."""
    memory = {"start": resident()}
    write_s, steps = written(folder, episodes)
    memory["written"] = resident()
    size = sum(path.stat().st_size for path in folder.iterdir())
    start = time.perf_counter()
    store = EpisodeStore.open(folder)
    open_s = time.perf_counter() - start
    memory["opened"] = resident()
    origins = usable_origins(store, max(HORIZONS), (0, LENGTH + 50))
    number = iter(range(10**9))

    def rows() -> tuple[np.ndarray, np.ndarray]:
        return origins.at(uniform_rows(len(origins), next(number), BATCH, seed=1))

    works = {f"batch, {h} rewards": lambda h=h: store.gather(*rows(), horizon=h) for h in HORIZONS}
    times = interleaved({"order alone": rows, **works}, rounds=rounds)
    memory["sampled"] = resident()
    mapped = Mapped(store)
    times |= interleaved(
        {f"mapped, {h} rewards": lambda h=h: mapped.gather(*rows(), h) for h in HORIZONS}, rounds=rounds
    )
    memory["sampled from a map"] = resident()
    milliseconds = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    figures = {
        "episodes": episodes, "steps": steps, "bytes": size, "bytes_per_step": size / steps, "write_s": write_s,
        "write_steps_per_s": steps / write_s, "open_s": open_s, "open_bytes_per_s": size / open_s,
        "batch": BATCH, "median_ms": milliseconds, "resident_mb": memory,
    }  # fmt: skip
    lines = [
        f"{episodes:,} year-runs, {steps:,} steps, {size / 1e9:.2f} GB, {size / steps:.2f} bytes per step",
        f"written in {write_s:.1f} s ({steps / write_s / 1e6:.1f} M steps/s), opened and checked in {open_s:.1f} s",
        *(f"{name:<24}{ms:6.2f} ms" for name, ms in milliseconds.items()),
        *(
            f"resident, {name:<24}{mb['all']:7.0f} MB, files {mb['files']:.0f} MB"
            for name, mb in memory.items()
        ),
    ]
    return figures, lines


if __name__ == "__main__":
    main()
