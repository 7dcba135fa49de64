"""The state of `AdamMini` for other optimizers: going back must cost nothing but memory."""

import math
from typing import Any

import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.optimizer import AdamMini


def adamw_state_dict(
    optimizer: AdamMini, *, fused: bool | None = None, foreach: bool | None = None
) -> dict[str, Any]:
    """Return a state that ``torch.optim.AdamW`` loads: every element gets the second moment of its block.

    The groups are those of ``optimizer``. Nothing is shared with it: torch keeps the tensors that it is given.

    Args:
        optimizer: goes on as before.
        fused, foreach: of the AdamW that loads the state; a loaded state overrides what AdamW was made with.
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
        "amsgrad": False, "foreach": foreach, "differentiable": False, "fused": fused, "decoupled_weight_decay": True,
    }  # fmt: skip
    result["param_groups"] = [group | torch_only for group in result["param_groups"]]
    return result


def published_state_dict(optimizer: AdamMini, published: Any) -> dict[str, Any]:
    """Return a state that an optimizer of the published adam-mini package loads.

    Parameters are matched by name, and hyper-parameters are those of ``optimizer``. The names decide which blocks the
    package makes; where they are larger than ours, second moments are averaged.

    Args:
        optimizer: has named parameters.
        published: the ``Adam_mini`` of the same model that is to load the state; it is only read.

    Raises:
        ValueError: parameters without names or of another model, ``maximize``, or a shape that the package fails on; the
            message names the parameter.
    """
    ours = {}
    for group, specs in zip(optimizer.param_groups, optimizer.block_specs, strict=True):
        if "param_names" not in group:
            raise ValueError(
                "param_names: absent, and the published package needs names. Pass named parameters."
            )
        if group["maximize"]:
            raise ValueError("maximize: True, which the published package does not know. Negate the loss.")
        for name, param, spec in zip(group["param_names"], group["params"], specs, strict=True):
            ours[name.lower()] = (group, spec, optimizer.state.get(param))
    theirs = [group["name"] for group in published.param_groups]
    strangers = set(theirs) ^ {name for name, (_, _, entry) in ours.items() if entry or name in theirs}
    if strangers:
        raise ValueError(
            f"{min(strangers)}: a parameter of one of the two optimizers only. Make both from the same model."
        )
    groups, states = [], {}
    for k, name in enumerate(theirs):
        group, spec, entry = ours[name]
        groups.append(_published_group(k, name, group))
        if entry:
            states[k] = _published_state(name, entry, spec, published)
    return {"state": states, "param_groups": groups}


def _published_group(index: int, name: str, group: dict[str, Any]) -> dict[str, Any]:
    beta1, beta2 = group["betas"]
    return {
        "params": [index], "name": name, "lr": float(group["lr"]), "beta1": beta1, "beta2": beta2, "eps": group["eps"],
        "weight_decay": group["weight_decay"],
    }  # fmt: skip


def _published_state(name: str, entry: dict[str, Tensor], spec: BlockSpec, published: Any) -> dict[str, Any]:
    """Return one parameter's state in the layout that the package chooses for this name."""

    def is_named(*kinds: str) -> bool:
        return any(word in name for kind in kinds for word in getattr(published, f"{kind}_names"))

    numbers, step = math.prod(spec.shape), int(entry["step"])
    first, second = entry["exp_avg"].clone(), entry["exp_avg_sq"].expand(spec.shape)
    if is_named("adam_block"):
        return {"m": first, "step": step, "v": second.clone(memory_format=torch.contiguous_format)}
    if is_named("wqk"):
        if numbers % published.head_numel:
            raise ValueError(
                f"{name}: {numbers} numbers of shape {spec.shape} in heads of {published.head_numel}. "
                "Give the published package the model's dim and n_heads."
            )
        first = first.reshape(-1, published.head_numel)
        means = second.reshape(first.shape).mean(1, keepdim=True)
        return {"m": first, "head_per_gpu": len(first), "step": step, "vmean": means}
    if is_named("embd", "output", "wv", "mlp", "attn_proj"):
        if len(spec.shape) != 2:
            raise ValueError(
                f"{name}: shape {spec.shape}, and the published package steps only matrices under such a name. "
                "Use adamw_state_dict instead."
            )
        return {"m": first, "step": step, "neuron_per_gpu": len(first), "vmean": second.mean(1, keepdim=True)}
    return {"m": first, "step": step, "reduced": False, "vmean": second.mean(), "block_numel": float(numbers)}
