"""The actor alone: decisions per second with many accounts at one bar, and what preparing the context once saves.

Usage: python benchmarks/bench_actor.py [--rounds 20] [--threads 1] [--json]
"""

import torch

from halfstep.nn.build import build_actor
from halfstep.nn.presets import preset
from nn_rounds import arguments, measure, report

PATHS, BARS = 500, 16


def main() -> None:
    """Time 16 bars of 500 accounts: keys and values of each bar once, or once per account."""
    given = arguments(__doc__ or "")
    generator = torch.Generator().manual_seed(0)
    lines = {}
    for name in ("default", "reference"):
        config = preset(name)
        actor = build_actor(config, seed=0).eval()
        context = torch.randn(BARS, 9, config.encoder.context_width, generator=generator)
        account = torch.randn(1, PATHS, 12, generator=generator)

        @torch.inference_mode()
        def once(actor=actor, context=context, account=account) -> None:  # type: ignore[no-untyped-def]
            prepared = actor.prepare(context)
            for bar in range(BARS):
                actor(account, [(k[bar : bar + 1], v[bar : bar + 1]) for k, v in prepared])

        @torch.inference_mode()
        def each(actor=actor, context=context, account=account) -> None:  # type: ignore[no-untyped-def]
            for bar in range(BARS):
                own = context[bar : bar + 1].expand(PATHS, -1, -1)
                actor(account.transpose(0, 1), actor.prepare(own))

        seconds = measure({"once": once, "each": each}, given.rounds)
        lines |= {
            f"{name}, context once per bar": {"decisions/s": f"{PATHS * BARS / seconds['once']:,.0f}", "ratio": "1.00"},
            f"{name}, context per account": {
                "decisions/s": f"{PATHS * BARS / seconds['each']:,.0f}",
                "ratio": f"{seconds['each'] / seconds['once']:.2f}",
            },
        }  # fmt: skip
    report(f"Actor, {PATHS} accounts per bar", lines, given)


if __name__ == "__main__":
    main()
