"""Memory by its address, from compiled code: numbers of any storage type, and fields of tables.

Numba knows no bfloat16, so the two half types travel as integers of the same size: bfloat16 as int16, float16 as
uint16. Arithmetic is float32, or float64 for float64. Rounding to half types is to nearest, ties to even, as torch
rounds.

Addresses are plain integers and every access is one instruction: arrays would cost ten times the compilation.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload, register_jitable

HALF_MIN_NORMAL = 0x38800000  # 2^-14, the bits of float16's least normal number as float32
HALF_OVERFLOW = 0x47800000  # 2^16
INFINITY = 0x7F800000

AT_ONCE = 16  # rows that are done at once in vectors

FREE = ("reassoc", "contract", "nsz", "arcp")
"""What compiled arithmetic may do: reorder sums, fuse multiply-add, divide by multiplying, forget the sign of zero. NaN
and infinity are not assumed away."""

_WORD, _HALF_WORD = ir.IntType(64), ir.IntType(32)


# Intrinsics: the function receives types, and returns the signature and what writes the code.
# ruff: noqa: ARG001


@intrinsic
def _read(typing_context, like, address, index):
    """Return the element of an address as it is stored."""
    stored = like.dtype

    def generate(context, builder, _, arguments):
        place = builder.inttoptr(arguments[1], context.get_value_type(stored).as_pointer())
        return builder.load(builder.gep(place, [arguments[2]]))

    return stored(like, types.int64, types.int64), generate


@intrinsic
def _write(typing_context, like, address, index, value):
    """Write an element as it is stored."""
    stored = like.dtype

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[1], context.get_value_type(stored).as_pointer())
        cast = context.cast(builder, arguments[3], signature.args[3], stored)
        builder.store(cast, builder.gep(place, [arguments[2]]))
        return context.get_dummy_value()

    return types.none(like, types.int64, types.int64, value), generate


@intrinsic
def bits_to_float(typing_context, bits):
    """Return the float32 whose 32 bits these are."""

    def generate(_, builder, __, arguments):
        return builder.bitcast(builder.trunc(arguments[0], _HALF_WORD), ir.FloatType())

    return types.float32(types.int64), generate


@intrinsic
def float_to_bits(typing_context, value):
    """Return the 32 bits of a float32."""

    def generate(_, builder, __, arguments):
        return builder.zext(builder.bitcast(arguments[0], _HALF_WORD), _WORD)

    return types.int64(types.float32), generate


def _place(record: Any, name: Any) -> tuple[Any, int]:
    """Return the numba type and the offset of a field of a table's records."""
    field = record.dtype.fields[name.literal_value]
    return field.type, field.offset


@intrinsic(prefer_literal=True)
def get(typing_context, record, address, name):
    """Return a field of the record at an address; ``record`` is the table's NumPy dtype."""
    kind, offset = _place(record, name)

    def generate(context, builder, _, arguments):
        where = builder.add(arguments[1], _WORD(offset))
        return builder.load(builder.inttoptr(where, context.get_value_type(kind).as_pointer()))

    return kind(record, types.int64, name), generate


@intrinsic(prefer_literal=True)
def put(typing_context, record, address, name, value):
    """Write a field of the record at an address."""
    kind, offset = _place(record, name)
    value = types.unliteral(value)

    def generate(context, builder, signature, arguments):
        where = builder.add(arguments[1], _WORD(offset))
        cast = context.cast(builder, arguments[3], signature.args[3], kind)
        builder.store(cast, builder.inttoptr(where, context.get_value_type(kind).as_pointer()))
        return context.get_dummy_value()

    return types.none(record, types.int64, name, value), generate


@intrinsic
def record_at(typing_context, record, table, number):
    """Return the address of a record of a table."""

    def generate(_, builder, __, arguments):
        return builder.add(arguments[1], builder.mul(arguments[2], _WORD(record.dtype.size)))

    return types.int64(record, types.int64, types.int64), generate


