"""How often a test span was opened: one line per run in ``runs/openings.jsonl``."""

from datetime import UTC, datetime
from pathlib import Path

from halfstep import files
from halfstep.cli.programs.market import Market
from halfstep.config.load import digest
from halfstep.config.tables import Config

OPENINGS = Path("runs") / "openings.jsonl"


def open_test(config: Config, market: Market, run: Path) -> int:
    """Record that a run opens its test span, once per run; returns its place among the runs that opened it."""
    span = {"bars": market.bars.hash, "span": list(market.split.test)}
    entry = {**span, "run": str(run.absolute())}
    same = [opened["run"] for opened in files.read_json_lines(OPENINGS) if opened | span == opened]
    if entry["run"] not in same:
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        files.append_json_lines(OPENINGS, [{"time": stamp, **entry, "config": digest(config)}])
        same.append(entry["run"])
    return same.index(entry["run"]) + 1
