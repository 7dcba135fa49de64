"""Write the figures of README.md and of two pages of docs/ from the result files, between their marks.

    .venv/bin/python scripts/figures.py            write
    .venv/bin/python scripts/figures.py --check    say what differs; exit status 1

A block stands between ``<!-- figures: NAME -->`` and ``<!-- end -->``.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "docs/benchmarks.md", "docs/store.md")
RESULTS = "benchmarks/results"


def result(path: str) -> dict[str, Any]:
    """Return a result file."""
    found: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return found


def rows(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Return a table; every column but the first is right-aligned."""
    bars = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join([*bars, *("| " + " | ".join(line) + " |" for line in lines)])


def interval(record: dict[str, Any], name: str, form: str) -> str:
    """Return a figure with its interval."""
    return f"{record[name]:{form}} ({record[f'{name}_low']:{form}} … {record[f'{name}_high']:{form}})"


def quick() -> str:
    """Return the table of the quick run and the report's verdict."""
    found = result("experiments/results/quick.json")
    names = {"sgd": "SGD, momentum", "adamw": "AdamW", "adam_mini": "Adam-mini"}
    arms = [found["optimizers"][name] for name in names]

    def difference(arm: dict[str, Any]) -> str:
        return "" if arm["loss_difference"] is None else interval(arm, "loss_difference", "+.5f")

    lines = [
        (
            "optimizer state, measured bytes (encoder, actor, critic)",
            *(f"{a['state_bytes']:,}" for a in arms),
        ),
        (
            "validation loss of the encoder, interquartile mean (95 %)",
            *(interval(a, "loss", ".4f") for a in arms),
        ),
        ("paired difference to AdamW (95 %)", *map(difference, arms)),
        ("net profit of the test month, deposit 10,000 (95 %)", *(interval(a, "net", "z,.0f") for a in arms)),
    ]
    return rows(("", *names.values()), lines) + f'\n\nThe report\'s verdict: "{found["verdict"]}"'


def step() -> str:
    """Return the sentence about the speed of a step."""
    ratio = {
        row["parameters"]: row["ratio"]["AdamW fused"]
        for row in result("benchmarks/results/step.json")["rows"]
        if row["setting"] == "alone"
    }
    small, middle, large = sorted(ratio)[:3]
    return (
        f"Against `torch.optim.AdamW(fused=True)` on the same tensors a step is {ratio[small]:.1f} times as fast for a model of "
        f"{small / 1e3:.0f} thousand parameters, {ratio[middle]:.1f} times for {middle / 1e6:.1f} million, {ratio[large]:.1f} times for "
        f"{large / 1e6:.0f} million (where memory is the limit)."
    )


def step_table() -> str:
    """Return the ratios of a step."""
    lines = [
        (
            row["work"], row["setting"],
            *(f"{row['ratio'][name]:.2f}" if name in row["ratio"] else "--" for name in STEP_RIVALS),
        )
        for row in result("benchmarks/results/step.json")["rows"]
    ]  # fmt: skip
    return rows(("work", "setting", *STEP_RIVALS), lines)


STEP_RIVALS = ("AdamW fused", "AdamW foreach", "adam-mini")


def market() -> str:
    """Return the figures of the market floor."""
    found = result("benchmarks/results/market.json")
    lines = [
        (row["what"], f"{row['value']:.2f}", f"{found['aims'][row['what']]:g}")
        for row in found["rows"]
        if row["what"] in found["aims"]
    ]
    return rows(("what", "found", "at most"), lines)


def research() -> str:
    """Return decisions per second."""
    found = result("benchmarks/results/research.json")
    lines = [(name, f"{value:,.0f}") for name, value in found["decisions_per_second"].items()]
    lines += [
        (f"whole round: {name}", f"{whole['decisions'] / whole['seconds']:,.0f}")
        for name, whole in found["whole"].items()
    ]
    return rows(("work", "decisions/s"), lines)


def study() -> str:
    """Return training rates of one core."""
    found = result("benchmarks/results/study.json")
    return rows(("work", "samples/s"), [(k, f"{v:,.0f}") for k, v in found["samples_per_second"].items()])


def report() -> str:
    """Return seconds of the report's parts."""
    lines = [
        (row["work"], f"{row['seconds']:.3f}", "--" if row["aim"] is None else f"{row['aim']:g}")
        for row in result("benchmarks/results/report.json")["rows"]
    ]
    return rows(("work", "seconds", "at most"), lines)


