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
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, prange
from numba.extending import register_jitable

from halfstep.optim.kernels.storage import load, narrow, records, store, view
from halfstep.optim.table import (
    CHUNK,
    COLUMNS,
    ELEMENT,
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

# entries of the header that a launch is given: addresses and lengths of its tables
(
    TENSORS, TENSOR_COUNT, SEGMENTS, SEGMENT_COUNT, TASKS, TASK_COUNT, PIECES, PIECE_COUNT, WHOLES, WHOLE_COUNT,
    TOTALS, LANES, LANE_COUNT, SCRATCH, SCRATCH_WIDTH, SUMS, SUM_COUNT, HEADER,
) = range(18)  # fmt: skip

FEW = 1024  # elements of short blocks that are done at once: all that is read must fit the fastest cache
RUNS = 128  # runs whose squares are added in the arithmetic's own type

_SOURCES = [Path(__file__), Path(__file__).with_name("storage.py"), Path(__file__).parents[1] / "table.py"]
_HASH = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:12]


def _compiled(function: Any, *, parallel: bool = False) -> Any:
    """Compile a function, and keep the code on disk.

    The order of sums and fused multiply-add are free; NaN and infinity are not assumed away, nor is division by 0 an
    error. The cache tells functions apart by file and name, so the name carries a hash of all that goes into them.
    """
    function.__qualname__ = f"{function.__qualname__}_{_HASH}"
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    }
    try:
        return njit(cache=True, parallel=parallel, **options)(function)
    except RuntimeError:  # no folder that can be written to: compile in every process
        return njit(parallel=parallel, **options)(function)


_inlined: Any = register_jitable(inline="always")  # every level of compiled functions costs compilation time


@_inlined
def _tensors(header):
    return records(header[TENSORS], header[TENSOR_COUNT], TENSOR_RECORD)


@_inlined
def _segments(header):
    return records(header[SEGMENTS], header[SEGMENT_COUNT], SEGMENT_RECORD)


@_inlined
def _pieces(header):
    return records(header[PIECES], header[PIECE_COUNT], PIECE_RECORD)


@_inlined
def _wholes(header):
    return records(header[WHOLES], header[WHOLE_COUNT], WHOLE_RECORD)


@_inlined
def _sums(header, wide):
    return view(header[SUMS], 0, header[SUM_COUNT], wide)


@_inlined
def _scratch(header, lane, wide):
    width = header[SCRATCH_WIDTH]
    return view(header[SCRATCH], lane * 3 * width, 3 * width, wide).reshape(3, width)


@_compiled
def _sum_squares(g):
    """Return the sum of squares of contiguous elements, in float64."""
    total = 0.0
    for begin in range(0, len(g), CHUNK):
        part = g[begin : begin + CHUNK]
        squares = narrow(part, 0.0)
        for i in range(len(part)):
            x = load(part, i)
            squares += x * x
        total += squares
    return total


@_compiled
def _second_moment(v, mean, tensor):
    """Move a block's second moment, in every row that holds it; return the block's step size."""
    second = narrow(v, tensor.keep2) * v[0] + narrow(v, tensor.take2) * narrow(v, mean)
    for k in range(len(v)):
        v[k] = second
    return narrow(v, tensor.size) / (np.sqrt(second) * narrow(v, tensor.root) + narrow(v, tensor.eps))


@_compiled
def _update(p, g, m, size, tensor):
    """Update contiguous elements of one block, whose step size is known."""
    shrink, keep, take = narrow(m, tensor.shrink), narrow(m, tensor.keep1), narrow(m, tensor.take1)
    for i in range(len(m)):
        first = keep * m[i] + take * load(g, i)
        m[i] = first
        store(p, i, shrink * load(p, i) - size * first)


@_compiled
def _update_each(p, g, m, sizes, tensor):
    """Update contiguous elements, each with a step size of its own."""
    shrink, keep, take = narrow(m, tensor.shrink), narrow(m, tensor.keep1), narrow(m, tensor.take1)
    for i in range(len(m)):
        first = keep * m[i] + take * load(g, i)
        m[i] = first
        store(p, i, shrink * load(p, i) - sizes[i] * first)


@_compiled
def _update_elements(p, g, m, v, tensor):
    """Update blocks of one element: AdamW."""
    shrink, keep1, take1 = narrow(m, tensor.shrink), narrow(m, tensor.keep1), narrow(m, tensor.take1)
    keep2, take2 = narrow(m, tensor.keep2), narrow(m, tensor.take2)
    size, root, eps = narrow(m, tensor.size), narrow(m, tensor.root), narrow(m, tensor.eps)
    for i in range(len(m)):
        x = load(g, i)
        first = keep1 * m[i] + take1 * x
        second = keep2 * v[i] + take2 * (x * x)
        m[i] = first
        v[i] = second
        store(p, i, shrink * load(p, i) - size * first / (np.sqrt(second) * root + eps))


