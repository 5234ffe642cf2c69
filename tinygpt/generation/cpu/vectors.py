"""For compiled loops: eight float32 numbers in one register, `add_product(totals, number, load(array, i))`; pointers.

A compiler turns simple loops over arrays into such instructions by itself. A product with several tokens needs eight
sums at once that stay in registers, which it does not find; there the loop says so, with these four functions.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from tinygpt.generation.cpu.layout import LANES

VECTOR = ir.VectorType(ir.FloatType(), LANES)


class VectorType(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__("vector of float32")


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: VectorType) -> None:
        super().__init__(manager, kind, VECTOR)


vector = VectorType()


def address(context: Any, builder: Any, kind: Any, array: Any, i: Any) -> Any:
    """Where the i-th eight numbers of an array lie."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(builder.bitcast(data, VECTOR.as_pointer()), [i])


@intrinsic  # type: ignore[untyped-decorator]
def zeros(_context: Any) -> Any:
    return vector(), lambda *_: ir.Constant(VECTOR, [0.0] * LANES)


@intrinsic  # type: ignore[untyped-decorator]
def load(_context: Any, array: Any, i: Any) -> Any:
    """Numbers 8i … 8i + 7 of a contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(address(context, builder, signature.args[0], *arguments), align=4)

    return vector(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(_context: Any, array: Any, i: Any, numbers: Any) -> Any:
    """The inverse of `load`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        *place, value = arguments
        builder.store(value, address(context, builder, signature.args[0], *place), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, numbers), generate


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(_context: Any, array: Any, i: Any) -> Any:
    """Ask for number i of a contiguous array, which may lie beyond its end, so that it is in the cache when needed."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        kinds = [place.type, *[ir.IntType(32)] * 3]
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [place.type], ir.FunctionType(ir.VoidType(), kinds)
        )
        builder.call(function, [place, *(ir.Constant(ir.IntType(32), one) for one in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_product(_context: Any, totals: Any, number: Any, numbers: Any) -> Any:
    """totals + number · numbers"""

    def generate(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        totals, number, numbers = arguments
        nothing, fused = ir.Constant(VECTOR, ir.Undefined), ("contract",)
        one = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        same = builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))
        return builder.fadd(totals, builder.fmul(same, numbers, flags=fused), flags=fused)

    return vector(totals, types.float32, numbers), generate


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer, of which numba.carray makes an array."""

    def generate(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(address), generate
