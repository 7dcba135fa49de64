"""What every benchmark shares: interleaved rounds, medians, and the machine they were measured on."""

import argparse
import json
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from halfstep.cli.programs.stopwatch import Times, interleaved, quartiles, ratio
from halfstep.cli.run_folder import processor

__all__ = ["Times", "arguments", "copy_bandwidth", "interleaved", "machine", "quartiles", "ratio", "report"]


def copy_bandwidth(megabytes: int = 128) -> float:
    """Return the bytes per second that a plain copy reads and writes."""
    import torch

    source = torch.ones(megabytes * 2**18)
    target = torch.empty_like(source)
    times = interleaved({"copy": lambda: target.copy_(source)}, rounds=20)["copy"]
    return 2 * source.numel() * 4 / statistics.median(times)


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, threads, versions, command and date."""
    import numba
    import numpy as np
    import torch

    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "system": platform.system(),
        "command": " ".join(
            [f"python {Path(sys.argv[0]).parent.name}/{Path(sys.argv[0]).name}", *sys.argv[1:]]
        ),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def arguments(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """Return a parser with the flags every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print figures for machines instead of tables")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    return parser


def report(figures: dict[str, Any], lines: list[str], *, as_json: bool, out: Path | None) -> None:
    """Print figures as a table or as JSON, and write them to a file if asked."""
    text = json.dumps(figures, indent=2, allow_nan=False)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n", encoding="utf-8")
    if as_json:
        print(text)
        return
    print("; ".join(f"{name} {value}" for name, value in figures["machine"].items()))
    print("\n".join(lines))
