"""The update rule for all tensors of one dtype in one launch, compiled by numba.

Tensors are cut into segments and tasks (see `halfstep.optim.table`). A task takes the mean square of a block and
updates its elements while the gradient is still in the cache, so a step moves 20 bytes per float32 parameter:
gradient, weight and first moment are read, weight and first moment are written. A block too long for the cache is
summed in pieces first (24 bytes).

    c  <- clip factor or gradient scale, negative to maximize
    m  <- beta1 m + (1 - beta1) c g           v <- beta2 v + (1 - beta2) c^2 mean g^2
    p  <- p (1 - lr weight_decay) - s m       with s = lr / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps)

Arithmetic is float32, or float64 for float64 parameters. Squares are added in that type over `CHUNK` elements, chunks
in float64; both orders follow from the shapes alone, so results do not depend on the number of threads. NaN and
infinity are treated as plain arithmetic does.

In the functions below, ``token`` and ``wide`` are the NumPy types of the parameters (as compiled code sees them) and of
the moments, ``tensor``, ``segment``, ``task`` and the like addresses of records, ``p``, ``g``, ``m``, ``v`` addresses of
weights, gradients, first and second moments.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from halfstep.optim.kernels.compiling import c_function, hash_of, inner, python_function
from halfstep.optim.kernels.storage import (
    AT_ONCE,
    call,
    call_parallel,
    element_at,
    element_of,
    get,
    load,
    put,
    record_at,
    step_short_rows,
    store,
    take_number,
)
from halfstep.optim.table import (
    CHUNK,
    COLUMNS,
    ELEMENT,
    HEADER_RECORD,
    PIECE_RECORD,
    ROWS,
    SEGMENT_RECORD,
    SHORT,
    SLAB,
    TASK_RECORD,
    TENSOR_RECORD,
    WHOLE,
    WHOLE_RECORD,
)

FEW = 1024  # elements of short blocks that are done at once: all that is read must fit the fastest cache
RUNS = 128  # runs whose squares are added in the arithmetic's own type
SUM_PIECES, DO_TASKS, SUM_TASKS = 0, 1, 2  # what a lane is asked for

_SOURCES = [Path(__file__), Path(__file__).with_name("storage.py"), Path(__file__).parents[1] / "table.py"]
_HASH = hash_of(*_SOURCES)


@inner
def _sum_squares(g, count, token, wide):
    """Return the sum of squares of contiguous elements, in float64."""
    total = 0.0
    for begin in range(0, count, CHUNK):
        squares = wide(0)
        for i in range(begin, min(begin + CHUNK, count)):
            x = load(token, g, i)
            squares += x * x
        total += squares
    return total


@inner
def _second_moment(v, held, mean, tensor, wide):
    """Move a block's second moment, in every row that holds it; return the block's step size."""
    keep, take = wide(get(TENSOR_RECORD, tensor, "keep2")), wide(get(TENSOR_RECORD, tensor, "take2"))
    second = keep * load(wide, v, 0) + take * wide(mean)
    for k in range(held):
        store(wide, v, k, second)
    root, eps = wide(get(TENSOR_RECORD, tensor, "root")), wide(get(TENSOR_RECORD, tensor, "eps"))
    return wide(get(TENSOR_RECORD, tensor, "size")) / (np.sqrt(second) * root + eps)


@inner
def _update(p, g, m, count, size, tensor, token, wide):
    """Update contiguous elements of one block, whose step size is known."""
    shrink = wide(get(TENSOR_RECORD, tensor, "shrink"))
    keep, take = wide(get(TENSOR_RECORD, tensor, "keep1")), wide(get(TENSOR_RECORD, tensor, "take1"))
    for i in range(count):
        first = keep * load(wide, m, i) + take * load(token, g, i)
        store(wide, m, i, first)
        store(token, p, i, shrink * load(token, p, i) - size * first)


@inner
def _update_each(p, g, m, count, sizes, tensor, token, wide):
    """Update contiguous elements, each with a step size of its own."""
    shrink = wide(get(TENSOR_RECORD, tensor, "shrink"))
    keep, take = wide(get(TENSOR_RECORD, tensor, "keep1")), wide(get(TENSOR_RECORD, tensor, "take1"))
    for i in range(count):
        first = keep * load(wide, m, i) + take * load(token, g, i)
        store(wide, m, i, first)
        store(token, p, i, shrink * load(token, p, i) - load(wide, sizes, i) * first)


@inner
def _update_elements(p, g, m, v, count, tensor, token, wide):
    """Update blocks of one element: AdamW."""
    shrink = wide(get(TENSOR_RECORD, tensor, "shrink"))
    keep1, take1 = wide(get(TENSOR_RECORD, tensor, "keep1")), wide(get(TENSOR_RECORD, tensor, "take1"))
    keep2, take2 = wide(get(TENSOR_RECORD, tensor, "keep2")), wide(get(TENSOR_RECORD, tensor, "take2"))
    size, root = wide(get(TENSOR_RECORD, tensor, "size")), wide(get(TENSOR_RECORD, tensor, "root"))
    eps = wide(get(TENSOR_RECORD, tensor, "eps"))
    for i in range(count):
        x = load(token, g, i)
        first = keep1 * load(wide, m, i) + take1 * x
        second = keep2 * load(wide, v, i) + take2 * (x * x)
        store(wide, m, i, first)
        store(wide, v, i, second)
        store(token, p, i, shrink * load(token, p, i) - size * first / (np.sqrt(second) * root + eps))


@inner
def _rows(tensor, segment, begin, end, token, wide):
    """Do blocks that are contiguous, one by one."""
    length, held = get(SEGMENT_RECORD, segment, "length"), get(SEGMENT_RECORD, segment, "held")
    first, row = get(SEGMENT_RECORD, segment, "first"), get(SEGMENT_RECORD, segment, "first_row")
    p = element_of(TENSOR_RECORD, tensor, "param", token, first)
    g = element_of(TENSOR_RECORD, tensor, "grad", token, first)
    m = element_of(TENSOR_RECORD, tensor, "exp_avg", wide, first)
    v = element_of(TENSOR_RECORD, tensor, "exp_avg_sq", wide, row)
    for block in range(begin, end):
        at = block * length
        gradient = element_at(token, g, at)
        mean = _sum_squares(gradient, length, token, wide) / length
        size = _second_moment(element_at(wide, v, block * held), held, mean, tensor, wide)
        _update(
            element_at(token, p, at), gradient, element_at(wide, m, at), length, size, tensor, token, wide
        )


@inner
def _known_rows(tensor, segment, begin, end, token, wide):
    """Do blocks of a length for which there is a form in vectors, as many as fill vectors; return where it stopped.

    Only float32 and float64 have these forms, and only blocks that are one row.
    """
    length = get(SEGMENT_RECORD, segment, "length")
    first, row = get(SEGMENT_RECORD, segment, "first"), get(SEGMENT_RECORD, segment, "first_row")
    p = element_of(TENSOR_RECORD, tensor, "param", token, first)
    g = element_of(TENSOR_RECORD, tensor, "grad", token, first)
    m = element_of(TENSOR_RECORD, tensor, "exp_avg", wide, first)
    v = element_of(TENSOR_RECORD, tensor, "exp_avg_sq", wide, row)
    decays = (
        wide(get(TENSOR_RECORD, tensor, "shrink")),
        wide(get(TENSOR_RECORD, tensor, "keep1")),
        wide(get(TENSOR_RECORD, tensor, "keep2")),
    )
    takes = wide(get(TENSOR_RECORD, tensor, "take1")), wide(get(TENSOR_RECORD, tensor, "take2") / length)
    rest = (
        wide(get(TENSOR_RECORD, tensor, "size")),
        wide(get(TENSOR_RECORD, tensor, "root")),
        wide(get(TENSOR_RECORD, tensor, "eps")),
    )
    block = begin
    while block + AT_ONCE <= end:
        at = block * length
        places = (
            element_at(token, p, at),
            element_at(token, g, at),
            element_at(wide, m, at),
            element_at(wide, v, block),
        )
        if length == 2:
            step_short_rows(token, 2, places, decays, takes, rest)
        elif length == 3:
            step_short_rows(token, 3, places, decays, takes, rest)
        elif length == 4:
            step_short_rows(token, 4, places, decays, takes, rest)
        elif length == 5:
            step_short_rows(token, 5, places, decays, takes, rest)
        elif length == 6:
            step_short_rows(token, 6, places, decays, takes, rest)
        elif length == 7:
            step_short_rows(token, 7, places, decays, takes, rest)
        elif length == 8:
            step_short_rows(token, 8, places, decays, takes, rest)
        elif length == 9:
            step_short_rows(token, 9, places, decays, takes, rest)
        else:
            return block
        block += AT_ONCE
    return block


def _in_vectors(tensor, segment, begin, end, token, wide):
    """Do what `_known_rows` can do; return where it stopped."""
    raise NotImplementedError(f"compiled code only: {tensor}, {segment}, {begin}, {end}, {token}, {wide}")


@overload(_in_vectors)
def _in_vectors_of(tensor, segment, begin, end, token, wide):  # noqa: ARG001
    if isinstance(token.dtype, types.Float):
        return lambda tensor, segment, begin, end, token, wide: _known_rows(
            tensor, segment, begin, end, token, wide
        )
    return lambda tensor, segment, begin, end, token, wide: begin  # noqa: ARG005


@inner
def _short_rows(tensor, segment, begin, end, scratch, width, token, wide):
    """Do blocks of few contiguous elements, many at once: loops over a few elements cannot be vectorised."""
    length, held = get(SEGMENT_RECORD, segment, "length"), get(SEGMENT_RECORD, segment, "held")
    at_once = FEW // length
    squares, sizes = scratch, element_at(wide, scratch, width)
    spread = element_at(wide, scratch, 2 * width)
    keep = wide(get(TENSOR_RECORD, tensor, "keep2"))
    take = wide(get(TENSOR_RECORD, tensor, "take2") / length)
    size, root = wide(get(TENSOR_RECORD, tensor, "size")), wide(get(TENSOR_RECORD, tensor, "root"))
    eps = wide(get(TENSOR_RECORD, tensor, "eps"))
    for start in range(begin, end, at_once):
        blocks = min(at_once, end - start)
        first = get(SEGMENT_RECORD, segment, "first") + start * length
        g = element_of(TENSOR_RECORD, tensor, "grad", token, first)
        v = element_of(
            TENSOR_RECORD,
            tensor,
            "exp_avg_sq",
            wide,
            get(SEGMENT_RECORD, segment, "first_row") + start * held,
        )
        for block in range(blocks):
            total = wide(0)
            for i in range(length):
                x = load(token, g, block * length + i)
                total += x * x
            store(wide, squares, block, total)
        if held == 1:
            for block in range(blocks):
                second = keep * load(wide, v, block) + take * load(wide, squares, block)
                store(wide, v, block, second)
                store(wide, sizes, block, size / (np.sqrt(second) * root + eps))
        else:
            for block in range(blocks):
                mean = np.float64(load(wide, squares, block)) / length
                rows = element_at(wide, v, block * held)
                store(wide, sizes, block, _second_moment(rows, held, mean, tensor, wide))
        for block in range(blocks):
            here = load(wide, sizes, block)
            for i in range(length):
                store(wide, spread, block * length + i, here)
        p, m = (
            element_of(TENSOR_RECORD, tensor, "param", token, first),
            element_of(TENSOR_RECORD, tensor, "exp_avg", wide, first),
        )
        _update_each(p, g, m, blocks * length, spread, tensor, token, wide)


@inner
def _sum_columns(tensor, segment, begin, end, width, squares, some, token, wide):
    """Write the sums of squares of every column over runs ``begin`` to ``end - 1``."""
    stride = get(SEGMENT_RECORD, segment, "stride")
    for i in range(width):
        store(wide, squares, i, wide(0))
    for start in range(begin, end, RUNS):  # in two levels: long sums in float32 lose digits
        for i in range(width):
            store(wide, some, i, wide(0))
        for a in range(start, min(start + RUNS, end)):
            g = element_of(
                TENSOR_RECORD, tensor, "grad", token, get(SEGMENT_RECORD, segment, "first") + a * stride
            )
            for i in range(width):
                x = load(token, g, i)
                store(wide, some, i, load(wide, some, i) + x * x)
        for i in range(width):
            store(wide, squares, i, load(wide, squares, i) + load(wide, some, i))


@inner
def _size_columns(tensor, segment, squares, sizes, wide):
    """Move the second moments of blocks of columns, and write the step size of every column."""
    length, held = get(SEGMENT_RECORD, segment, "length"), get(SEGMENT_RECORD, segment, "held")
    for block in range(get(SEGMENT_RECORD, segment, "blocks")):
        v = element_of(
            TENSOR_RECORD,
            tensor,
            "exp_avg_sq",
            wide,
            get(SEGMENT_RECORD, segment, "first_row") + block * held,
        )
        total = wide(0)
        for i in range(block * length, (block + 1) * length):
            total += load(wide, squares, i)
        mean = np.float64(total) / (length * get(SEGMENT_RECORD, segment, "outer"))
        size = _second_moment(v, held, mean, tensor, wide)
        for i in range(block * length, (block + 1) * length):
            store(wide, sizes, i, size)


@inner
def _update_columns(tensor, segment, begin, end, width, sizes, token, wide):
    """Update runs ``begin`` to ``end - 1``."""
    for a in range(begin, end):
        at = get(SEGMENT_RECORD, segment, "first") + a * get(SEGMENT_RECORD, segment, "stride")
        p, g = (
            element_of(TENSOR_RECORD, tensor, "param", token, at),
            element_of(TENSOR_RECORD, tensor, "grad", token, at),
        )
        _update_each(
            p, g, element_of(TENSOR_RECORD, tensor, "exp_avg", wide, at), width, sizes, tensor, token, wide
        )


@inner
def _segment_and_tensor(header, number):
    """Return the segment of this number and its tensor."""
    segment = record_at(SEGMENT_RECORD, get(HEADER_RECORD, header, "segments"), number)
    number = get(SEGMENT_RECORD, segment, "tensor")
    return segment, record_at(TENSOR_RECORD, get(HEADER_RECORD, header, "tensors"), number)


@inner
def _do_task(header, task, scratch, token, wide):
    """Update the blocks of one task."""
    segment, tensor = _segment_and_tensor(header, get(TASK_RECORD, task, "segment"))
    if get(TENSOR_RECORD, tensor, "grad") == 0:  # no gradient: nothing moves
        return
    kind, begin, end = (
        get(SEGMENT_RECORD, segment, "kind"),
        get(TASK_RECORD, task, "begin"),
        get(TASK_RECORD, task, "end"),
    )
    length, outer = get(SEGMENT_RECORD, segment, "length"), get(SEGMENT_RECORD, segment, "outer")
    lane = get(HEADER_RECORD, header, "scratch_width")
    if kind == ROWS:
        if length > SHORT:
            _rows(tensor, segment, begin, end, token, wide)
            return
        if get(SEGMENT_RECORD, segment, "held") == 1:
            begin = _in_vectors(tensor, segment, begin, end, token, wide)
        _short_rows(tensor, segment, begin, end, scratch, lane, token, wide)
        return
    width = get(SEGMENT_RECORD, segment, "blocks") * length
    whole = record_at(WHOLE_RECORD, get(HEADER_RECORD, header, "wholes"), get(TASK_RECORD, task, "whole"))
    if kind == COLUMNS:  # one task, from run 0 on
        squares, sizes = element_at(wide, scratch, lane), element_at(wide, scratch, 2 * lane)
        _sum_columns(tensor, segment, begin, outer, width, squares, scratch, token, wide)
        _size_columns(tensor, segment, squares, sizes, wide)
        _update_columns(tensor, segment, begin, outer, width, sizes, token, wide)
        return
    if kind == SLAB:
        sizes = element_at(wide, get(HEADER_RECORD, header, "sums"), get(WHOLE_RECORD, whole, "sizes"))
        _update_columns(tensor, segment, begin, end, width, sizes, token, wide)
        return
    first, count = get(SEGMENT_RECORD, segment, "first") + begin, end - begin
    p, g = (
        element_of(TENSOR_RECORD, tensor, "param", token, first),
        element_of(TENSOR_RECORD, tensor, "grad", token, first),
    )
    m = element_of(TENSOR_RECORD, tensor, "exp_avg", wide, first)
    if kind == ELEMENT:
        row = get(SEGMENT_RECORD, segment, "first_row") + begin
        _update_elements(
            p, g, m, element_of(TENSOR_RECORD, tensor, "exp_avg_sq", wide, row), count, tensor, token, wide
        )
    else:  # a piece of a long block, whose second moment has been moved
        _update(p, g, m, count, wide(get(WHOLE_RECORD, whole, "size")), tensor, token, wide)


@inner
def _sum_task(header, task, token, wide):
    """Return the sum of squares of all gradients of one task."""
    segment, tensor = _segment_and_tensor(header, get(TASK_RECORD, task, "segment"))
    if get(TENSOR_RECORD, tensor, "grad") == 0:
        return 0.0
    begin, end = get(TASK_RECORD, task, "begin"), get(TASK_RECORD, task, "end")
    first, stride = get(SEGMENT_RECORD, segment, "first"), get(SEGMENT_RECORD, segment, "stride")
    length = get(SEGMENT_RECORD, segment, "length")
    if get(SEGMENT_RECORD, segment, "kind") == SLAB:
        first, runs = first + begin * stride, end - begin
        width = get(SEGMENT_RECORD, segment, "blocks") * length
    else:
        first, runs = first + begin * length, get(SEGMENT_RECORD, segment, "outer")
        width = (end - begin) * length
    total = 0.0
    for a in range(runs):
        total += _sum_squares(
            element_of(TENSOR_RECORD, tensor, "grad", token, first + a * stride), width, token, wide
        )
    return total


@inner
def _prepare(header, scale):
    """Count the step of every tensor that has a gradient, and compute its coefficients."""
    last_step, last_beta1, last_beta2, correction1, correction2 = -1.0, 0.0, 0.0, 1.0, 1.0
    for k in range(get(HEADER_RECORD, header, "tensor_count")):
        tensor = record_at(TENSOR_RECORD, get(HEADER_RECORD, header, "tensors"), k)
        if get(TENSOR_RECORD, tensor, "grad") == 0:
            continue
        count = get(TENSOR_RECORD, tensor, "step")
        store(np.float32, count, 0, load(np.float32, count, 0) + np.float32(1))
        step = np.float64(load(np.float32, count, 0))
        beta1, beta2 = get(TENSOR_RECORD, tensor, "beta1"), get(TENSOR_RECORD, tensor, "beta2")
        if step != last_step or beta1 != last_beta1 or beta2 != last_beta2:
            last_step, last_beta1, last_beta2 = step, beta1, beta2
            correction1, correction2 = 1.0 - beta1**step, 1.0 - beta2**step
        lr = get(TENSOR_RECORD, tensor, "lr")
        put(TENSOR_RECORD, tensor, "keep1", beta1)
        put(TENSOR_RECORD, tensor, "take1", (1.0 - beta1) * scale * get(TENSOR_RECORD, tensor, "sign"))
        put(TENSOR_RECORD, tensor, "keep2", beta2)
        put(TENSOR_RECORD, tensor, "take2", (1.0 - beta2) * scale * scale)
        put(TENSOR_RECORD, tensor, "shrink", 1.0 - lr * get(TENSOR_RECORD, tensor, "weight_decay"))
        put(TENSOR_RECORD, tensor, "size", lr / correction1)
        put(TENSOR_RECORD, tensor, "root", 1.0 / np.sqrt(correction2))


@inner
def _sum_piece(header, piece, scratch, token, wide):
    """Sum the squares of one piece."""
    segment, tensor = _segment_and_tensor(header, get(PIECE_RECORD, piece, "segment"))
    if get(TENSOR_RECORD, tensor, "grad") == 0:
        return
    begin, end = get(PIECE_RECORD, piece, "begin"), get(PIECE_RECORD, piece, "end")
    if get(SEGMENT_RECORD, segment, "kind") == WHOLE:
        g = element_of(TENSOR_RECORD, tensor, "grad", token, get(SEGMENT_RECORD, segment, "first") + begin)
        put(PIECE_RECORD, piece, "squares", _sum_squares(g, end - begin, token, wide))
    else:
        squares = element_at(wide, get(HEADER_RECORD, header, "sums"), get(PIECE_RECORD, piece, "sums"))
        width = get(SEGMENT_RECORD, segment, "blocks") * get(SEGMENT_RECORD, segment, "length")
        _sum_columns(tensor, segment, begin, end, width, squares, scratch, token, wide)


@inner
def _combine_pieces(header, wide):
    """Add the pieces of every segment in their order, and move its second moments."""
    sums, pieces = get(HEADER_RECORD, header, "sums"), get(HEADER_RECORD, header, "pieces")
    for k in range(get(HEADER_RECORD, header, "whole_count")):
        whole = record_at(WHOLE_RECORD, get(HEADER_RECORD, header, "wholes"), k)
        segment, tensor = _segment_and_tensor(header, get(WHOLE_RECORD, whole, "segment"))
        if get(TENSOR_RECORD, tensor, "grad") == 0:
            continue
        begin, end = get(WHOLE_RECORD, whole, "begin"), get(WHOLE_RECORD, whole, "end")
        blocks = get(SEGMENT_RECORD, segment, "blocks")
        if get(SEGMENT_RECORD, segment, "kind") == WHOLE:
            squares = 0.0
            for i in range(begin, end):
                squares += get(PIECE_RECORD, record_at(PIECE_RECORD, pieces, i), "squares")
            v = element_of(
                TENSOR_RECORD, tensor, "exp_avg_sq", wide, get(SEGMENT_RECORD, segment, "first_row")
            )
            held = get(SEGMENT_RECORD, segment, "held")
            put(WHOLE_RECORD, whole, "size", _second_moment(v, held, squares / blocks, tensor, wide))
        else:
            width = blocks * get(SEGMENT_RECORD, segment, "length")
            columns = element_at(wide, sums, get(WHOLE_RECORD, whole, "sizes"))
            for column in range(width):
                store(wide, columns, column, wide(0))
            for i in range(begin, end):
                piece = record_at(PIECE_RECORD, pieces, i)
                part = element_at(wide, sums, get(PIECE_RECORD, piece, "sums"))
                for column in range(width):
                    store(wide, columns, column, load(wide, columns, column) + load(wide, part, column))
            _size_columns(tensor, segment, columns, columns, wide)


@inner
def _run(header, asked):
    """Have all lanes do what is asked for, each thread some of them."""
    put(HEADER_RECORD, header, "asked", asked)
    put(HEADER_RECORD, header, "next_lane", 0)
    work, threads = get(HEADER_RECORD, header, "work"), get(HEADER_RECORD, header, "threads")
    if threads == 1:
        call(work, header)
    else:
        call_parallel(get(HEADER_RECORD, header, "parallel"), work, header, threads)


@inner
def _step(header, scale, wide):
    _prepare(header, scale)
    if get(HEADER_RECORD, header, "piece_count") > 0:
        _run(header, SUM_PIECES)
        _combine_pieces(header, wide)
    _run(header, DO_TASKS)


@inner
def _square_sum(header):
    _run(header, SUM_TASKS)
    total = 0.0
    for k in range(get(HEADER_RECORD, header, "task_count")):  # in their order
        total += load(np.float64, get(HEADER_RECORD, header, "totals"), k)
    return total


@dataclass(frozen=True, slots=True)
class Kernels:
    """The compiled functions of one dtype, each of the header's address: see `HEADER_RECORD`.

    Attributes:
        work: the C function that each thread runs.
        step: does a step, given also a factor on the gradients.
        square_sum: returns the sum of squares of all gradients.
    """

    work: Any
    step: Any
    square_sum: Any


@cache
def kernels(token: Any, wide: Any) -> Kernels:
    """Compile the functions for parameters and moments of these NumPy types, or take them from the disk."""

    def work(header):  # all in one: every level of functions is optimized again with all below it
        asked, count = get(HEADER_RECORD, header, "asked"), get(HEADER_RECORD, header, "lane_count")
        width, pieces = get(HEADER_RECORD, header, "scratch_width"), get(HEADER_RECORD, header, "piece_count")
        lanes = get(HEADER_RECORD, header, "lanes")
        lane = take_number(HEADER_RECORD, header, "next_lane")
        while lane < count:
            scratch = element_at(wide, get(HEADER_RECORD, header, "scratch"), lane * 3 * width)
            if asked == SUM_PIECES:
                for k in range(pieces * lane // count, pieces * (lane + 1) // count):
                    piece = record_at(PIECE_RECORD, get(HEADER_RECORD, header, "pieces"), k)
                    _sum_piece(header, piece, scratch, token, wide)
            else:
                for k in range(load(np.int64, lanes, lane), load(np.int64, lanes, lane + 1)):
                    task = record_at(TASK_RECORD, get(HEADER_RECORD, header, "tasks"), k)
                    if asked == DO_TASKS:
                        _do_task(header, task, scratch, token, wide)
                    else:
                        total = _sum_task(header, task, token, wide)
                        store(np.float64, get(HEADER_RECORD, header, "totals"), k, total)
            lane = take_number(HEADER_RECORD, header, "next_lane")

    def step(header, scale):
        _step(header, scale, wide)

    def square_sum(header):
        return _square_sum(header)

    return Kernels(
        work=c_function(work, _HASH),
        step=python_function(step, _HASH, types.void(types.int64, types.float64), lock=False),
        square_sum=python_function(square_sum, _HASH, types.float64(types.int64), lock=False),
    )
