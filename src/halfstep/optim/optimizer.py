"""`AdamMini`: used as ``torch.optim.AdamW``, with half its state."""

from collections.abc import Callable, Iterable
from typing import Any, Self, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.partition import (
    NormRule,
    Partition,
    Rule,
    ValueRule,
    decay_groups,
    partition_model,
    spec_for_shape,
)
from halfstep.optim.reference import update

_STATE = ("step", "exp_avg", "exp_avg_sq")


class AdamMini(Optimizer):
    """Adam-mini with decoupled weight decay: one second moment per block instead of one per element.

    With one element per block the rule is exactly that of ``torch.optim.AdamW``, whose defaults it shares.

    Args:
        params: tensors, (name, tensor) pairs, or group dictionaries, as for every torch optimizer.
        lr: learning rate, a number or a one-element tensor, at least 0.
        betas: decay of the first and the second moment, each in [0, 1).
        eps: added to the bias-corrected root of the second moment, at least 0.
        weight_decay: decoupled decay, at least 0.
        partition: of the model whose parameters these are; without one, matrices are cut by row and vectors by
            element.
        maximize: move along the gradient instead of against it.

    Raises:
        ValueError: a value out of range, a partition of another model, or a complex parameter.

    Example:
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = AdamMini.for_model(model, lr=1e-2)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state_bytes()  # (8 + 2) + (2 + 2) numbers of 4 bytes, and two step counts
        64
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        partition: Partition | None = None,
        maximize: bool = False,
    ) -> None:
        self._partition = partition
        self._specs: list[list[BlockSpec]] = []
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        _check(defaults)
        super().__init__(params, defaults)

    @classmethod
    def for_model(
        cls,
        model: nn.Module,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        rules: Iterable[Rule] = (),
        value: ValueRule = "row",
        norm: NormRule = "tensor",
    ) -> Self:
        """Return an optimizer for a whole model: its partition, and decay for matrices but not for vectors."""
        partition = partition_model(model, rules=tuple(rules), value=value, norm=norm)
        return cls(decay_groups(model, weight_decay), lr, betas, eps, weight_decay, partition=partition)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters' blocks are decided here, once."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
            names = group.get("param_names", [f"parameter {k}" for k in range(len(group["params"]))])
            for name, param in zip(names, group["params"], strict=True):
                _refuse_complex(name, param)
            specs = [
                spec_for_shape(param) if self._partition is None else self._partition.spec_of(param)
                for param in group["params"]
            ]
        except ValueError:
            self.param_groups.pop()
            raise
        self._specs.append(specs)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient; a parameter without one is left as it is.

        Args:
            closure: re-evaluates the model and returns the loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, specs in zip(self.param_groups, self._specs, strict=True):
            for index, (param, spec) in enumerate(zip(group["params"], specs, strict=True)):
                if param.grad is not None:
                    self._update(param, spec, group, index)
        return loss

    def state_bytes(self) -> int:
        """Return the bytes of optimizer state that are allocated: distinct storages, step counts left out."""
        tensors = [state[key] for state in self.state.values() for key in _STATE[1:] if key in state]
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.numel()
        }
        return sum(storages.values())

    def found_nonfinite(self) -> list[str]:
        """Return the names (or positions) of parameters that hold NaN or infinity in weight or gradient."""
        found = []
        for number, group in enumerate(self.param_groups):
            names = group.get(
                "param_names", [f"group {number} parameter {k}" for k in range(len(group["params"]))]
            )
            for name, param in zip(names, group["params"], strict=True):
                tensors = [param.detach()] if param.grad is None else [param.detach(), param.grad]
                if not all(bool(t.isfinite().all()) for t in tensors):
                    found.append(name)
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state written by AdamMini or by ``torch.optim.Adam``/``AdamW``.

        A full-size second moment is averaged over each block. Moments keep float32 whatever the parameters are.

        Raises:
            ValueError: a second moment of neither layout; the message names both shapes.
        """
        super().load_state_dict(state_dict)
        saved = dict(enumerate(p for group in state_dict["param_groups"] for p in group["params"]))
        ours = [
            (p, s)
            for group, specs in zip(self.param_groups, self._specs, strict=True)
            for p, s in zip(group["params"], specs, strict=True)
        ]
        for position, (param, spec) in enumerate(ours):
            entry = state_dict["state"].get(saved[position])
            if not entry:
                continue
            wide = torch.promote_types(param.dtype, torch.float32)
            second = entry["exp_avg_sq"].to(param.device, wide)
            if tuple(second.shape) != spec.state_shape:
                if tuple(second.shape) != spec.shape:
                    raise ValueError(
                        f"exp_avg_sq: shape {tuple(second.shape)} for parameter {position} of shape {spec.shape}, "
                        f"must be {spec.state_shape} or {spec.shape}. Load the state of the same model and partition."
                    )
                inside = [axis for axis in range(second.dim()) if axis not in spec.row_axes]
                second = spec.block_mean(second.mean(inside, keepdim=True) if inside else second)
            self.state[param] = {
                "step": torch.as_tensor(entry["step"], dtype=torch.float32).clone(),
                "exp_avg": entry["exp_avg"].to(param.device, wide, copy=True),
                "exp_avg_sq": second.clone(),
            }

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return state | {"_specs": self._specs, "_partition": None}

    def _update(self, param: Tensor, spec: BlockSpec, group: dict[str, Any], index: int) -> None:
        grad = param.grad
        assert grad is not None
        if grad.is_sparse:
            name = group.get("param_names", {index: f"parameter {index}"})[index]
            raise RuntimeError(f"{name}: a sparse gradient. Use nn.Embedding(..., sparse=False) for it.")
        state = self.state[param]
        if not state:
            wide = torch.promote_types(param.dtype, torch.float32)
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(param, dtype=wide)
            state["exp_avg_sq"] = torch.zeros(spec.state_shape, dtype=wide, device=param.device)
        state["step"] += 1
        update(
            param,
            -grad if group["maximize"] else grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            spec,
            step=state["step"].item(),
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
        )


def _refuse_complex(name: str, param: Tensor) -> None:
    if param.is_complex():
        raise ValueError(f"{name}: a complex parameter. Optimize torch.view_as_real({name}) instead.")


def _check(values: dict[str, Any]) -> None:
    """Refuse hyper-parameters out of range, each with its name and value."""
    for name in ("lr", "eps", "weight_decay"):
        value = float(values[name])
        if not value >= 0:
            raise ValueError(f"{name}: {value}, must be 0 or more.")
    for name, beta in zip(("beta1", "beta2"), values["betas"], strict=True):
        if not 0 <= beta < 1:
            raise ValueError(f"{name}: {beta}, must lie in [0, 1).")
