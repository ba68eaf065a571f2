"""Sixteen float32 values as one value inside a Numba function: the machine's vector registers, written out.

Numba does not turn the loops over the classes into vector instructions by itself (several arrays that might overlap,
and sums and maxima whose order it must keep). These few operations say so explicitly; LLVM maps them to whatever the
machine has. Every operation is exactly rounded IEEE arithmetic in a fixed order, so results do not depend on the
machine's vector width. An array is one-dimensional, contiguous float32, and its index is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Values in a vector: one cache line (64 bytes)."""

LOG2_E = 1.4426950408889634
LN_2_HIGH, LN_2_LOW = 0.693145751953125, 1.4286068203094172e-06
"""ln 2 in two parts, the first with few enough bits that whole multiples of it are exact in float32."""
EXP_SERIES = (
    1.0000001192092896,
    1.0,
    0.4999887049198151,
    0.16666504740715027,
    0.041917506605386734,
    0.00836914870887995,
)
"""Polynomial for exp(x) on [-ln 2 / 2, ln 2 / 2]: interpolation at the Chebyshev points, relative error 1e-7."""
LOG_SERIES = (
    -0.4999999701976776,
    0.3333367109298706,
    -0.25001147389411926,
    0.19972050189971924,
    -0.16588488221168518,
    0.148347869515419,
    -0.1415964663028717,
    0.08787265419960022,
)
"""Polynomial for (log(1 + x) - x) / x^2 on [sqrt(1/2) - 1, sqrt(2) - 1], likewise; error of the log 4e-8."""
SMALLEST_EXPONENT = -127
"""Biased by 127 it gives the bits of zero."""
FRACTION_BITS = 23
ROOT_HALF_BITS = 0x3F3504F3
"""sqrt(1/2) as float32."""

Value = Any
"""An LLVM value; llvmlite has no types to check against."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


class Vector(types.Type):
    """Numba's name for a vector."""


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _FLOATS)  # type: ignore[no-untyped-call]


vector = Vector(name=f"float32x{LANES}")
numbers = types.Array(types.float32, 1, "C")


def operation(result: types.Type, *arguments: types.Type) -> Callable[[Callable[..., Value]], Callable[..., Any]]:
    """Makes a function for compiled code out of one that writes its instructions.

    result, arguments: what the function returns and takes. The decorated function takes LLVM's builder, then a value
    for each argument (of an array, the address of its first number), and returns the resulting value.
    """

    def decorate(build: Callable[..., Value]) -> Callable[..., Any]:
        def generate(context: Any, builder: Any, signature: Any, values: Sequence[Value]) -> Value:
            given = [
                context.make_array(kind)(context, builder, value).data if isinstance(kind, types.Array) else value
                for kind, value in zip(arguments, values, strict=True)
            ]
            made = build(builder, *given)
            return context.get_dummy_value() if result is types.void else made

        @wraps(build)
        def define(typing: Any, *_: types.Type) -> tuple[Any, Callable[..., Value]]:
            return result(*arguments), generate

        made: Callable[..., Any] = intrinsic(define)
        return made

    return decorate


def _constant(value: float) -> Value:
    return ir.Constant(_FLOATS, [value] * LANES)


def _whole(value: int) -> Value:
    return ir.Constant(_INTS, [value] * LANES)


