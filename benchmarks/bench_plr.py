"""Piecewise linear representation: the pass over time against the comparison of all pairs.

Usage: python benchmarks/bench_plr.py [--rounds 20] [--threads 1] [--json] [--out FILE]
"""

import statistics

import torch

from halfstep.nn.plr import Plr, fit_segments
from halfstep.nn.turning_points import turning_points_by_scan, turning_points_in_parallel
from measure import arguments, interleaved, machine, report


def seconds_of(rows: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of each part on random walks of 120 bars, in deviations."""
    walks = torch.randn(rows, 120, generator=torch.Generator().manual_seed(0)).cumsum(1)
    walks = (walks - walks.mean(1, keepdim=True)) / walks.std(1, keepdim=True)
    turns = turning_points_by_scan(walks, 0.5)
    layer, series = Plr(0.5, 24), walks[:, None]
    times = interleaved(
        {
            "search, one pass": lambda: turning_points_by_scan(walks, 0.5),
            "search, all pairs": lambda: turning_points_in_parallel(walks, 0.5),
            "fit of 24 segments": lambda: fit_segments(walks, turns, 24),
            "whole layer": lambda: layer(series),
        },
        rounds=rounds,
    )
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Time a batch of 256 windows of one series, and of 2,304 series."""
    parser = arguments("Piecewise linear representation.", rounds=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {rows: seconds_of(rows, given.rounds) for rows in (256, 2304)}
    lines = ["", "| series of 120 bars | part | ms | x one pass | series/s |", "|---:|---|---:|---:|---:|"]
    for rows, seconds in found.items():
        base = seconds["search, one pass"]
        lines += [
            f"| {rows:,} | {name} | {1e3 * s:.2f} | {s / base:.2f} | {rows / s:,.0f} |"
            for name, s in seconds.items()
        ]
    report({"machine": machine(), "seconds": found}, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