def page() -> str:
    """Return seconds and bytes of the report's page."""
    found = result(f"{RESULTS}/page.json")
    seconds, size = found["seconds"], found["bytes"]
    lines = [
        (f"{what} of hours", f"{seconds[f'{what}, page']:.2f}", f"{seconds[f'{what}, its charts']:.2f}", "6", f"{size[what] / 1e6:.2f}", limit)
        for what, limit in (("a month", "2"), ("ten years", "5"))
    ]  # fmt: skip
    return rows(("report of", "page, s", "its charts, s", "at most, s", "page, MB", "at most, MB"), lines)


def encoders() -> str:
    """Return training and encoding rates of the encoders."""
    found = result(f"{RESULTS}/nn-tpm.json")["encoders"]
    lines = [
        (name, f"{1e3 * each['step_s']:.1f}", f"{each['encoded_bars_per_s']:,.0f}")
        for name, each in found.items()
    ]
    return rows(("encoder", "training step, ms", "encoded bars/s"), lines)


def segments() -> str:
    """Return milliseconds of the piecewise linear representation."""
    found = result(f"{RESULTS}/nn-plr.json")["seconds"]
    parts = list(next(iter(found.values())))
    lines = [(part, *(f"{1e3 * seconds[part]:.2f}" for seconds in found.values())) for part in parts]
    return rows(("part", *(f"{int(series):,} series, ms" for series in found)), lines)


def actor() -> str:
    """Return milliseconds of the decisions of 500 accounts at each of 16 bars."""
    found = result(f"{RESULTS}/nn-actor.json")["seconds"]
    lines = [
        (preset, *(f"{1e3 * each:.1f}" for each in seconds.values())) for preset, seconds in found.items()
    ]
    return rows(("preset", *(f"{how}, ms" for how in next(iter(found.values())))), lines)


def store() -> str:
    """Return sizes, rates and memory of trajectory stores."""
    found = {name: each for name, each in result(f"{RESULTS}/store.json").items() if name != "note"}
    sizes = list(found.values())
    lines = [
        ("bytes per step, all files", *(f"{each['bytes_per_step']:.2f}" for each in sizes)),
        ("written, M steps/s", *(f"{each['write_steps_per_s'] / 1e6:.1f}" for each in sizes)),
        ("opened with every byte checked, s", *(f"{each['open_s']:.1f}" for each in sizes)),
        ("batch of 256 with 24 rewards each, ms", *(f"{each['median_ms']['batch, 24 rewards']:.2f}" for each in sizes)),
        ("the same from a memory map, ms", *(f"{each['median_ms']['mapped, 24 rewards']:.2f}" for each in sizes)),
        *(
            (f"resident after {words}, MB", *(f"{each['resident_mb'][when]['all']:,.0f}" for each in sizes))
            for when, words in (("written", "writing"), ("sampled", "sampling"), ("sampled from a map", "sampling from a map"))
        ),
    ]  # fmt: skip
    heads = (f"{each['episodes']:,} year-runs, {each['bytes'] / 1e9:.2f} GB" for each in sizes)
    return rows(("", *heads), lines)


def broker() -> str:
    """Return the first table of the newest page about the broker's speed."""
    newest = max((ROOT / RESULTS).glob("broker-*.md"))
    lines = newest.read_text(encoding="utf-8").splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    stop = next(k for k, line in enumerate(lines) if k > first and not line.startswith("|"))
    return "\n".join(lines[first:stop])


BLOCKS: dict[str, Callable[[], str]] = {
    "quick": quick, "step": step, "step table": step_table, "market": market, "broker": broker, "research": research,
    "study": study, "report": report, "page": page, "encoders": encoders, "segments": segments, "actor": actor,
    "store": store,
}  # fmt: skip


def main() -> int:
    """Write or check every block."""
    check = "--check" in sys.argv[1:]
    differing = []
    for name in FILES:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")

        def block(match: re.Match[str]) -> str:
            return f"<!-- figures: {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- end -->"

        after = re.sub(r"<!-- figures: ([\w ]+) -->\n.*?<!-- end -->", block, before, flags=re.DOTALL)
        if after != before:
            differing.append(name)
            if not check:
                path.write_text(after, encoding="utf-8")
    if differing:
        print(f"{'differ from' if check else 'written from'} the result files: {', '.join(differing)}")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
