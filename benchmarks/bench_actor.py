"""The actor alone: decisions per second with many accounts at one bar, and what preparing the context once saves.

Usage: python benchmarks/bench_actor.py [--rounds 20] [--threads 1] [--json] [--out FILE]
"""

import statistics

import torch

from halfstep.nn.build import build_actor
from halfstep.nn.presets import preset
from measure import arguments, interleaved, machine, report

PATHS, BARS = 500, 16


def seconds_of(name: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of 16 bars of 500 accounts."""
    config = preset(name)
    actor = build_actor(config, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(BARS, 9, config.encoder.context_width, generator=generator)
    account = torch.randn(1, PATHS, 12, generator=generator)

    @torch.inference_mode()
    def once_per_bar() -> None:
        prepared = actor.prepare(context)
        for bar in range(BARS):
            actor(account, [(k[bar : bar + 1], v[bar : bar + 1]) for k, v in prepared])

    @torch.inference_mode()
    def once_per_account() -> None:
        for bar in range(BARS):
            own = context[bar : bar + 1].expand(PATHS, -1, -1)
            actor(account.transpose(0, 1), actor.prepare(own))

    works = {"context once per bar": once_per_bar, "context once per account": once_per_account}
    return {name: statistics.median(values) for name, values in interleaved(works, rounds=rounds).items()}


def main() -> None:
    """Time both presets."""
    parser = arguments("The actor alone.", rounds=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {name: seconds_of(name, given.rounds) for name in ("default", "reference")}
    lines = ["", "| preset | 500 accounts per bar | decisions/s | ratio |", "|---|---|---:|---:|"]
    for preset_name, seconds in found.items():
        base = seconds["context once per bar"]
        lines += [
            f"| {preset_name} | {name} | {PATHS * BARS / s:,.0f} | {s / base:.2f} |"
            for name, s in seconds.items()
        ]
    report({"machine": machine(), "seconds": found}, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
