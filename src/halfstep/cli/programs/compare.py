"""`halfstep compare`: optimizers on the same work, seed by seed, and what may be said about the difference.

    10-sweep/           learning rates on a seed of their own, where a sweep is asked for
    20-research-r0/ ... the store of trajectories that all arms share (scope ``chain``)
    50-arms/            one folder per optimizer and seed
    60-memory/          bytes that each optimizer keeps; 70-timing.json: time of a step
    tables/arms.parquet one row per arm; report/curves.svg: the chart

All arms of a seed have the same initial weights, batch order, schedule, clipping, number of updates, store and stopping
rule. Every optimizer of the Adam family takes AdamW's learning rate.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import RenderableType
from rich.table import Table

from halfstep import files
from halfstep.backtest.registry import record_trials
from halfstep.backtest.statistics import (
    SEEDS_FOR_A_VERDICT,
    compare_paired,
    interquartile_mean,
    seed_interval,
)
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import CompareInputs
from halfstep.cli.programs.arms import (
    Arm,
    ArmResults,
    arm_task,
    arms_of,
    check_optimizers,
    read_arm,
    run_arms,
    run_unfinished,
)
from halfstep.cli.programs.curves import curves_chart
from halfstep.cli.programs.episodes import episodes_folder
from halfstep.cli.programs.estimates import encoder_steps, run_steps
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.openings import open_test
from halfstep.cli.programs.processes import Failure, failed_tasks, incomplete_status
from halfstep.cli.programs.run import collect
from halfstep.cli.programs.timing import MemoryFigures, memory_figures, step_times
from halfstep.cli.programs.trials import arm_trials, failed_trials
from halfstep.config.load import merged
from halfstep.config.tables import Config
from halfstep.experience.store import EpisodeStore
from halfstep.progress import Progress

REFERENCE = "adamw"
SWEEP_SEED = 0  # the arms' seeds begin with 1
SWEEP = {"adamw": ("lr", (3e-4, 1e-3, 3e-3)), "sgd": ("sgd_lr", (0.01, 0.05, 0.2))}
ONE_MONTH = "One test span is short: for its log growth `not shown` is the usual outcome."


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Learning rates by validation loss of the encoder, and the ones that were chosen.

    Attributes:
        losses: by setting and learning rate; None where training failed.
        chosen: setting to learning rate.
        remarks: where the best rate stands at the edge of its grid.
    """

    losses: dict[str, dict[float, float | None]]
    chosen: dict[str, float]
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything a comparison found.

    Attributes:
        config: with the learning rates of the sweep.
        arms: records of the arms that ended well, and the failures.
        memory: measured, by optimizer.
        step_ms: median, lower and upper quartile of the milliseconds of a step, by optimizer.
        sweep: None where none was asked for.
        openings: how often the test span has been opened; None in scope ``encoder``.
    """

    config: Config
    arms: ArmResults
    memory: dict[str, MemoryFigures]
    step_ms: dict[str, tuple[float, float, float]]
    sweep: Sweep | None
    openings: int | None

    def of(self, optimizer: str) -> list[dict[str, Any]]:
        """Return an optimizer's records, by seed."""
        return [record for record in self.arms.records if record["optimizer"] == optimizer]


def compare(
    config: Config, market: Market, folder: Path, progress: Progress, *, episodes: Path | None = None
) -> Comparison:
    """Run all arms of a comparison and measure the optimizers; continues what was interrupted in the folder.

    Args:
        episodes: a frozen store of trajectories; None collects one, as `halfstep run` does.
    """
    sweep = None
    if config.compare.sweep:
        sweep = run_sweep(config, market, folder, progress)
        config = merged(config, {"optim": sweep.chosen}, source="sweep")
    scope, openings, store = config.compare.scope, None, folder
    if scope == "chain":
        store = episodes or episodes_folder(collect(config, market, folder, progress))
        openings = open_test(config, market, folder)  # before an arm trades it
    arms = run_arms(config, arms_of(config), store, folder / "50-arms", progress, scope=scope)
    lost = [arm for arm in arms_of(config) if arm.name in arms.failures]
    record_trials(arm_trials(config, market, arms.records, program="compare", run=folder))
    record_trials(failed_trials(config, market, lost, program="compare", run=folder))
    memory = memory_figures(config, market.features.names, folder / "60-memory")
    times = folder / "70-timing.json"
    if not times.exists():
        files.write_json(times, step_times(config, market.features.names))
    return Comparison(
        config=config, arms=arms, memory=memory, sweep=sweep, openings=openings,
        step_ms=json.loads(times.read_text(encoding="utf-8")),
    )  # fmt: skip


