"""The encoders: training samples and encoded bars per second.

Usage: python benchmarks/bench_tpm.py [--rounds 20] [--threads 1] [--json]
"""

from collections.abc import Callable

import torch
from torch import Tensor

from halfstep.nn.build import build_encoder
from halfstep.nn.config import (
    AttentionConfig,
    EncoderConfig,
    ModelConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
)
from halfstep.nn.encoder import Encoder
from halfstep.nn.loss import fredf_loss
from halfstep.nn.presets import preset
from nn_rounds import arguments, measure, report

NAMES = ("gap", "body", "upper", "lower", "relative_volume", "rsi", "cci", "atr", "macd")
YEAR = 6_200
KINDS: dict[str, EncoderConfig] = {
    "TpmWindowed, default": preset("default").encoder,
    "TpmStateful, 64 units": TpmStatefulConfig(),
    "TpmStateful, reference": preset("reference").encoder,
    "Stnn, 2 layers": StnnConfig(
        columns=None,
        stack=StackConfig(
            width=9, layers=2, heads=4, kv_heads=2, head_dim=16, layers_per_kv=2, mask="causal",
            order="feed_forward_first",
        ),
    ),
    "AttentionEncoder": AttentionConfig(),
}  # fmt: skip


def step_of(encoder: Encoder, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return one training step on 128 windows: loss, clipping, fused AdamW; static features are given."""
    is_stateful = type(encoder).__name__ == "TpmStateful"
    static = encoder.static(x)
    windows = x.reshape(4, 32, *x.shape[1:]) if is_stateful else x
    if is_stateful and static is not None:
        static = static.unflatten(0, (4, 32))
    optimizer = torch.optim.AdamW(encoder.parameters(), fused=True)

    def step() -> None:
        output = encoder(windows, None, static)[0] if is_stateful else encoder(windows, static)
        fredf_loss(output.latent.reshape(y.shape), y).total.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Time a training step, and the table of a year of hours (a tenth of it where one step follows another)."""
    given = arguments(__doc__ or "")
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 120, 9, generator=generator), torch.randn(128, 24, 9, generator=generator)
    table = torch.randn(YEAR + 400, 9, generator=generator)
    steps, tables, counts = {}, {}, {}
    for name, config in KINDS.items():
        encoder = build_encoder(ModelConfig(encoder=config), feature_names=NAMES, seed=0)
        encoder.norm.reference_std.fill_(1.0)
        steps[name] = step_of(encoder, x, y)
        bars = YEAR if "Stateful" not in name else YEAR // 10
        first = encoder.first_row
        counts[name] = bars if "Stateful" not in name else bars + first - 119
        tables[name] = lambda e=encoder, f=first, n=bars: e.encode_table(table, f, f + n)
    training, encoding = measure(steps, given.rounds), measure(tables, max(3, given.rounds // 4), warm=1)
    lines = {
        name: {
            "training step, ms": f"{1e3 * training[name]:.1f}", "training samples/s": f"{128 / training[name]:,.0f}",
            "encoded bars/s": f"{counts[name] / encoding[name]:,.0f}",
            f"s for {YEAR:,} bars": f"{YEAR * encoding[name] / counts[name]:.2f}",
        }
        for name in KINDS
    }  # fmt: skip
    report("Encoders, windows of 120 bars x 9 features, batch 128", lines, given)


if __name__ == "__main__":
    main()
