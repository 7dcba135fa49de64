"""Attention over the bars of a window: the fused kernel against the formula written out, and sharing of keys.

Usage: python benchmarks/bench_attention.py [--rounds 20] [--threads 1] [--json]
"""

import math

import torch
from torch import Tensor

from halfstep.nn.attention import AttentionLayer, AttentionStack
from halfstep.nn.config import StackConfig
from nn_rounds import arguments, measure, report


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


def main() -> None:
    """Time one forward and backward pass of 32 windows, for windows of 120 and 960 bars."""
    given = arguments(__doc__ or "")
    for bars in (120, 960):
        x = torch.randn(32, bars, 32, generator=torch.Generator().manual_seed(0))
        work = {}
        for name, changes in {
            "4 heads, 4 key heads": {"kv_heads": 4}, "4 heads, 2 key heads": {"kv_heads": 2},
            "4 heads, 1 key head": {"kv_heads": 1}, "4 heads, 2 key heads, shared by 2 layers": {"kv_heads": 2, "layers_per_kv": 2},
        }.items():  # fmt: skip
            sizes = {"width": 32, "layers": 2, "heads": 4, "head_dim": 16, "mask": "causal"} | changes
            stack = AttentionStack(StackConfig(**sizes))
            work[f"2 layers, {name}"] = lambda s=stack: s(x).sum().backward()
        layer = AttentionStack(
            StackConfig(width=32, layers=1, heads=4, kv_heads=2, head_dim=16, mask="causal")
        )[0]
        work["attention alone, fused"] = lambda f=layer: f.attend(x, *f.keys_and_values(x)).sum().backward()
        work["attention alone, written out"] = lambda f=layer: (
            written_out(f, x, *f.keys_and_values(x)).sum().backward()
        )
        seconds = measure(work, given.rounds)
        base = seconds["2 layers, 4 heads, 4 key heads"]
        fused = seconds["attention alone, fused"]
        lines = {
            name: {
                "ms": f"{1e3 * s:.1f}", "ratio": f"{s / (fused if 'alone' in name else base):.2f}",
                "windows/s": f"{32 / s:,.0f}",
            }
            for name, s in seconds.items()
        }  # fmt: skip
        report(f"Attention, forward and backward, 32 windows of {bars} bars, width 32", lines, given)


if __name__ == "__main__":
    main()