def run_sweep(config: Config, market: Market, folder: Path, progress: Progress) -> Sweep:
    """Train the encoder once for each learning rate of AdamW and of SGD, on a seed of its own.

    Raises:
        HalfstepError: no rate of a grid can be trained with.
    """
    home = folder / "10-sweep"
    tried = {
        f"{name}-{rate:g}": (key, rate, Arm(name, SWEEP_SEED), merged(config, {"optim": {key: rate}}, source="sweep"))
        for name, (key, grid) in SWEEP.items() if name in config.compare.optimizers
        for rate in grid
    }  # fmt: skip
    tasks = {
        name: arm_task(changed, arm, folder, home / name, scope="encoder")
        for name, (_, _, arm, changed) in tried.items()
    }
    progress.start(f"sweep of {len(tasks)} learning rates", 100 * len(tasks), "%")
    failures = run_unfinished(config, tasks, home, progress)
    progress.finish()
    losses: dict[str, dict[float, float | None]] = {}
    for name, (key, rate, _, changed) in tried.items():
        record = None if name in failures else read_arm(home / name)
        losses.setdefault(key, {})[rate] = None if record is None else record["encoder"]["validation_loss"]
        if record is not None:
            record_trials(arm_trials(changed, market, [record], program="compare --sweep", run=folder))
    return _choose(losses, failures)


def _choose(losses: dict[str, dict[float, float | None]], failures: Mapping[str, Failure]) -> Sweep:
    chosen, remarks = {}, []
    for key, found in losses.items():
        known = {rate: loss for rate, loss in found.items() if loss is not None}
        if not known:
            raise failed_tasks(failures)
        chosen[key] = min(known, key=lambda rate: known[rate])  # the smaller of equals
        if chosen[key] in (min(found), max(found)):
            remarks.append(
                f"optim.{key} {chosen[key]:g} is the best of the grid {', '.join(f'{rate:g}' for rate in found)} and "
                "stands at its edge: a better one may lie outside."
            )
    return Sweep(losses=losses, chosen=chosen, remarks=tuple(remarks))


def verdicts(found: Comparison) -> dict[str, dict[str, str]]:
    """Return the sentences about each optimizer against AdamW: of the validation loss, and of the test's log growth.

    An optimizer with a failed arm, or whose seeds AdamW does not have, gets no verdict, nor do fewer than five seeds.
    """
    sentences: dict[str, dict[str, str]] = {}
    for name in found.config.compare.optimizers:
        if name == REFERENCE:
            continue
        sentences[name] = {"validation_loss": _sentence(found, name, "validation_loss")}
        if found.config.compare.scope == "chain":
            sentences[name]["test_log_growth"] = _sentence(found, name, "test_log_growth")
    return sentences


def _sentence(found: Comparison, name: str, figure: str) -> str:
    failed = [arm for arm in found.arms.failures if arm.rpartition("-s")[0] in (name, REFERENCE)]
    if failed:
        return f"{name} - {REFERENCE}: no verdict, {', '.join(failed)} failed."
    ours, theirs = (figures(found.of(optimizer), figure) for optimizer in (name, REFERENCE))
    result = compare_paired(
        name, ours, REFERENCE, theirs, margin=found.config.compare.margin,
        greater_is_better=figure == "test_log_growth",
    )  # fmt: skip
    if result is None:
        return f"{name} - {REFERENCE}: {len(ours)} seeds allow no verdict, {SEEDS_FOR_A_VERDICT} are needed."
    return result.sentence


