"""A user's own choice of blocks for some parameters."""

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from halfstep.optim.blocks import BlockSpec, Section, by_element, by_row, by_sections, by_tensor
from halfstep.optim.structure import Site, is_bias


@dataclass(frozen=True, slots=True)
class Head:
    """Blocks of so many rows; made by `head`."""

    head_dim: int


@dataclass(frozen=True, slots=True)
class Sections:
    """Runs of rows and the rows per block in each; made by `sections`."""

    runs: tuple[Section, ...]


def head(head_dim: int) -> Head:
    """Return blocks of ``head_dim`` consecutive rows.

    Raises:
        ValueError: not a positive whole number.
    """
    if not isinstance(head_dim, int) or head_dim < 1:
        raise ValueError(f"head_dim: {head_dim!r}, must be a whole number of at least 1.")
    return Head(head_dim)


def sections(*runs: Section) -> Sections:
    """Return runs of rows, each cut into blocks of its own size.

    Args:
        runs: ``(rows, rows per block)`` of each run, in the order of the rows; together all rows.

    Example:
        >>> sections((64, 16), (64, 16), (64, 1))  # fused q, k, v: 4 heads of 16 for q and k, v by row
        Sections(runs=((64, 16), (64, 16), (64, 1)))

    Raises:
        ValueError: no run, or one whose rows its blocks do not divide.
    """
    if not runs:
        raise ValueError("sections: no run of rows, must be one or more (rows, rows per block).")
    for rows, per_block in runs:
        if rows < 1 or per_block < 1 or rows % per_block:
            raise ValueError(f"sections: {rows} rows cannot be cut into blocks of {per_block}.")
    return Sections(tuple(runs))


@dataclass(frozen=True, slots=True)
class Rule:
    """A user's own choice for some parameters.

    Attributes:
        match: a pattern on the parameter's name (``"layers.*.router.weight"``), or a module type: then the weights,
            not the biases, of every module of that type.
        blocks: ``"element"``, ``"row"``, ``"tensor"``, ``head(head_dim=...)`` or ``sections(...)``. Rows are output
            units, along whichever axis the layer stores them.

    Raises:
        TypeError: a pattern or blocks of another kind.
    """

    match: str | type[nn.Module]
    blocks: Literal["element", "row", "tensor"] | Head | Sections

    def __post_init__(self) -> None:
        if not isinstance(self.match, str) and not (
            isinstance(self.match, type) and issubclass(self.match, nn.Module)
        ):
            raise TypeError(f"match: {self.match!r}, must be a pattern on names or a module type.")
        if not isinstance(self.blocks, Head | Sections) and self.blocks not in ("element", "row", "tensor"):
            raise TypeError(
                f"blocks: {self.blocks!r}, must be 'element', 'row', 'tensor', head(head_dim=...) or sections(...)."
            )

    def __str__(self) -> str:
        what = self.match if isinstance(self.match, str) else self.match.__name__
        return f"rule {what!r}"

    def covers(self, site: Site) -> bool:
        """Whether the rule is about this parameter."""
        if isinstance(self.match, str):
            return fnmatchcase(site.name, self.match)
        return isinstance(site.module, self.match) and not is_bias(site)

    def blocks_of(self, site: Site, default: BlockSpec) -> BlockSpec:
        """Return the blocks that the rule wants.

        Args:
            default: the blocks without the rule; they tell which axes count the output units.

        Raises:
            ValueError: the blocks do not fit the shape.
        """
        shape = site.shape
        if self.blocks == "element":
            return by_element(shape, str(self))
        if self.blocks == "tensor":
            return by_tensor(shape, str(self))
        axes = default.row_axes or tuple(range(min(1, len(shape))))
        if default.kind == "element":
            axes = axes[:1]
        if self.blocks == "row":
            return by_row(shape, str(self), axes=axes) if len(shape) > 1 else by_element(shape, str(self))
        rows = math.prod(shape[axis] for axis in axes)
        size = self.blocks.head_dim if isinstance(self.blocks, Head) else 0
        runs = self.blocks.runs if isinstance(self.blocks, Sections) else ((rows, size),)
        try:
            return by_sections(shape, str(self), sections=runs, name=site.name, axes=axes)
        except ValueError as error:
            raise ValueError(f"{self}: {error}") from None
