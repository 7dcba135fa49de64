"""Optimizers by name, so that a comparison or a configuration can name them, and what their state weighs.

Torch's own are its fastest implementations (``fused=True``), not its slower defaults.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from halfstep.optim.optimizer import AdamMini
from halfstep.training.settings import OptimizerSettings

OptimizerFactory = Callable[[nn.Module, OptimizerSettings], torch.optim.Optimizer]
"""Makes the optimizer of a model's parameters."""


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    matrices = [param for param in model.parameters() if param.dim() >= 2]
    vectors = [param for param in model.parameters() if param.dim() < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _adam_mini(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return AdamMini.for_model(
        model, lr=s.lr, betas=(s.beta1, s.beta2), weight_decay=s.weight_decay, norm="element"
    )


def _adamw(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_groups(model, s.weight_decay), lr=s.lr, betas=(s.beta1, s.beta2), fused=True)


def _adam(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.Adam(_groups(model, 0.0), lr=s.lr, betas=(s.beta1, s.beta2), fused=True)


def _sgd(model: nn.Module, s: OptimizerSettings) -> torch.optim.Optimizer:
    return torch.optim.SGD(_groups(model, s.weight_decay), lr=s.sgd_lr, momentum=0.9, fused=True)


_FACTORIES: dict[str, OptimizerFactory] = {
    "sgd": _sgd, "adam": _adam, "adamw": _adamw, "adam_mini": _adam_mini,
}  # fmt: skip
BUILT_IN = tuple(_FACTORIES)


def register_optimizer(name: str, factory: OptimizerFactory) -> None:
    """Let settings name an optimizer of one's own, such as one to compare with the others.

    Processes that train beside this one know it where they import the module that registers it.

    Args:
        name: letters, digits and underscores; it becomes part of folder names.
        factory: called with a model and the settings that all optimizers share; it may leave some of them aside.

    Raises:
        ValueError: the name is that of an optimizer of halfstep, or does not fit a folder.

    Example:
        >>> register_optimizer("rmsprop", lambda model, s: torch.optim.RMSprop(model.parameters(), lr=s.lr))
        >>> type(make_optimizer("rmsprop", nn.Linear(3, 2), OptimizerSettings())).__name__
        'RMSprop'
    """
    if not name.isidentifier():
        raise ValueError(f"name: {name!r}, must be letters, digits and underscores.")
    if name in BUILT_IN:
        raise ValueError(f"name: {name!r}, is taken. Choose another name.")
    _FACTORIES[name] = factory


def optimizer_names() -> tuple[str, ...]:
    """Return the names that `make_optimizer` knows."""
    return tuple(_FACTORIES)


def make_optimizer(name: str, model: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Return an optimizer by name: one of `optimizer_names`."""
    if name not in _FACTORIES:
        raise ValueError(f"optimizer: {name!r}, must be one of {', '.join(_FACTORIES)}.")
    return _FACTORIES[name](model, settings)


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
