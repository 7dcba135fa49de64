"""Blocks of many tensors as tables of records, which one launch of a compiled kernel can walk.

A *segment* is a run of blocks of one length inside one tensor; a *task* some consecutive blocks of a segment, about as
many elements as fit the fastest caches, so that tasks can be shared out between threads. What is larger than `LONGEST`
and cannot be cut between blocks is cut into *pieces*, which are summed first and updated afterwards.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from halfstep.optim.blocks import BlockSpec

ELEMENT, ROWS, COLUMNS, WHOLE, SLAB = 0, 1, 2, 3, 4
"""Kinds of segment: single elements; blocks that are contiguous; blocks along an inner axis (weights stored [in, out]);
and what is too large for the cache: one contiguous block, or blocks along an inner axis, both done in pieces."""

TASK = 2**15  # elements of a task
LONGEST = 2**17  # elements of a block that is read twice in one go: half a megabyte of float32
PIECES = 16  # of a `SLAB`: their sums of columns need memory
SHORT = 31  # elements up to which blocks are done many at once
CHUNK = 4096  # elements that are added, or done at once, in the fastest cache

TENSOR_RECORD = np.dtype(
    [(name, np.int64) for name in ("param", "grad", "exp_avg", "exp_avg_sq", "step")]
    + [(name, np.float64) for name in ("lr", "beta1", "beta2", "eps", "weight_decay", "sign")]
    + [(name, np.float64) for name in ("shrink", "keep1", "take1", "keep2", "take2", "size", "root")]
)
"""A parameter: addresses (a gradient's is 0 where there is none), hyper-parameters, and what a step makes of them."""

SEGMENT_RECORD = np.dtype(
    [
        (name, np.int64)
        for name in ("tensor", "kind", "first", "first_row", "blocks", "length", "held", "outer", "stride")
    ]
)
"""A `Segment` of a tensor; where it is `WHOLE`, its block's elements count as ``blocks`` of ``length`` 1."""

TASK_RECORD = np.dtype([(name, np.int64) for name in ("segment", "begin", "end", "whole")])
"""Blocks ``begin`` to ``end - 1`` of a segment; of a `WHOLE`: elements; of a `SLAB`: runs. Then the row in `WHOLE_RECORD`."""

PIECE_RECORD = np.dtype(
    [(name, np.int64) for name in ("segment", "begin", "end", "sums")] + [("squares", np.float64)]
)
"""Elements of a `WHOLE` and their sum of squares, or runs of a `SLAB` and where the sums of its columns stand."""

WHOLE_RECORD = np.dtype(
    [(name, np.int64) for name in ("segment", "begin", "end", "sizes")] + [("size", np.float64)]
)
"""A segment in pieces: its first piece, one past its last; a `WHOLE`'s step size, or where those of a `SLAB`'s columns stand."""


HEADER_RECORD = np.dtype(
    [
        (name, np.int64)
        for name in (
            "tensors", "tensor_count", "segments", "tasks", "task_count", "pieces", "piece_count", "wholes",
            "whole_count", "totals", "lanes", "lane_count", "scratch", "scratch_width", "sums",
            "parallel", "work", "threads", "asked", "next_lane",
        )
    ]
)  # fmt: skip
"""What a launch is given: addresses and lengths of its tables (lane k does tasks ``lanes[k]`` to ``lanes[k + 1] - 1``); addresses
of the C functions ``parallel``, which runs another on several threads, and ``work``, the other; how many threads; what they
are asked for and which lane is next."""


WATCHED_RECORD = np.dtype(
    [(name, np.int64) for name in ("param", "exp_avg", "exp_avg_sq", "step", "elements")]
)
"""A parameter: handles of its tensors, by which torch's C interface knows them, and its number of elements."""

LOOK_RECORD = np.dtype(
    [
        (name, np.int64)
        for name in (
            "tensors", "watched", "count", "expected_layout", "expected_dtype", "answer",
            "data_ptr", "dim", "sizes", "strides", "layout", "dtype", "is_defined", "grad", "bump_version",
        )
    ]
)  # fmt: skip
"""What a look at tensors is given: addresses and length of its tables, what gradients must be, room for answers, and
the addresses of torch's C functions."""


ITEM_RECORD = np.dtype([(name, np.int64) for name in ("getter", "container", "key", "value")])
"""A dictionary or list, Python's C function that looks into it, a key or position, and what was there: as addresses."""

CONTAINER_RECORD = np.dtype([(name, np.int64) for name in ("version", "seen", "begin", "end")])
"""A dictionary or list: where Python counts its changes (0: nowhere), the count when its items were last as they should
be, its first item and one past its last."""

CONTENTS_RECORD = np.dtype(
    [
        (name, np.int64)
        for name in (
            "containers", "container_count", "items", "mapping", "values", "value_count", "mapping_version", "mapping_seen",
            "next", "position", "held",
        )
    ]
)  # fmt: skip
"""Containers to check and their items; a dictionary, its values in their order, where its changes are counted, and Python's
``PyDict_Next`` with room for its answers."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of blocks of one length.

    Attributes:
        kind: `ELEMENT`, `ROWS`, `COLUMNS`, `WHOLE` or `SLAB`.
        first, first_row: where its first element and its first second moment stand in their tensors.
        blocks: number of blocks.
        length: elements of a block in each run.
        held: second moments of a block, all equal.
        outer, stride: runs of a block, and elements from one run to the next.
    """

    kind: int
    first: int
    first_row: int
    blocks: int
    length: int
    held: int
    outer: int = 1
    stride: int = 0


def segments_of(spec: BlockSpec, order: Sequence[int]) -> list[Segment] | None:
    """Return the segments of a parameter whose axes lie in memory in this order, or None where kernels have no form.

    Args:
        spec: the parameter's blocks.
        order: axes from the outermost to the innermost in memory.
    """
    shape = tuple(spec.shape[axis] for axis in order)
    if math.prod(shape) == 0:
        return []
    is_row = [axis in spec.row_axes for axis in order if spec.shape[axis] > 1]
    sizes = tuple(size for size in shape if size > 1)
    rows_in_memory = [axis for axis in order if axis in spec.row_axes and spec.shape[axis] > 1]
    if rows_in_memory != sorted(rows_in_memory):
        return None  # the second moments lie in another order than the weights
    if all(is_row) and not spec.sections:
        return [Segment(ELEMENT, 0, 0, math.prod(sizes), 1, 1)]
    leading, rest = _run(is_row, sizes, True)
    outer, rest = _run(is_row, sizes, False, rest)
    rows, rest = _run(is_row, sizes, True, rest)
    inner, rest = _run(is_row, sizes, False, rest)
    if rest < len(sizes):
        return None  # rows along more than two separate groups of axes
    sections = spec.sections or ((leading * rows, 1),)
    if rows == 1:  # the rows are the outermost axes: each is contiguous
        return list(_contiguous(sections, outer * inner))
    return _strided(sections, leading, outer, rows, inner)


def _run(flags: Sequence[bool], sizes: Sequence[int], wanted: bool, start: int = 0) -> tuple[int, int]:
    """Return the product of the axes from ``start`` on that are all ``wanted``, and where they end."""
    end = start
    while end < len(sizes) and flags[end] == wanted:
        end += 1
    return math.prod(sizes[start:end]), end


def _contiguous(sections: Iterable[tuple[int, int]], width: int) -> Iterable[Segment]:
    row = 0
    for count, per_block in sections:
        if count:
            yield Segment(ROWS, row * width, row, count // per_block, per_block * width, per_block)
        row += count


def _strided(
    sections: Iterable[tuple[int, int]], leading: int, outer: int, rows: int, inner: int
) -> list[Segment] | None:
    """Return segments of a tensor [leading, outer, rows, inner] whose rows are counted by its first and third axis."""
    found = []
    row = 0
    for count, per_block in sections:
        end = row + count
        while row < end:
            slab, column = divmod(row, rows)
            here = min(end - row, rows - column)
            if here % per_block:
                return None  # a block that reaches over the end of a slab
            found.append(
                Segment(
                    COLUMNS,
                    first=slab * outer * rows * inner + column * inner,
                    first_row=row,
                    blocks=here // per_block,
                    length=per_block * inner,
                    held=per_block,
                    outer=outer,
                    stride=rows * inner,
                )
            )
            row += here
    assert row == leading * rows
    return found


def memory_order(tensor: Tensor) -> tuple[int, ...] | None:
    """Return a dense tensor's axes from the outermost to the innermost in memory, or None if it has gaps or overlaps."""
    if tensor.is_contiguous():
        return tuple(range(tensor.dim()))
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda axis: (-strides[axis], axis))
    return tuple(order) if tensor.permute(order).is_contiguous() else None


@dataclass(frozen=True, slots=True)
class Layout:
    """The tables of many tensors.

    Attributes:
        segments, tasks, pieces, wholes: records as named above.
        weights: elements of each task.
        sums: numbers that the pieces of slabs need for the sums and step sizes of their columns.
        widest: numbers that a task needs thrice as scratch memory.
    """

    segments: npt.NDArray[Any]
    tasks: npt.NDArray[Any]
    pieces: npt.NDArray[Any]
    wholes: npt.NDArray[Any]
    weights: npt.NDArray[np.int64]
    sums: int
    widest: int

    def lanes(self, count: int) -> npt.NDArray[np.int64]:
        """Return the borders that share the tasks out in so many lanes, by elements."""
        done = np.concatenate([[0], np.cumsum(self.weights)])
        return np.searchsorted(done, np.linspace(0, done[-1], count + 1)).astype(np.int64)


def layout_of(tensors: Iterable[Iterable[Segment]]) -> Layout:
    """Return the tables of tensors, given the segments of each."""
    segments: list[tuple[int, ...]] = []
    tasks: list[tuple[int, ...]] = []
    pieces: list[tuple[float, ...]] = []
    wholes: list[tuple[float, ...]] = []
    weights: list[int] = []
    sums, widest = 0, CHUNK
    for number, found in enumerate(tensors):
        for s in _in_pieces(found):
            index = len(segments)
            segments.append(
                (number, s.kind, s.first, s.first_row, s.blocks, s.length, s.held, s.outer, s.stride)
            )
            width = s.blocks * s.length
            steps, weight = (s.outer, width) if s.kind == SLAB else (s.blocks, s.length * s.outer)
            if s.kind in (COLUMNS, SLAB):
                widest = max(widest, width)
            per_task = steps if s.kind == COLUMNS else max(1, TASK // weight)
            for begin in range(0, steps, per_task):
                end = min(begin + per_task, steps)
                tasks.append((index, begin, end, len(wholes)))
                weights.append((end - begin) * weight)
            if s.kind in (WHOLE, SLAB):
                first = len(pieces)
                per_piece = TASK if s.kind == WHOLE else -(-steps // PIECES)
                for begin in range(0, steps, per_piece):
                    pieces.append((index, begin, min(begin + per_piece, steps), sums, 0.0))
                    sums += width if s.kind == SLAB else 0
                wholes.append((index, first, len(pieces), sums, 0.0))
                sums += width if s.kind == SLAB else 0
    return Layout(
        segments=np.array(segments, SEGMENT_RECORD),
        tasks=np.array(tasks, TASK_RECORD),
        pieces=np.array(pieces, PIECE_RECORD),
        wholes=np.array(wholes, WHOLE_RECORD),
        weights=np.array(weights, np.int64),
        sums=sums,
        widest=widest,
    )


def _in_pieces(segments: Iterable[Segment]) -> Iterable[Segment]:
    """Yield the segments; each block, or set of interleaved blocks, that is too large for the cache as one in pieces."""
    for s in segments:
        if s.kind == ROWS and s.length > LONGEST:
            for block in range(s.blocks):
                yield Segment(
                    WHOLE, s.first + block * s.length, s.first_row + block * s.held, s.length, 1, s.held
                )
        elif s.kind == COLUMNS and s.blocks * s.length * s.outer > LONGEST:
            yield replace(s, kind=SLAB)
        else:
            yield s
