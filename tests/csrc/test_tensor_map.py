"""Tensor maps: the rules that they obey, and the two encodings."""

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csrc.tensor_map import MAP_BYTES, TensorMap

CPU = torch.device("cpu")
# A map that obeys every rule: [128, 64] bf16 in rows of 160 bytes.
VALID: dict[str, Any] = {
    "dtype": torch.bfloat16,
    "address": 0x7F00_0000_0010,
    "sizes": (64, 128),
    "strides": (160,),
    "box": (64, 32),
    "swizzle_bytes": 128,
    "device": CPU,
}


def number(encoded: bytes, first: int, num_bytes: int) -> int:
    return int.from_bytes(encoded[first : first + num_bytes], "little")


def decode(encoded: bytes) -> dict[str, Any]:
    """Reads the fields where the table in csrc/tensor_map.py puts them."""
    assert len(encoded) == MAP_BYTES
    assert encoded[:8] == b"OWTMAP01"
    assert not any(encoded[111:])
    assert encoded[20] == encoded[23] == 0
    rank = encoded[16]
    return {
        "address": number(encoded, 8, 8),
        "dtype": encoded[17],
        "itemsize": encoded[18],
        "swizzle": encoded[19],
        "l2": encoded[21],
        "fill": encoded[22],
        "sizes": tuple(number(encoded, 24 + 8 * i, 8) for i in range(rank)),
        "strides": tuple(number(encoded, 64 + 8 * i, 8) for i in range(rank - 1)),
        "box": tuple(number(encoded, 96 + 2 * i, 2) for i in range(rank)),
        "element_strides": tuple(encoded[106 : 106 + rank]),
        "beyond": (
            {number(encoded, 24 + 8 * i, 8) for i in range(rank, 5)}
            | {number(encoded, 96 + 2 * i, 2) for i in range(rank, 5)}
            | {encoded[106 + i] for i in range(rank, 5)},
            {number(encoded, 64 + 8 * i, 8) for i in range(rank - 1, 4)},
        ),
    }


