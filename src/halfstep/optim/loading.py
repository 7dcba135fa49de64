"""States of other optimizers, and of other groups and partitions, brought into the layout of `AdamMini`."""

import copy
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from halfstep.optim.blocks import BlockSpec
from halfstep.optim.distribution import full_tensor

_OF_ADAM = ("amsgrad", "capturable", "decoupled_weight_decay", "differentiable", "foreach", "fused")
"""How torch's Adam computes: AdamMini keeps its own ways."""


def arranged(
    state_dict: dict[str, Any], groups: Sequence[dict[str, Any]], specs: Sequence[Sequence[BlockSpec]]
) -> tuple[dict[int, dict[str, Tensor]], list[dict[str, Any]]]:
    """Return the states of an optimizer's parameters, by position, and its groups, from a saved state.

    Parameters are matched by name where both sides know names, else by order. Hyper-parameters are the saved ones where
    both sides group the same parameters together, else those of ``groups``.

    Args:
        state_dict: of AdamMini, of ``torch.optim.Adam``/``AdamW``, or of the published adam-mini package.
        groups, specs: parameter groups of the optimizer that is to load it, and the blocks of their parameters.

    Raises:
        ValueError: other parameters, or a state of unknown layout; the message names the parameter and both shapes.
    """
    saved, states = state_dict["param_groups"], state_dict["state"]
    flat = [spec for row in specs for spec in row]
    sources = _sources(saved, states, groups)
    names = _names_of(groups) or [f"parameter {k}" for k in range(len(flat))]
    found = {
        k: _converted(states[source], spec, name)
        for k, (source, spec, name) in enumerate(zip(sources, flat, names, strict=True))
        if source is not None and states.get(source)
    }
    if any("max_exp_avg_sq" in entry for entry in states.values()):
        warnings.warn(
            "amsgrad: AdamMini does not use the greatest second moments of this state.", stacklevel=3
        )
    return found, _grouped(saved, groups, sources)


def _sources(
    saved: Sequence[dict[str, Any]], states: dict[Any, Any], groups: Sequence[dict[str, Any]]
) -> list[Any]:
    """Return, for each parameter of ``groups``, its key in ``states``; None: frozen and not saved."""
    keys = [key for group in saved for key in group["params"]]
    params = [param for group in groups for param in group["params"]]
    known, wanted = _names_of(saved), _names_of(groups)
    if known and wanted and saved and _is_published(saved[0]):
        wanted = [name.lower() for name in wanted]
    if not known or not wanted:
        if len(keys) != len(params):
            raise ValueError(
                f"the state has {len(keys)} parameters, the optimizer {len(params)}. Load the state of the same model; "
                "named parameters on both sides also match where some are frozen."
            )
        return keys
    for names in (known, wanted):
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(
                f"{twice}: the name of several parameters, which cannot be told apart. Rename one; "
                "the published package writes names in lower case."
            )
    key_of = dict(zip(known, keys, strict=True))
    way_out = "Load the state of the same model, or drop the names from its groups to match by order."
    for name, param in zip(wanted, params, strict=True):
        if name not in key_of and param.requires_grad:
            raise ValueError(f"{name}: not among the names of the saved state. {way_out}")
    for name in sorted(set(known) - set(wanted)):
        if states.get(key_of[name]):
            raise ValueError(f"{name}: in the saved state, but not in this optimizer. {way_out}")
    return [key_of.get(name) for name in wanted]


def _names_of(groups: Iterable[dict[str, Any]]) -> list[str]:
    """Return the names of all parameters: torch keeps a list, the published package one name per group."""
    names: list[str] = []
    for group in groups:
        known = [group["name"]] if _is_published(group) else group.get("param_names", [])
        if len(known) != len(group["params"]):
            return []
        names += known
    return names


def _is_published(group: dict[str, Any]) -> bool:
    return "beta1" in group and "name" in group


