"""The parameter buffer: laid out as C lays out a struct."""

import ctypes
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csrc.checks import Checker
from csrc.parameters import Map, Member, Number, Pointer, Signature, Struct
from csrc.tensor_map import TensorMap

C_TYPES = {
    "bool": ctypes.c_bool,
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "f32": ctypes.c_float,
}
VALUES = {
    "bool": st.booleans(),
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "f32": st.floats(width=32, allow_nan=False),
}
TENSOR = torch.arange(4.0)


def no_map(_described: TensorMap) -> bytes:
    raise AssertionError("there is no map")


def as_c(members: list[tuple[Member, Any]]) -> type[ctypes.Structure]:
    types = [ctypes.c_void_p if isinstance(m, Pointer) else C_TYPES[m.kind] for m, _ in members]
    fields = [(f"f{i}", c_type) for i, c_type in enumerate(types)]
    return type("Fields", (ctypes.Structure,), {"_fields_": fields})


def filled(members: list[tuple[Member, Any]], type_: type[ctypes.Structure]) -> Any:
    values = [v.data_ptr() if isinstance(v, torch.Tensor) else v for _, v in members]
    return type_(*values)


def padding_cleared(value: Any, type_: type[ctypes.Structure], fresh: Any) -> bytes:
    """The bytes of a C struct whose padding is zero, as the buffer's is."""
    ctypes.memset(ctypes.byref(fresh), 0, ctypes.sizeof(type_))
    for name, _ in type_._fields_:
        setattr(fresh, name, getattr(value, name))
    return bytes(fresh)


members_with_values = st.lists(
    st.one_of(
        st.tuples(
            st.just(Pointer("p", torch.float32, optional=True)), st.sampled_from([TENSOR, None])
        ),
        st.sampled_from(sorted(C_TYPES)).flatmap(
            lambda kind: st.tuples(st.just(Number("n", kind)), VALUES[kind])
        ),
    ),
    min_size=1,
    max_size=9,
)


@given(members_with_values)
def test_a_struct_is_laid_out_as_in_c(members: list[tuple[Member, Any]]) -> None:
    type_ = as_c(members)
    expected = padding_cleared(filled(members, type_), type_, type_())
    signature = Signature(Struct("params", tuple(member for member, _ in members)))
    assert signature.pack([value for _, value in members], no_map) == expected
    assert signature.sizes == (ctypes.sizeof(type_),)


@given(members_with_values)
def test_parameters_one_by_one_lie_where_a_struct_has_them(
    members: list[tuple[Member, Any]],
) -> None:
    type_ = as_c(members)
    expected = padding_cleared(filled(members, type_), type_, type_())
    signature = Signature(*(member for member, _ in members))
    packed = signature.pack([value for _, value in members], no_map)
    assert packed is not None
    # Behind the last parameter a struct is padded, and a list of parameters is not.
    assert packed == expected[: len(packed)]
    assert not any(expected[len(packed) :])
    assert signature.offsets == tuple(getattr(type_, name).offset for name, _ in type_._fields_)


def test_maps_are_aligned_and_structs_padded() -> None:
    described = TensorMap.of(torch.zeros(64, 64, dtype=torch.bfloat16), (8, 8))
    params = Struct("params", (Number("m", "i32"), Map("a"), Number("n", "i32"), Map("b")))
    signature = Signature(Number("first", "u32"), params, Number("last", "bool"))
    assert signature.offsets == (0, 64, 64 + 384)
    assert signature.sizes == (4, 384, 1)
    packed = signature.pack([1, 2, described, 3, described, True], lambda _: bytes(range(128)))
    expected = bytearray(64 + 384 + 1)
    expected[0], expected[64], expected[64 + 192], expected[-1] = 1, 2, 3, 1
    expected[128:256] = expected[320:448] = bytes(range(128))
    assert packed == bytes(expected)


@pytest.mark.parametrize(
    ("member", "argument", "error", "message"),
    [
        (Pointer("x", torch.int8), 7, TypeError, "x must be a tensor, got int"),
        (Pointer("x", torch.int8), None, TypeError, "x must be a tensor, got NoneType"),
        (Pointer("x", torch.int8), TENSOR, TypeError, "x must have dtype int8, got float32"),
        (
            Pointer("x", torch.float32),
            torch.zeros(3, 4)[:, :2],
            ValueError,
            r"x must be contiguous, got strides \[4, 1\] for shape \[3, 2\]",
        ),
        (Number("n", "i32"), 1.0, TypeError, "n must be an int, got float"),
        (Number("n", "i32"), TENSOR[0], TypeError, "n must be an int, got Tensor"),
        (Number("n", "f32"), "1", TypeError, "n must be a number, got str"),
        (Number("n", "i32"), 2**31, ValueError, "n must fit in i32, got 2147483648"),
        (Number("n", "u64"), -1, ValueError, "n must fit in u64, got -1"),
        (Number("n", "f32"), 1e39, ValueError, r"n must fit in f32, got 1e\+39"),
        (Map("a"), b"bytes", TypeError, "a must be a TensorMap, got bytes"),
    ],
    ids=str,
)
def test_refuses_what_a_member_cannot_take(
    member: Member, argument: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^op: {message}"):
        member.refuse(Checker("op"), argument)
    assert Signature(member).pack([argument], no_map) is None


@pytest.mark.parametrize(
    ("member", "argument"),
    [
        (Pointer("x", torch.float32), TENSOR),
        (Pointer("x", torch.float32), TENSOR[:0]),
        (Pointer("x", torch.float32, contiguous=False), torch.zeros(3, 4).t()),
        (Pointer("x", torch.float32, optional=True), None),
        (Number("n", "f32"), 3),
        (Number("n", "bool"), True),
    ],
    ids=str,
)
def test_accepts_what_a_member_takes(member: Member, argument: Any) -> None:
    assert Signature(member).pack([argument], no_map) is not None
    member.refuse(Checker("op"), argument)
