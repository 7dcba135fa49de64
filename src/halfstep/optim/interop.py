"""The state of `AdamMini` for other optimizers: going back must cost nothing but memory."""

from typing import Any

import torch

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.optimizer import AdamMini


def adamw_state_dict(optimizer: AdamMini) -> dict[str, Any]:
    """Return a state that ``torch.optim.AdamW`` loads: every element gets the second moment of its block.

    The groups are those of ``optimizer``. Nothing is shared with it: torch keeps the tensors that it is given.
    """
    result = optimizer.state_dict()
    specs = [spec for row in optimizer.block_specs for spec in row]
    result["state"] = {
        k: {
            "step": entry["step"].clone(),
            "exp_avg": entry["exp_avg"].clone(),
            "exp_avg_sq": entry["exp_avg_sq"]
            .expand(specs[k].shape)
            .clone(memory_format=torch.contiguous_format),
        }
        for k, entry in result["state"].items()
    }
    torch_only = {
        "amsgrad": False, "foreach": None, "differentiable": False, "fused": None, "decoupled_weight_decay": True,
    }  # fmt: skip
    result["param_groups"] = [group | torch_only for group in result["param_groups"]]
    return result


def published_state_dict(optimizer: AdamMini) -> dict[str, Any]:
    """Return a state that the published adam-mini package loads: one group per parameter, in the order of the model.

    Raises:
        ValueError: the parameters have no names, or blocks that the package cannot have; the message names the
            parameter.
    """
    rows = []
    for group, specs in zip(optimizer.param_groups, optimizer.block_specs, strict=True):
        if "param_names" not in group:
            raise ValueError(
                "param_names: absent, and the published package needs names. Pass named parameters."
            )
        rows += [
            (name, param, spec, group)
            for name, param, spec in zip(group["param_names"], group["params"], specs, strict=True)
        ]
    if optimizer.partition is not None:
        order = {name: k for k, name in enumerate(optimizer.partition.parameters)}
        rows.sort(key=lambda row: order.get(row[0], len(order)))
    groups, states = [], {}
    for k, (name, param, spec, group) in enumerate(rows):
        beta1, beta2 = group["betas"]
        groups.append(
            {
                "params": [k],
                "name": name.lower(),
                "lr": group["lr"],
                "beta1": beta1,
                "beta2": beta2,
                "eps": group["eps"],
                "weight_decay": group["weight_decay"],
            }
        )
        if entry := optimizer.state.get(param):
            states[k] = _published(name, entry, spec)
    return {"state": states, "param_groups": groups}


def _published(name: str, entry: dict[str, Any], spec: BlockSpec) -> dict[str, Any]:
    first, second, step = entry["exp_avg"], entry["exp_avg_sq"], int(entry["step"])
    if spec.kind == "element":
        return {"m": first.clone(), "step": step, "v": second.clone()}
    if spec.kind == "tensor":
        return {
            "m": first.clone(), "step": step, "reduced": False, "vmean": second.reshape(()).clone(),
            "block_numel": float(torch.Size(spec.shape).numel()),
        }  # fmt: skip
    per_block = {size for _, size in spec.sections} or {1}
    if spec.row_axes != (0,) or len(per_block) != 1 or len(spec.shape) != 2:
        raise ValueError(
            f"{name}: blocks of kind {spec.kind!r} over axes {spec.row_axes} of shape {spec.shape}, which the published "
            "package cannot have. Use adamw_state_dict instead."
        )
    (size,) = per_block
    means = second[::size].clone()
    if spec.kind == "row":
        return {"m": first.clone(), "step": step, "neuron_per_gpu": len(means), "vmean": means}
    return {
        "m": first.reshape(len(means), -1).clone(),
        "head_per_gpu": len(means),
        "step": step,
        "vmean": means,
    }
