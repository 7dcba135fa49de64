"""Which elements of one parameter share a second moment."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["element", "row", "head", "tensor"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSpec:
    """The blocks of one parameter.

    A parameter is seen as a table of rows. A block is one row, or a run of consecutive rows.

    Attributes:
        shape: of the parameter.
        row_axes: axes that count rows; the elements of a row lie along the other axes. All axes: every element
            is a row. None: the whole tensor is one row.
        sections: runs of rows and the rows per block in each, ``((rows, rows_per_block), ...)``; empty: every row is
            a block. Only for a single row axis.
        kind: what a block is called.
        reason: why this was chosen.
    """

    shape: tuple[int, ...]
    row_axes: tuple[int, ...]
    kind: Kind
    reason: str
    sections: tuple[tuple[int, int], ...] = ()

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of the second moment: the parameter's with every axis inside a row shortened to 1."""
        return tuple(size if axis in self.row_axes else 1 for axis, size in enumerate(self.shape))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        if self.sections:
            return sum(rows // per_block for rows, per_block in self.sections)
        return math.prod(self.state_shape)

    @property
    def state_numbers(self) -> int:
        """Numbers of optimizer state: first and second moment."""
        return math.prod(self.shape) + math.prod(self.state_shape)

    def block_mean(self, row_means: Tensor) -> Tensor:
        """Average row means over the rows of each block; the rows of one block then hold the same number."""
        if not self.sections:
            return row_means
        (axis,) = self.row_axes
        parts = []
        for part, (_, per_block) in zip(
            row_means.split([rows for rows, _ in self.sections], dim=axis), self.sections, strict=True
        ):
            runs = part.unflatten(axis, (-1, per_block))
            parts.append(runs.mean(axis + 1, keepdim=True).expand_as(runs).flatten(axis, axis + 1))
        return torch.cat(parts, dim=axis)

    def mean_square(self, grad: Tensor) -> Tensor:
        """Return the mean of grad^2 over each block, `state_shape`, in float32 or wider."""
        wide = torch.promote_types(grad.dtype, torch.float32)
        inside = [axis for axis in range(grad.dim()) if axis not in self.row_axes]
        if not inside:
            return grad.to(wide).square()
        count = math.prod(self.shape[axis] for axis in inside)
        if count == 0 or grad.numel() == 0:
            return grad.new_zeros(self.state_shape, dtype=wide)
        norm = torch.linalg.vector_norm(
            grad, dim=inside, keepdim=True, dtype=wide
        )  # no temporary of grad's size
        return self.block_mean(norm.square_().div_(count))


def by_element(shape: tuple[int, ...], reason: str) -> BlockSpec:
    """Return blocks of one element: the rule is AdamW there."""
    return BlockSpec(shape=shape, row_axes=tuple(range(len(shape))), kind="element", reason=reason)


def by_tensor(shape: tuple[int, ...], reason: str) -> BlockSpec:
    """Return one block."""
    return BlockSpec(shape=shape, row_axes=(), kind="tensor", reason=reason)


def by_row(shape: tuple[int, ...], reason: str, *, axes: tuple[int, ...] = (0,)) -> BlockSpec:
    """Return one block per index of ``axes``."""
    return BlockSpec(shape=shape, row_axes=axes, kind="row", reason=reason)


def by_sections(
    shape: tuple[int, ...], reason: str, *, sections: tuple[tuple[int, int], ...], name: str, axis: int = 0
) -> BlockSpec:
    """Return blocks of several rows each.

    Raises:
        ValueError: the rows do not divide; the message names the parameter, its rows and the rows per block.
    """
    if sum(rows for rows, _ in sections) != shape[axis] or any(
        rows % per_block for rows, per_block in sections
    ):
        raise ValueError(
            f"{name}: {shape[axis]} rows, must be cut into sections (rows, rows per block) {sections}. "
            "Give the head size of this layer with a rule, or leave the rule out to cut by row."
        )
    return BlockSpec(shape=shape, row_axes=(axis,), kind="head", reason=reason, sections=sections)
