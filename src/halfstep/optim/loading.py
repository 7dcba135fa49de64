"""States of other optimizers, and of other groups, brought into the layout of AdamMini."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.distribution import full_tensor


def arranged(
    state_dict: dict[str, Any], groups: Sequence[dict[str, Any]], specs: Sequence[Sequence[BlockSpec]]
) -> dict[str, Any]:
    """Return a state dictionary with the groups and the second moments of an optimizer.

    Parameters are matched by name where both sides know names, else by their order. Hyper-parameters are the saved
    ones where the groups have the same sizes, else those of ``groups``.

    Args:
        state_dict: of AdamMini, of ``torch.optim.Adam``/``AdamW``, or of the published adam-mini package.
        groups, specs: parameter groups of the optimizer that is to load it, and the blocks of their parameters.

    Raises:
        ValueError: another number of parameters, a name that was not saved, or a moment of the wrong shape; the
            message names the parameter and both shapes.
    """
    saved = state_dict["param_groups"]
    known = [name for group in saved for name in _saved_names(group)]
    indices = [index for group in saved for index in group["params"]]
    wanted = [name for group in groups for name in group.get("param_names", ())]
    flat = [spec for row in specs for spec in row]
    if len(indices) != len(flat):
        raise ValueError(
            f"the state has {len(indices)} parameters, the optimizer {len(flat)}. Load the state of the same model."
        )
    if len(known) == len(wanted) == len(flat):
        index_of = dict(zip(known, indices, strict=True))
        missing = [name for name in wanted if name not in index_of and name.lower() not in index_of]
        if missing:
            raise ValueError(
                f"{missing[0]}: not among the names of the saved state. Load the state of the same model."
            )
        indices = [index_of[name] if name in index_of else index_of[name.lower()] for name in wanted]
    states = {
        position: _converted(
            state_dict["state"][index], spec, wanted[position] if wanted else f"parameter {position}"
        )
        for position, (index, spec) in enumerate(zip(indices, flat, strict=True))
        if state_dict["state"].get(index)
    }
    alike = [len(group["params"]) for group in saved] == [len(group["params"]) for group in groups]
    new_groups: list[dict[str, Any]] = []
    start = 0
    for number, group in enumerate(groups):
        positions = list(range(start, start + len(group["params"])))
        start += len(positions)
        own = {key: value for key, value in group.items() if key != "params"}
        new_groups.append(own | (_hyper(saved[number]) if alike else {}) | {"params": positions})
    return state_dict | {"state": states, "param_groups": new_groups}


def _saved_names(group: dict[str, Any]) -> list[str]:
    """Return the names a saved group knows: torch keeps a list, the published package one name per group."""
    names: list[str] = group.get("param_names", [group["name"]] if "name" in group else [])
    return names


def _hyper(group: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a saved group under torch's names."""
    found = {key: value for key, value in group.items() if key not in ("params", "param_names")}
    if "beta1" in found and "beta2" in found:
        found["betas"] = (found.pop("beta1"), found.pop("beta2"))
    return found


def _converted(entry: dict[str, Any], spec: BlockSpec, name: str) -> dict[str, Any]:
    """Return one parameter's state with the keys and shapes of AdamMini."""
    if "m" in entry:  # the published package
        first = entry["m"]
        if first.numel() == torch.Size(spec.shape).numel():  # it keeps heads as (heads, elements of a head)
            first = first.reshape(spec.shape)
        second = entry["v"] if "v" in entry else _rows_of(entry["vmean"], spec)
    else:
        first, second = entry["exp_avg"], entry["exp_avg_sq"]
    if tuple(first.shape) != spec.shape:
        raise ValueError(
            f"{name}: exp_avg has shape {tuple(first.shape)}, must be {spec.shape}. Load the state of the same model."
        )
    if tuple(second.shape) != spec.state_shape:
        if tuple(second.shape) != spec.shape:
            raise ValueError(
                f"{name}: exp_avg_sq has shape {tuple(second.shape)}, must be {spec.state_shape} or {spec.shape}. "
                "Load the state of the same model and partition."
            )
        inside = [axis for axis in range(second.dim()) if axis not in spec.row_axes]
        wide = full_tensor(second).to(torch.promote_types(second.dtype, torch.float32))
        second = spec.block_mean(wide.mean(inside, keepdim=True) if inside else wide)
    return {"step": torch.as_tensor(entry["step"]).float(), "exp_avg": first, "exp_avg_sq": second}


def _rows_of(block_means: Tensor, spec: BlockSpec) -> Tensor:
    """Return the published package's second moments, a number per block, as a number per row."""
    rows = torch.Size(spec.state_shape).numel()
    count = block_means.numel()
    if count and rows % count == 0:
        return block_means.reshape(-1).repeat_interleave(rows // count).reshape(spec.state_shape)
    return block_means
