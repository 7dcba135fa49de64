"""The page of a report: seconds with all charts, and its size, for a month of hourly bars and for ten years.

Usage: python benchmarks/bench_page.py [--rounds 3] [--json] [--out FILE]

The numbers are made up; every chart and every table is there.
"""

import statistics
import sys
from pathlib import Path

from halfstep.backtest.charts.all import all_charts
from halfstep.backtest.html import page
from measure import arguments, interleaved, machine, report

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backtest"))
from made_up import made_up_report

SPANS = {
    "a month": made_up_report(bars=528, positions=130),
    "ten years": made_up_report(bars=62_000, positions=5_000, years=10),
}


def main() -> None:
    """Time the page and its charts alone."""
    given = arguments("The page of a report.", rounds=3).parse_args()
    works = {}
    for span, made_up in SPANS.items():
        works[f"{span}, page"] = lambda made_up=made_up: page(made_up)
        works[f"{span}, its charts"] = lambda made_up=made_up: all_charts(made_up)
    seconds = {
        name: statistics.median(values)
        for name, values in interleaved(works, rounds=given.rounds, warmup=1).items()
    }
    sizes = {span: len(page(made_up).encode()) for span, made_up in SPANS.items()}
    lines = ["", "| span | page, s | of it charts, s | bytes |", "|---|---:|---:|---:|"]
    lines += [
        f"| {span} | {seconds[f'{span}, page']:.2f} | {seconds[f'{span}, its charts']:.2f} | {size:,} |"
        for span, size in sizes.items()
    ]
    figures = {"machine": machine(), "seconds": seconds, "bytes": sizes}
    report(figures, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
