"""What every benchmark shares: interleaved rounds, medians, and the machine they were measured on."""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Times = dict[str, list[float]]


def interleaved(
    works: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 3,
    before: Mapping[str, Callable[[], Any]] | None = None,
) -> Times:
    """Time each piece of work once a round, A B A B ...; ``before`` runs untimed ahead of the work of that name.

    Returns:
        Seconds of every round, by name.
    """
    times: Times = {name: [] for name in works}
    for number in range(warmup + rounds):
        for name, work in works.items():
            if before and name in before:
                before[name]()
            start = time.perf_counter()
            work()
            elapsed = time.perf_counter() - start
            if number >= warmup:
                times[name].append(elapsed)
    return times


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def ratio(times: Times, slow: str, fast: str) -> float:
    """Return how many times as long ``slow`` takes as ``fast``: the ratio of the medians."""
    return statistics.median(times[slow]) / statistics.median(times[fast])


def copy_bandwidth(megabytes: int = 128) -> float:
    """Return the bytes per second that a plain copy reads and writes."""
    import torch

    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, rounds=20)["copy"]
    return 2 * source.numel() * 4 / statistics.median(times)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, versions, command and date."""
    import numba
    import numpy as np
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "system": platform.system(),
        "command": " ".join(
            [f"python {Path(sys.argv[0]).parent.name}/{Path(sys.argv[0]).name}", *sys.argv[1:]]
        ),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def arguments(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the flags every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print figures for machines instead of tables")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    return parser


def report(figures: dict[str, Any], lines: list[str], *, as_json: bool, out: Path | None) -> None:
    """Print figures as a table or as JSON, and write them to a file if asked."""
    text = json.dumps(figures, indent=2, allow_nan=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
        return
    print("; ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    print("\n".join(lines))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
