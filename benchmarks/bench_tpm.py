"""The encoders: training samples and encoded bars per second.

Usage: python benchmarks/bench_tpm.py [--rounds 20] [--threads 1] [--json] [--out FILE]
"""

import statistics
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
from measure import arguments, interleaved, machine, report

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
    """Time a training step, and the table of a year of hours (of a tenth of it where one step follows another)."""
    parser = arguments("Encoders: training samples and encoded bars per second.", rounds=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(128, 120, 9, generator=generator), torch.randn(128, 24, 9, generator=generator)
    table = torch.randn(YEAR + 400, 9, generator=generator)
    steps, tables, bars = {}, {}, {}
    for name, config in KINDS.items():
        encoder = build_encoder(ModelConfig(encoder=config), feature_names=NAMES, seed=0)
        encoder.norm.reference_std.fill_(1.0)
        steps[name] = step_of(encoder, x, y)
        first = encoder.first_row
        last = first + (YEAR // 10 if "Stateful" in name else YEAR)
        bars[name] = last - 119  # a recurrent encoder passes over the burn-in, too
        tables[name] = lambda e=encoder, a=first, b=last: e.encode_table(table, a, b)
    training = interleaved(steps, rounds=given.rounds)
    encoding = interleaved(tables, rounds=max(3, given.rounds // 4), warmup=1)
    lines = [
        "", "| encoder, 120 bars x 9 features, batch 128 | training step, ms | training samples/s | encoded bars/s | s for 6,200 bars |",
        "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    figures = {}
    for name in KINDS:
        step, rate = statistics.median(training[name]), bars[name] / statistics.median(encoding[name])
        figures[name] = {"step_s": step, "encoded_bars_per_s": rate}
        lines.append(f"| {name} | {1e3 * step:.1f} | {128 / step:,.0f} | {rate:,.0f} | {YEAR / rate:.2f} |")
    report({"machine": machine(), "encoders": figures}, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
