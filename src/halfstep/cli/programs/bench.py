"""How fast this machine is, beside the bars that halfstep sets itself for two processor cores.

Bars are printed, never enforced: a slow or busy machine is no defect. The scripts in ``benchmarks/`` of the source tree
measure more of the same (other sizes, other libraries, memory) and take minutes.
"""

import difflib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numba
import torch
from rich.table import Table

from halfstep.cli.console import console, output, progress_for
from halfstep.cli.flags import BenchFlags
from halfstep.cli.frame import Step, plan_text
from halfstep.cli.programs.bench_measures import MEASUREMENTS, Figure, Measurement
from halfstep.cli.run_folder import versions
from halfstep.errors import ConfigError
from halfstep.progress import SILENT, Progress

QUICK_ROUNDS = 3
QUICK_SHARE = 0.5  # of the time: what is measured must be made, however often it is measured
BUSY = 0.5  # load a core, above which other programs are in the way


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Figures by the name of their measurement, and the machine they were found on."""

    machine: dict[str, str]
    figures: tuple[tuple[str, Figure], ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [{"name": name, **asdict(each), "reached": each.is_reached} for name, each in self.figures]
        return {"machine": self.machine, "figures": rows}

    def table(self) -> Table:
        """Return a table for people."""
        missed = sum(not figure.is_reached for _, figure in self.figures)
        table = Table(
            "name", "what", title=f"{len(self.figures) - missed} of {len(self.figures)} bars reached"
        )
        for column in ("found", "bar", "unit", ""):
            table.add_column(column, justify="left" if column == "unit" else "right", no_wrap=True)
        for name, each in self.figures:
            sign = "≥" if each.bound == "at least" else "≤"
            mark = "reached" if each.is_reached else "[bold]MISSED[/bold]"
            table.add_row(
                name, each.what, _number(each.value), f"{sign} {_number(each.bar)}", each.unit, mark
            )
        return table


def answer(request: BenchFlags) -> int:
    """Measure, or say what would be measured, as the command line asks for it; returns the exit status."""
    measurements = chosen(request.names)
    if request.dry_run:
        sys.stdout.write(plan_text(plan(measurements, quick=request.quick)))
        return 0
    screen = console()
    found = bench(measurements, quick=request.quick, progress=progress_for(screen, lambda _line: None))
    shown = screen if request.json else output()
    shown.print(header(found.machine), soft_wrap=True)
    shown.print(found.table())
    if request.json:
        sys.stdout.write(json.dumps(found.as_json(), indent=2, allow_nan=False) + "\n")
    return 0


def chosen(names: Sequence[str]) -> tuple[Measurement, ...]:
    """Return the measurements of these names, in the order of the table; all where there is no name.

    Raises:
        ConfigError: an unknown name.
    """
    known = [each.name for each in MEASUREMENTS]
    for name in names:
        if name not in known:
            [nearest] = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"bench: {name!r}, must be one of {', '.join(known)}. The nearest is {nearest}."
            )
    return tuple(each for each in MEASUREMENTS if not names or each.name in names)


def plan(measurements: Sequence[Measurement], *, quick: bool = False) -> list[Step]:
    """Return what would be measured, with times."""
    return [
        Step(
            what=f"{each.name}: {each.what}, median of {_rounds(each, quick=quick)} rounds",
            seconds=each.seconds * (QUICK_SHARE if quick else 1),
        )
        for each in measurements
    ]


def bench(
    measurements: Sequence[Measurement], *, quick: bool = False, progress: Progress = SILENT
) -> Findings:
    """Measure, one after the other."""
    machine = machine_facts()
    figures: list[tuple[str, Figure]] = []
    progress.start("bench", len(measurements), "measurements")
    for each in measurements:
        figures += [(each.name, figure) for figure in each.measure(_rounds(each, quick=quick))]
        progress.advance(1)
    progress.finish()
    return Findings(machine=machine, figures=tuple(figures))


def machine_facts() -> dict[str, str]:
    """Return what the figures depend on: processor, threads, versions, and what else the machine does."""
    return {
        **versions(),
        "torch threads": str(torch.get_num_threads()),
        "numba threads": str(numba.get_num_threads()),
        "load": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def header(machine: dict[str, str]) -> str:
    """Return the machine in two lines, and a warning where other programs are in the way."""
    load, cores = machine["load"], int(machine["cores"])
    lines = [
        f"{machine['processor']}, {cores} cores; threads: {machine['torch threads']} of torch, "
        f"{machine['numba threads']} of numba; load {load}; {machine['date']}",
        f"halfstep {machine['halfstep']}, python {machine['python']}, torch {machine['torch']}, numba {machine['numba']}, "
        f"numpy {machine['numpy']}, polars {machine['polars']}. The bars are for two cores.",
    ]
    if load != "unknown" and float(load) > BUSY * cores:
        lines.append("Other programs use this machine: the figures are not those of a quiet one.")
    return "\n".join(lines)


def _rounds(measurement: Measurement, *, quick: bool) -> int:
    return min(QUICK_ROUNDS, measurement.rounds) if quick else measurement.rounds


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
