"""Who steps which parameter, decided once and kept until something it rests on changes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from halfstep.optim.kernels.reference import update
from halfstep.optim.launcher import Entry, Launcher, fits_kernel, refuse_sparse
from halfstep.optim.watch import has_numba


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of an optimizer by the way they are stepped.

    Attributes:
        launchers: those of compiled kernels, a launcher per dtype.
        plain: those of plain torch, one by one.
        waiting: those that never had a gradient, and have no state.
    """

    launchers: list[Launcher]
    plain: list[Entry]
    waiting: list[Tensor]

    def is_current(self) -> bool:
        """Return whether the memory of weights and moments is where it was, and who waits for a gradient waits still."""
        return all(launcher.is_current() for launcher in self.launchers) and all(
            param.grad is None for param in self.waiting
        )

    def step(self, scale: float | Tensor) -> None:
        """Update every parameter that has a gradient; ``scale`` is a factor on the gradients."""
        for launcher in self.launchers:
            launcher.step(float(scale))
        if self.plain:
            step_plain(self.plain, scale)

    def square_sum(self) -> float | Tensor:
        """Return the sum of the squares of all gradients."""
        total: float | Tensor = sum(launcher.square_sum() for launcher in self.launchers)
        return total + _square_sum_plain(self.plain) if self.plain else total


def make_plan(entries: Iterable[Entry], waiting: list[Tensor]) -> Plan:
    """Decide who steps which parameter.

    Raises:
        RuntimeError: a group insists on compiled kernels, and there is none for one of its parameters.
    """
    fast: dict[torch.dtype, list[Entry]] = {}
    plain: list[Entry] = []
    for entry in entries:
        group, param = entry.group, entry.param
        if group["fused"] is not False and not group["capturable"] and has_numba() and fits_kernel(entry):
            fast.setdefault(param.dtype, []).append(entry)
        elif group["fused"] and param.numel():
            raise RuntimeError(
                f"{entry.name}: fused=True, but no compiled kernel steps a {param.dtype} tensor of shape "
                f"{tuple(param.shape)} and strides {param.stride()} on {param.device}"
                + (" with capturable=True" if group["capturable"] else "")
                + ". Use fused=None, which takes plain torch for it."
            )
        else:
            plain.append(entry)
    launchers = [Launcher(same_dtype) for same_dtype in fast.values()]
    return Plan(launchers, plain, waiting)


@torch.no_grad()
def _square_sum_plain(entries: Iterable[Entry]) -> float | Tensor:
    total: float | Tensor = 0.0
    for entry in entries:
        if entry.param.grad is not None:
            refuse_sparse(entry.name, entry.param.grad)
            wide = torch.promote_types(entry.param.dtype, torch.float32)
            total = total + torch.linalg.vector_norm(entry.param.grad, dtype=wide).double().square()
    return total


@torch.no_grad()
def step_plain(
    entries: Sequence[Entry], scale: float | Tensor, mean_squares: Sequence[Tensor] | None = None
) -> None:
    """Update parameters in plain torch, one by one.

    Args:
        entries: those without a gradient are left as they are.
        scale: a factor on the gradients.
        mean_squares: of each parameter's gradient over its blocks, where they are known already.
    """
    for number, entry in enumerate(entries):
        grad, group, state = entry.param.grad, entry.group, entry.state
        if grad is None:
            continue
        refuse_sparse(entry.name, grad)
        state["step"] += 1
        lr, step = group["lr"], state["step"]
        if group["capturable"]:  # all arithmetic stays on the device
            wide = state["exp_avg"].dtype
            step, lr = step.to(wide), lr.to(wide) if isinstance(lr, Tensor) else lr
        else:
            step, lr = step.item(), float(lr)
        factor = scale.to(grad.device) if isinstance(scale, Tensor) else scale
        update(
            entry.param,
            grad,
            state["exp_avg"],
            state["exp_avg_sq"],
            entry.spec,
            step=step,
            lr=lr,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            scale=-factor if group["maximize"] else factor,
            mean_square=None if mean_squares is None else mean_squares[number],
        )
