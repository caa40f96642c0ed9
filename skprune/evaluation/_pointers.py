"""Arrays of compiled code that are only an address.

Numba counts references to each array of a tuple at each call of a function. That costs
more than most functions of the kernels do, so they pass addresses on; the functions
that Python calls hold the arrays meanwhile.
"""

import operator

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = ["address_of", "borrow", "pointer"]


class _PointerType(types.Type):
    """Where an array starts: indexed like a flat array, unchecked, not counted."""

    def __init__(self, dtype):
        super().__init__(name=f"pointer_{dtype}")
        self.dtype = dtype


@register_model(_PointerType)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, dmm[fe_type.dtype].get_data_type().as_pointer())


def address_of(context, builder, array_type, array):
    """Emit the address of the first element of an array or a pointer."""
    if isinstance(array_type, _PointerType):
        return array
    return context.make_array(array_type)(context, builder, array).data


@intrinsic
def borrow(typingctx, record):
    """A named tuple with pointers in place of its C-contiguous arrays."""
    kinds = [
        _PointerType(kind.dtype) if isinstance(kind, types.Array) else kind
        for kind in record
    ]
    borrowed = types.NamedTuple(kinds, record.instance_class)

    def codegen(context, builder, signature, args):
        values = [
            address_of(context, builder, kind, value)
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(
                record, cgutils.unpack_tuple(builder, args[0]), strict=True
            )
        ]
        return context.make_tuple(builder, borrowed, values)

    return borrowed(record), codegen


@intrinsic
def pointer(typingctx, array):
    """Where a C-contiguous array starts; the array must outlive the pointer."""

    def codegen(context, builder, signature, args):
        return address_of(context, builder, signature.args[0], args[0])

    return _PointerType(array.dtype)(array), codegen


@intrinsic
def _get(typingctx, pointer, index):
    def codegen(context, builder, signature, args):
        return builder.load(builder.gep(args[0], [args[1]]))

    return pointer.dtype(pointer, types.intp), codegen


@intrinsic
def _set(typingctx, pointer, index, value):
    def codegen(context, builder, signature, args):
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, pointer.dtype), codegen


@overload(operator.getitem)
def _overload_get(pointer, index):
    if isinstance(pointer, _PointerType):
        return lambda pointer, index: _get(pointer, index)
    return None


@overload(operator.setitem)
def _overload_set(pointer, index, value):
    if isinstance(pointer, _PointerType):
        return lambda pointer, index, value: _set(pointer, index, value)
    return None