def _call(builder: Any, name: str, result: Any, *arguments: Value) -> Value:
    """Calls one of LLVM's own functions."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)  # type: ignore[no-untyped-call]
    return builder.call(function, arguments)


def _fused(builder: Any, a: Value, b: Value, c: Value) -> Value:
    """a * b + c with one rounding."""
    return _call(builder, f"llvm.fma.v{LANES}f32", _FLOATS, a, b, c)


def _series(builder: Any, coefficients: tuple[float, ...], x: Value) -> Value:
    """A polynomial, the constant first."""
    result = _constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = _fused(builder, result, x, _constant(coefficient))
    return result


def _repeated(builder: Any, value: Value) -> Value:
    nothing, first = ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, None)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(_INT, 0)), nothing, first)


def _larger(builder: Any, a: Value, b: Value) -> Value:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _fold(builder: Any, values: Value, combine: Callable[[Any, Value, Value], Value]) -> Value:
    """Combines the halves of a vector until one value is left."""
    size = LANES
    while size > 1:
        size //= 2
        nothing = ir.Constant(values.type, ir.Undefined)
        this, other = (ir.Constant(ir.VectorType(_INT, size), list(range(a, a + size))) for a in (0, size))
        halves = (builder.shuffle_vector(values, nothing, places) for places in (this, other))
        values = combine(builder, *halves)
    return builder.extract_element(values, ir.Constant(_INT, 0))


def _address(builder: Any, array: Value, index: Value) -> Value:
    return builder.bitcast(builder.gep(array, [index]), _FLOATS.as_pointer())


@operation(vector, numbers, types.intp)
def load(builder: Any, array: Value, index: Value) -> Value:
    """The vector at array[index : index + 16]."""
    return builder.load(_address(builder, array, index), align=4)


@operation(types.void, numbers, types.intp, vector)
def store(builder: Any, array: Value, index: Value, values: Value) -> None:
    """Writes a vector to array[index : index + 16]."""
    builder.store(values, _address(builder, array, index), align=4)


@operation(types.void, numbers, types.intp, vector)
def store_afar(builder: Any, array: Value, index: Value, values: Value) -> None:
    """`store` past the caches, to a whole cache line that is not read soon."""
    stored = builder.store(values, _address(builder, array, index), align=4 * LANES)
    stored.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_INT, 1)]))


@operation(types.void, numbers, types.intp)
def fetch_early(builder: Any, array: Value, index: Value) -> None:
    """Asks the memory for the cache line of array[index], which is going to be read."""
    address = builder.bitcast(builder.gep(array, [index]), ir.IntType(8).as_pointer())
    options = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, keep in all caches, data
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), address, *options)


@operation(vector, types.float32)
def repeat(builder: Any, value: Value) -> Value:
    """A vector of one value."""
    return _repeated(builder, value)


@operation(vector, vector, vector)
def add(builder: Any, a: Value, b: Value) -> Value:
    """a + b."""
    return builder.fadd(a, b)


@operation(vector, vector, types.float32, vector)
def add_scaled(builder: Any, total: Value, factor: Value, values: Value) -> Value:
    """total + factor * values with one rounding."""
    return _fused(builder, _repeated(builder, factor), values, total)


@operation(vector, types.float32, vector)
def scale(builder: Any, factor: Value, values: Value) -> Value:
    """factor * values."""
    return builder.fmul(_repeated(builder, factor), values)


@operation(vector, vector, vector)
def larger(builder: Any, a: Value, b: Value) -> Value:
    """The larger of each pair."""
    return _larger(builder, a, b)


@operation(types.float32, vector)
def largest(builder: Any, values: Value) -> Value:
    """The largest of the values."""
    return _fold(builder, values, _larger)


@operation(types.float32, vector)
def total(builder: Any, values: Value) -> Value:
    """The sum of the values, by halves."""
    return _fold(builder, values, lambda builder, a, b: builder.fadd(a, b))


@operation(vector, vector)
def exp(builder: Any, values: Value) -> Value:
    """exp of each value <= 0, relative error below 3e-7; exactly 0 where the result would be below 1e-38."""
    x = _larger(builder, values, _constant(SMALLEST_EXPONENT / LOG2_E))
    power = _call(builder, f"llvm.rint.v{LANES}f32", _FLOATS, builder.fmul(x, _constant(LOG2_E)))
    rest = _fused(builder, power, _constant(-LN_2_HIGH), x)
    rest = _fused(builder, power, _constant(-LN_2_LOW), rest)
    biased = builder.add(builder.fptosi(power, _INTS), _whole(-SMALLEST_EXPONENT))
    bits = builder.shl(biased, _whole(FRACTION_BITS))
    return builder.fmul(_series(builder, EXP_SERIES, rest), builder.bitcast(bits, _FLOATS))


@operation(vector, vector)
def log(builder: Any, values: Value) -> Value:
    """log of each value, normal and > 0; error below 1e-7 plus the rounding of the result."""
    bits = builder.bitcast(values, _INTS)
    exponent = builder.ashr(builder.sub(bits, _whole(ROOT_HALF_BITS)), _whole(FRACTION_BITS))
    fraction = builder.bitcast(builder.sub(bits, builder.shl(exponent, _whole(FRACTION_BITS))), _FLOATS)
    x, power = builder.fadd(fraction, _constant(-1.0)), builder.sitofp(exponent, _FLOATS)
    result = _fused(builder, power, _constant(LN_2_LOW), x)
    result = _fused(builder, builder.fmul(x, x), _series(builder, LOG_SERIES, x), result)
    return _fused(builder, power, _constant(LN_2_HIGH), result)
