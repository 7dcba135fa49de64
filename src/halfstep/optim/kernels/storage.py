"""Reading and writing one number of any storage type from compiled code; arithmetic is float32 or float64.

Numba knows no bfloat16, so the two half types travel as integers of the same size: bfloat16 as int16, float16 as
uint16. Rounding to them is to nearest, ties to even, as torch rounds.
"""

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, overload, register_jitable

HALF_MIN_NORMAL = 0x38800000  # 2^-14, the bits of float16's least normal number as float32
HALF_OVERFLOW = 0x47800000  # 2^16
INFINITY = 0x7F800000


@intrinsic
def bits_to_float(typing_context, bits):  # noqa: ARG001  # the signature numba asks for
    """Return the float32 whose 32 bits these are."""

    def generate(_, builder, __, arguments):
        return builder.bitcast(builder.trunc(arguments[0], ir.IntType(32)), ir.FloatType())

    return types.float32(types.int64), generate


@intrinsic
def float_to_bits(typing_context, value):  # noqa: ARG001
    """Return the 32 bits of a float32."""

    def generate(_, builder, __, arguments):
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(32)), ir.IntType(64))

    return types.int64(types.float32), generate


@intrinsic
def _pointer(typing_context, address):  # noqa: ARG001
    """Return an address as a pointer."""

    def generate(_, builder, __, arguments):
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), generate


@register_jitable(inline="always")
def view(address, first, count, like):
    """Return ``count`` elements from element ``first`` on, of the type of ``like``, as an array."""
    return carray(_pointer(address + first * like.itemsize), count, like.dtype)


@register_jitable(inline="always")
def records(address, count, dtype):
    """Return ``count`` records of a table as an array."""
    return carray(_pointer(address), count, dtype)


def load(array, index):
    """Return an element as float32 or float64."""
    raise NotImplementedError(f"compiled code only: {array}, {index}")


def store(array, index, value):
    """Write an element, rounded to nearest even."""
    raise NotImplementedError(f"compiled code only: {array}, {index}, {value}")


def narrow(array, value):
    """Return a number in the type in which this array's arithmetic is done."""
    raise NotImplementedError(f"compiled code only: {array}, {value}")


@overload(load, inline="always")
def _load(array, index):  # noqa: ARG001
    if array.dtype == types.int16:
        return lambda array, index: bits_to_float(np.int64(array[index]) << 16)
    if array.dtype == types.uint16:
        return lambda array, index: _half_to_float(np.int64(array[index]))
    return lambda array, index: array[index]


@overload(store, inline="always")
def _store(array, index, value):  # noqa: ARG001
    if array.dtype == types.int16:

        def store_bfloat16(array, index, value):
            array[index] = _float_to_bfloat16(np.float32(value))

        return store_bfloat16
    if array.dtype == types.uint16:

        def store_float16(array, index, value):
            array[index] = _float_to_half(np.float32(value))

        return store_float16

    def store_plain(array, index, value):
        array[index] = value

    return store_plain


@overload(narrow, inline="always")
def _narrow(array, value):  # noqa: ARG001
    if array.dtype == types.float64:
        return lambda array, value: np.float64(value)  # noqa: ARG005
    return lambda array, value: np.float32(value)  # noqa: ARG005


@register_jitable(inline="always")
def _float_to_bfloat16(value):
    bits = float_to_bits(value)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.int16(np.int64(0x7FC0) if value != value else rounded)  # NaN


@register_jitable(inline="always")
def _half_to_float(bits):
    magnitude = (bits & 0x7FFF) << 13
    if (bits & 0x7C00) == 0x7C00:  # infinity and NaN
        value = bits_to_float(magnitude | INFINITY)
    else:  # 2^112 moves the exponent's bias from 15 to 127, subnormal numbers included
        value = bits_to_float(magnitude) * np.float32(5.192296858534828e33)
    return -value if bits & 0x8000 else value


@register_jitable(inline="always")
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
