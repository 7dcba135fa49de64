"""What every training shares: the schedule, one checked update, and the lines of its metrics."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from halfstep import files
from halfstep.errors import DivergenceError
from halfstep.training.optimizers import make_optimizer
from halfstep.training.ranks import ALONE, Ranks
from halfstep.training.settings import OptimizerSettings

Point = dict[str, float | int]
"""One record of a curve: where it stands (epoch or update) and the figures there."""

FINAL_LR_SHARE = 0.1


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
        ranks: the processes that make the same updates.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: str,
        settings: OptimizerSettings,
        total: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.settings, self.total = model, settings, total
        self._ranks = ranks
        self.optimizer = make_optimizer(optimizer, model, settings)
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.updates = 0

    def update(self, loss: Tensor) -> float:
        """Take one step down the loss; returns the gradients' global norm before clipping.

        Args:
            loss: of the whole batch, on every rank.

        Raises:
            DivergenceError: loss or gradients are not finite. Weights and state are those of the step before.
        """
        self.optimizer.zero_grad(set_to_none=True)
        named = [(name, param) for name, param in self.model.named_parameters() if param.requires_grad]
        own = torch.autograd.grad(loss, [param for _, param in named], allow_unused=True)
        gradients = self._ranks.add_up(own)
        given = [gradient for gradient in gradients if gradient is not None]
        norm = nn.utils.get_total_norm(given)
        if not (math.isfinite(norm) and math.isfinite(loss.item())):
            bad = [
                name
                for (name, _), gradient in zip(named, gradients, strict=True)
                if gradient is not None and not bool(gradient.isfinite().all())
            ]
            raise DivergenceError(
                f"update {self.updates + 1}: loss {loss.item():.4g}, gradients not finite in {_listed(bad)}. "
                "The weights are those of the update before. Lower --optim.lr."
            )
        for (_, param), gradient in zip(named, gradients, strict=True):
            param.grad = gradient
        nn.utils.clip_grads_with_norm_([param for _, param in named], self.settings.max_norm, norm)
        share = lr_share(self.updates, self.total, self.settings.warmup_steps)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * share
        self.optimizer.step()
        self.updates += 1
        return float(norm)

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


def _listed(names: list[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "no parameter"


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
