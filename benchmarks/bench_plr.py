"""Piecewise linear representation: the pass over time against the comparison of all pairs.

Usage: python benchmarks/bench_plr.py [--rounds 20] [--threads 1] [--json]
"""

import torch

from halfstep.nn.plr import Plr, fit_segments
from halfstep.nn.turning_points import turning_points_by_scan, turning_points_in_parallel
from nn_rounds import arguments, measure, report


def main() -> None:
    """Time the search and the fit on random walks of 120 bars, in deviations."""
    given = arguments(__doc__ or "")
    generator = torch.Generator().manual_seed(0)
    for rows in (256, 2304):
        walks = torch.randn(rows, 120, generator=generator).cumsum(1)
        walks = (walks - walks.mean(1, keepdim=True)) / walks.std(1, keepdim=True)
        turns = turning_points_by_scan(walks, 0.5)
        layer, series = Plr(0.5, 24), walks[:, None]
        seconds = measure(
            {
                "search, one pass": lambda w=walks: turning_points_by_scan(w, 0.5),
                "search, all pairs": lambda w=walks: turning_points_in_parallel(w, 0.5),
                "fit of 24 segments": lambda w=walks, t=turns: fit_segments(w, t, 24),
                "whole layer": lambda f=layer, s=series: f(s),
            },
            given.rounds,
        )
        base = seconds["search, one pass"]
        lines = {
            name: {"ms": f"{1e3 * s:.2f}", "x one pass": f"{s / base:.2f}", "series/s": f"{rows / s:,.0f}"}
            for name, s in seconds.items()
        }
        report(f"PLR, {rows} series of 120 bars", lines, given)


if __name__ == "__main__":
    main()
