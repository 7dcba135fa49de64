"""Bars to a Parquet file that reads back bit-equal, with every attribute in its metadata."""

import json
from pathlib import Path

import polars as pl

from halfstep import files
from halfstep.market.bars import COLUMNS, Bars
from halfstep.market.read import PARQUET_KEY


def write_bars(bars: Bars, path: Path) -> None:
    """Write bars as Parquet, atomically; `halfstep.market.read_bars` reads them back with the same hash."""
    frame = pl.DataFrame({name: getattr(bars, name) for name in COLUMNS})
    facts = {
        "symbol": bars.symbol,
        "timeframe": bars.timeframe.name,
        "digits": bars.digits,
        "side": bars.side,
        "zone": {"name": bars.zone.name, "is_assumed": bars.zone.is_assumed},
        "volume_kind": bars.volume_kind,
        "format": bars.source.format,
        "notes": bars.report.notes,
        "repairs": bars.report.repairs,
    }
    with files.replacing(path) as temporary:
        frame.write_parquet(temporary, metadata={PARQUET_KEY: json.dumps(facts)})
