"""The update rule in plain torch: the equations, and the specification of every faster kernel.

For a parameter p with gradient g, first moment m, second moment v_b of block b, and t its own count of steps:

    p   <- p (1 - lr weight_decay)
    m   <- beta1 m + (1 - beta1) g
    v_b <- beta2 v_b + (1 - beta2) mean over b of g^2
    p   <- p - lr (m / (1 - beta1^t)) / (sqrt(v_b) / sqrt(1 - beta2^t) + eps)

Arithmetic is in float32, or float64 for float64 parameters, whatever the parameter is stored in.
"""

import math

from torch import Tensor

from halfstep.optim.blocks import BlockSpec


def update(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    spec: BlockSpec,
    *,
    step: float,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """Change a parameter and its state in place by one step.

    Args:
        param, grad: of ``spec.shape``, any floating dtype.
        exp_avg: ``spec.shape``, float32 or float64.
        exp_avg_sq: ``spec.state_shape``, float32 or float64.
        step: this step's number, from 1.
    """
    exp_avg.lerp_(grad.to(exp_avg.dtype), 1 - beta1)
    exp_avg_sq.mul_(beta2).add_(spec.mean_square(grad), alpha=1 - beta2)
    denominator = exp_avg_sq.sqrt().div_(math.sqrt(1 - beta2**step)).add_(eps)
    step_size = lr / (1 - beta1**step)
    if param.dtype == exp_avg.dtype:
        if weight_decay:
            param.mul_(1 - lr * weight_decay)
        param.addcdiv_(exp_avg, denominator, value=-step_size)
    else:
        wide = param.to(exp_avg.dtype).mul_(1 - lr * weight_decay)
        param.copy_(wide.addcdiv_(exp_avg, denominator, value=-step_size))