@_compiled
def _rows(tensor, segment, begin, end, token, wide):
    """Do blocks that are contiguous, one by one."""
    length, held = segment.length, segment.held
    for block in range(begin, end):
        first = segment.first + block * length
        g = view(tensor.grad, first, length, token)
        v = view(tensor.exp_avg_sq, segment.first_row + block * held, held, wide)
        size = _second_moment(v, _sum_squares(g) / length, tensor)
        p, m = view(tensor.param, first, length, token), view(tensor.exp_avg, first, length, wide)
        _update(p, g, m, size, tensor)


@_inlined
def _sum_each(g, length, squares):
    for block in range(len(squares)):
        total = narrow(g, 0.0)
        for i in range(length):
            x = load(g, block * length + i)
            total += x * x
        squares[block] = total


@_inlined
def _spread_each(sizes, length, spread):
    for block in range(len(sizes)):
        size = sizes[block]
        for i in range(length):
            spread[block * length + i] = size


@_compiled
def _sum_short_rows(g, length, squares):
    """Write the sum of squares of every row of g; a length the compiler knows makes code several times as fast."""
    if length == 2:
        _sum_each(g, 2, squares)
    elif length == 3:
        _sum_each(g, 3, squares)
    elif length == 4:
        _sum_each(g, 4, squares)
    elif length == 5:
        _sum_each(g, 5, squares)
    elif length == 6:
        _sum_each(g, 6, squares)
    elif length == 7:
        _sum_each(g, 7, squares)
    elif length == 8:
        _sum_each(g, 8, squares)
    elif length == 9:
        _sum_each(g, 9, squares)
    elif length == 16:
        _sum_each(g, 16, squares)
    else:
        _sum_each(g, length, squares)


@_compiled
def _spread_short_rows(sizes, length, spread):
    """Write every row's step size to all its elements."""
    if length == 2:
        _spread_each(sizes, 2, spread)
    elif length == 3:
        _spread_each(sizes, 3, spread)
    elif length == 4:
        _spread_each(sizes, 4, spread)
    elif length == 5:
        _spread_each(sizes, 5, spread)
    elif length == 6:
        _spread_each(sizes, 6, spread)
    elif length == 7:
        _spread_each(sizes, 7, spread)
    elif length == 8:
        _spread_each(sizes, 8, spread)
    elif length == 9:
        _spread_each(sizes, 9, spread)
    elif length == 16:
        _spread_each(sizes, 16, spread)
    else:
        _spread_each(sizes, length, spread)


@_compiled
def _short_rows(tensor, segment, begin, end, token, wide, scratch):
    """Do blocks of few contiguous elements, many at once: loops over a few elements cannot be vectorised."""
    length, held = segment.length, segment.held
    at_once = FEW // length
    keep, take = narrow(wide, tensor.keep2), narrow(wide, tensor.take2 / length)
    size, root, eps = narrow(wide, tensor.size), narrow(wide, tensor.root), narrow(wide, tensor.eps)
    for start in range(begin, end, at_once):
        blocks = min(at_once, end - start)
        first, count = segment.first + start * length, blocks * length
        g = view(tensor.grad, first, count, token)
        v = view(tensor.exp_avg_sq, segment.first_row + start * held, blocks * held, wide)
        squares, sizes, spread = scratch[0, :blocks], scratch[1, :blocks], scratch[2, :count]
        _sum_short_rows(g, length, squares)
        if held == 1:
            for block in range(blocks):
                second = keep * v[block] + take * squares[block]
                v[block] = second
                sizes[block] = size / (np.sqrt(second) * root + eps)
        else:
            for block in range(blocks):
                mean = squares[block] / narrow(wide, length)
                sizes[block] = _second_moment(v[block * held : (block + 1) * held], mean, tensor)
        _spread_short_rows(sizes, length, spread)
        p, m = view(tensor.param, first, count, token), view(tensor.exp_avg, first, count, wide)
        _update_each(p, g, m, spread, tensor)


@_compiled
def _sum_columns(tensor, segment, begin, end, squares, some, token):
    """Write the sums of squares of every column over runs ``begin`` to ``end - 1``."""
    width = len(squares)
    squares[:] = 0
    for start in range(begin, end, RUNS):  # in two levels: long sums in float32 lose digits
        some[:] = 0
        for a in range(start, min(start + RUNS, end)):
            g = view(tensor.grad, segment.first + a * segment.stride, width, token)
            for i in range(width):
                x = load(g, i)
                some[i] += x * x
        for i in range(width):
            squares[i] += some[i]


@_compiled
def _size_columns(tensor, segment, squares, sizes, wide):
    """Move the second moments of blocks of columns, and write the step size of every column."""
    length, held = segment.length, segment.held
    for block in range(segment.blocks):
        columns = slice(block * length, (block + 1) * length)
        v = view(tensor.exp_avg_sq, segment.first_row + block * held, held, wide)
        sizes[columns] = _second_moment(v, squares[columns].sum() / (length * segment.outer), tensor)


@_compiled
def _update_columns(tensor, segment, begin, end, sizes, token, wide):
    """Update runs ``begin`` to ``end - 1``."""
    width = len(sizes)
    for a in range(begin, end):
        at = segment.first + a * segment.stride
        g, m = view(tensor.grad, at, width, token), view(tensor.exp_avg, at, width, wide)
        _update_each(view(tensor.param, at, width, token), g, m, sizes, tensor)


@_inlined
def _do_task(task, tensors, segments, wholes, sums, token, wide, scratch):
    """Update the blocks of one task."""
    segment = segments[task.segment]
    tensor = tensors[segment.tensor]
    if tensor.grad == 0:  # no gradient: nothing moves
        return
    if segment.kind == ROWS:
        if segment.length <= SHORT:
            _short_rows(tensor, segment, task.begin, task.end, token, wide, scratch)
        else:
            _rows(tensor, segment, task.begin, task.end, token, wide)
        return
    if segment.kind == COLUMNS:
        width = segment.blocks * segment.length
        some, squares, sizes = scratch[0, :width], scratch[1, :width], scratch[2, :width]
        _sum_columns(tensor, segment, 0, segment.outer, squares, some, token)
        _size_columns(tensor, segment, squares, sizes, wide)
        _update_columns(tensor, segment, 0, segment.outer, sizes, token, wide)
        return
    if segment.kind == SLAB:
        first = wholes[task.whole].sizes
        sizes = sums[first : first + segment.blocks * segment.length]
        _update_columns(tensor, segment, task.begin, task.end, sizes, token, wide)
        return
    first, count = segment.first + task.begin, task.end - task.begin
    p, g = view(tensor.param, first, count, token), view(tensor.grad, first, count, token)
    m = view(tensor.exp_avg, first, count, wide)
    if segment.kind == ELEMENT:
        v = view(tensor.exp_avg_sq, segment.first_row + task.begin, count, wide)
        _update_elements(p, g, m, v, tensor)
    else:  # a piece of a long block, whose second moment has been moved
        _update(p, g, m, narrow(m, wholes[task.whole].size), tensor)


@_inlined
def _sum_task(task, tensors, segments, token):
    """Return the sum of squares of all gradients of one task."""
    segment = segments[task.segment]
    tensor = tensors[segment.tensor]
    if tensor.grad == 0:
        return 0.0
    begin, end, runs, width = task.begin, task.end, segment.outer, segment.length
    if segment.kind == SLAB:
        first, runs, width = segment.first + begin * segment.stride, end - begin, segment.blocks * width
    else:
        first, width = segment.first + begin * width, (end - begin) * width
    total = 0.0
    for a in range(runs):
        total += _sum_squares(view(tensor.grad, first + a * segment.stride, width, token))
    return total


@_compiled
def _prepare(tensors, scale):
    """Count the step of every tensor that has a gradient, and compute its coefficients."""
    last_step, last_beta1, last_beta2, correction1, correction2 = -1.0, 0.0, 0.0, 1.0, 1.0
    for k in range(len(tensors)):
        tensor = tensors[k]
        if tensor.grad == 0:
            continue
        count = records(tensor.step, 1, np.float32)
        count[0] += np.float32(1)
        step = np.float64(count[0])
        if step != last_step or tensor.beta1 != last_beta1 or tensor.beta2 != last_beta2:
            last_step, last_beta1, last_beta2 = step, tensor.beta1, tensor.beta2
            correction1, correction2 = 1.0 - last_beta1**step, 1.0 - last_beta2**step
        tensor.keep1, tensor.take1 = tensor.beta1, (1.0 - tensor.beta1) * scale * tensor.sign
        tensor.keep2, tensor.take2 = tensor.beta2, (1.0 - tensor.beta2) * scale * scale
        tensor.shrink = 1.0 - tensor.lr * tensor.weight_decay
        tensor.size, tensor.root = tensor.lr / correction1, 1.0 / np.sqrt(correction2)


@_compiled
def _sum_pieces(header, lane, token, wide):
    """Sum the squares of a thread's share of the pieces."""
    tensors, segments, pieces = _tensors(header), _segments(header), _pieces(header)
    sums, scratch = _sums(header, wide), _scratch(header, lane, wide)
    count = header[LANE_COUNT]
    for k in range(len(pieces) * lane // count, len(pieces) * (lane + 1) // count):
        piece = pieces[k]
        segment = segments[piece.segment]
        tensor = tensors[segment.tensor]
        if tensor.grad == 0:
            continue
        if segment.kind == WHOLE:
            g = view(tensor.grad, segment.first + piece.begin, piece.end - piece.begin, token)
            piece.squares = _sum_squares(g)
        else:
            width = segment.blocks * segment.length
            squares = sums[piece.sums : piece.sums + width]
            _sum_columns(tensor, segment, piece.begin, piece.end, squares, scratch[0, :width], token)


@_compiled
def _combine_pieces(header, wide):
    """Add the pieces of every segment in their order, and move its second moments."""
    tensors, segments, pieces, wholes = _tensors(header), _segments(header), _pieces(header), _wholes(header)
    sums = _sums(header, wide)
    for k in range(len(wholes)):
        whole = wholes[k]
        segment = segments[whole.segment]
        tensor = tensors[segment.tensor]
        if tensor.grad == 0:
            continue
        if segment.kind == WHOLE:
            squares = 0.0
            for i in range(whole.begin, whole.end):
                squares += pieces[i].squares
            v = view(tensor.exp_avg_sq, segment.first_row, segment.held, wide)
            whole.size = _second_moment(v, squares / segment.blocks, tensor)
        else:
            width = segment.blocks * segment.length
            columns = sums[whole.sizes : whole.sizes + width]
            columns[:] = 0
            for i in range(whole.begin, whole.end):
                part = sums[pieces[i].sums : pieces[i].sums + width]
                for column in range(width):
                    columns[column] += part[column]
            _size_columns(tensor, segment, columns, columns, wide)


@_compiled
def _do_tasks(header, lane, token, wide):
    """Do a thread's share of the tasks."""
    tensors, segments, wholes = _tensors(header), _segments(header), _wholes(header)
    sums, scratch = _sums(header, wide), _scratch(header, lane, wide)
    tasks = records(header[TASKS], header[TASK_COUNT], TASK_RECORD)
    lanes = records(header[LANES], header[LANE_COUNT] + 1, np.int64)
    for k in range(lanes[lane], lanes[lane + 1]):
        _do_task(tasks[k], tensors, segments, wholes, sums, token, wide, scratch)


@_compiled
def _sum_tasks(header, lane, token):
    """Sum the squares of a thread's share of the tasks."""
    tensors, segments = _tensors(header), _segments(header)
    tasks = records(header[TASKS], header[TASK_COUNT], TASK_RECORD)
    totals = records(header[TOTALS], header[TASK_COUNT], np.float64)
    lanes = records(header[LANES], header[LANE_COUNT] + 1, np.int64)
    for k in range(lanes[lane], lanes[lane + 1]):
        totals[k] = _sum_task(tasks[k], tensors, segments, token)


@_compiled
def _total(header):
    """Add the sums of squares of all tasks, in their order."""
    totals = records(header[TOTALS], header[TASK_COUNT], np.float64)
    total = 0.0
    for k in range(len(totals)):
        total += totals[k]
    return total


# The cache on disk tells functions apart by name: the parallel forms must be functions of their own.


@_compiled
def step_serial(header, scale, token, wide):
    """Do a step on one thread.

    Args:
        header: addresses and lengths of the tables, see the constants above. Lane k does tasks ``lanes[k]`` to
            ``lanes[k + 1] - 1``.
        scale: factor on every gradient.
        token, wide: empty arrays of the parameters' and of the moments' type.
    """
    _prepare(_tensors(header), scale)
    for lane in range(header[LANE_COUNT]):
        _sum_pieces(header, lane, token, wide)
    _combine_pieces(header, wide)
    for lane in range(header[LANE_COUNT]):
        _do_tasks(header, lane, token, wide)


@partial(_compiled, parallel=True)
def step_parallel(header, scale, token, wide):
    """As `step_serial`, with a thread for every lane."""
    _prepare(_tensors(header), scale)
    if header[PIECE_COUNT] > 0:
        for lane in prange(header[LANE_COUNT]):
            _sum_pieces(header, np.int64(lane), token, wide)
        _combine_pieces(header, wide)
    for lane in prange(header[LANE_COUNT]):
        _do_tasks(header, np.int64(lane), token, wide)


@_compiled
def square_sum_serial(header, token):
    """Return the sum of squares of all gradients, on one thread; arguments as `step_serial`."""
    for lane in range(header[LANE_COUNT]):
        _sum_tasks(header, lane, token)
    return _total(header)


@partial(_compiled, parallel=True)
def square_sum_parallel(header, token):
    """As `square_sum_serial`, with a thread for every lane."""
    for lane in prange(header[LANE_COUNT]):
        _sum_tasks(header, np.int64(lane), token)
    return _total(header)
