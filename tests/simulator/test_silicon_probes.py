"""What the PTX manual leaves open, or is not believed before silicon has said it.

Each test asks one question of the simulator, and of a GPU where there is one: the answer that the
simulator gives is the one expected. A test that fails on the GPU has found what to correct in the
simulator. Measured values go into the test report, which `python -m benchmarks gpu_report` keeps.
"""

import numpy as np
import pytest
import torch

from tests.oracles import matrix_units, tensor_boxes
from tests.simulator.silicon_probes import Answer, Ask, Box, Probe, Record, ask_simulator

pytestmark = pytest.mark.compile

# ---- shared memory of a cluster ----


def test_shared_addresses_have_the_rank_from_bit_24_on(ask: Ask) -> None:
    found = ask(Probe(kernel="shared_addresses", out=20, ctas=4, clustered=True)).out
    offset = found[0] % 2**24
    rows = [found[5 * rank : 5 * rank + 5] for rank in range(4)]
    peers = [rank << 24 | offset for rank in range(4)]
    assert rows == [[own, *peers] for own in peers]


def test_the_peer_of_a_cluster_of_two_is_a_flip_of_bit_24_away(ask: Ask) -> None:
    found = ask(Probe(kernel="peer_by_bit_24", out=2, ctas=2, clustered=True)).out
    assert found == [2, 1]


# ---- barriers ----


def test_a_fresh_mbarrier_passes_parity_1_alone(ask: Ask) -> None:
    assert ask(Probe(kernel="fresh_mbarrier", out=3)).out == [0, 1, 1]


def test_bytes_may_land_before_they_are_expected(ask: Ask) -> None:
    """With all arrivals there, a count of bytes below zero still holds the phase."""
    assert ask(Probe(kernel="bytes_before_they_are_expected", out=3)).out == [0, 0, 1]


def test_bytes_that_land_at_a_phase_edge_count_in_the_next_phase(ask: Ask) -> None:
    assert ask(Probe(kernel="bytes_at_a_phase_edge", out=4)).out == [1, 0, 1, 0]


def test_threads_that_have_exited_are_not_waited_for(ask: Ask) -> None:
    assert ask(Probe(kernel="exited_threads_at_syncthreads", threads=64)).out == [1]


def test_threads_that_have_exited_do_not_count_as_arrived(ask: Ask) -> None:
    probe = Probe(kernel="exited_threads_at_a_counted_barrier", threads=96, out=[7])
    assert ask(probe).out == [0]


def test_half_a_warp_counts_as_half_a_warp(ask: Ask) -> None:
    probe = Probe(kernel="half_a_warp_at_a_counted_barrier", threads=64, out=[7])
    assert ask(probe).out == [0]


# ---- TMA ----

_SHOWN_BYTES = 4096
_ROWS, _COLUMNS = 40, 100  # of bf16


