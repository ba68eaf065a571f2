"""Thirty-two float32 values, or half of them, as one value inside a Numba function: the machine's vector registers,
written out.

Numba does not turn the loops over the classes into vector instructions by itself (several arrays that might overlap,
and sums and maxima whose order it must keep). These few operations say so explicitly; LLVM maps them to whatever the
machine has. Every operation is exactly rounded IEEE arithmetic in a fixed order, so results do not depend on the
machine's vector width. An array is one-dimensional, contiguous float32, and its index is not checked.
"""

from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, register_model

intrinsic: Any = extending.intrinsic
"""Its own type would count the typing context among the arguments of what it makes."""

LANES = 32
"""Values in a vector."""
HALF = 16
"""Values in half a vector: one cache line (64 bytes) of float32."""
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
"""Polynomial for exp on [-ln 2 / 2, ln 2 / 2]: interpolation at the Chebyshev points, relative error 1e-7."""
SMALLEST_EXPONENT = -127
"""Biased by 127 it gives the bits of zero."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


class Vector(types.Type):
    """Numba's name for some float32 values."""

    def __init__(self, lanes):
        super().__init__(name=f"float32x{lanes}")
        self.lanes = lanes


vector, half_vector = Vector(LANES), Vector(HALF)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(_FLOAT, kind.lanes))


def _constant(value):
    return ir.Constant(_FLOATS, [value] * LANES)


def _whole(value):
    return ir.Constant(_INTS, [value] * LANES)


def _call(builder, name, result, arguments):
    """Calls an LLVM intrinsic that works on each value."""
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments)


def _fused(builder, a, b, c):
    return _call(builder, f"llvm.fma.v{a.type.count}f32", a.type, [a, b, c])


def _spread(builder, value, kind):
    """All values equal to a scalar."""
    nothing, first = ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(_INT, kind.count), None)
    return builder.shuffle_vector(builder.insert_element(nothing, value, ir.Constant(_INT, 0)), nothing, first)


def _pointer(context, builder, signature, arguments, kind):
    """Address of array[index], array and index being the first two arguments."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), kind.as_pointer())


def _fold(builder, values, combine):
    """Combines the halves of a vector until one value is left."""
    size = LANES
    while size > 1:
        size //= 2
        other = ir.Constant(ir.VectorType(_INT, size), list(range(size, 2 * size)))
        this = ir.Constant(ir.VectorType(_INT, size), list(range(size)))
        nothing = ir.Constant(values.type, ir.Undefined)
        values = combine(builder.shuffle_vector(values, nothing, this), builder.shuffle_vector(values, nothing, other))
    return builder.extract_element(values, ir.Constant(_INT, 0))


def _larger_of(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _loaded(context, builder, signature, arguments):
    kind = ir.VectorType(_FLOAT, signature.return_type.lanes)
    return builder.load(_pointer(context, builder, signature, arguments, kind), align=4)


@intrinsic
def load(typing, array, index):
    """The vector at array[index : index + 32]."""
    return vector(array, types.intp), _loaded


@intrinsic
def load_half(typing, array, index):
    """The half vector at array[index : index + 16]."""
    return half_vector(array, types.intp), _loaded


@intrinsic
def store(typing, array, index, values):
    """Writes a vector or half vector to array[index :]."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _pointer(context, builder, signature, arguments, arguments[2].type), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, values), generate


@intrinsic
def fetch_early(typing, array, index):
    """Asks the memory for the cache line of array[index], which is going to be read."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8)
        pointer = _pointer(context, builder, signature, arguments, byte)
        options = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, keep in all caches, data
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *options])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
def repeat(typing, value):
    """A vector of one value."""

    def generate(context, builder, signature, arguments):
        return _spread(builder, arguments[0], _FLOATS)

    return vector(types.float32), generate


@intrinsic
def add(typing, a, b):
    """a + b."""

    def generate(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return vector(a, b), generate


@intrinsic
def add_scaled(typing, total, factor, values):
    """total + factor * values with one rounding; factor is a scalar."""

    def generate(context, builder, signature, arguments):
        total, factor, values = arguments
        return _fused(builder, _spread(builder, factor, values.type), values, total)

    return total(total, types.float32, values), generate


@intrinsic
def larger(typing, a, b):
    """The larger of each pair."""

    def generate(context, builder, signature, arguments):
        return _larger_of(builder, *arguments)

    return vector(a, b), generate


@intrinsic
def largest(typing, values):
    """The largest of the values."""

    def generate(context, builder, signature, arguments):
        return _fold(builder, arguments[0], lambda a, b: _larger_of(builder, a, b))

    return types.float32(values), generate


@intrinsic
def total(typing, values):
    """The sum of the values, by halves."""

    def generate(context, builder, signature, arguments):
        return _fold(builder, arguments[0], builder.fadd)

    return types.float32(values), generate


@intrinsic
def exp(typing, values):
    """exp of each value <= 0, relative error below 3e-7; exactly 0 where the result would be below 1e-38."""

    def generate(context, builder, signature, arguments):
        x = _larger_of(builder, arguments[0], _constant(SMALLEST_EXPONENT / LOG2_E))
        power = _call(builder, f"llvm.rint.v{LANES}f32", _FLOATS, [builder.fmul(x, _constant(LOG2_E))])
        rest = _fused(builder, power, _constant(-LN_2_HIGH), x)
        rest = _fused(builder, power, _constant(-LN_2_LOW), rest)
        result = _constant(EXP_SERIES[-1])
        for coefficient in reversed(EXP_SERIES[:-1]):
            result = _fused(builder, result, rest, _constant(coefficient))
        biased = builder.add(builder.fptosi(power, _INTS), _whole(-SMALLEST_EXPONENT))
        return builder.fmul(result, builder.bitcast(builder.shl(biased, _whole(23)), _FLOATS))

    return vector(values), generate
