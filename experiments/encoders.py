"""Trains every kind of encoder on the same bars with several seeds, and writes a table of what each is worth.

Usage: python experiments/encoders.py --bars EURUSD_H1.csv.gz [--seeds 5] [--epochs 7] [--jobs 2] [--kinds NAME ...]

Bars are the MetaTrader 5 export of EURUSD, H1; the split is the reference one (train January to October 2023, validation
November and December). Every training is the repository's own: Adam-mini, early stopping, best epoch kept.
"""

import argparse
import math
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from halfstep.market.features import compute_features
from halfstep.market.read import read_bars
from halfstep.market.splits import REFERENCE_SPLIT, split_spans
from halfstep.nn.build import build_encoder
from halfstep.nn.config import (
    AttentionConfig,
    EncoderConfig,
    ModelConfig,
    StackConfig,
    StnnConfig,
    TpmStatefulConfig,
    TpmWindowedConfig,
)
from halfstep.training.encoder import NAIVE, EncoderResult, naive_errors, train_encoder
from halfstep.training.settings import EncoderTraining, OptimizerSettings
from halfstep.training.windows import EncoderData, WindowTable

KINDS: dict[str, EncoderConfig] = {
    "TpmWindowed (default)": TpmWindowedConfig(),
    "TpmStateful, 64 units": TpmStatefulConfig(),
    "Stnn, all features, 2 layers": StnnConfig(
        columns=None,
        stack=StackConfig(
            width=9, layers=2, heads=4, kv_heads=2, head_dim=16, layers_per_kv=2, mask="causal",
            order="feed_forward_first",
        ),
    ),
    "AttentionEncoder": AttentionConfig(),
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """One training."""

    kind: str
    seed: int
    parameters: int
    mse: float
    skill: float
    best_epoch: int
    samples_per_second: float
    seconds: float


def load(path: Path) -> EncoderData:
    """Return features and spans of the reference experiment."""
    bars = read_bars(path)
    features = compute_features(bars, "robust9")
    spans = split_spans(bars, REFERENCE_SPLIT)
    return EncoderData(
        values=torch.from_numpy(features.values), names=features.names, train=spans.train,
        validation=spans.validation, settled=features.settled, data_hash=bars.hash,
    )  # fmt: skip


def train(kind: str, seed: int, path: Path, epochs: int) -> Outcome:
    """Train one encoder with one seed in a fresh folder."""
    torch.set_num_threads(1)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder:
        result: EncoderResult = train_encoder(
            ModelConfig(encoder=KINDS[kind]), load(path), EncoderTraining(epochs=epochs, patience=3),
            optimizer="adam_mini", optimizer_settings=OptimizerSettings(), seed=seed, folder=Path(folder),
            progress=clock,
        )  # fmt: skip
    mse, naive = np.mean(result.mse), np.mean(result.naive_mse)
    best = min(result.curve, key=lambda point: point["validation"])
    return Outcome(
        kind, seed, sum(p.numel() for p in result.encoder.parameters()), float(mse), float(1 - mse / naive),
        int(best["epoch"]), clock.rate, result.seconds,
    )  # fmt: skip


class _Clock:
    """Counts the first samples, which no validation interrupts, per second of processor time."""

    rate = math.nan

    def start(self, name: str, total: int, unit: str) -> None:  # noqa: ARG002  # the protocol's signature
        self._done, self._began = 0, time.process_time()

    def advance(self, done: int, **_: float) -> None:
        self._done += done
        if self._done and math.isnan(self.rate) and self._done >= SAMPLES_TIMED:
            self.rate = self._done / (time.process_time() - self._began)

    def finish(self) -> None:
        pass


SAMPLES_TIMED = 3_000


def interval(values: list[float]) -> str:
    """Return mean and 95 % t-interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return f"{mean:.3f} ± {half:.3f}"


def table(outcomes: list[Outcome]) -> str:
    """Return the Markdown table, one line per kind."""
    lines = [
        "| encoder | parameters | training samples per core and second | validation MSE (95 %) | skill (95 %) | worst seed | best epochs | s per training |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for kind in dict.fromkeys(outcome.kind for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.kind == kind]
        epochs = ", ".join(str(outcome.best_epoch) for outcome in mine)
        lines.append(
            f"| {kind} | {mine[0].parameters:,} | {np.median([o.samples_per_second for o in mine]):,.0f} | "
            f"{interval([o.mse for o in mine])} | {interval([o.skill for o in mine])} | "
            f"{max(o.mse for o in mine):.3f} | {epochs} | {np.mean([o.seconds for o in mine]):.0f} |"
        )
    return "\n".join(lines)


def naive_table(path: Path) -> str:
    """Return the errors of the forecasts that need no network."""
    data = load(path)
    encoder = build_encoder(ModelConfig(), feature_names=data.names, seed=0)
    errors = naive_errors(encoder, WindowTable(encoder, data, data.validation[1]), data.validation)
    lines = [
        "| naive forecast | " + " | ".join(data.names) + " | mean |",
        "|---|" + "---:|" * (len(data.names) + 1),
    ]
    rows = [*zip(NAIVE, errors, strict=True), ("best per feature", errors.min(dim=0).values)]
    lines += [
        f"| {name} | " + " | ".join(f"{e:.2f}" for e in row) + f" | {row.mean():.3f} |" for name, row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bars", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    given = parser.parse_args()
    with ProcessPoolExecutor(given.jobs) as pool:
        jobs = [
            pool.submit(train, kind, seed, given.bars, given.epochs)
            for kind in given.kinds
            for seed in range(1, given.seeds + 1)
        ]
        outcomes = [job.result() for job in jobs]
    print(f"torch {torch.__version__}, {platform.machine()}, {given.jobs} processes of one thread, "
          f"{given.seeds} seeds, at most {given.epochs} epochs, patience 3\n")  # fmt: skip
    print(table(outcomes), end="\n\n")
    print(naive_table(given.bars))


if __name__ == "__main__":
    main()