@st.composite
def maps(draw: st.DrawFn) -> TensorMap:
    dtype = draw(st.sampled_from([torch.uint8, torch.bfloat16, torch.float32, torch.int64]))
    rank = draw(st.integers(1, 5))
    swizzle = draw(st.sampled_from([0, 32, 64, 128]))
    inner_bytes = 16 * draw(st.integers(1, (swizzle or 256) // 16))
    floating = dtype.is_floating_point
    return TensorMap(
        dtype=dtype,
        address=16 * draw(st.integers(1, 2**43)),
        sizes=tuple(draw(st.integers(1, 2**32)) for _ in range(rank)),
        strides=tuple(16 * draw(st.integers(0, 2**36 - 1)) for _ in range(rank - 1)),
        box=(inner_bytes // dtype.itemsize, *(draw(st.integers(1, 256)) for _ in range(rank - 1))),
        element_strides=tuple(draw(st.integers(1, 8)) for _ in range(rank)),
        swizzle_bytes=swizzle,
        l2_promotion_bytes=draw(st.sampled_from([0, 64, 128, 256])),
        fill=draw(st.sampled_from(["zero", "nan"] if floating else ["zero"])),
        device=CPU,
    )


@given(maps())
def test_the_simulator_reads_what_was_written(tensor_map: TensorMap) -> None:
    fields = decode(tensor_map.encode_for_simulator())
    for attribute in ("address", "sizes", "strides", "box", "element_strides"):
        assert fields[attribute] == getattr(tensor_map, attribute), attribute
    assert fields["itemsize"] == tensor_map.dtype.itemsize
    assert [0, 32, 64, 128][fields["swizzle"]] == tensor_map.swizzle_bytes
    assert [0, 64, 128, 256][fields["l2"]] == tensor_map.l2_promotion_bytes
    assert ["zero", "nan"][fields["fill"]] == tensor_map.fill
    ones, zeros = fields["beyond"]
    assert ones <= {1}
    assert zeros <= {0}


@pytest.mark.parametrize(
    ("dtype", "code"),
    [
        (torch.uint8, 0),
        (torch.float8_e4m3fn, 0),
        (torch.float8_e5m2, 0),
        (torch.int16, 1),
        (torch.uint32, 2),
        (torch.int32, 3),
        (torch.uint64, 4),
        (torch.int64, 5),
        (torch.float16, 6),
        (torch.float32, 7),
        (torch.float64, 8),
        (torch.bfloat16, 9),
    ],
    ids=str,
)
def test_dtype_codes_are_the_drivers(dtype: torch.dtype, code: int) -> None:
    described = TensorMap(**VALID | {"dtype": dtype, "box": (16, 1), "strides": (1024,)})
    assert decode(described.encode_for_simulator())["dtype"] == code


def test_of_a_tensor_turns_the_dims_around() -> None:
    tensor = torch.zeros(5, 9, 80, dtype=torch.float32)[:, 2:, :64]
    described = TensorMap.of(tensor, (1, 4, 32), swizzle_bytes=128, fill="nan")
    assert described.sizes == (64, 7, 5)
    assert described.strides == (80 * 4, 9 * 80 * 4)
    assert described.box == (32, 4, 1)
    assert described.address == tensor.data_ptr()
    assert described.device == CPU
    end = tensor[-1, -1, -1:].data_ptr() + 4
    assert described.num_bytes == end - tensor.data_ptr()


def test_of_a_tensor_does_not_look_at_strides_that_nobody_uses() -> None:
    tensor = torch.zeros(1, 24, dtype=torch.bfloat16).as_strided((1, 24), (7, 1))
    assert TensorMap.of(tensor, (1, 8)).strides == (48,)
    assert TensorMap.of(torch.zeros(16, dtype=torch.uint8), (16,)).strides == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": (), "strides": (), "box": ()}, "the number of sizes must be between 1 and 5"),
        (
            {"sizes": (16,) * 6, "strides": (512,) * 5, "box": (16,) * 6},
            "the number of sizes must be between 1 and 5, got 6",
        ),
        ({"strides": ()}, "strides must have 1 entries for 2 sizes, got 0"),
        ({"box": (8,)}, "box must have 2 entries for 2 sizes, got 1"),
        ({"element_strides": (1,)}, "element_strides must have 2 entries for 2 sizes, got 1"),
        ({"address": 0}, "address must be positive, got 0"),
        ({"address": 8}, "address must be a multiple of 16, got 8"),
        ({"sizes": (64, 0)}, r"sizes\[1\] must be between 1 and 4294967296, got 0"),
        ({"sizes": (2**32 + 1, 1)}, r"sizes\[0\] must be between 1 and 4294967296"),
        ({"strides": (168,)}, r"strides\[0\] must be a multiple of 16, got 168"),
        ({"strides": (2**40,)}, r"strides\[0\] must be between 0 and 1099511627775"),
        ({"strides": (-16,)}, r"strides\[0\] must be between 0 and 1099511627775, got -16"),
        ({"box": (64, 257)}, r"box\[1\] must be between 1 and 256, got 257"),
        ({"box": (64, 0)}, r"box\[1\] must be between 1 and 256, got 0"),
        ({"box": (60, 1)}, r"the bytes of box\[0\] must be a multiple of 16, got 120"),
        ({"box": (72, 1)}, r"the bytes of box\[0\] must be at most the swizzle's 128, got 144"),
        (
            {"swizzle_bytes": 32, "box": (24, 1)},
            r"the bytes of box\[0\] must be at most the swizzle's 32, got 48",
        ),
        ({"element_strides": (1, 9)}, r"element_strides\[1\] must be between 1 and 8, got 9"),
        ({"element_strides": (0, 1)}, r"element_strides\[0\] must be between 1 and 8, got 0"),
        ({"swizzle_bytes": 16}, "swizzle_bytes must be one of 0, 32, 64, 128, got 16"),
        ({"l2_promotion_bytes": 32}, "l2_promotion_bytes must be one of 0, 64, 128, 256, got 32"),
        ({"fill": "one"}, "fill must be one of zero, nan, got one"),
        ({"dtype": torch.int16, "fill": "nan"}, "fill must be zero for bytes and integers"),
    ],
    ids=str,
)
def test_refuses_what_the_driver_would_refuse(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^TensorMap: {message}"):
        TensorMap(**VALID | changes)


def test_accepts_the_limits_themselves() -> None:
    limits = {"sizes": (2**32, 1), "strides": (2**40 - 16,), "box": (256, 256), "swizzle_bytes": 0}
    TensorMap(**VALID | limits)
    TensorMap(**VALID | {"element_strides": (8, 8), "box": (8, 1)})


def test_refuses_dtypes_that_tma_does_not_copy() -> None:
    with pytest.raises(TypeError, match=r"^TensorMap: dtype must be one that TMA copies"):
        TensorMap(**VALID | {"dtype": torch.complex64})


def test_refuses_a_tensor_whose_rows_have_gaps_between_elements() -> None:
    with pytest.raises(ValueError, match=r"^TensorMap: tensor must have stride 1 in its last dim"):
        TensorMap.of(torch.zeros(64, 64).t(), (8, 8))


def test_refuses_an_empty_tensor() -> None:
    with pytest.raises(ValueError, match=r"^TensorMap: address must be positive"):
        TensorMap.of(torch.zeros(0, 64), (8, 8))


@pytest.mark.gpu
def test_the_driver_accepts_what_the_rules_allow() -> None:
    tensor = torch.zeros(128, 64, dtype=torch.bfloat16, device="cuda")
    encodings = set()
    for swizzle, box in ((0, (256, 64)), (32, (8, 16)), (64, (1, 32)), (128, (128, 64))):
        described = TensorMap.of(tensor, box, swizzle_bytes=swizzle)
        encodings.add(described.encode_for_driver())
        encodings.add(dataclasses.replace(described, fill="nan").encode_for_driver())
    assert {len(encoded) for encoded in encodings} == {MAP_BYTES}
    assert len(encodings) == 8
    for limits in (
        {"sizes": (2**32, 1), "strides": (2**40 - 16,), "box": (256, 256), "swizzle_bytes": 0},
        {"element_strides": (8, 8), "box": (8, 1)},
        {"strides": (0,)},
    ):
        TensorMap(**VALID | limits).encode_for_driver()