def figures(records: list[dict[str, Any]], figure: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Return one figure of every record: ``validation_loss`` or ``test_log_growth``."""
    if figure == "validation_loss":
        return np.array([record["encoder"]["validation_loss"] for record in records])
    return np.array([record["test"]["log_growth"] for record in records])


def metrics_of(found: Comparison) -> dict[str, Any]:
    """Return every number of a comparison; times of the clock, and memory that depends on it, under ``clock``."""
    said = verdicts(found)
    optimizers: dict[str, Any] = {}
    for name in found.config.compare.optimizers:
        records, memory = found.of(name), asdict(found.memory[name])
        memory.pop("peak_resident")
        optimizers[name] = {
            "seeds": [record["seed"] for record in records],
            "validation_loss": figures(records, "validation_loss").tolist(),
            "memory": memory | {"complaint": found.memory[name].complaint},
            "verdicts": said.get(name, {}),
        }
        if found.config.compare.scope == "chain":
            optimizers[name] |= {
                "test_log_growth": figures(records, "test_log_growth").tolist(),
                "net_profit": [record["test"]["net_profit"] for record in records],
            }
    return {
        "schema": "halfstep.compare/1",
        "scope": found.config.compare.scope,
        "complete": not found.arms.failures,
        "failed": {name: {"error": f.error, "log": str(f.log)} for name, f in found.arms.failures.items()},
        "margin": found.config.compare.margin,
        "learning_rates": {"lr": found.config.optim.lr, "sgd_lr": found.config.optim.sgd_lr},
        "sweep": None if found.sweep is None else asdict(found.sweep),
        "openings": found.openings,
        "optimizers": optimizers,
        "clock": {
            "step_ms": found.step_ms,
            "peak_resident": {name: memory.peak_resident for name, memory in found.memory.items()},
            "arm_seconds": {
                f"{record['optimizer']}-s{record['seed']}": record["clock"] for record in found.arms.records
            },
        },
    }


def arms_frame(found: Comparison) -> pl.DataFrame:
    """Return one row per arm that ended well."""
    rows = []
    for record in found.arms.records:
        row = {
            "optimizer": record["optimizer"], "seed": record["seed"], "updates": record["encoder"]["updates"],
            "validation_loss": record["encoder"]["validation_loss"],
            "skill": float(np.mean(record["encoder"]["skill"])),
        }  # fmt: skip
        if "test" in record:
            row |= {
                "validation_log_growth": record["study"]["log_growth"],
                "test_log_growth": record["test"]["log_growth"], "net_profit": record["test"]["net_profit"],
            }  # fmt: skip
        rows.append(row)
    return pl.DataFrame(rows)


def shown(found: Comparison) -> tuple[RenderableType, ...]:
    """Return the table and the sentences for people."""
    settings = found.config.compare
    table = Table(title=f"{settings.seeds} seeds on the same work; interquartile means, 95 % over seeds")
    headings = [
        "optimizer",
        "validation loss",
        "state bytes",
        "says",
        "formula",
        "peak resident",
        "step ms",
        "arm s",
    ]
    if settings.scope == "chain":
        headings.insert(2, "log growth of the test")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for name in settings.optimizers:
        table.add_row(*_cells(found, name))
    lines: list[RenderableType] = [table]
    lines += [f"{name}: {memory.implementation}" for name, memory in found.memory.items()]
    lines += [f"{name}: {memory.complaint}." for name, memory in found.memory.items() if memory.complaint]
    lines += list(found.sweep.remarks) if found.sweep else []
    for said in verdicts(found).values():
        lines += [f"{figure.replace('_', ' ')}: {sentence}" for figure, sentence in said.items()]
    if settings.scope == "chain":
        lines.append(f"{ONE_MONTH} It has been opened {found.openings} times.")
    lines += [
        f"FAILED {name}: {failure.error} Log: {failure.log}" for name, failure in found.arms.failures.items()
    ]
    if found.arms.failures:
        lines.append("The result is incomplete.")
    return tuple(lines)


def _cells(found: Comparison, name: str) -> list[str]:
    records, memory, config = found.of(name), found.memory[name], found.config
    seconds = [sum(record["clock"].values()) for record in records]
    cells = [
        name,
        _with_interval(figures(records, "validation_loss"), config, "{:.5f}"),
        f"{memory.state:,}",
        "--" if memory.says is None else f"{memory.says:,}",
        "--" if memory.formula is None else f"{memory.formula:,}",
        f"{memory.peak_resident / 1e6:,.0f} MB",
        "{:.2f} ({:.2f} … {:.2f})".format(*found.step_ms[name]),
        f"{np.median(seconds):.1f}" if seconds else "--",
    ]
    if config.compare.scope == "chain":
        cells.insert(2, _with_interval(figures(records, "test_log_growth"), config, "{:+.5f}"))
    return cells


def _with_interval(values: "np.ndarray[Any, np.dtype[np.float64]]", config: Config, form: str) -> str:
    if len(values) == 0:
        return "--"
    low, high = seed_interval(values, draws=config.test.bootstrap_draws, seed=config.run.seed)
    return f"{form.format(interquartile_mean(values))} ({form.format(low)} … {form.format(high)})"


def _open(request: Request[CompareInputs], market: Market) -> Path | None:
    check_optimizers(request.config)
    if request.inputs.episodes is None or request.config.compare.scope == "encoder":
        return None
    return EpisodeStore.open(episodes_folder(request.inputs.episodes), expect=market.store_header).folder


def _parents(inputs: CompareInputs) -> dict[str, Path]:
    return {} if inputs.episodes is None else {"episodes": episodes_folder(inputs.episodes)}


def _plan(job: Job[CompareInputs]) -> list[Step]:
    config = job.config
    if config.compare.scope == "chain":
        return run_steps(config, job.market)
    arms = len(config.compare.optimizers) * config.compare.seeds
    processes = min(arms, config.run.processes)
    return [
        Step(
            what=f"{arms} arms, {processes} side by side: {step.what}",
            seconds=(step.seconds or 0.0) * arms / processes,
            stop=step.stop,
        )
        for step in encoder_steps(config, job.market)
    ]


def _work(job: Job[CompareInputs]) -> Outcome:
    home = job.folder.path
    found = compare(job.config, job.market, home, job.progress, episodes=job.opened)
    with files.replacing(home / "tables" / "arms.parquet") as temporary:
        arms_frame(found).write_parquet(temporary)
    chart = home / "report" / "curves.svg"
    files.write_text(chart, curves_chart({name: found.of(name) for name in found.config.compare.optimizers}))
    return Outcome(
        metrics=metrics_of(found), shown=shown(found), last=(f"Chart: {chart.absolute()}",),
        status=incomplete_status(found.arms.failures),
    )  # fmt: skip


PROGRAM = Program(verb="compare", open=_open, parents=_parents, plan=_plan, work=_work)
