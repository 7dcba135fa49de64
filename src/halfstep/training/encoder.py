"""Training of the encoder: forecast the next bars of every feature, judged against naive forecasts."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from halfstep.errors import CoverageError
from halfstep.nn.build import build_encoder
from halfstep.nn.checkpoint import save_weights
from halfstep.nn.config import ModelConfig
from halfstep.nn.encoder import Encoder
from halfstep.nn.loss import fredf_loss
from halfstep.nn.normalise import InstanceStats
from halfstep.progress import SILENT, Progress
from halfstep.training.batches import make_batches
from halfstep.training.checkpoint import Checkpoint
from halfstep.training.loop import Learner, Point, write_metric_lines
from halfstep.training.optimizers import measured_state_bytes
from halfstep.training.ranks import ALONE, Ranks
from halfstep.training.settings import EncoderTraining, OptimizerSettings
from halfstep.training.windows import (
    EncoderData,
    WindowTable,
    forecasts,
    standardised_target,
    window_origins,
)

DAY_BARS = 24
LOG_EVERY = 20
NAIVE = ("last value", "window mean", "same hour yesterday")


@dataclass(frozen=True, kw_only=True)
class EncoderResult:
    """A trained encoder and its figures.

    Attributes:
        encoder: with the best weights, in evaluation mode.
        curve: one record per epoch: epoch, updates so far, training loss, validation loss, validation mse.
        losses: one record per twenty updates: update and training loss of its batch.
        validation_loss: of the kept weights.
        mse, naive_mse: validation error per feature, of the encoder and of its best naive forecast.
        skill: 1 - mse / naive mse, per feature.
        state_bytes: of the optimizer, measured.
        updates: made in all.
        seconds: of training, wall clock.
    """

    encoder: Encoder
    curve: list[Point]
    losses: list[Point]
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
    ranks: Ranks = ALONE,
) -> EncoderResult:
    """Train an encoder; continues where an interrupted training of the same folder stopped.

    The target of origin i is x[i + 1 + h] standardised with the input window's mean and deviation and clipped to
    +-10. After each epoch the validation span decides; the first best weights are kept.

    Args:
        folder: the first rank writes there.
        ranks: the processes that train it together; all return the same.

    Raises:
        RankLostError: another process is gone.
    """
    began = time.perf_counter()
    encoder = build_encoder(config, feature_names=data.names, seed=seed)
    _check_coverage(encoder, data)
    origins = _origins(encoder, data, data.train)
    _set_reference(encoder, data)
    table = WindowTable(encoder, data, data.validation[1])
    batches = make_batches(encoder, table, origins, settings, seed, ranks)
    counts = [batches.count(epoch) for epoch in range(settings.epochs)]
    learner = Learner(encoder, optimizer, optimizer_settings, sum(counts), ranks)
    checkpoint = Checkpoint(folder / "checkpoints" / "encoder")
    saved = ranks.from_first(checkpoint.load)
    state: dict[str, Any] = saved or {
        "epoch": 0, "batch": 0, "loss_sum": 0.0, "curve": [], "best": None, "best_loss": math.inf, "bytes": 0,
        "samples": 0, "carried": [], "losses": [],
    }  # fmt: skip
    if "model" in state:
        learner.load_state_dict(state)
    batches.carried = state["carried"]
    progress.start(f"encoder {optimizer} seed {seed}", settings.epochs * len(origins), "samples")
    progress.advance(state["epoch"] * len(origins) + state["samples"])
    with checkpoint:  # an interrupt waits for a whole update
        for epoch in range(state["epoch"], settings.epochs):
            if _is_exhausted(state["curve"], settings.patience):
                break
            for number in range(state["batch"], counts[epoch]):
                output, y, share, samples = batches.forecast(epoch, number)
                target = standardised_target(encoder, y, output.stats)
                total = share.mean(fredf_loss(output.latent, target, settings.alpha).total)
                with checkpoint.named_on_divergence():
                    learner.update(total)
                loss = total.item()
                progress.advance(samples, loss=loss)
                state["batch"], state["carried"] = number + 1, batches.carried
                state["samples"] += samples
                state["loss_sum"] += loss * samples
                if learner.updates % LOG_EVERY == 0:
                    state["losses"].append({"update": learner.updates, "train": loss})
                if ranks.is_first and checkpoint.is_due:
                    checkpoint.save(state | learner.state_dict(), step=learner.updates)
            train_loss = state["loss_sum"] / state["samples"]
            loss, mse = ranks.from_first(evaluate, encoder, table, data.validation, settings.alpha)
            state["curve"].append(
                {
                    "epoch": epoch + 1, "update": learner.updates, "train": train_loss, "validation": loss,
                    "mse": float(mse.mean()),
                }
            )  # fmt: skip
            if loss < state["best_loss"]:
                state["best_loss"] = loss
                state["best"] = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
            state["bytes"] = measured_state_bytes(learner.optimizer)
            state |= {"epoch": epoch + 1, "batch": 0, "loss_sum": 0.0, "samples": 0, "carried": []}
            if ranks.is_first:  # metrics before the state that follows them
                write_metric_lines(folder, "encoder", state["curve"], seed=seed)
                checkpoint.save(state | learner.state_dict(), step=learner.updates)
    progress.finish()
    encoder.load_state_dict(state["best"])
    encoder.eval()
    _fit_context(encoder, data)
    if ranks.is_first:
        path = folder / "models" / "encoder.safetensors"
        save_weights(encoder, path, kind="encoder", facts=encoder_facts(data))
    _, mse = evaluate(encoder, table, data.validation, settings.alpha)
    naive = naive_errors(encoder, table, data.validation).min(dim=0).values
    return EncoderResult(
        encoder=encoder, curve=state["curve"], losses=state["losses"], validation_loss=state["best_loss"], mse=mse.tolist(),
        naive_mse=naive.tolist(), skill=(1 - mse / naive).tolist(), state_bytes=state["bytes"],
        updates=learner.updates, seconds=time.perf_counter() - began,
    )  # fmt: skip


def encoder_facts(data: EncoderData) -> dict[str, object]:
    """Return what a file of encoder weights must agree with."""
    return {"data": data.data_hash, "train": list(data.train)}


@torch.no_grad()
def evaluate(
    encoder: Encoder, table: WindowTable, span: tuple[int, int], alpha: float
) -> tuple[float, Float[Tensor, " column"]]:
    """Return the loss over a span, and the mean squared error of each forecast feature, in standardised space."""
    loss, squares, count = 0.0, [], 0
    encoder.eval()
    for x, y, (latent, stats) in forecasts(encoder, table, _origins(encoder, table.data, span)):
        target = standardised_target(encoder, y, stats)
        loss += float(fredf_loss(latent, target, alpha).total) * len(x)
        squares.append((latent - target).square().mean(dim=1))
        count += len(x)
    encoder.train()
    return loss / count, torch.cat(squares).mean(dim=0)


@torch.no_grad()
def naive_errors(
    encoder: Encoder, table: WindowTable, span: tuple[int, int]
) -> Float[Tensor, "naive column"]:
    """Return the mean squared errors of the forecasts of `NAIVE`, per feature, in the same standardised space."""
    origins = _origins(encoder, table.data, span)
    x, _, y = table.at(origins)
    stats = encoder.norm.statistics(x)
    target = standardised_target(encoder, y, stats)
    guesses = naive_guesses(x, stats, y.shape[1])
    errors = [encoder.norm.standardise(guess, stats)[..., encoder.columns] - target for guess in guesses]
    return torch.stack([error.square().mean(dim=(0, 1)) for error in errors])


def naive_guesses(
    x: Float[Tensor, "batch time feature"], stats: InstanceStats, horizon: int
) -> tuple[Float[Tensor, "batch horizon feature"], ...]:
    """Return the forecasts of `NAIVE` for windows: last value, the window's mean, the same hour 24 bars earlier."""
    shape = (len(x), horizon, x.shape[2])
    yesterday = x[:, -DAY_BARS:].repeat(1, -(-horizon // DAY_BARS), 1)[:, :horizon]
    return x[:, -1:].expand(shape), stats.mean.expand(shape), yesterday


def _origins(encoder: Encoder, data: EncoderData, span: tuple[int, int]) -> Tensor:
    origins = window_origins(span, encoder, data.settled)
    if len(origins) == 0:
        raise ValueError(
            f"span: bars {span[0]} to {span[1]}, must hold more than {encoder.config.horizon} bars."
        )
    return origins


def _check_coverage(encoder: Encoder, data: EncoderData) -> None:
    """Refuse a training span that begins before the first bar with a context: trajectories begin with it."""
    first = data.settled + encoder.first_row
    if data.train[0] < first:
        raise CoverageError(
            f"{data.train[0]} bars before the training span, but this encoder needs {first}",
            hint="Begin the training span later with --split.train, or give earlier bars.",
        )


def _set_reference(encoder: Encoder, data: EncoderData) -> None:
    """Set the normalisation's reference from training rows only."""
    rows = data.values[max(data.train[0], data.settled) : data.train[1]].double()
    encoder.norm.reference_mean.copy_(rows.mean(dim=0))
    deviation = rows.std(dim=0, correction=0)
    encoder.norm.reference_std.copy_(torch.where(deviation > 0, deviation, torch.ones_like(deviation)))


def _fit_context(encoder: Encoder, data: EncoderData) -> None:
    """Scale contexts by those of the training span."""
    first, last = (bar - data.settled for bar in data.train)
    encoder.fit_context(encoder.encode_table(data.values[data.settled :], first, last))


def _is_exhausted(curve: list[Point], patience: int) -> bool:
    losses = [point["validation"] for point in curve]
    return bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience
