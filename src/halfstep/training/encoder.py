"""Training of the encoder: forecast the next bars of every feature, judged against naive forecasts."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from halfstep.experience.seeds import generator
from halfstep.market.splits import training_origins
from halfstep.nn.build import build_encoder
from halfstep.nn.checkpoint import save_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.encoder import AttentionEncoder
from halfstep.nn.loss import fredf_loss
from halfstep.nn.normalise import InstanceStats
from halfstep.progress import SILENT, Progress
from halfstep.training.loop import Checkpoint, Learner, Point, measured_state_bytes, write_metric_lines
from halfstep.training.settings import EncoderTraining, OptimizerSettings

TARGET_BOUND = 10.0  # deviations
DAY_BARS = 24
NAIVE = ("last value", "window mean", "same hour yesterday")
EVALUATION_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class EncoderData:
    """Features of all bars, and the spans.

    Attributes:
        values: ``(bar, feature)`` float32.
        names: feature names.
        train, validation: half-open pairs of bar indices.
        settled: first row that may be used.
        data_hash: of the bars.
    """

    values: Tensor
    names: tuple[str, ...]
    train: tuple[int, int]
    validation: tuple[int, int]
    settled: int
    data_hash: str


@dataclass(frozen=True, kw_only=True)
class EncoderResult:
    """A trained encoder and its figures.

    Attributes:
        encoder: with the best weights, in evaluation mode.
        curve: one record per epoch: epoch, training loss, validation loss, validation mse.
        validation_loss: of the kept weights.
        mse, naive_mse: validation error per feature, of the encoder and of its best naive forecast.
        skill: 1 - mse / naive mse, per feature.
        state_bytes: of the optimizer, measured.
        updates: made in all.
        seconds: of training, wall clock.
    """

    encoder: AttentionEncoder
    curve: list[Point]
    validation_loss: float
    mse: list[float]
    naive_mse: list[float]
    skill: list[float]
    state_bytes: int
    updates: int
    seconds: float


def train_encoder(
    config: ModelConfig,
    data: EncoderData,
    settings: EncoderTraining,
    *,
    optimizer: str,
    optimizer_settings: OptimizerSettings,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
) -> EncoderResult:
    """Train an encoder; continues where an interrupted training of the same folder stopped.

    The target of origin i is x[i + 1 + h] standardised with the input window's mean and deviation and clipped to
    +-10. After each epoch the validation span decides; the first best weights are kept.
    """
    began = time.perf_counter()
    encoder = build_encoder(config, feature_names=data.names, seed=seed)
    origins = window_origins(data.train, config, data.settled)
    _set_reference(encoder, data)
    per_epoch = -(-len(origins) // settings.batch)
    learner = Learner(encoder, optimizer, optimizer_settings, per_epoch * settings.epochs)
    checkpoint = Checkpoint(folder / "encoder-checkpoint.pt")
    state: dict[str, Any] = checkpoint.load() or {
        "epoch": 0, "batch": 0, "loss_sum": 0.0, "curve": [], "best": None, "best_loss": math.inf, "bytes": 0,
    }  # fmt: skip
    if "learner" in state:
        learner.load_state_dict(state["learner"])
    progress.start(f"encoder {optimizer} seed {seed}", settings.epochs * len(origins), "samples")
    progress.advance(state["epoch"] * len(origins) + state["batch"] * settings.batch)
    for epoch in range(state["epoch"], settings.epochs):
        if _is_exhausted(state["curve"], settings.patience):
            break
        order = torch.from_numpy(generator(seed, "encoder order", epoch).permutation(len(origins)))
        for rows in order.split(settings.batch)[state["batch"] :]:
            loss = _update(encoder, learner, data, origins[rows], settings.alpha)
            progress.advance(len(rows), loss=loss)
            state["batch"] += 1
            state["loss_sum"] += loss * len(rows)
            if checkpoint.is_due:
                checkpoint.save(state | {"learner": learner.state_dict()})
        train_loss = state["loss_sum"] / len(origins)
        loss, mse = evaluate(encoder, data, data.validation, settings.alpha)
        state["curve"].append(
            {"epoch": epoch + 1, "train": train_loss, "validation": loss, "mse": float(mse.mean())}
        )
        if loss < state["best_loss"]:
            state["best_loss"] = loss
            state["best"] = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        state["bytes"] = measured_state_bytes(learner.optimizer)
        state |= {"epoch": epoch + 1, "batch": 0, "loss_sum": 0.0}
        checkpoint.save(state | {"learner": learner.state_dict()})
        write_metric_lines(folder / "encoder-metrics.jsonl", state["curve"])
    progress.finish()
    encoder.load_state_dict(state["best"])
    encoder.eval()
    save_weights(encoder, folder / "encoder.safetensors", kind="encoder", facts=encoder_facts(data))
    _, mse = evaluate(encoder, data, data.validation, settings.alpha)
    naive = naive_errors(encoder, data, data.validation).min(dim=0).values
    return EncoderResult(
        encoder=encoder, curve=state["curve"], validation_loss=state["best_loss"], mse=mse.tolist(),
        naive_mse=naive.tolist(), skill=(1 - mse / naive).tolist(), state_bytes=state["bytes"],
        updates=learner.updates, seconds=time.perf_counter() - began,
    )  # fmt: skip


def encoder_facts(data: EncoderData) -> dict[str, object]:
    """Return what a file of encoder weights must agree with."""
    return {"features": list(data.names), "data": data.data_hash, "train": list(data.train)}


def window_origins(span: tuple[int, int], config: ModelConfig, settled: int) -> Int[Tensor, " origin"]:
    """Return the origins of a span whose window is settled and whose target ends inside the span."""
    origins = training_origins(span, config.encoder.horizon)
    return torch.arange(max(origins.start, settled + config.encoder.bars - 1), max(origins.stop, 0))


def windows_at(
    values: Float[Tensor, "bar feature"], origins: Int[Tensor, " batch"], before: int, after: int
) -> tuple[Float[Tensor, "batch time feature"], Float[Tensor, "batch horizon feature"]]:
    """Return the ``before`` bars that end at each origin, oldest first, and the ``after`` bars behind it."""
    rows = values[origins[:, None] + torch.arange(1 - before, after + 1)]
    return rows[:, :before], rows[:, before:]


def standardised_target(
    encoder: AttentionEncoder, y: Float[Tensor, "batch horizon feature"], stats: InstanceStats
) -> Float[Tensor, "batch horizon feature"]:
    """Return the future in units of the input window's deviation, clipped."""
    return encoder.norm.standardise(y, stats).clamp(-TARGET_BOUND, TARGET_BOUND)