@intrinsic
def element_at(typing_context, like, address, index):
    """Return the address of an element."""

    def generate(context, builder, _, arguments):
        size = context.get_abi_sizeof(context.get_value_type(like.dtype))
        return builder.add(arguments[1], builder.mul(arguments[2], _WORD(size)))

    return types.int64(like, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def address_of(typing_context, record, address, name):
    """Return the address of a field of the record at an address."""
    _, offset = _place(record, name)

    def generate(_, builder, __, arguments):
        return builder.add(arguments[1], _WORD(offset))

    return types.int64(record, types.int64, name), generate


@intrinsic(prefer_literal=True)
def element_of(typing_context, record, address, name, like, index):
    """Return the address of an element of the memory whose address is a field of the record at an address."""
    kind, offset = _place(record, name)

    def generate(context, builder, _, arguments):
        where = builder.inttoptr(builder.add(arguments[1], _WORD(offset)), _WORD.as_pointer())
        size = context.get_abi_sizeof(context.get_value_type(like.dtype))
        return builder.add(builder.load(where), builder.mul(arguments[4], _WORD(size)))

    return kind(record, types.int64, name, like, types.int64), generate


@intrinsic(prefer_literal=True)
def take_number(typing_context, record, address, name):
    """Return an integer field and add 1 to it: every caller gets another number, on whatever thread it runs."""
    kind, offset = _place(record, name)

    def generate(context, builder, _, arguments):
        place = builder.inttoptr(builder.add(arguments[1], _WORD(offset)), _WORD.as_pointer())
        return builder.atomic_rmw("add", place, _WORD(1), "acq_rel")

    return kind(record, types.int64, name), generate


_ANYTHING = ir.IntType(8).as_pointer()


@intrinsic
def fetch(typing_context, address):
    """Ask for the line of memory at an address, which may be any, without waiting for it."""

    def generate(context, builder, _, arguments):
        form = ir.FunctionType(ir.VoidType(), [_ANYTHING, _HALF_WORD, _HALF_WORD, _HALF_WORD])
        function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        to_read, near, data = _HALF_WORD(0), _HALF_WORD(3), _HALF_WORD(1)
        builder.call(function, [builder.inttoptr(arguments[0], _ANYTHING), to_read, near, data])
        return context.get_dummy_value()

    return types.none(types.int64), generate


@intrinsic
def call(typing_context, function, data):
    """Call a C function, by address, on one thread."""

    def generate(context, builder, _, arguments):
        form = ir.FunctionType(ir.VoidType(), [_WORD])
        builder.call(builder.inttoptr(arguments[0], form.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), generate


@intrinsic
def ask(typing_context, function, handle, answer):
    """Call a C function, by address, that writes its answer to an address; return its error code, 0 for none."""

    def generate(_, builder, __, arguments):
        form = ir.FunctionType(_HALF_WORD, [_WORD, _WORD])
        code = builder.call(builder.inttoptr(arguments[0], form.as_pointer()), arguments[1:])
        return builder.sext(code, _WORD)

    return types.int64(types.int64, types.int64, types.int64), generate


@intrinsic
def call_for_word(typing_context, function, arguments):
    """Call a C function, by address, whose arguments and result are words: integers or addresses."""

    def generate(_, builder, signature, given):
        words = cgutils.unpack_tuple(builder, given[1])
        form = ir.FunctionType(_WORD, [_WORD] * len(words))
        return builder.call(builder.inttoptr(given[0], form.as_pointer()), words)

    return types.int64(types.int64, arguments), generate


@intrinsic
def call_parallel(typing_context, parallel, function, data, threads):
    """Call ``parallel(function, data, threads, 0)``, by address: OpenMP's ``GOMP_parallel`` or one like it."""

    def generate(context, builder, _, arguments):
        parallel, function, data, threads = arguments
        form = ir.FunctionType(ir.VoidType(), [_ANYTHING, _ANYTHING, _HALF_WORD, _HALF_WORD])
        given = [builder.inttoptr(function, _ANYTHING), builder.inttoptr(data, _ANYTHING)]
        given += [builder.trunc(threads, _HALF_WORD), _HALF_WORD(0)]
        builder.call(builder.inttoptr(parallel, form.as_pointer()), given)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, types.int64, types.int64), generate


def load(like, address, index):
    """Return element ``index`` at an address as float32 or float64; ``like`` is the NumPy type that is stored."""
    raise NotImplementedError(f"compiled code only: {like}, {address}, {index}")


def store(like, address, index, value):
    """Write an element, rounded to nearest even."""
    raise NotImplementedError(f"compiled code only: {like}, {address}, {index}, {value}")


@overload(load)
def _load(like, address, index):
    if like.dtype == types.int16:
        return lambda like, address, index: bits_to_float(np.int64(_read(like, address, index)) << 16)
    if like.dtype == types.uint16:
        return lambda like, address, index: _half_to_float(np.int64(_read(like, address, index)))
    return lambda like, address, index: _read(like, address, index)


@overload(store)
def _store(like, address, index, value):
    if like.dtype == types.int16:
        return lambda like, address, index, value: _write(
            like, address, index, _float_to_bfloat16(np.float32(value))
        )
    if like.dtype == types.uint16:
        return lambda like, address, index, value: _write(
            like, address, index, _float_to_half(np.float32(value))
        )
    return lambda like, address, index, value: _write(like, address, index, value)


@register_jitable
def _float_to_bfloat16(value):
    bits = float_to_bits(value)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.int16(np.int64(0x7FC0) if value != value else rounded)  # NaN


@register_jitable
def _half_to_float(bits):
    magnitude = (bits & 0x7FFF) << 13
    if (bits & 0x7C00) == 0x7C00:  # infinity and NaN
        value = bits_to_float(magnitude | INFINITY)
    else:  # 2^112 moves the exponent's bias from 15 to 127, subnormal numbers included
        value = bits_to_float(magnitude) * np.float32(5.192296858534828e33)
    return -value if bits & 0x8000 else value


@register_jitable
def _float_to_half(value):
    bits = float_to_bits(value)
    magnitude = bits & 0x7FFFFFFF
    if magnitude >= HALF_OVERFLOW:
        half = np.int64(0x7E00) if magnitude > INFINITY else np.int64(0x7C00)
    elif magnitude < HALF_MIN_NORMAL:  # the addition rounds to a multiple of 2^-24
        half = float_to_bits(bits_to_float(magnitude) + np.float32(0.5)) - 0x3F000000
    else:
        half = (magnitude - 0x38000000 + 0xFFF + ((magnitude >> 13) & 1)) >> 13
    return np.uint16(half | ((bits >> 16) & 0x8000))


@intrinsic(prefer_literal=True)
def step_short_rows(typing_context, like, length, places, decays, takes, rest):
    """Do `AT_ONCE` blocks of ``length`` contiguous elements with vectors that hold all elements of these blocks.

    A compiler cannot turn a loop over a few elements into vectors: sums over rows, and a row's step size at each of its
    elements, are shuffles here.

    Args:
        like: the type that is stored, float32 or float64.
        length: a constant.
        places: addresses of weights, gradients, first moments and second moments.
        decays: 1 - lr weight_decay, beta1 and beta2.
        takes: factors on the gradient in the first and on the sum of squares in the second moment.
        rest: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) and eps.
    """
    n, k = length.literal_value, AT_ONCE

    def generate(context, builder, _, arguments):
        number = context.get_value_type(like.dtype)
        size = context.get_abi_sizeof(number)
        row, element = ir.VectorType(number, k), ir.VectorType(number, k * n)
        p, g, m, v = cgutils.unpack_tuple(builder, arguments[2])
        shrink, keep1, keep2 = cgutils.unpack_tuple(builder, arguments[3])
        take1, take2 = cgutils.unpack_tuple(builder, arguments[4])
        step, root, eps = cgutils.unpack_tuple(builder, arguments[5])

        def read(address, kind):
            return builder.load(builder.inttoptr(address, kind.as_pointer()), align=size)

        def write(address, value):
            builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=size)

        def shuffled(vector, indices):
            mask = ir.Constant(ir.VectorType(_HALF_WORD, len(indices)), list(indices))
            return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)

        def every(scalar, kind):
            first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _HALF_WORD(0))
            return shuffled(first, [0] * kind.count)

        def times(a, b):
            return builder.fmul(a, b, flags=FREE)

        def plus(a, b):
            return builder.fadd(a, b, flags=FREE)

        gradient, second = read(g, element), read(v, row)
        squares = times(gradient, gradient)
        total = shuffled(squares, [r * n for r in range(k)])
        for i in range(1, n):
            total = plus(total, shuffled(squares, [r * n + i for r in range(k)]))
        second = plus(times(every(keep2, row), second), times(every(take2, row), total))
        write(v, second)
        name = f"llvm.sqrt.v{k}{number.intrinsic_name}"
        square_root = builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(row, [row]), name), [second]
        )
        below = plus(times(square_root, every(root, row)), every(eps, row))
        sizes = builder.fdiv(every(step, row), below, flags=FREE)
        first = plus(times(every(keep1, element), read(m, element)), times(every(take1, element), gradient))
        write(m, first)
        moved = times(shuffled(sizes, [i // n for i in range(k * n)]), first)
        write(p, builder.fsub(times(every(shrink, element), read(p, element)), moved, flags=FREE))
        return context.get_dummy_value()

    return types.none(like, length, places, decays, takes, rest), generate