@pytest.mark.parametrize(
    ("corner", "box", "steps", "swizzle_bytes", "at"),
    [
        ((32, 8), (64, 8), (1, 1), 0, 0),
        ((32, 8), (64, 8), (1, 1), 128, 0),
        ((32, 8), (64, 8), (1, 1), 128, 384),
        ((32, 8), (64, 8), (1, 1), 128, 1920),
        ((32, 8), (32, 8), (1, 1), 64, 128),
        ((32, 8), (32, 8), (1, 1), 64, 640),
        ((32, 8), (16, 8), (1, 1), 32, 128),
        ((70, 35), (64, 8), (1, 1), 128, 0),
        ((-9, -3), (64, 8), (1, 1), 128, 0),
        ((200, 50), (64, 8), (1, 1), 0, 0),
        ((8, 3), (16, 15), (1, 4), 0, 0),
        ((8, 30), (16, 16), (1, 3), 32, 0),
    ],
    ids=[
        *("plain", "swizzle 128", "swizzle 128 from row 3", "swizzle 128 from row 15"),
        *("swizzle 64 from row 1", "swizzle 64 from row 5", "swizzle 32 from row 1"),
        *("beyond the end", "before the start", "wholly outside"),
        *("every fourth row", "every third row, beyond the end"),
    ],
)
def test_a_box_lands_by_its_absolute_addresses_and_counts_in_full(
    corner: tuple[int, int],
    box: tuple[int, int],
    steps: tuple[int, int],
    swizzle_bytes: int,
    at: int,
    ask: Ask,
) -> None:
    padded = np.random.default_rng(0).integers(0, 2**16, (_ROWS, 104), np.uint16)
    landed = tensor_boxes.load(padded[:, :_COLUMNS], corner, box, steps, 0).view(np.uint8)
    expected = np.full(_SHOWN_BYTES, 0xA5, np.uint8)
    expected[tensor_boxes.place(landed, at, swizzle_bytes)] = landed
    probe = Probe(
        kernel="load_box",
        words=[*corner, at, len(landed), _SHOWN_BYTES // 4],
        out=1 + _SHOWN_BYTES // 4,
        data=padded.view(np.uint32).ravel().tolist(),
        box=Box(torch.bfloat16, (_COLUMNS, _ROWS), 208, box, steps, swizzle_bytes),
        threads=128,
        smem_bytes=_SHOWN_BYTES + 16,
    )
    came, *shown = ask(probe).out
    assert came == 1
    assert shown == expected.view(np.uint32).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_what_is_out_of_bounds_is_nan_on_request(
    dtype: torch.dtype, ask: Ask, record_property: Record
) -> None:
    columns = 32 // dtype.itemsize
    probe = Probe(
        kernel="load_box",
        words=[0, 1, 0, 32, 8],
        out=9,
        data=[0] * 16,
        box=Box(dtype, (columns, 1), 32, (columns, 1), fill="nan"),
        smem_bytes=64,
    )
    came, *shown = ask(probe).out
    values = torch.tensor(shown, dtype=torch.uint32).view(dtype)
    record_property(f"bits of NaN in {dtype}", f"{shown[0]:#x}")
    assert came == 1
    assert values.isnan().all()


# ---- wgmma ----


def test_the_immediates_of_wgmma(ask: Ask) -> None:
    """They negate the product, each of them, and the predicate drops what was there."""
    found = ask(Probe(kernel="scales", threads=128, out=6, smem_bytes=16384)).out
    values = torch.tensor(found, dtype=torch.uint32).view(torch.float32).tolist()
    assert values == [132, 68, 68, 132, 32, -32]


def _operand_probe(layout: tuple[int, int, int, int], base_offset: int, *, mn_major: bool) -> Probe:
    start, leading, stride, swizzle_bytes = layout
    code = matrix_units.SWIZZLE_CODES[swizzle_bytes]
    words = [start, leading, stride, code, base_offset, int(mn_major)]
    return Probe(
        kernel="operand_places", threads=128, words=words, out=2049, smem_bytes=32768 + 8192
    )


def _places(answer: Answer) -> list[int]:
    """Byte offsets of the elements (row, k), in order."""
    assert answer.out[2048] == 0  # the memory begins a pattern
    pairs = zip(answer.out[:1024], answer.out[1024:2048], strict=True)
    return [2 * (low + 256 * high) for low, high in pairs]


def _expected_places(layout: tuple[int, int, int, int], *, mn_major: bool) -> list[int]:
    return [
        matrix_units.element_address(row, k, 2, layout, mn_major=mn_major)
        for row in range(64)
        for k in range(16)
    ]


@pytest.mark.parametrize("mn_major", [False, True], ids=["K-major", "MN-major"])
@pytest.mark.parametrize(
    "layout",
    [
        *((0, 16, 1024, 128), (96, 16, 1024, 128), (0, 16, 2048, 128)),
        *((384, 16, 1024, 128), (128 + 32, 16, 1024, 128)),
        *((0, 4096, 512, 64), (32, 4096, 1024, 64), (128, 4096, 512, 64)),
        *((0, 2048, 256, 32), (128, 2048, 512, 32), (64, 2048, 256, 32)),
        *((0, 2048, 128, 0), (0, 128, 256, 0), (16, 2048, 512, 0)),
    ],
    ids=str,
)
def test_where_wgmma_finds_its_operand(
    layout: tuple[int, int, int, int], ask: Ask, *, mn_major: bool
) -> None:
    """Layouts are (start, leading offset, stride offset, bytes of the swizzle).

    Some start within a pattern, with a base offset of 0: addresses are swizzled as they are.
    """
    found = _places(ask(_operand_probe(layout, 0, mn_major=mn_major)))
    assert found == _expected_places(layout, mn_major=mn_major)


@pytest.mark.parametrize("swizzle_bytes", [128, 64, 32])
def test_a_base_offset_is_refused_by_the_simulator(swizzle_bytes: int) -> None:
    layout = (384, 4096, 8 * swizzle_bytes, swizzle_bytes)
    with pytest.raises(NotImplementedError, match="a descriptor with a base offset"):
        ask_simulator(_operand_probe(layout, 3, mn_major=False))


@pytest.mark.gpu
@pytest.mark.parametrize("swizzle_bytes", [128, 64, 32])
def test_what_a_base_offset_does(
    swizzle_bytes: int, ask_silicon: Ask, record_property: Record
) -> None:
    """The manual: it is (address where the pattern starts >> 7) & 7. What is done with it?"""
    layout = (384, 4096, 8 * swizzle_bytes, swizzle_bytes)
    probe = _operand_probe(layout, 3, mn_major=False)
    found = _places(ask_silicon(probe))
    from_start = (0, *layout[1:])
    explanations = {
        "it has no effect": _expected_places(layout, mn_major=False),
        "rows count from where the pattern starts": [
            384 + place for place in _expected_places(from_start, mn_major=False)
        ],
    }
    effect = [text for text, places in explanations.items() if places == found]
    record_property(f"base offset, swizzle {swizzle_bytes}", effect or f"neither: {found[:256:16]}")
    assert effect


# ---- how many bits FP8 sums have ----

_F32_SUMS = {
    "bits within an instruction": 23,
    "bits within an instruction, below": 24,
    "bits within an instruction, of 31 terms": 23,
    "bits between instructions": 23,
    "bits between instructions, of 31 terms": 23,
    "a half is": "rounded up",
}
_FOURTEEN_BITS = dict.fromkeys(_F32_SUMS, 13) | {"a half is": "cut off"}


def _fp8_probe() -> Probe:
    """Sums of 2^16 and smaller terms: 2^(16 - j), for every j from 0 to 34.

    Row m of A has the factor 2^(8 - m), columns of B have 2^8 or 2^-9.
    """
    a, b, later_a, later_b = torch.zeros(4, 64, 32)
    a[:, 0] = 256
    b[:12, 0] = 256
    a[:18, 1:] = later_a[:18, 1:] = 2.0 ** (8 - torch.arange(18.0))[:, None]
    for matrix, column, terms, factor in (
        (b, 0, 1, 1),
        (b, 2, 1, 1.5),
        (b, 4, 1, -1),
        (b, 6, 31, 1),
        (later_b, 8, 1, 1),
        (later_b, 10, 31, 1),
    ):
        matrix[column, 1 : 1 + terms] = factor * 2.0**8
        matrix[column + 1, 1 : 1 + terms] = factor * 2.0**-9
    matrices = torch.stack([a, b, later_a, later_b]).to(torch.float8_e4m3fn)
    words = matrices.view(torch.uint32).flatten().tolist()
    return Probe(kernel="sums_of_e4m3", threads=128, words=words, out=4096, smem_bytes=32768)


def _fp8_findings(answer: Answer) -> dict[str, object]:
    sums = torch.tensor(answer.out, dtype=torch.uint32).view(torch.float32).view(64, 64)

    def change(column: int, j: int) -> float:
        row, column = (j, column) if j < 18 else (j - 17, column + 1)
        return float(sums[row, column]) - 2.0**16

    def bits(column: int) -> int:
        return max(j for j in range(35) if change(column, j) != 0)

    within = bits(0)
    half = change(2, within) / 2.0 ** (16 - within)  # of 1.5 units
    values = [within, bits(4), bits(6), bits(8), bits(10)]
    names = {1: "cut off", 2: "rounded up"}
    return dict(zip(_F32_SUMS, [*values, names.get(half, f"made {half - 1}")], strict=True))


@pytest.mark.parametrize("reduced_fp8", [False, True])
def test_fp8_sums_of_the_simulator(*, reduced_fp8: bool) -> None:
    found = _fp8_findings(ask_simulator(_fp8_probe(), reduced_fp8=reduced_fp8))
    assert found == (_FOURTEEN_BITS if reduced_fp8 else _F32_SUMS)


@pytest.mark.gpu
def test_fp8_sums_of_silicon(ask_silicon: Ask, record_property: Record) -> None:
    """They are one of the simulator's two: reduced_fp8 or not."""
    found = _fp8_findings(ask_silicon(_fp8_probe()))
    matching = {"reduced_fp8=False": _F32_SUMS, "reduced_fp8=True": _FOURTEEN_BITS}
    record_property("FP8 sums", found)
    names = [name for name, sums in matching.items() if sums == found]
    record_property("FP8 sums are those of", names)
    assert names
