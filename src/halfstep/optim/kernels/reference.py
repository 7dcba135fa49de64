"""The update rule in plain torch: the equations, and the specification of every faster kernel.

For a parameter p with gradient g, first moment m, second moment v_b of block b, and t its own count of steps:

    p   <- p (1 - lr weight_decay)
    m   <- beta1 m + (1 - beta1) g
    v_b <- beta2 v_b + (1 - beta2) mean over b of g^2
    p   <- p - lr (m / (1 - beta1^t)) / (sqrt(v_b) / sqrt(1 - beta2^t) + eps)

Arithmetic is in float32, or float64 for float64 parameters, whatever the parameter is stored in.
"""

import math

import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    spec: BlockSpec,
    *,
    step: float | Tensor,
    lr: float | Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    scale: float | Tensor = 1.0,
    mean_square: Tensor | None = None,
) -> None:
    """Change a parameter and its state in place by one step.

    Args:
        param, grad: of ``spec.shape``, any floating dtype.
        exp_avg: ``spec.shape``, float32 or float64.
        exp_avg_sq: ``spec.state_shape``, float32 or float64.
        step: this step's number, from 1; a tensor keeps all arithmetic on the device.
        scale: factor on the gradient: clipping, unscaling, -1 to maximize.
        mean_square: of ``grad`` over its blocks, ``spec.state_shape``, where it is known already (a block may reach
            beyond this tensor); it is changed.
    """
    if mean_square is None:
        mean_square = spec.mean_square(grad)
    if not isinstance(scale, float) or scale != 1.0:
        mean_square.mul_(scale**2)
        grad = grad.to(exp_avg.dtype) * scale
    exp_avg.lerp_(grad.to(exp_avg.dtype), 1 - beta1)
    exp_avg_sq.mul_(beta2).add_(mean_square, alpha=1 - beta2)
    root = (1 - beta2**step) ** 0.5
    # the step size goes into the denominator, which has one number per block: no temporary of the parameter's size
    denominator = exp_avg_sq.sqrt().div_(root).add_(eps).mul_(_ratio(1 - beta1**step, lr))
    if param.dtype == exp_avg.dtype:
        if weight_decay:
            param.mul_(1 - lr * weight_decay)
        param.addcdiv_(exp_avg, denominator, value=-1)
    else:
        wide = param.to(exp_avg.dtype).mul_(1 - lr * weight_decay)
        param.copy_(wide.addcdiv_(exp_avg, denominator, value=-1))


def _ratio(correction: float | Tensor, lr: float | Tensor) -> float | Tensor:
    if isinstance(correction, Tensor) or isinstance(lr, Tensor):
        return torch.as_tensor(correction) / lr
    return correction / lr if lr else math.inf