def _grouped(
    saved: Sequence[dict[str, Any]], groups: Sequence[dict[str, Any]], sources: Sequence[Any]
) -> list[dict[str, Any]]:
    """Return the optimizer's groups, with the saved hyper-parameters where the groups are the same."""
    rest = iter(sources)
    members = [{next(rest) for _ in group["params"]} for group in groups]
    if members != [set(group["params"]) for group in saved]:
        return [dict(group) for group in groups]
    result = []
    for own, other in zip(groups, saved, strict=True):
        fixed = {key: own[key] for key in ("params", "param_names") if key in own}
        result.append(own | _hyper(other, own) | fixed)
    return result


def _hyper(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return the hyper-parameters of a saved group in terms of AdamMini."""
    found = copy.deepcopy({key: value for key, value in saved.items() if key != "params"})
    if _is_published(found):
        found["betas"] = (found.pop("beta1"), found.pop("beta2"))
        del found["name"]
    if "amsgrad" in found:  # torch's Adam or AdamW
        if not found.get("decoupled_weight_decay", True) and found["weight_decay"] != 0:
            warnings.warn(
                f"weight_decay: Adam added {found['weight_decay']} of the weights to their gradients; AdamMini goes on "
                f"with its own decoupled {own['weight_decay']}.",
                stacklevel=5,
            )
            del found["weight_decay"]
        for key in _OF_ADAM:
            found.pop(key, None)
    return found


def _converted(entry: dict[str, Any], spec: BlockSpec, name: str) -> dict[str, Tensor]:
    """Return one parameter's state with the keys and shapes of AdamMini."""
    first_key, second_key = (
        ("m", "v" if "v" in entry else "vmean") if "m" in entry else ("exp_avg", "exp_avg_sq")
    )
    absent = [key for key in ("step", first_key, second_key) if key not in entry]
    if absent:
        raise ValueError(
            f"{name}: the state has no {absent[0]}, but {', '.join(map(str, entry))}. "
            "AdamMini loads states of AdamMini, torch's Adam and AdamW, and the published adam-mini."
        )
    first, second, step = entry[first_key], entry[second_key], torch.as_tensor(entry["step"])
    if first_key == "m":  # the published package keeps heads as (heads, elements of a head)
        second = _unfolded(second, spec)
        if first.numel() == math.prod(spec.shape):
            first = first.reshape(spec.shape)
    if tuple(first.shape) != spec.shape:
        raise ValueError(
            f"{name}: {first_key} has shape {tuple(first.shape)}, must be {spec.shape}. "
            "Load the whole state of the same model."
        )
    if second.dim() != len(spec.shape) or any(
        size not in (1, full) for size, full in zip(second.shape, spec.shape, strict=True)
    ):
        raise ValueError(
            f"{name}: {second_key} has shape {tuple(second.shape)}, must be {spec.state_shape} or {spec.shape}. "
            "Load the whole state of the same model."
        )
    if step.numel() != 1:
        raise ValueError(f"{name}: step has shape {tuple(step.shape)}, must be one number.")
    return {"step": step.float().reshape(()), "exp_avg": first, "exp_avg_sq": _averaged(second, spec)}


def _unfolded(values: Tensor, spec: BlockSpec) -> Tensor:
    """Return the published package's numbers, each for a run of consecutive elements, as numbers of elements."""
    numbers, count = math.prod(spec.shape), values.numel()
    if tuple(values.shape) == spec.state_shape or count == 0 or numbers % count:
        return values
    return values.reshape(-1, 1).expand(count, numbers // count).reshape(spec.shape)


def _averaged(second: Tensor, spec: BlockSpec) -> Tensor:
    """Return the mean over each block of a second moment that holds for single elements or for other blocks."""
    has_rows = tuple(second.shape) == spec.state_shape
    if has_rows and not spec.sections:
        return second
    full = full_tensor(second).to(torch.promote_types(second.dtype, torch.float32))
    if has_rows:
        means = spec.block_mean(full)
        is_ours = torch.allclose(means, full, rtol=1e-5, atol=0)  # then what was saved, to the last bit
        return second if is_ours else means
    inside = [axis for axis in range(full.dim()) if axis not in spec.row_axes]
    full = full.expand(spec.shape)
    return spec.block_mean(full.mean(inside, keepdim=True) if inside else full)
