"""Draw the sweep of `bench_step.py` as a chart for the documentation.

python benchmarks/chart_step.py benchmarks/results/step-sweep.json docs/step-sweep.svg
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

MARKS = {"square": "s", "rows of 4096": "D", "rows of 7": "v", "vector": "|", "transformer": "o", "3 x 3 convolution": "^"}


def main(source: Path, target: Path) -> None:
    """Write the chart of one file of figures."""
    figures = json.loads(source.read_text(encoding="utf-8"))
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in figures["rows"]:
        curves[row["work"].split(", ", 1)[1]].append((row["parameters"], row["ratio"]["AdamW fused"]))
    mpl.rcParams.update({"svg.hashsalt": "halfstep", "svg.fonttype": "none", "font.size": 11})
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (shape, points) in enumerate(curves.items()):
        axes.plot(*zip(*points, strict=True), marker=MARKS[shape], label=shape, color=f"C{number}")
    axes.axhline(1.0, color="0.4", linewidth=1)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="parameters (float32)",
        ylabel="times as fast as fused AdamW",
        title=f"One step of AdamMini against torch {figures['machine']['torch']} AdamW(fused=True)\n"
        f"{figures['machine']['processor']}, {figures['machine']['threads']} threads, medians of interleaved rounds",
    )
    axes.set_yticks([1, 1.5, 2, 3, 4, 6, 8], labels=["1", "1.5", "2", "3", "4", "6", "8"])
    axes.minorticks_off()
    axes.grid(visible=True, color="0.9")
    axes.legend()
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
