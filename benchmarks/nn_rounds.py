"""Interleaved rounds for the benchmarks of networks: A B A B in one process, medians, and what they ran on."""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def measure(work: Mapping[str, Callable[[], object]], rounds: int, warm: int = 3) -> dict[str, float]:
    """Return the median seconds of each piece of work."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + warm):
        for name, run in work.items():
            began = time.perf_counter()
            run()
            if number >= warm:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def arguments(text: str) -> argparse.Namespace:
    """Return the flags that every benchmark has, with threads set."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    return given


def report(title: str, lines: Mapping[str, Mapping[str, Any]], given: argparse.Namespace) -> None:
    """Print the figures of each piece of work as a table or as JSON."""
    where = {
        "torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine(),
        "cpu": _cpu(), "threads": given.threads, "rounds": given.rounds,
    }  # fmt: skip
    if given.json:
        print(json.dumps({"title": title, "where": where, "lines": lines}, indent=1))
        return
    print(f"### {title}\n\n" + ", ".join(f"{name} {value}" for name, value in where.items()) + "\n")
    columns = list(next(iter(lines.values())))
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, line in lines.items():
        print(f"| {name} | {' | '.join(str(line.get(column, '')) for column in columns)} |")
    print()


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:  # noqa: PTH123
            return next(line.split(":")[1].strip() for line in stream if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
