"""What is read of a kernel's PTX before it is launched."""

import pytest

from csrc.entry import Entry, read_entry

# As nvcc, NVRTC and Triton write it, with the attributes that newer versions add to pointers.
PTX = """
.visible .entry other(
	.param .u64 other_param_0
)
.reqntid 128
{ ret; }
.visible .entry _Z4kernelPfi(
	.param .u64 .ptr .global .align 16 _Z4kernelPfi_param_0,
	.param .u32 _Z4kernelPfi_param_1,
	.param .align 64 .b8 _Z4kernelPfi_param_2[128],
	.param .align 8 .b8 _Z4kernelPfi_param_3[24],
	.param .u8 _Z4kernelPfi_param_4,
	.param .f32 _Z4kernelPfi_param_5
)
.maxntid 128, 3, 1
.minnctapersm 1
.explicitcluster
.reqnctapercluster 2, 1, 1
{ ret; }
.entry empty()
{ .maxntid 7 }
.entry bare
{ ret; }
"""


def test_reads_one_kernel_of_several() -> None:
    assert read_entry(PTX, "_Z4kernelPfi") == Entry(
        parameters=((0, 8), (8, 4), (64, 128), (192, 24), (216, 1), (220, 4)),
        max_threads=384,
        block=None,
        cluster=(2, 1, 1),
    )
    assert read_entry(PTX, "other") == Entry(((0, 8),), None, (128, 1, 1), None)


@pytest.mark.parametrize("kernel", ["empty", "bare"])
def test_reads_a_kernel_of_which_nothing_is_said(kernel: str) -> None:
    assert read_entry(PTX, kernel) == Entry((), None, None, None)


@pytest.mark.parametrize("kernel", ["_Z4kernel", "oth", "absent"])
def test_refuses_a_kernel_that_the_ptx_does_not_have(kernel: str) -> None:
    with pytest.raises(ValueError, match=f"^launcher: kernel must be in its PTX, got {kernel} "):
        read_entry(PTX, kernel)
