"""What every training shares: optimizers by name, the schedule, one checked update, and a resumable state."""

import io
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from halfstep import files
from halfstep.errors import DivergenceError
from halfstep.optim.optimizer import AdamMini
from halfstep.training.settings import OptimizerSettings

Point = dict[str, float | int]
"""One record of a curve: where it stands (epoch or update) and the figures there."""

FINAL_LR_SHARE = 0.1
CHECKPOINT_SECONDS = 60.0  # a killed training loses at most this much work


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [param for param in model.parameters() if param.dim() >= 2]
    vectors = [param for param in model.parameters() if param.dim() < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _adam_mini(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return AdamMini.for_model(
        model, lr=s.lr, betas=(s.beta1, s.beta2), weight_decay=s.weight_decay, norm="element"
    )


def _adamw(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(model, s.weight_decay), lr=s.lr, betas=(s.beta1, s.beta2))


def _adam(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(_groups(model, 0.0), lr=s.lr, betas=(s.beta1, s.beta2))


def _sgd(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(_groups(model, s.weight_decay), lr=s.sgd_lr, momentum=0.9)


OPTIMIZERS: Mapping[str, Callable[[nn.Module, OptimizerSettings], torch.optim.Optimizer]] = MappingProxyType(
    {"sgd": _sgd, "adam": _adam, "adamw": _adamw, "adam_mini": _adam_mini}
)
"""Optimizers that a comparison may name."""


def make_optimizer(name: str, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return an optimizer by name."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer: {name!r}, must be one of {', '.join(OPTIMIZERS)}.")
    return OPTIMIZERS[name](model, settings)


def measured_state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of every distinct storage in an optimizer's state; counted, not computed."""
    storages: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, Mapping):
            for item in value.values():
                visit(item)

    for state in optimizer.state.values():
        visit(state)
    return sum(storages.values())


def lr_share(update: int, total: int, warmup: int) -> float:
    """Return the learning rate of an update (from 0) as a share of its peak: linear rise, then a cosine to a tenth."""
    warmup = min(warmup, max(1, total // 4))
    if update < warmup:
        return (update + 1) / warmup
    progress = (update - warmup) / max(1, total - warmup)
    return FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))


class Learner:
    """One model and its optimizer: makes updates that are checked before they are applied.

    Args:
        model: its parameters are trained.
        optimizer: name of the optimizer.
        settings: its hyper-parameters.
        total: updates of the whole schedule.
    """

    def __init__(self, model: nn.Module, optimizer: str, settings: OptimizerSettings, total: int) -> None:
        self.model, self.settings, self.total = model, settings, total
        self.optimizer = make_optimizer(optimizer, model, settings)
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.updates = 0

    def update(self, loss: Tensor) -> float:
        """Take one step down the loss; returns the gradients' global norm before clipping.

        Raises:
            DivergenceError: loss or gradients are not finite. Weights and state are those of the step before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        params = [param for param in self.model.parameters() if param.requires_grad]
        gradients = torch.autograd.grad(loss, params, allow_unused=True)
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient
        norm = float(nn.utils.clip_grad_norm_(params, self.settings.max_norm))
        if not (math.isfinite(norm) and bool(loss.isfinite())):
            bad = [
                n
                for n, p in self.model.named_parameters()
                if p.grad is not None and not bool(p.grad.isfinite().all())
            ]
            raise DivergenceError(
                f"update {self.updates + 1}: loss {loss.item():.4g}, gradients not finite in {bad[:3] or 'none'}. "
                "The weights are those of the update before. Lower --optim.lr."
            )
        share = lr_share(self.updates, self.total, self.settings.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.step()
        self.updates += 1
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Return everything a continuation needs."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]


class Checkpoint:
    """The newest state of one training, in one file that is whole or absent.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether the last save is so long ago that the next update should be kept."""
        return time.monotonic() - self._saved >= CHECKPOINT_SECONDS

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a state of tensors, numbers, strings, lists and dictionaries."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        files.write_bytes(self.path, buffer.getvalue())
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the saved state, or None; nothing but tensors and plain values is ever unpacked."""
        if not self.path.exists():
            return None
        state: dict[str, Any] = torch.load(self.path, weights_only=True)
        return state


def write_metric_lines(folder: Path, phase: str, lines: list[dict[str, Any]], *, seed: int) -> None:
    """Write the metrics of one phase of a folder's work to ``metrics.jsonl``, one JSON object per line, atomically.

    Lines that this phase wrote before are replaced where they stand; those of other phases stay.
    """
    path = folder / "metrics.jsonl"
    before = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    own = [number for number, line in enumerate(before) if json.loads(line)["phase"] == phase]
    begin, end = (own[0], own[-1] + 1) if own else (len(before), len(before))
    new = [json.dumps({"phase": phase, "seed": seed, **line}, allow_nan=False) + "\n" for line in lines]
    files.write_text(path, "".join([*before[:begin], *new, *before[end:]]))
