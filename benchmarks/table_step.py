"""Write the table of `benchmarks/results/step.json` into docs/optimizer.md, between its two marks.

python benchmarks/table_step.py
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BARS = {
    "48 tensors, 50 thousand": {"alone": 4, "in training": 8, "clip": 7},
    "48 tensors, 0.8 million": {"alone": 2, "in training": 3.2, "clip": 2.7},
    "72 tensors, 19 million": {"alone": 1.5, "in training": 1.7, "clip": 2},
    "one 8192 x 4096 matrix": {"alone": 1.5},
}
"""Times as fast as fused AdamW that were aimed at."""


def table(figures: dict) -> str:
    """Return the table as Markdown."""
    machine = figures["machine"]
    lines = [
        "| work (float32) | setting | AdamMini | AdamW fused | times as fast | aim | foreach | published |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        ratios = row["ratio"]
        aim = BARS[row["work"]].get(row["setting"])
        reached = "" if aim is None else f"{aim}" if ratios["AdamW fused"] >= aim else f"{aim}, not reached"
        cells = [
            row["work"],
            row["setting"],
            f"{row['AdamMini']['median'] * 1e6:,.0f} µs",
            f"{row['AdamW fused']['median'] * 1e6:,.0f} µs",
            f"{ratios['AdamW fused']:.2f}",
            reached,
            *(
                f"{ratios[name]:.1f}" if name in ratios else ""
                for name in ("AdamW foreach", "adam-mini 1.1.1")
            ),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        f"\nMedians of {figures['rounds']} interleaved rounds, one process; {machine['processor']}, {machine['threads']} threads, "
        f"torch {machine['torch']}, numba {machine['numba']}, {machine['date']}; a copy moves "
        f"{figures['copy bandwidth'] / 1e9:.0f} GB/s there."
    )
    return "\n".join(lines)


def main() -> None:
    """Replace the table in the page."""
    figures = json.loads((ROOT / "benchmarks" / "results" / "step.json").read_text(encoding="utf-8"))
    page = ROOT / "docs" / "optimizer.md"
    text = page.read_text(encoding="utf-8")
    new = f"<!-- step table -->\n{table(figures)}\n<!-- end of step table -->"
    page.write_text(
        re.sub(r"<!-- step table -->.*<!-- end of step table -->", lambda _: new, text, flags=re.S),
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
