"""Records of compiled code that are only an address.

Numba passes a tuple of arrays on field by field and counts references to each array at
each call. That costs more than most functions of the kernels do, so they get one
address instead: that of a table with the address, or the value, of each field. Whoever
makes the table holds the arrays while compiled code runs.
"""

import operator
from typing import get_args, get_type_hints

import numpy as np
from llvmlite import ir
from numba import from_dtype, njit, types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "address_of",
    "entry_point",
    "inlined_part",
    "kernel_part",
    "pointer",
    "reader",
    "shifted",
    "table_of",
]

# For functions that only compiled code calls: without what Python would need to call
# them they compile in less time.
_OPTIONS = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
kernel_part = njit(**_OPTIONS)
# For what inner loops call: a call would pass registers on by way of memory.
inlined_part = njit(forceinline=True, **_OPTIONS)


def entry_point(function):
    """Compile a function that Python calls, and keep the code on disk if that can be.

    Parameters
    ----------
    function : callable
        Compiled when it is called first.

    Returns
    -------
    compiled : callable
    """
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # neither the package nor the home directory can be written
        return njit(nogil=True)(function)


class _PointerType(types.Type):
    """Where an array starts: indexed like a flat array, unchecked, not counted."""

    def __init__(self, dtype):
        super().__init__(name=f"pointer_{dtype}")
        self.dtype = dtype


@register_model(_PointerType)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, dmm[fe_type.dtype].get_data_type().as_pointer())


class _RecordType(types.Type):
    """Where a table starts; its fields are attributes."""

    def __init__(self, name, fields):
        super().__init__(name=f"record_{name}")
        self.fields = fields


@register_model(_RecordType)
class _RecordModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.IntType(64).as_pointer())


@infer_getattr
class _RecordAttributes(AttributeTemplate):
    key = _RecordType

    def generic_resolve(self, record, name):
        return record.fields.get(name)


@lower_getattr_generic(_RecordType)
def _read_field(context, builder, record_type, table, name):
    index = ir.IntType(32)(list(record_type.fields).index(name))
    word = builder.load(builder.gep(table, [index]))
    # No compiled code writes to a table, so that loops need not read it again.
    word.set_metadata("invariant.load", builder.module.add_metadata([]))
    kind = record_type.fields[name]
    if isinstance(kind, _PointerType):
        return builder.inttoptr(word, context.get_value_type(kind))
    return word


def reader(record_class):
    """A function of compiled code that reads tables of a named tuple.

    Parameters
    ----------
    record_class : type
        A NamedTuple whose fields are annotated as `int` or as ``NDArray[...]``.

    Returns
    -------
    read : function of compiled code
        Takes a table as `table_of` makes it, and returns a record with the fields.
    """
    fields = {}
    for name, hint in get_type_hints(record_class).items():
        if hint is int:
            fields[name] = types.int64
        else:
            dtype = get_args(get_args(hint)[1])[0]
            fields[name] = _PointerType(from_dtype(np.dtype(dtype)))
    record_type = _RecordType(record_class.__name__, fields)

    @intrinsic
    def read(typingctx, table):
        def codegen(context, builder, signature, args):
            return address_of(context, builder, signature.args[0], args[0])

        return record_type(table), codegen

    return read


def table_of(record):
    """Addresses of the arrays, and the integers, of a named tuple.

    Parameters
    ----------
    record : NamedTuple
        Its arrays are C-contiguous, and must outlive the table.

    Returns
    -------
    table : ndarray of shape (n_fields,), int64
    """
    return np.array(
        [
            field.ctypes.data if isinstance(field, np.ndarray) else field
            for field in record
        ],
        dtype=np.int64,
    )


def address_of(context, builder, array_type, array):
    """Emit the address of the first element of an array or a pointer."""
    if isinstance(array_type, _PointerType):
        return array
    return context.make_array(array_type)(context, builder, array).data


@intrinsic
def pointer(typingctx, array):
    """Where a C-contiguous array starts; the array must outlive the pointer.

    Compiled code gives up an array where it is last named: name it once more after the
    pointer's last use, or take memory that the caller holds.
    """

    def codegen(context, builder, signature, args):
        return address_of(context, builder, signature.args[0], args[0])

    return _PointerType(array.dtype)(array), codegen


@intrinsic
def shifted(typingctx, pointer, n):
    """The pointer to the element n behind that of another."""

    def codegen(context, builder, signature, args):
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


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