@torch.no_grad()
def evaluate(
    encoder: AttentionEncoder, data: EncoderData, span: tuple[int, int], alpha: float
) -> tuple[float, Float[Tensor, " feature"]]:
    """Return the loss over a span, and the mean squared error of each feature, in standardised space."""
    loss, square, count = 0.0, torch.zeros(len(data.names)), 0
    encoder.eval()
    for x, y in _batches(encoder, data, span):
        latent, stats = encoder(x)
        target = standardised_target(encoder, y, stats)
        loss += float(fredf_loss(latent, target, alpha).total) * len(x)
        square += (latent - target).square().mean(dim=1).sum(dim=0)
        count += len(x)
    encoder.train()
    return loss / count, square / count


@torch.no_grad()
def naive_errors(
    encoder: AttentionEncoder, data: EncoderData, span: tuple[int, int]
) -> Float[Tensor, "naive feature"]:
    """Return the mean squared errors of the forecasts of `NAIVE`, per feature, in the same standardised space."""
    square, count = torch.zeros(len(NAIVE), len(data.names)), 0
    for x, y in _batches(encoder, data, span):
        stats = encoder.norm.statistics(x)
        target = standardised_target(encoder, y, stats)
        horizon = y.shape[1]
        yesterday = x[:, -DAY_BARS:].repeat(1, -(-horizon // DAY_BARS), 1)[:, :horizon]
        guesses = (x[:, -1:].expand_as(y), stats.mean.expand_as(y), yesterday)
        for row, guess in enumerate(guesses):
            square[row] += (encoder.norm.standardise(guess, stats) - target).square().mean(dim=1).sum(dim=0)
        count += len(x)
    return square / count


def _update(
    encoder: AttentionEncoder,
    learner: Learner,
    data: EncoderData,
    origins: Int[Tensor, " batch"],
    alpha: float,
) -> float:
    """Make one update on the windows of a batch of origins; returns the loss before it."""
    x, y = windows_at(data.values, origins, encoder.config.bars, encoder.config.horizon)
    latent, stats = encoder(x)
    loss = fredf_loss(latent, standardised_target(encoder, y, stats), alpha).total
    learner.update(loss)
    return loss.item()


def _batches(
    encoder: AttentionEncoder, data: EncoderData, span: tuple[int, int]
) -> list[tuple[Tensor, Tensor]]:
    origins = window_origins(span, ModelConfig(encoder=encoder.config), data.settled)
    if len(origins) == 0:
        raise ValueError(
            f"span: bars {span[0]} to {span[1]}, must hold more than {encoder.config.horizon} bars."
        )
    return [
        windows_at(data.values, rows, encoder.config.bars, encoder.config.horizon)
        for rows in origins.split(EVALUATION_BATCH)
    ]


def _set_reference(encoder: AttentionEncoder, data: EncoderData) -> None:
    """Set the normalisation's reference from training rows only."""
    rows = data.values[max(data.train[0], data.settled) : data.train[1]].double()
    encoder.norm.reference_mean.copy_(rows.mean(dim=0))
    deviation = rows.std(dim=0, correction=0)
    encoder.norm.reference_std.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))


def _is_exhausted(curve: list[Point], patience: int) -> bool:
    losses = [point["validation"] for point in curve]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience
