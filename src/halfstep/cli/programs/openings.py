"""How often a test span was opened: one line per run in ``runs/openings.jsonl``."""

import json
from datetime import UTC, datetime
from pathlib import Path

from halfstep.cli.programs.market import Market
from halfstep.config.load import digest
from halfstep.config.tables import Config

OPENINGS = Path("runs") / "openings.jsonl"


def open_test(config: Config, market: Market, run: Path) -> int:
    """Record that a run opens its test span, once per run; returns its place among the runs that opened it."""
    span = {"bars": market.bars.hash, "span": list(market.split.test)}
    entry = {**span, "run": str(run.absolute())}
    lines = OPENINGS.read_text(encoding="utf-8").splitlines() if OPENINGS.exists() else []
    same = [opened["run"] for opened in map(json.loads, lines) if opened | span == opened]
    if entry["run"] not in same:
        OPENINGS.parent.mkdir(exist_ok=True)
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"time": stamp, **entry, "config": digest(config)})
        with OPENINGS.open(
            "a", encoding="utf-8"
        ) as stream:  # one short line: whole, also beside other processes
            stream.write(line + "\n")
        same.append(entry["run"])
    return same.index(entry["run"]) + 1
