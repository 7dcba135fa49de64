"""`halfstep replay-signals`: recorded deals of real accounts → trajectories, and how true they are to the record."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table

from halfstep import files
from halfstep.cli.flags import Request
from halfstep.cli.frame import Job, Outcome, Program, Step
from halfstep.cli.inputs import ReplayInputs
from halfstep.cli.programs.episodes import begin_store, episodes_folder, next_number
from halfstep.cli.programs.market import Market
from halfstep.cli.programs.research import tally_tables
from halfstep.errors import ConfigError
from halfstep.experience.histories import History, read_history
from halfstep.experience.signals import Replay, SignalSettings, in_words, replay_history
from halfstep.experience.tally import Tally
from halfstep.training.loop import write_metric_lines

Replayed = tuple[History, Replay]


def replay_files(paths: Sequence[Path], market: Market, settings: SignalSettings) -> list[Replayed]:
    """Return every history on the bars; nothing is written.

    Raises:
        ConfigError: no file, or one file twice.
        SignalError, DataError: a file is no history, or does not fit the bars.
    """
    if not paths:
        raise ConfigError("signals: no file given. Name deal histories with --signals FILE ...")
    histories = [read_history(path) for path in paths]
    hashes = [history.sha256 for history in histories]
    for number, history in enumerate(histories):
        if history.sha256 in hashes[:number]:
            raise ConfigError(
                f"signals: {history.path} is the same as {paths[hashes.index(history.sha256)]}. Name each once."
            )
    return [(history, replay_history(history, market.table, market.rules, settings)) for history in histories]


def write_replays(
    replays: Sequence[Replayed], market: Market, folder: Path, *, previous: Path | None = None
) -> None:
    """Write the episodes into the store of a folder, and ``tables/deals.parquet``."""
    store = begin_store(folder, market, previous=previous)
    for number, (_, replay) in enumerate(replays, next_number(previous, "s")):
        for part, group in enumerate(replay.groups):
            if not store.finished(f"s{number}-g{part}"):
                store.write(f"s{number}-g{part}", group)
    table = pl.concat(
        [
            replay.deals.select(pl.lit(history.path.name).alias("history"), pl.all())
            for history, replay in replays
        ]
    )
    with files.replacing(folder / "tables" / "deals.parquet") as temporary:
        table.write_parquet(temporary)


def replay_metrics(replays: Sequence[Replayed]) -> dict[str, Any]:
    """Return the figures of replayed histories."""
    total = Tally.total(replay.tally for _, replay in replays)
    return {
        "histories": [
            {
                "file": str(history.path), "sha256": history.sha256, "format": history.format, "rows": history.counts,
                "zone": replay.match.zone.name, "inside_bars": replay.match.share, "deals": replay.counts,
                "fidelity": None if replay.fidelity is None else asdict(replay.fidelity),
            }
            for history, replay in replays
        ],
        "signals": total.as_json(),
    }  # fmt: skip


def _settings(inputs: ReplayInputs) -> SignalSettings:
    try:
        return SignalSettings(
            zone=inputs.zone, lot_scale=inputs.lot_scale, use_file_tp=inputs.use_file_tp,
            impute_levels=inputs.impute_levels,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _open(request: Request[ReplayInputs], market: Market) -> list[Replayed]:
    return replay_files(request.inputs.signals, market, _settings(request.inputs))


def _parents(inputs: ReplayInputs) -> dict[str, Path]:
    found = {f"signals {number}": path for number, path in enumerate(inputs.signals)}
    return found if inputs.previous is None else {**found, "previous": episodes_folder(inputs.previous)}


def _plan(job: Job[ReplayInputs]) -> list[Step]:
    replays: list[Replayed] = job.opened
    return [
        Step(
            what=f"{history.path.name}: {replay.tally.decisions:,} decisions in {len(replay.groups)} episodes",
            seconds=1.0,
        )
        for history, replay in replays
    ]


def _work(job: Job[ReplayInputs]) -> Outcome:
    replays: list[Replayed] = job.opened
    write_replays(replays, job.market, job.folder.path, previous=job.inputs.previous)
    metrics = replay_metrics(replays)
    write_metric_lines(job.folder.path, "replay-signals", [metrics], seed=job.config.run.seed)
    shown: list[Any] = []
    for history, replay in replays:
        shown += [_deals_table(history, replay)]
        if replay.fidelity is not None:
            shown += in_words(replay.fidelity, job.market.bars.timeframe.name)
    total = Tally.total(replay.tally for _, replay in replays)
    if job.inputs.impute_levels != "none":
        shown.append("The actions know later prices (exit_price): the store is marked as leaking.")
    return Outcome(metrics=metrics, shown=(*shown, *tally_tables(total, job.market)[:2]))


def _deals_table(history: History, replay: Replay) -> Table:
    rows = ", ".join(f"{count:,} {kind}" for kind, count in history.counts.items() if count)
    table = Table(title=f"{history.path.name}: {history.format}")
    table.add_column("what")
    table.add_column("", justify="right")
    table.add_row("rows", rows)
    table.add_row(
        f"open prices inside their bars, clock {replay.match.zone.name}", f"{replay.match.share:.1%}"
    )
    for word, count in replay.counts.items():
        table.add_row(f"deals {word}", f"{count:,}")
    f = replay.fidelity
    if f is None:
        return table
    correlation = "--" if f.correlation is None else f"{f.correlation:.2f}"
    for what, value in (
        ("move of a deal, recorded, points", f"{f.recorded_points:.1f}"),
        ("  between bar opens, before costs", f"{f.timed_points:.1f}"),
        ("  replayed, after spread and slippage", f"{f.replayed_points:.1f}"),
        ("correlation of the first two", correlation),
        ("median difference of the first two, points", f"{f.median_difference:.1f}"),
        ("mean volume recorded / replayed, lots", f"{f.recorded_lots:.3f} / {f.replayed_lots:.3f}"),
        ("net recorded / replayed, own account's currency", f"{f.recorded_net:,.2f} / {f.replayed_net:,.2f}"),
        ("deals whose net has the same sign", f"{f.same_sign:.1%}"),
    ):
        table.add_row(what, value)
    return table


PROGRAM = Program(verb="replay-signals", open=_open, parents=_parents, plan=_plan, work=_work)
