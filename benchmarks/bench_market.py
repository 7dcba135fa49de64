"""Time of indicators, features, readers and checks on a million bars, indicators as ratios to TA-Lib.

    python benchmarks/bench_market.py

TA-Lib is asked for what gives the same numbers: ``SMA(TRANGE)`` for ATR, ``SMA`` of the main line for MACD's signal.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from halfstep.market import indicators
from halfstep.market.calendar import is_open
from halfstep.market.check import check_bars
from halfstep.market.features import compute_features
from halfstep.market.read import read_bars
from halfstep.market.synthetic import random_bars
from halfstep.market.timeframes import Timeframe
from halfstep.market.write import write_bars
from measure import arguments, interleaved, machine, quartiles, ratio, report

BARS = 1_000_000
AIMS = {  # seconds, of market.md; a ratio to TA-Lib for indicators
    "RSI": 3.0, "CCI": 3.0, "MACD": 3.0, "ATR": 3.0, "robust9": 0.4, "CSV to Bars": 2.5, "Parquet to Bars": 0.2,
    "check": 1.5, "zone": 0.2, "memory of reading CSV, times the file": 6.0,
}  # fmt: skip
PEAK = """
import sys
from halfstep.market.read import read_bars
read_bars(sys.argv[1])  # compiles
def of(word): return 1024 * next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(word))
open("/proc/self/clear_refs", "w").write("5")  # forgets the peak so far
before = of("VmRSS")
read_bars(sys.argv[2])
print(of("VmHWM") - before)
"""
"""Peak of the resident size beyond what stood before, on Linux."""


def minute_bars() -> Any:
    """Return a million made-up minutes of trading hours."""
    minutes = np.arange(1_483_304_400, 1_483_304_400 + 60 * 2 * BARS, 60)
    time = minutes[is_open(minutes, "fx")][:BARS]
    return replace(random_bars(BARS, seed=0), time=time, timeframe=Timeframe.M1)


def indicator_rows(bars: Any, rounds: int) -> list[dict[str, Any]]:
    """Time each indicator against the TA-Lib calls that give the same numbers."""
    import talib

    high, low, close = bars.high, bars.low, bars.close
    pairs = {
        "RSI": (lambda: indicators.rsi(close), lambda: talib.RSI(close, 14)),
        "CCI": (lambda: indicators.cci(high, low, close), lambda: talib.CCI(high, low, close, 14)),
        "MACD": (lambda: indicators.macd(close), lambda: talib.SMA(talib.MACD(close)[0], 9)),
        "ATR": (
            lambda: indicators.atr(high, low, close),
            lambda: talib.SMA(talib.TRANGE(high, low, close), 14),
        ),
    }
    rows = []
    for name, (ours, theirs) in pairs.items():
        times = interleaved({"halfstep": ours, "TA-Lib": theirs}, rounds=rounds)
        rows.append(
            {
                "what": name,
                "seconds": quartiles(times["halfstep"])[1],
                "value": ratio(times, "halfstep", "TA-Lib"),
            }
        )
    return rows


def other_rows(bars: Any, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Time features, files, the check and the conversion of times."""
    table, parquet, small = (
        folder / "EURUSD_M1.csv",
        folder / "EURUSD_M1.parquet",
        folder / "EURUSD_H1_small.csv",
    )
    write_bars(bars, table)
    write_bars(bars, parquet)
    write_bars(random_bars(500, seed=1), small)
    works = {
        "robust9": lambda: compute_features(bars, "robust9"),
        "CSV to Bars": lambda: read_bars(table),
        "Parquet to Bars": lambda: read_bars(parquet),
        "check": lambda: check_bars(table),
        "zone": lambda: bars.zone.to_server(bars.time),
    }
    times = interleaved(works, rounds=rounds, warmup=1)
    rows = [{"what": name, "value": quartiles(values)[1]} for name, values in times.items()]
    if sys.platform == "linux":
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(small), str(table)], capture_output=True, text=True, check=True
        )
        rows.append(
            {
                "what": "memory of reading CSV, times the file",
                "value": int(done.stdout) / table.stat().st_size,
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    options = arguments("Indicators, features, readers and checks on a million bars.", rounds=7).parse_args()
    bars = minute_bars()
    with tempfile.TemporaryDirectory() as folder:
        rows = indicator_rows(bars, options.rounds) + other_rows(bars, Path(folder), min(options.rounds, 5))
    lines = [f"{'what':40s} {'found':>8s} {'aim':>6s}"]
    for row in rows:
        aim = AIMS[row["what"]]
        unit = "x TA-Lib" if "seconds" in row else "x" if "memory" in row["what"] else "s"
        lines.append(
            f"{row['what']:40s} {row['value']:8.3f} {aim:6.1f} {unit}{'' if row['value'] <= aim else '  NOT REACHED'}"
        )
    assert np.isfinite([row["value"] for row in rows]).all()
    versions = {package: version(package) for package in ("TA-Lib", "polars")}
    figures = {"machine": machine() | versions, "bars": BARS, "aims": AIMS, "rows": rows}
    report(figures, lines, as_json=options.json, out=options.out)


if __name__ == "__main__":
    main()
