"""The blocks of every parameter of a model.

A dense layer's block is one output unit, a query or key projection's one head, a bias's one element. Module types
and attributes decide, then the sizes that modules and their configurations state; `structure` holds the rules.
What is not recognised is cut by row and the table says so; no matrix ever falls back to one number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from halfstep.optim.attention import ValueRule
from halfstep.optim.blocks import BlockSpec, by_element, by_row
from halfstep.optim.rules import Rule, head, sections
from halfstep.optim.structure import NormRule, Site, decide, is_bias, is_norm, sites_of

__all__ = [
    "NormRule",
    "Partition",
    "Rule",
    "ValueRule",
    "decay_groups",
    "head",
    "partition_model",
    "sections",
    "spec_for_shape",
]

StateDtype = Literal["float32", "bfloat16", "int8"]
_FIRST_MOMENT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_SCALED = 256  # numbers of an 8-bit moment that share one float32 scale


@dataclass(frozen=True, slots=True)
class Partition:
    """Blocks by parameter name; prints as a table.

    Attributes:
        specs: the blocks of each parameter, by its first name in the model.
        parameters: the parameters themselves, by the same names.
    """

    specs: Mapping[str, BlockSpec]
    parameters: Mapping[str, Tensor] = field(repr=False, compare=False)
    _names: Mapping[int, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", {id(param): name for name, param in self.parameters.items()})

    def __reduce__(self) -> tuple[Any, ...]:  # copies find their own parameters
        return Partition, (self.specs, self.parameters)

    def spec_of(self, param: Tensor) -> BlockSpec:
        """Return the blocks of one of the model's parameters.

        Raises:
            ValueError: the parameter belongs to another model.
        """
        name = self._names.get(id(param))
        if name is None:
            raise ValueError(
                f"partition: it knows no parameter of shape {tuple(param.shape)} that the optimizer got. "
                "Make it from the same model object: partition_model(model)."
            )
        return self.specs[name]

    def state_bytes(self, exp_avg: StateDtype = "float32") -> int:
        """Return the bytes of optimizer state of all parameters that are trained.

        Args:
            exp_avg: how the first moment is stored; the second is in float32, and both in float64 for parameters in
                float64. An 8-bit moment has one float32 scale for 256 numbers.
        """
        return sum(self._state_bytes(name, exp_avg) for name in self.specs)

    def adamw_bytes(self) -> int:
        """Return the bytes that AdamW needs for the same parameters, with moments in float32 or wider."""
        return sum(
            2 * _width(param) * param.numel() for param in self.parameters.values() if param.requires_grad
        )

    def _state_bytes(self, name: str, exp_avg: StateDtype = "float32") -> int:
        spec, param = self.specs[name], self.parameters[name]
        if not param.requires_grad:
            return 0
        width, numbers = _width(param), param.numel()
        if width > 4 or exp_avg == "float32":
            return width * spec.state_numbers
        scales = -(-numbers // _SCALED) if exp_avg == "int8" else 0
        return _FIRST_MOMENT_BYTES[exp_avg] * numbers + 4 * (scales + spec.rows)

    def __str__(self) -> str:
        rows = [("parameter", "shape", "kind", "blocks", "state bytes", "reason")]
        rows += [
            (
                name,
                "x".join(map(str, spec.shape)) or "()",
                spec.kind,
                f"{spec.blocks:,}",
                f"{self._state_bytes(name):,}" if self.parameters[name].requires_grad else "frozen",
                spec.reason,
            )
            for name, spec in self.specs.items()
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
        lines = []
        for row in rows:
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:5], widths[3:], strict=True)]
            lines.append("  ".join([*left, *right, row[5]]))
        return "\n".join([*lines, *self._totals()])

    def _totals(self) -> list[str]:
        trained = [name for name, param in self.parameters.items() if param.requires_grad]
        numbers = sum(self.parameters[name].numel() for name in trained)
        blocks = sum(self.specs[name].blocks for name in trained)
        frozen = len(self.specs) - len(trained)
        ours, theirs = self.state_bytes(), self.adamw_bytes()
        share = f", {100 * ours / theirs:.2f} %" if theirs else ""
        lines = [
            f"total: {len(trained):,} parameters{f' and {frozen:,} frozen' if frozen else ''}; "
            f"{numbers:,} numbers in {blocks:,} blocks",
            f"total: {ours:,} bytes of state in float32; AdamW needs {theirs:,}{share}",
        ]
        unknown = sum("not recognised" in spec.reason for spec in self.specs.values())
        return [*lines, f"{unknown:,} not recognised: check them, or give them a Rule"] if unknown else lines


def partition_model(
    model: nn.Module, *, rules: Sequence[Rule] = (), value: ValueRule = "row", norm: NormRule = "tensor"
) -> Partition:
    """Return the blocks of every parameter of a model; a tied parameter appears once, under its first name.

    Args:
        model: any module.
        rules: the user's own, first match wins; a tied parameter is matched by any of its names.
        value: value projections by row, or one block each (the authors' advice for runs under 10,000 steps).
        norm: gains of normalisations and other vectors that are no biases: one block each, or by element.

    Raises:
        ValueError: a rule matches nothing or does not fit a shape, a stated head size does not divide its
            projection, or a parameter has no shape yet.

    Example:
        >>> attention = nn.MultiheadAttention(16, 4, bias=False)
        >>> partition_model(attention).specs["in_proj_weight"].blocks  # q and k: 4 heads each, v: 16 rows
        24
    """
    _check_options(value=value, norm=norm)
    sites: dict[int, list[Site]] = {}
    for site in sites_of(model, value=value, norm=norm):
        sites.setdefault(id(site.param), []).append(site)
    unused = set(range(len(rules)))
    specs: dict[str, BlockSpec] = {}
    for names in sites.values():
        first = names[0]
        if is_lazy(first.param):
            raise ValueError(f"{first.name}: has no shape yet. Run the model once on an example before this.")
        matching = [k for k, rule in enumerate(rules) if any(rule.covers(site) for site in names)]
        unused.difference_update(matching)
        spec = _by_rule(rules[matching[0]], first) if matching else decide(first)
        specs[first.name] = replace(spec, reason=f"{spec.reason}{_ties(names)}")
    if unused:
        some = ", ".join(list(specs)[:3])
        raise ValueError(f"{rules[min(unused)]} matches no parameter. Names look like: {some}.")
    return Partition(specs, {names[0].name: names[0].param for names in sites.values()})


def spec_for_shape(param: Tensor) -> BlockSpec:
    """Return the blocks of a tensor whose module is unknown: matrices by row, vectors by element."""
    shape = tuple(param.shape)
    if param.dim() < 2:
        return by_element(shape, "vector without a module: by element")
    return by_row(shape, "matrix without a module: by row")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: decay for the weights of layers, none for biases, norms, other vectors and scalars.

    The type of the layer decides, never a name: the weight of ``mlnet.fc`` decays, that of a batch norm does not.

    Args:
        model: its parameters that require gradients are grouped, each once.
        weight_decay: of the first group.
    """
    decayed: list[tuple[str, Tensor]] = []
    exempt: list[tuple[str, Tensor]] = []
    seen: set[int] = set()
    for site in sites_of(model):
        if not site.param.requires_grad or id(site.param) in seen:
            continue
        seen.add(id(site.param))
        is_exempt = site.param.dim() < 2 or is_bias(site) or is_norm(site)
        (exempt if is_exempt else decayed).append((site.name, site.param))
    groups = ((decayed, weight_decay), (exempt, 0.0))
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]


def _by_rule(rule: Rule, site: Site) -> BlockSpec:
    """Apply a rule, which also may repair what the structure contradicts."""
    try:
        default = decide(site)
    except ValueError:
        default = by_row(site.shape, "contradicting head size")
    return rule.blocks_of(site, default)


def _ties(names: Sequence[Site]) -> str:
    """Return the words that say under which other names a parameter stands."""
    if len(names) == 1:
        return ""
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"; tied to {names[1].name}{more}"


def _check_options(*, value: str, norm: str) -> None:
    for name, found, allowed in (
        ("value", value, ("row", "tensor")),
        ("norm", norm, ("tensor", "element")),
    ):
        if found not in allowed:
            raise ValueError(f"{name}: {found!r}, must be one of {', '.join(allowed)}.")


def _width(param: Tensor) -> int:
    """Return the bytes of a moment's number: float32, or the parameter's own if wider."""
    return torch.promote_types(param.dtype, torch.float32).itemsize
