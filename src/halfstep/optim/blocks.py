"""Which elements of one parameter share a second moment.

A parameter is seen as a table of **rows**: a row is all weights that feed one output unit. A **block** is a run of
consecutive rows; its elements share one second moment. Every scheme is such a list of runs, so one description
serves every kernel (Zhang et al., arXiv 2406.16793).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["element", "row", "head", "tensor"]
Section = tuple[int, int]
"""Rows, and rows per block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockSpec:
    """The blocks of one parameter.

    Attributes:
        shape: of the parameter.
        row_axes: axes that count rows; the elements of a row lie along the other axes. All axes: every element
            is a row. None: the whole tensor is one row. Rows are numbered in C order of these axes.
        sections: runs of rows and the rows per block in each, ``((rows, rows_per_block), ...)``, in the order of
            the rows; empty: every row is a block.
        kind: what a block is called; of a fused projection, its largest kind.
        reason: why this was chosen.
    """

    shape: tuple[int, ...]
    row_axes: tuple[int, ...]
    kind: Kind
    reason: str
    sections: tuple[Section, ...] = ()

    @property
    def rows(self) -> int:
        """Number of rows, which is the number of second moments that are stored."""
        return math.prod(self.shape[axis] for axis in self.row_axes)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of the second moment: the parameter's with every axis inside a row shortened to 1."""
        return tuple(size if axis in self.row_axes else 1 for axis, size in enumerate(self.shape))

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return sum(rows // per_block for rows, per_block in self.sections) if self.sections else self.rows

    @property
    def state_numbers(self) -> int:
        """Numbers of optimizer state: first and second moment."""
        return math.prod(self.shape) + self.rows

    def block_mean(self, row_means: Tensor) -> Tensor:
        """Average row means over the rows of each block; the rows of one block then hold the same number.

        Args:
            row_means: ``state_shape``.
        """
        if not self.sections:
            return row_means
        counts = [rows for rows, _ in self.sections]
        means = []
        for part, (_, per_block) in zip(row_means.reshape(-1).split(counts), self.sections, strict=True):
            runs = part.unflatten(0, (-1, per_block))
            means.append(runs.mean(1, keepdim=True).expand_as(runs).flatten())
        return torch.cat(means).reshape(self.state_shape)

    def mean_square(self, grad: Tensor) -> Tensor:
        """Return the mean of grad^2 over each block, `state_shape`, in float32 or wider."""
        wide = torch.promote_types(grad.dtype, torch.float32)
        inside = [axis for axis in range(grad.dim()) if axis not in self.row_axes]
        if not inside:
            return self.block_mean(grad.to(wide).square())
        if grad.numel() == 0:
            return grad.new_zeros(self.state_shape, dtype=wide)
        count = math.prod(self.shape[axis] for axis in inside)
        # the norm makes no temporary of grad's size
        norm = torch.linalg.vector_norm(grad, dim=inside, keepdim=True, dtype=wide)
        return self.block_mean(norm.square_().div_(count))


def by_element(shape: tuple[int, ...], reason: str) -> BlockSpec:
    """Return blocks of one element: the rule is AdamW there."""
    return BlockSpec(shape=shape, row_axes=tuple(range(len(shape))), kind="element", reason=reason)


def by_tensor(shape: tuple[int, ...], reason: str) -> BlockSpec:
    """Return one block."""
    return BlockSpec(shape=shape, row_axes=(), kind="tensor", reason=reason)


def by_row(shape: tuple[int, ...], reason: str, *, axes: tuple[int, ...] = (0,)) -> BlockSpec:
    """Return one block per row, where ``axes`` count the rows."""
    return BlockSpec(shape=shape, row_axes=axes, kind="row", reason=reason)


def by_sections(
    shape: tuple[int, ...],
    reason: str,
    *,
    sections: Iterable[Section],
    name: str,
    axes: tuple[int, ...] = (0,),
) -> BlockSpec:
    """Return blocks of several rows each; neighbouring sections with blocks of one size are joined.

    Raises:
        ValueError: the rows do not divide; the message names the parameter, its shape, its rows and the blocks.
    """
    asked = tuple(sections)
    rows = math.prod(shape[axis] for axis in axes)
    if sum(count for count, _ in asked) != rows or any(
        size < 1 or count < 0 or count % size for count, size in asked
    ):
        wanted = " + ".join(f"{count} rows in blocks of {size}" for count, size in asked)
        raise ValueError(
            f"{name}: shape {shape} has {rows} rows, which cannot be cut into {wanted}. "
            "Give the head size of this layer, or 'row', with a Rule for this name."
        )
    joined = tuple(
        (sum(count for count, _ in run), size) for size, run in groupby(asked, lambda section: section[1])
    )
    return BlockSpec(
        shape=shape,
        row_axes=axes,
        kind="head",
        reason=reason,
        sections=tuple(run for run in joined if run[0]),
    )
