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

from typing import Any

import numpy as np
from numba import njit, prange

from halfstep.optim.kernels.storage import load, narrow, records, store, view
from halfstep.optim.table import (
    CHUNK,
    COLUMNS,
    ELEMENT,
    PIECE_RECORD,
    ROWS,
    SEGMENT_RECORD,
    SHORT,
    TASK_RECORD,
    TENSOR_RECORD,
    WHOLE_RECORD,
)

# entries of the header that a launch is given: addresses and lengths of its tables
TENSORS, TENSOR_COUNT, SEGMENTS, SEGMENT_COUNT, TASKS, TASK_COUNT, PIECES, PIECE_COUNT = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
)
WHOLES, WHOLE_COUNT, TOTALS, LANES, LANE_COUNT, SCRATCH, SCRATCH_WIDTH = 8, 9, 10, 11, 12, 13, 14
HEADER = 15

# the order of sums and fused multiply-add are free; NaN and infinity are not assumed away, nor division by 0 an error
_compiled: Any = njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"}
)


@_compiled
def _tensors(header):
    return records(header[TENSORS], header[TENSOR_COUNT], TENSOR_RECORD)


@_compiled
def _segments(header):
    return records(header[SEGMENTS], header[SEGMENT_COUNT], SEGMENT_RECORD)


@_compiled
def _pieces(header):
    return records(header[PIECES], header[PIECE_COUNT], PIECE_RECORD)


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


@_compiled
def _short_rows(tensor, segment, begin, end, token, wide, scratch):
    """Do blocks of few contiguous elements, many at once: loops over a few elements cannot be vectorised."""
    length, held = segment.length, segment.held
    at_once = CHUNK // length
    keep, take = narrow(wide, tensor.keep2), narrow(wide, tensor.take2 / length)
    size, root, eps = narrow(wide, tensor.size), narrow(wide, tensor.root), narrow(wide, tensor.eps)
    for start in range(begin, end, at_once):
        blocks = min(at_once, end - start)
        first, count = segment.first + start * length, blocks * length
        g = view(tensor.grad, first, count, token)
        v = view(tensor.exp_avg_sq, segment.first_row + start * held, blocks * held, wide)
        squares, sizes, spread = scratch[0, :blocks], scratch[1, :blocks], scratch[2, :count]
        for block in range(blocks):
            row = g[block * length : (block + 1) * length]
            total = narrow(wide, 0.0)
            for i in range(length):
                x = load(row, i)
                total += x * x
            squares[block] = total
        if held == 1:
            for block in range(blocks):
                second = keep * v[block] + take * squares[block]
                v[block] = second
                sizes[block] = size / (np.sqrt(second) * root + eps)
        else:
            for block in range(blocks):
                mean = squares[block] / narrow(wide, length)
                sizes[block] = _second_moment(v[block * held : (block + 1) * held], mean, tensor)
        for block in range(blocks):
            own = sizes[block]
            row = spread[block * length : (block + 1) * length]
            for i in range(length):
                row[i] = own
        p, m = view(tensor.param, first, count, token), view(tensor.exp_avg, first, count, wide)
        _update_each(p, g, m, spread, tensor)


@_compiled
def _columns(tensor, segment, begin, end, token, wide, scratch):
    """Do blocks whose elements lie in ``outer`` runs, ``stride`` apart (weights stored [in, out])."""
    length, held, outer = segment.length, segment.held, segment.outer
    width = (end - begin) * length
    first = segment.first + begin * length
    some, squares, sizes = scratch[0, :width], scratch[1, :width], scratch[2, :width]
    squares[:] = 0
    for start in range(0, outer, CHUNK // 32):  # in two levels: long sums in float32 lose digits
        some[:] = 0
        for a in range(start, min(start + CHUNK // 32, outer)):
            g = view(tensor.grad, first + a * segment.stride, width, token)
            for i in range(width):
                x = load(g, i)
                some[i] += x * x
        for i in range(width):
            squares[i] += some[i]
    for block in range(end - begin):
        columns = slice(block * length, (block + 1) * length)
        v = view(tensor.exp_avg_sq, segment.first_row + (begin + block) * held, held, wide)
        sizes[columns] = _second_moment(v, squares[columns].sum() / (length * outer), tensor)
    for a in range(outer):
        at = first + a * segment.stride
        g, m = view(tensor.grad, at, width, token), view(tensor.exp_avg, at, width, wide)
        _update_each(view(tensor.param, at, width, token), g, m, sizes, tensor)


@_compiled
def _do_task(task, tensors, segments, pieces, token, wide, scratch):
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
        _columns(tensor, segment, task.begin, task.end, token, wide, scratch)
        return
    first, count = segment.first + task.begin, task.end - task.begin
    p, g = view(tensor.param, first, count, token), view(tensor.grad, first, count, token)
    m = view(tensor.exp_avg, first, count, wide)
    if segment.kind == ELEMENT:
        v = view(tensor.exp_avg_sq, segment.first_row + task.begin, count, wide)
        _update_elements(p, g, m, v, tensor)
    else:  # a piece of a long block, whose second moment has been moved
        _update(p, g, m, narrow(m, pieces[task.piece].size), tensor)


@_compiled
def _sum_task(task, tensors, segments, token):
    """Return the sum of squares of all gradients of one task."""
    segment = segments[task.segment]
    tensor = tensors[segment.tensor]
    if tensor.grad == 0:
        return 0.0
    first = segment.first + task.begin * segment.length
    count = (task.end - task.begin) * segment.length
    total = 0.0
    for a in range(segment.outer):
        total += _sum_squares(view(tensor.grad, first + a * segment.stride, count, token))
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
def _sum_pieces(header, lane, token):
    """Sum the squares of a thread's share of the pieces of long blocks."""
    tensors, segments, pieces = _tensors(header), _segments(header), _pieces(header)
    count = header[LANE_COUNT]
    for k in range(len(pieces) * lane // count, len(pieces) * (lane + 1) // count):
        piece = pieces[k]
        segment = segments[piece.segment]
        tensor = tensors[segment.tensor]
        if tensor.grad != 0:
            g = view(tensor.grad, segment.first + piece.begin, piece.end - piece.begin, token)
            piece.squares = _sum_squares(g)


@_compiled
def _combine_pieces(header, wide):
    """Add the pieces of every long block in their order, and move its second moment."""
    tensors, segments, pieces = _tensors(header), _segments(header), _pieces(header)
    wholes = records(header[WHOLES], header[WHOLE_COUNT], WHOLE_RECORD)
    for k in range(len(wholes)):
        segment = segments[wholes[k].segment]
        tensor = tensors[segment.tensor]
        if tensor.grad != 0:
            squares = 0.0
            for i in range(wholes[k].begin, wholes[k].end):
                squares += pieces[i].squares
            v = view(tensor.exp_avg_sq, segment.first_row, segment.held, wide)
            pieces[wholes[k].begin].size = _second_moment(v, squares / segment.blocks, tensor)


@_compiled
def _do_tasks(header, lane, token, wide):
    """Do a thread's share of the tasks."""
    tensors, segments, pieces = _tensors(header), _segments(header), _pieces(header)
    tasks = records(header[TASKS], header[TASK_COUNT], TASK_RECORD)
    lanes = records(header[LANES], header[LANE_COUNT] + 1, np.int64)
    width = header[SCRATCH_WIDTH]
    scratch = view(header[SCRATCH], lane * 3 * width, 3 * width, wide).reshape(3, width)
    for k in range(lanes[lane], lanes[lane + 1]):
        _do_task(tasks[k], tensors, segments, pieces, token, wide, scratch)


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


# Numba's cache on disk knows functions by their names: the parallel forms must be functions of their own.


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
        _sum_pieces(header, lane, token)
    _combine_pieces(header, wide)
    for lane in range(header[LANE_COUNT]):
        _do_tasks(header, lane, token, wide)


@njit(cache=True, nogil=True, parallel=True)
def step_parallel(header, scale, token, wide):
    """As `step_serial`, with a thread for every lane."""
    _prepare(_tensors(header), scale)
    if header[PIECE_COUNT] > 0:
        for lane in prange(header[LANE_COUNT]):
            _sum_pieces(header, lane, token)
        _combine_pieces(header, wide)
    for lane in prange(header[LANE_COUNT]):
        _do_tasks(header, lane, token, wide)


@_compiled
def square_sum_serial(header, token):
    """Return the sum of squares of all gradients, on one thread; arguments as `step_serial`."""
    for lane in range(header[LANE_COUNT]):
        _sum_tasks(header, lane, token)
    return _total(header)


@njit(cache=True, nogil=True, parallel=True)
def square_sum_parallel(header, token):
    """As `square_sum_serial`, with a thread for every lane."""
    for lane in prange(header[LANE_COUNT]):
        _sum_tasks(header, lane, token)
    return _total(header)
