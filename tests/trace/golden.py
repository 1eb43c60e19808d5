"""A trace of a DualPipe-like step whose figures follow from how it is put together.

One forward and one backward chunk, in microseconds after BEGIN_US:

    stream 27   |notify combine(B)|    |notify dispatch(F)|  |dispatch(B)|       |notify combine(F)|
                 0    10     110        310    330     430    500    590          880    890    960
    stream 7       |attn(F)       |mlp(B)      |       |mlp(F)     |attn(B)  |           |attn(W)  |
                    40     200     300      400         480     560 600   750             930   960
    stream 23                                                          |mlp(W)     |
                                                                        650     830
    stream 20                                                                        memset 990-1000

plus a memcpy and a layout kernel that run beside compute and change no union.
"""

from pathlib import Path

from tests.trace.chrome import ChromeTrace

BEGIN_US = 50_000.0
AUTOGRAD_THREAD = 2571

FIGURES = {
    "span_us": 1000.0,
    "compute_us": 700.0,  # 40-400, 480-560, 600-830, 930-960
    "communication_us": 400.0,
    "payload_us": 360.0,
    "waiting_us": 40.0,
    "copy_us": 30.0,
    "hidden_us": 250.0,  # 40-110, 310-400, 500-560, 930-960
    "exposed_us": 150.0,  # 0-40, 400-430, 560-590, 880-930
    "copy_alone_us": 10.0,
    "idle_us": 140.0,  # 430-480, 590-600, 830-880, 960-990
}
# Compute, communication, waiting, hidden, exposed.
PHASES = {
    "combine(B)": (0, 110, 10, 70, 40),
    "attn(F)": (260, 0, 0, 0, 0),
    "mlp(B)": (100, 0, 0, 0, 0),
    "dispatch(F)": (5, 120, 20, 90, 30),
    "dispatch(B)": (0, 90, 0, 60, 30),
    "mlp(W)": (180, 0, 0, 0, 0),
    "mlp(F)": (80, 0, 0, 0, 0),
    "attn(B)": (150, 0, 0, 0, 0),
    "attn(W)": (30, 0, 0, 0, 0),
    "combine(F)": (0, 80, 10, 30, 50),
}
# Communication, waiting, hidden, exposed.
OPERATIONS = {
    "dispatch": (210, 20, 150, 60),
    "combine": (170, 0, 100, 70),
    "notify": (20, 20, 0, 20),
}
# Begin, end, exposed, who communicated, who waited; the longest first.
GAPS = [
    (830, 930, 50, "combine(F)", "attn(W)"),
    (400, 480, 30, "dispatch(F)", "mlp(F)"),
    (0, 40, 40, "combine(B)", "attn(F)"),
    (560, 600, 30, "dispatch(B)", "attn(B)"),
    (960, 990, 0, None, None),
]
UNKNOWN = "void acme::sinkhorn_step<64, float>(float*, int)"

_EP = "void dpsk::ep::internode::{}<8, (anonymous namespace)::Layout>(nvshmem_team*, int const*)"
_GEMM = "void dpsk::grouped_gemm::cuda::fp8_gemm_kernel<128, 128, 4>(CUtensorMap_st const*)"
_FLASH = "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<192, 128>, true>(Flash_fwd_params)"
_ACT = "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, dispatch_to_half> >(int)"

# Phase, stream, blocks, then kernels as (name, begin, end).
_WORK: list[tuple[str, int, int, list[tuple[str, float, float]]]] = [
    ("combine(B)", 27, 20, [(_EP.format("cached_notify"), 0, 10)]),
    ("combine(B)", 27, 20, [(_EP.format("combine"), 10, 110)]),
    ("attn(F)", 7, 112, [(_FLASH, 40, 200), (_GEMM, 200, 300)]),
    ("mlp(B)", 7, 112, [(_GEMM, 300, 380), (_ACT, 380, 400)]),
    ("dispatch(F)", 27, 1, [(_EP.format("get_dispatch_layout"), 300, 305)]),
    ("dispatch(F)", 27, 20, [(_EP.format("notify_dispatch"), 310, 330)]),
    ("dispatch(F)", 27, 20, [(_EP.format("dispatch"), 330, 430)]),
    ("dispatch(B)", 27, 20, [(_EP.format("dispatch"), 500, 590)]),
    ("mlp(W)", 23, 112, [(_GEMM, 650, 830)]),
    ("mlp(F)", 7, 112, [(_GEMM, 480, 560)]),
    ("attn(B)", 7, 112, [(_FLASH, 600, 750)]),
    ("attn(W)", 7, 112, [(UNKNOWN, 930, 960)]),
    ("combine(F)", 27, 20, [(_EP.format("cached_notify"), 880, 890)]),
    ("combine(F)", 27, 20, [(_EP.format("combine"), 890, 960)]),
]


def golden_trace() -> ChromeTrace:
    """The trace; the CPU runs ahead of the device, phase after phase, 10 us each."""
    trace = ChromeTrace(rank=3)
    begins = {name: BEGIN_US - 200.0 + 10.0 * number for number, name in enumerate(PHASES)}
    trace.annotation("ProfilerStep#1", BEGIN_US - 250.0, 400.0)
    trace.annotation("1F1B", BEGIN_US - 220.0, 300.0)
    for name, begin_us in begins.items():
        trace.annotation(name, begin_us, 10.0)
    for phase, stream, num_blocks, kernels in _WORK:
        # torch's autograd runs backward on a thread of its own, while the main one waits.
        thread = {"thread": AUTOGRAD_THREAD} if phase in {"mlp(B)", "attn(B)"} else {}
        for name, begin, end in kernels:
            trace.kernel(
                name,
                BEGIN_US + begin,
                end - begin,
                stream=stream,
                num_blocks=num_blocks,
                launched_us=begins[phase] + 5.0,
                **thread,
            )
    copies = (("Memcpy DtoD (Device -> Device)", "gpu_memcpy", 100, 120),)
    sets = (("Memset (Device)", "gpu_memset", 990, 1000),)
    for name, category, begin, end in (*copies, *sets):
        trace.kernel(
            name, BEGIN_US + begin, end - begin, stream=20, num_blocks=0, category=category
        )
    return trace


def save_golden(path: Path) -> Path:
    """Writes the trace to a file."""
    return golden_trace().save(path)
