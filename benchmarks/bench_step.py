"""Time of one optimizer step on the CPU: AdamMini against PyTorch's AdamW and the published adam-mini.

Rounds are interleaved, figures are medians, comparisons are ratios of medians on the same tensors.

    alone        gradients given, optimizers in turn
    in training  after a real forward and backward of the same model; only the step is timed
    clip         clipping to a global norm of 1, then the step

    python benchmarks/bench_step.py
    python benchmarks/bench_step.py --sweep --out benchmarks/results/step-sweep.json
"""

import contextlib
import copy
import io
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from torch import Tensor, nn

from halfstep.optim import AdamMini, partition_model
from measure import Times, arguments, copy_bandwidth, interleaved, machine, quartiles, ratio, report

OURS, FUSED, FOREACH, PUBLISHED = "AdamMini", "AdamW fused", "AdamW foreach", "adam-mini 1.1.1"
BYTES = {OURS: 20, FUSED: 28}  # that a step must move per float32 parameter


@dataclass(frozen=True)
class Case:
    """A model to step.

    Attributes:
        name: as it stands in the table.
        build: makes the model.
        batch: makes an input for the training rounds; None: no training.
        heads: of its attention, for the published optimizer.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Tensor] | None = None
    heads: int = 1


def transformer(layers: int, width: int, heads: int) -> nn.Module:
    """Return a stack of encoder layers; each has 12 tensors."""
    return nn.Sequential(
        *(nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True) for _ in range(layers))
    )


CASES = (
    Case("48 tensors, 50 thousand", lambda: transformer(4, 32, 4), lambda: torch.randn(8, 32, 32), heads=4),
    Case("48 tensors, 0.8 million", lambda: transformer(4, 128, 4), lambda: torch.randn(8, 32, 128), heads=4),
    Case("72 tensors, 19 million", lambda: transformer(6, 512, 8), lambda: torch.randn(4, 32, 512), heads=8),
    Case("one 8192 x 4096 matrix", lambda: nn.Linear(4096, 8192, bias=False)),
)


def published(model: nn.Module, heads: int) -> torch.optim.Optimizer | None:
    """Return the optimizer of the paper's authors, if it is installed."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            from adam_mini import Adam_mini
        except ImportError:
            return None
        width = next(p.shape[-1] for p in model.parameters() if p.dim() == 2)
        return Adam_mini(
            model.named_parameters(), lr=1e-3, weight_decay=0.01, dim=width, n_heads=heads, verbose=False
        )


MAKERS: dict[str, Callable[[nn.Module, Case], Any]] = {
    OURS: lambda model, _: AdamMini(model.parameters(), partition=partition_model(model)),
    FUSED: lambda model, _: torch.optim.AdamW(model.parameters(), fused=True),
    FOREACH: lambda model, _: torch.optim.AdamW(model.parameters(), foreach=True),
    PUBLISHED: lambda model, case: published(model, case.heads),
}


def pair(case: Case, other: str) -> dict[str, tuple[nn.Module, Any]]:
    """Return equal models for AdamMini and one other optimizer, with gradients: pairs, so that caches are shared by two."""
    model = case.build()
    found = {}
    for name in (OURS, other):
        own = copy.deepcopy(model)
        for param in own.parameters():
            param.grad = torch.randn_like(param)
        optimizer = MAKERS[name](own, case)
        if optimizer is None:
            return {}
        found[name] = (own, optimizer)
    return found


def alone(case: Case, other: str, rounds: int, *, seconds: float = math.inf) -> Times:
    """Time steps with given gradients."""
    works = {name: optimizer.step for name, (_, optimizer) in pair(case, other).items()}
    return interleaved(works, rounds=_affordable(works, rounds, seconds))


def in_training(case: Case, rounds: int) -> Times:
    """Time steps that follow a forward and a backward."""
    assert case.batch is not None
    found = pair(case, FUSED)

    def gradients(name: str) -> Callable[[], None]:
        model, optimizer = found[name]
        batch = case.batch()

        def compute() -> None:
            optimizer.zero_grad()
            model(batch).square().mean().backward()

        return compute

    return interleaved(
        {name: optimizer.step for name, (_, optimizer) in found.items()},
        rounds=rounds,
        before={name: gradients(name) for name in found},
    )


def with_clipping(case: Case, rounds: int) -> Times:
    """Time clipping to norm 1 and the step."""
    found = pair(case, FUSED)

    def ours() -> None:
        found[OURS][1].clip_grad_norm_(1.0)
        found[OURS][1].step()

    def fused() -> None:
        nn.utils.clip_grad_norm_(found[FUSED][0].parameters(), 1.0)
        found[FUSED][1].step()

    return interleaved({OURS: ours, FUSED: fused}, rounds=rounds)


