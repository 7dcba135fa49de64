"""Training rates of the default networks on one core: encoder, context table, critic and actor, one batch of stored steps.

Usage: python benchmarks/bench_study.py [--rounds 10] [--json] [--out FILE]

Rates are per second of processor time of one thread, so that other work on the machine does not count; the median over rounds
that take turns. Bars and trajectories are made up.
"""

import statistics
import tempfile
import time
from pathlib import Path

import torch

from halfstep.cli.programs.bench_works import (
    Work,
    context_table,
    encoder_setting,
    encoder_updates,
    study_data,
    study_updates,
)
from halfstep.training.samples import Batches
from halfstep.training.settings import PUBLISHED_STUDY, StudySettings
from measure import arguments, interleaved, machine, report

STUDIES: dict[str, StudySettings] = {
    "study, guided (default)": StudySettings(),
    "study, published": StudySettings(**PUBLISHED_STUDY),
    "study, td": StudySettings(target="td"),
    "study, awr": StudySettings(target="value", objective="awr"),
    "study, oracle": StudySettings(objective="oracle"),
}
BOUNDS = {"study, guided (default)": 9_000, "encoder": 2_000, "context table": 5_000}


def pieces(folder: Path) -> dict[str, Work]:
    """Return pieces of work by name."""
    setting = encoder_setting()
    data = study_data(setting, folder / "store")
    batches = Batches(data, StudySettings(), 1)
    return {
        "encoder": encoder_updates(setting),
        "context table": context_table(setting),
        **{name: study_updates(data, settings) for name, settings in STUDIES.items()},
        "one batch of stored steps": Work(units=256, call=lambda: batches.at(0)),
    }


def main() -> None:
    """Time everything, and print rates."""
    parser = arguments("Training rates.", rounds=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        works = pieces(Path(folder))
        calls = {name: work.call for name, work in works.items()}
        seconds = interleaved(calls, rounds=given.rounds, warmup=1, clock=time.process_time)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rates = {name: work.units / medians[name] for name, work in works.items()}
    lines = [
        "",
        "| work | samples per second of one core | bound | ms per call |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {rate:,.0f} | {BOUNDS.get(name, '--')} | {1000 * medians[name]:.2f} |"
        for name, rate in rates.items()
    ]
    figures = {"machine": machine(), "samples_per_second": rates, "seconds": seconds, "bounds": BOUNDS}
    report(figures, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
