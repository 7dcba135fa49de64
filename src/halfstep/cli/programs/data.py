"""``halfstep data import`` and ``halfstep data check``: files of bars to checked Parquet, and what is wrong with them."""

import contextlib
import json
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, TypeVar

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from halfstep import files
from halfstep.cli.console import output
from halfstep.cli.programs.buffer import describe_import, store_of_buffer
from halfstep.errors import ConfigError, MissingInputError, OutputExistsError
from halfstep.market.bars import Bars
from halfstep.market.check import DataReport, check_bars
from halfstep.market.parquet import write_parquet
from halfstep.market.raw import ReadOptions
from halfstep.market.read import bars_of, default_bars, read_raw

T = TypeVar("T")

BUFFER_SUFFIX = ".bd"
_SUFFIXES = (".gz", ".csv", ".txt", ".tsv", ".parquet", ".prn")
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "dim"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadFlags:
    """What you know better than the file."""

    symbol: str | None = None
    """Symbol of the bars. Default: from the file's header or name."""
    timeframe: str | None = None
    """Length of a bar: M1 M5 M15 M30 H1 H4 D1 W1 MN1. Default: from the file's name, else the usual step."""
    zone: str | None = None
    """Clock of the file's times: server-eu, server-us, est, UTC or an IANA name. Default: stated, or by format."""
    side: Literal["bid", "ask"] | None = None
    """Which price the bars show. Default: bid, ask where the file's name holds ASK."""
    digits: int | None = None
    """Decimals of a price. Default: of the symbol's preset, else the fewest that hold 99 % of the prices."""
    format: str | None = None
    """Export format, where it is not recognised: mt5, mt5-python, mt4, saved-as, histdata, dukascopy, tradingview,
    fxcm, yfinance or csv."""
    date_order: Literal["dmy", "mdy"] | None = None
    """Order of day and month in dates that nothing else decides."""
    price_unit: Literal["price", "points"] = "price"
    """Whether the file holds prices or whole points."""
    stamp: Literal["open", "close"] = "open"
    """Whether a bar's time is that of its open or of its close."""
    volume_kind: Literal["tick", "real", "quote", "none"] | None = None
    """Which volume to read. Default: by format."""
    fxcm_side: Literal["bid", "ask"] = "bid"
    """Which side of a table of bids and asks to read."""
    start: str | None = None
    """First server date to keep, such as 2023-01-01. Default: all."""
    stop: str | None = None
    """Server date after the last one to keep."""

    def options(self, repair: tuple[str, ...] = ()) -> ReadOptions:
        """Return the same as the reader takes it."""
        given = {name.name: getattr(self, name.name) for name in fields(ReadFlags)}
        return ReadOptions(**given, repair=repair)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportFlags(ReadFlags):
    """Files to import."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files of bars: MetaTrader exports, other CSV, Parquet, also as .gz. Or one buffer of the published programs
    (.bd), with --bars."""
    out: Path = Path()
    """Folder for the Parquet files, or for the store of a buffer. Default: the current one."""
    bars: Path | None = None
    """Bars that a buffer was recorded on."""
    features: str = "robust9"
    """Feature set that models trained on a buffer's trajectories will read."""
    overwrite: bool = False
    """Replace files that exist."""
    repair: tuple[str, ...] = ()
    """Repairs, each counted: drop-bad, sort, dedupe, widen, snap, drop-days, drop-last. Default: none."""
    drop_last: bool = False
    """Short for --repair drop-last: leave out the last bar, which may not be finished."""
    json: bool = False
    """Print what was found as JSON."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckFlags(ReadFlags):
    """File to check."""

    file: tyro.conf.Positional[Path | None] = None
    """File of bars. Default: the EURUSD hours of 2017 that come with the installation."""
    price_range: tuple[float, float] | None = None
    """Lowest and highest plausible price."""
    strict: bool = False
    """Exit with 1 on warnings, too."""
    json: bool = False
    """Print the report as JSON, with every row concerned."""


def import_files(argv: list[str], description: str) -> int:
    """Read all files, then write them; on any error nothing is written."""
    flags = parse_flags(ImportFlags, "halfstep data import", description, argv)
    if not flags.files:
        raise MissingInputError("no file to import. Name one: halfstep data import EURUSD_H1.csv")
    if any(path.suffix.lower() == BUFFER_SUFFIX for path in flags.files):
        return _import_buffer(flags)
    repair = (*flags.repair, *(("drop-last",) if flags.drop_last and "drop-last" not in flags.repair else ()))
    targets = _targets(flags.files, flags.out, overwrite=flags.overwrite)
    options = flags.options(repair)
    read = [(path, target, _read(path, options)) for path, target in zip(flags.files, targets, strict=True)]
    found = [(path, target, bars, check_bars(bars)) for path, target, bars in read]
    with contextlib.ExitStack() as stack:  # renames when all are written
        for _, target, bars, _ in found:
            write_parquet(bars, stack.enter_context(files.replacing(target)))
    if flags.json:
        print_json([_imported(path, target, bars, report) for path, target, bars, report in found])
        return 0
    screen = output()
    for path, target, bars, report in found:
        _print_report(screen, report, title=f"{path} -> {target}", repairs=bars.report.repairs)
    return 0


def _import_buffer(flags: ImportFlags) -> int:
    """Read the trajectories of one buffer file into a store."""
    path = flags.files[0]
    if len(flags.files) > 1 or flags.bars is None:
        raise ConfigError(
            f"{path}: a buffer is imported alone and needs its bars. "
            f"Use: halfstep data import {path} --bars FILE --out FOLDER"
        )
    store = store_of_buffer(path, _read(flags.bars, flags.options()), flags.out, features=flags.features)
    facts = describe_import(path, store)
    if flags.json:
        print_json(facts)
    else:
        table = Table("what", "found", title=f"{path} -> {flags.out}", title_justify="left")
        for name, value in facts.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        output().print(table)
    return 0


def check_file(argv: list[str], description: str) -> int:
    """Print the data report of a file; 0 clean, 1 errors (``--strict``: or warnings), 2 not readable at all."""
    flags = parse_flags(CheckFlags, "halfstep data check", description, argv)
    if flags.file is None:
        if flags.options() != ReadOptions():
            raise ConfigError(
                "data check: flags of reading are given, but no file. Name one: halfstep data check EURUSD_H1.csv"
            )
        report = check_bars(default_bars(), price_range=flags.price_range)
    else:
        report = check_bars(flags.file, price_range=flags.price_range, options=flags.options())
    if flags.json:
        print_json(report.as_dict())
    else:
        _print_report(output(), report, title=str(flags.file or "the bars that come with the installation"))
    return report.exit_status(strict=flags.strict)


def _read(path: Path, options: ReadOptions) -> Bars:
    return bars_of(read_raw(path, options), options)


def _targets(paths: tuple[Path, ...], out: Path, *, overwrite: bool) -> list[Path]:
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out: {out} is a file, must be a folder.")
    targets = []
    for path in paths:
        name = path.name
        while name.lower().endswith(_SUFFIXES):
            name = name.rpartition(".")[0]
        targets.append(out / f"{name}.parquet")
    for target, path in zip(targets, paths, strict=True):
        if targets.count(target) > 1:
            raise ConfigError(
                f"{path}: would be written to {target}, and so would another file. Import them apart."
            )
        if target.exists() and not overwrite:
            raise OutputExistsError(
                f"{target} exists. Replace it with --overwrite, or choose a folder with --out."
            )
    return targets


def _imported(path: Path, target: Path, bars: Bars, report: DataReport) -> dict[str, object]:
    return {
        **report.as_dict(), "file": str(path), "written": str(target), "hash": bars.hash, "bars": len(bars),
        "repairs": bars.report.repairs,
    }  # fmt: skip


def _print_report(screen: Console, report: DataReport, *, title: str, repairs: tuple[str, ...] = ()) -> None:
    table = Table(title=Text(title), title_justify="left", show_lines=False)
    table.add_column("what", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("found", overflow="fold")
    zone = f"{report.zone} ({'assumed' if report.is_zone_assumed else 'stated'})"
    facts: list[tuple[str, int | str, str]] = [
        ("bars", report.rows, f"{report.symbol} {report.timeframe or 'of no timeframe'}, {report.side}, "
         f"{report.digits} digits, volume: {report.volume_kind}, {report.format}"),
        ("span", "", f"{report.first} to {report.last} server time, zone {zone}"),
    ]  # fmt: skip
    if report.grid is not None:
        grid = report.grid
        wrong = f", {grid.wrong:,} wrong" if grid.wrong else ""
        facts.append(
            ("quality", f"{report.quality:.2f} %", f"{grid.slots - grid.missing:,} of {grid.slots:,} slots of "
             f"the sessions, {grid.missing:,} missing{wrong}")
        )  # fmt: skip
    for name, count, text in facts:
        table.add_row(name, f"{count:,}" if isinstance(count, int) else count, Text(text))
    for note in report.notes:
        table.add_row("note", "", Text(note))
    for repair in repairs:
        table.add_row("repair", "", Text(repair))
    for finding in report.findings:
        style = _COLOURS[finding.level]
        table.add_row(
            Text(f"{finding.level} {finding.code}", style=style), f"{finding.count:,}", Text(finding.text)
        )
    screen.print(table)


def parse_flags(kind: type[T], prog: str, description: str, argv: list[str]) -> T:
    """Return the flags of a program; prints help or a usage error and exits where tyro would."""
    return tyro.cli(
        kind, prog=prog, description=description, args=argv, config=(tyro.conf.FlagCreatePairsOff,)
    )


def print_json(value: object) -> None:
    """Print a result for machines."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")
