"""The blocks of every parameter of a model, decided from its structure.

A dense layer's block is one output unit, a query or key projection's one head, a bias's one element. Module types
and attributes decide (``num_heads``, ``head_dim``, ...); names of parameters mean nothing. What is not recognised is
cut by row and the table says so; no matrix ever falls back to one number.
"""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from halfstep.optim.blocks import BlockSpec, by_element, by_row, by_sections, by_tensor

NormRule = Literal["tensor", "element"]
ValueRule = Literal["row", "tensor"]
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_QUERY_HEADS = ("num_heads", "num_attention_heads", "n_head", "n_heads")
_KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", *_QUERY_HEADS)
_QUERY, _KEY, _VALUE = (
    ("q_proj", "query", "q", "wq"),
    ("k_proj", "key", "k", "wk"),
    ("v_proj", "value", "v", "wv"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A user's own choice for some parameters.

    Attributes:
        match: a pattern on the parameter's name (``"head.*"``), or a module type whose weights it covers.
        blocks: ``"element"``, ``"row"``, ``"tensor"``, or the number of rows of a block (a head's size).
    """

    match: str | type[nn.Module]
    blocks: Literal["element", "row", "tensor"] | int


@dataclass(frozen=True, slots=True)
class Partition:
    """Blocks by parameter name; prints as a table."""

    specs: Mapping[str, BlockSpec]
    parameters: Mapping[str, Tensor] = field(repr=False, compare=False)

    def spec_of(self, param: Tensor) -> BlockSpec:
        """Return the blocks of one of the model's parameters.

        Raises:
            ValueError: the parameter belongs to another model.
        """
        for name, known in self.parameters.items():
            if known is param:
                return self.specs[name]
        raise ValueError(
            f"partition: it knows no parameter of shape {tuple(param.shape)} that the optimizer got. "
            "Make it from the same model object: partition_model(model)."
        )

    def state_bytes(self, bytes_per_number: int = 4) -> int:
        """Return the bytes of optimizer state that these blocks need."""
        return bytes_per_number * sum(spec.state_numbers for spec in self.specs.values())

    def __str__(self) -> str:
        rows = [("parameter", "shape", "block", "blocks", "state bytes", "reason")]
        rows += [
            (
                name,
                "x".join(map(str, spec.shape)) or "()",
                spec.kind,
                f"{spec.blocks:,}",
                f"{4 * spec.state_numbers:,}",
                spec.reason,
            )
            for name, spec in self.specs.items()
        ]
        widths = [max(len(row[k]) for row in rows) for k in range(5)]
        lines = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)), row[5]])
            for row in rows
        ]
        numbers = sum(param.numel() for param in self.parameters.values())
        lines.append(f"total: {self.state_bytes():,} bytes of state in float32; AdamW needs {8 * numbers:,}")
        return "\n".join(lines)


def partition_model(
    model: nn.Module, *, rules: Sequence[Rule] = (), value: ValueRule = "row", norm: NormRule = "tensor"
) -> Partition:
    """Return the blocks of every parameter of a model; a tied parameter appears once.

    Args:
        model: any module.
        rules: the user's own, first match wins.
        value: value projections by row, or one block each (the authors' advice for runs under 10,000 steps).
        norm: gains of normalisations and other vectors that are no biases: one block each, or by element.

    Raises:
        ValueError: a rule matches nothing, or does not fit a shape.
    """
    specs: dict[str, BlockSpec] = {}
    parameters: dict[str, Tensor] = {}
    matched = [False] * len(rules)
    seen: set[int] = set()
    for name, param, module, parents in _walk(model):
        if id(param) in seen:
            continue
        seen.add(id(param))
        spec = None
        for index, rule in enumerate(rules):
            hit = (
                fnmatch.fnmatch(name, rule.match)
                if isinstance(rule.match, str)
                else isinstance(module, rule.match)
            )
            if hit:
                matched[index] = True
                spec = spec or _by_rule(rule, name, tuple(param.shape))
        specs[name] = spec or _decide(name, param, module, parents, value=value, norm=norm)
        parameters[name] = param
    if not all(matched):
        rule = rules[matched.index(False)]
        raise ValueError(f"rules: {rule.match!r} matches no parameter. Names look like {list(specs)[:3]}.")
    return Partition(specs, parameters)


def spec_for_shape(param: Tensor) -> BlockSpec:
    """Return the blocks of a tensor whose module is unknown: matrices by row, vectors by element."""
    shape = tuple(param.shape)
    if param.dim() < 2:
        return by_element(shape, "vector without a module: by element")
    return by_row(shape, "matrix without a module: by row")


def _walk(model: nn.Module) -> Iterator[tuple[str, Tensor, nn.Module, list[tuple[str, nn.Module]]]]:
    """Yield name, parameter, its module, and the modules from the model down to it with their attribute names."""

    def descend(
        module: nn.Module, prefix: str, path: list[tuple[str, nn.Module]]
    ) -> Iterator[tuple[str, Tensor, nn.Module, list[tuple[str, nn.Module]]]]:
        for name, param in module.named_parameters(recurse=False):
            yield f"{prefix}{name}", param, module, path
        for name, child in module.named_children():
            yield from descend(child, f"{prefix}{name}.", [*path, (name, child)])

    yield from descend(model, "", [("", model)])


def _decide(
    name: str,
    param: Tensor,
    module: nn.Module,
    path: list[tuple[str, nn.Module]],
    *,
    value: ValueRule,
    norm: NormRule,
) -> BlockSpec:
    shape = tuple(param.shape)
    kind = type(module).__name__
    own = name.rpartition(".")[2]
    if isinstance(module, nn.MultiheadAttention) and own == "in_proj_weight":
        width, head = module.embed_dim, module.head_dim
        v_rows = 1 if value == "row" else width
        return by_sections(
            shape,
            "fused q, k, v: q and k by head",
            sections=((width, head), (width, head), (width, v_rows)),
            name=name,
        )
    if param.dim() < 2:
        if "bias" in own:
            return by_element(shape, "bias: by element, as AdamW")
        label = f"gain of {kind}" if isinstance(module, _NORMS) else f"vector of {kind}"
        return by_tensor(shape, label) if norm == "tensor" else by_element(shape, label)
    if isinstance(module, nn.Linear | nn.Embedding | nn.EmbeddingBag):
        return _dense(name, shape, module, path, value=value)
    if kind == "Conv1D" and hasattr(module, "nf"):
        return by_row(shape, "dense layer stored [in, out]: by output unit", axes=(1,))
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return by_row(shape, "transposed convolution: by output channel", axes=(1,))
    if isinstance(module, nn.modules.conv._ConvNd):
        return by_row(shape, "convolution: by output channel")
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return by_row(shape, "recurrent layer: by gate and unit")
    axes = tuple(range(param.dim() - 1))
    return by_row(shape, f"parameter of {kind}, not recognised: by row along the last axis", axes=axes)


def _dense(
    name: str,
    shape: tuple[int, ...],
    module: nn.Module,
    path: list[tuple[str, nn.Module]],
    *,
    value: ValueRule,
) -> BlockSpec:
    """Cut the query and key projections of an attention module by head, every other dense layer by output unit."""
    own, owner = path[-1][0], path[-2][1] if len(path) > 1 else module
    for names, heads_names, label in ((_QUERY, _QUERY_HEADS, "query"), (_KEY, _KEY_HEADS, "key")):
        heads = next(
            (getattr(owner, a) for a in heads_names if isinstance(getattr(owner, a, None), int)), None
        )
        if own in names and heads:
            stated = getattr(owner, "head_dim", None)
            head_dim = stated if isinstance(stated, int) else shape[0] // heads
            if shape[0] % head_dim == 0:
                return by_sections(
                    shape,
                    f"{label} projection: by head of {head_dim}",
                    sections=((shape[0], head_dim),),
                    name=name,
                )
    if own in _VALUE and value == "tensor" and any(hasattr(owner, a) for a in _QUERY_HEADS):
        return by_tensor(shape, "value projection: one block, as asked")
    label = (
        "embedding: by token"
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        else "dense layer: by output unit"
    )
    return by_row(shape, label)


def _by_rule(rule: Rule, name: str, shape: tuple[int, ...]) -> BlockSpec:
    reason = f"rule {rule.match if isinstance(rule.match, str) else rule.match.__name__!r}"
    if rule.blocks == "element":
        return by_element(shape, reason)
    if rule.blocks == "tensor":
        return by_tensor(shape, reason)
    if rule.blocks == "row":
        return by_row(shape, reason) if shape else by_element(shape, reason)
    return by_sections(shape, reason, sections=((shape[0] if shape else 0, int(rule.blocks)),), name=name)