def shapes_of_sweep() -> list[Case]:
    """Return one matrix, a matrix in small pieces, and vectors, from a thousand to 200 million parameters."""
    cases = []
    for size in (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000, 200_000_000):
        side = round(math.sqrt(size))
        rows = max(1, size // 4096)
        cases += [
            Case(f"{size}, square", lambda s=side: nn.Linear(s, s, bias=False)),
            Case(f"{size}, rows of 4096", lambda r=rows: nn.Linear(4096, r, bias=False)),
            Case(f"{size}, rows of 7", lambda s=size: nn.Linear(7, max(1, s // 7), bias=False)),
        ]
        if size <= 10_000_000:
            cases.append(Case(f"{size}, vector", lambda s=size: nn.ParameterList([torch.zeros(s)])))
            width = max(4, round(math.sqrt(size / 48) / 4) * 4)
            cases.append(Case(f"{size}, transformer", lambda w=width: transformer(4, w, 4)))
            channels = max(1, round(math.sqrt(size / 9)))
            cases.append(
                Case(f"{size}, 3 x 3 convolution", lambda c=channels: nn.Conv2d(c, c, 3, bias=False))
            )
    return cases


def _affordable(works: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> int:
    """Return how many rounds fit the time, at least 5."""
    if math.isinf(seconds):
        return rounds
    once = sum(sum(t) for t in interleaved(works, rounds=1, warmup=1).values())
    return max(5, min(rounds, int(seconds / once)))


def _row(times: Times, bandwidth: float, numbers: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: dict(zip(("low", "median", "high"), quartiles(values), strict=True))
        for name, values in times.items()
    }
    row["ratio"] = {name: ratio(times, name, OURS) for name in times if name != OURS}
    row["share of copy bandwidth"] = {
        name: count * numbers / row[name]["median"] / bandwidth for name, count in BYTES.items()
    }
    return row


def table(cases: tuple[Case, ...], rounds: int, bandwidth: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the table of the four shapes."""
    rows, lines = [], []
    lines.append(f"{'work':26s} {'setting':12s} {'ours':>11s} {'fused':>11s}   times as fast as")
    for case in cases:
        numbers = sum(p.numel() for p in case.build().parameters())
        settings = {"alone": alone(case, FUSED, rounds)}
        if case.batch is not None:
            settings["in training"] = in_training(case, rounds)
        settings["clip"] = with_clipping(case, rounds)
        others = {name: alone(case, name, rounds // 2) for name in (FOREACH, PUBLISHED)}
        for setting, times in settings.items():
            row = {"work": case.name, "setting": setting, "parameters": numbers}
            row |= _row(times, bandwidth, numbers)
            if setting == "alone":
                row["ratio"] |= {name: ratio(times, name, OURS) for name, times in others.items() if times}
            rows.append(row)
            lines.append(
                f"{case.name:26s} {setting:12s} {row[OURS]['median'] * 1e6:9.1f}us {row[FUSED]['median'] * 1e6:9.1f}us   "
                + ", ".join(f"{name} {value:.2f}" for name, value in row["ratio"].items())
                + (
                    f"; {row['share of copy bandwidth'][OURS]:.0%} of the copy bandwidth"
                    if setting == "alone"
                    else ""
                )
            )
    return rows, lines


def sweep(rounds: int, bandwidth: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure sizes and shapes, AdamMini against fused AdamW alone."""
    rows, lines = [], [f"{'work':34s} {'ours':>11s} {'fused':>11s}  ratio"]
    for case in shapes_of_sweep():
        numbers = sum(p.numel() for p in case.build().parameters())
        times = alone(case, FUSED, rounds, seconds=3.0)
        row = {"work": case.name, "parameters": numbers} | _row(times, bandwidth, numbers)
        rows.append(row)
        lines.append(
            f"{case.name:34s} {row[OURS]['median'] * 1e6:9.1f}us {row[FUSED]['median'] * 1e6:9.1f}us  "
            f"{row['ratio'][FUSED]:.2f}"
        )
    return rows, lines


def main() -> None:
    """Measure and print."""
    parser = arguments("Time of one optimizer step on the CPU.", rounds=60)
    parser.add_argument("--sweep", action="store_true", help="sizes from a thousand to 200 million instead")
    parser.add_argument("--case", type=int, help="only the case of this number, from 0")
    options = parser.parse_args()
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    cases = CASES if options.case is None else CASES[options.case : options.case + 1]
    rows, lines = (
        sweep(options.rounds, bandwidth) if options.sweep else table(cases, options.rounds, bandwidth)
    )
    figures = {"machine": machine(), "copy bandwidth": bandwidth, "rounds": options.rounds, "rows": rows}
    lines.insert(
        0,
        f"copy bandwidth {bandwidth / 1e9:.1f} GB/s; {options.rounds} rounds; load {os.getloadavg()[0]:.1f}",
    )
    report(figures, lines, as_json=options.json, out=options.out)


if __name__ == "__main__":
    main()
