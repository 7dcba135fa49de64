"""Attention over the bars of a window: the fused kernel against the formula written out, and sharing of keys.

Usage: python benchmarks/bench_attention.py [--rounds 20] [--threads 1] [--json] [--out FILE]
"""

import math
import statistics

import torch
from torch import Tensor

from halfstep.nn.attention import AttentionLayer, AttentionStack
from halfstep.nn.config import StackConfig
from measure import arguments, interleaved, machine, report


def written_out(layer: AttentionLayer, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Return `AttentionLayer.attend` with a table of scores."""
    groups = layer.num_heads // layer.num_key_value_heads
    q = layer.q_proj(x).unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)
    k, v = (t.repeat_interleave(groups, 1) for t in (keys, values))
    scores = q @ k.transpose(2, 3) / math.sqrt(layer.head_dim)
    newer = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
    answer = scores.masked_fill(newer, -math.inf).softmax(-1) @ v
    result: Tensor = layer.o_proj(answer.transpose(1, 2).flatten(2))
    return result


SHARING = {
    "4 key heads": {"kv_heads": 4},
    "2 key heads": {"kv_heads": 2},
    "1 key head": {"kv_heads": 1},
    "2 key heads, shared by both layers": {"kv_heads": 2, "layers_per_kv": 2},
}


def seconds_of(bars: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of a forward and backward pass of 32 windows."""
    x = torch.randn(32, bars, 32, generator=torch.Generator().manual_seed(0))
    stacks = {
        name: AttentionStack(StackConfig(width=32, layers=2, heads=4, head_dim=16, mask="causal", **changes))
        for name, changes in SHARING.items()
    }
    layer = AttentionStack(StackConfig(width=32, layers=1, heads=4, kv_heads=2, head_dim=16, mask="causal"))[
        0
    ]
    works = {f"2 layers, {name}": lambda s=stack: s(x).sum().backward() for name, stack in stacks.items()}
    works |= {
        "attention alone, fused": lambda: layer.attend(x, *layer.keys_and_values(x)).sum().backward(),
        "attention alone, written out": lambda: (
            written_out(layer, x, *layer.keys_and_values(x)).sum().backward()
        ),
    }
    return {name: statistics.median(values) for name, values in interleaved(works, rounds=rounds).items()}


def main() -> None:
    """Time windows of 120 and of 960 bars."""
    parser = arguments("Attention over the bars of a window.", rounds=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    found = {bars: seconds_of(bars, given.rounds) for bars in (120, 960)}
    lines = [
        "", "| bars | 32 windows, width 32, 4 heads, forward and backward | ms | ratio | windows/s |", "|---:|---|---:|---:|---:|",
    ]  # fmt: skip
    for bars, seconds in found.items():
        base, fused = seconds["2 layers, 4 key heads"], seconds["attention alone, fused"]
        lines += [
            f"| {bars} | {name} | {1e3 * s:.1f} | {s / (fused if 'alone' in name else base):.2f} | {32 / s:,.0f} |"
            for name, s in seconds.items()
        ]
    report({"machine": machine(), "seconds": found}, lines, as_json=given.json, out=given.out)


if __name__ == "__main__":
    main()
