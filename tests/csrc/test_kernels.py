"""What every kernel must show when compiled, and what the device headers promise.

The pure parts of the device code (swizzles, descriptors, the order of tiles) are constexpr: a test
states what they must give, by an oracle in Python, and the compiler proves it.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from csrc.compiled import CompileError, NoCompilerError
from csrc.compiler import Compiler, Kernel, compile_kernel, find_compiler
from csrc.kernels import KERNELS, Instantiation
from csrc.nvcc import find_nvcc
from csrc.nvrtc import find_nvrtc

pytestmark = pytest.mark.compile

REGISTERS_PER_SM = 65536
SHARED_BYTES_PER_CTA = 232448  # 227 KB


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cache for all tests here, so that a kernel is compiled once."""
    try:
        find_compiler()
    except NoCompilerError as problem:
        pytest.skip(str(problem))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENWEEK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(params=[find_nvrtc, find_nvcc], ids=["nvrtc", "nvcc"])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    try:
        found: Compiler = request.param()
    except NoCompilerError as problem:
        pytest.skip(str(problem))
    return found


def compile_text(folder: Path, text: str, expression: str = "probe") -> Kernel:
    source = folder / "probe.cu"
    source.write_text(text)
    return compile_kernel(source, expression)


def prove(folder: Path, headers: list[str], claims: list[str], before: str = "") -> None:
    """Compiles a kernel that asserts all claims; a false one is a CompileError that quotes it."""
    lines = [f'#include "{header}"' for header in headers]
    lines += ["using namespace openweek::primitives;", before]
    lines += [f"static_assert({claim});" for claim in claims]
    compile_text(folder, "\n".join([*lines, "__global__ void probe() {}"]))


# The slower compiler takes one kernel of each source.
ONE_OF_EACH = tuple({kernel.source: kernel for kernel in reversed(KERNELS)}.values())


@pytest.mark.parametrize(
    ("kernel", "find"),
    [(kernel, find_nvrtc) for kernel in KERNELS] + [(kernel, find_nvcc) for kernel in ONE_OF_EACH],
    ids=lambda value: value.expression if isinstance(value, Instantiation) else value.__name__,
)
def test_kernel_fits_the_machine(kernel: Instantiation, find: Callable[[], Compiler]) -> None:
    try:
        compiler = find()
    except NoCompilerError as problem:
        pytest.skip(str(problem))
    compiled = compile_kernel(kernel.source, kernel.expression, compiler=compiler)
    report = compiled.report
    assert report.warnings == ()  # one of them says that wgmma runs serialised
    assert (report.spill_store_bytes, report.spill_load_bytes, report.stack_bytes) == (0, 0, 0)
    most = re.search(r"\.maxntid (\d+)", compiled.ptx)
    assert most is not None, "the kernel has no __launch_bounds__"
    assert report.registers * int(most[1]) <= REGISTERS_PER_SM
    assert report.shared_bytes <= SHARED_BYTES_PER_CTA


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.expression)
def test_kernel_uses_what_it_claims(kernel: Instantiation, tmp_path: Path) -> None:
    """Tensor cores of its type, and no local memory."""
    compiled = compile_kernel(kernel.source, kernel.expression)
    machine_code = disassemble(compiled, tmp_path)
    unit = {"bf16": "HGMMA", "fp8_": "QGMMA", "cast": "F2FP"}[Path(kernel.source).name[:4]]
    assert unit in machine_code
    assert not re.search(r"\b(STL|LDL)\b", machine_code)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.expression)
def test_register_budgets_add_up(kernel: Instantiation) -> None:
    """Warpgroups that grow wait for what others give up: more than there is would hang."""
    compiled = compile_kernel(kernel.source, kernel.expression)
    shrunk = [int(n) for n in re.findall(r"setmaxnreg\.dec\S* (\d+);", compiled.ptx)]
    grown = [int(n) for n in re.findall(r"setmaxnreg\.inc\S* (\d+);", compiled.ptx)]
    if not shrunk:
        pytest.skip(f"{kernel.expression} keeps the registers it starts with")
    threads = int(re.findall(r"\.maxntid (\d+)", compiled.ptx)[0])
    num_warpgroups = threads // 128
    consumers = num_warpgroups - len(shrunk)
    assert 128 * (sum(shrunk) + consumers * max(grown)) <= compiled.report.registers * threads


@pytest.mark.parametrize(
    ("arguments", "wgmma", "steps"),
    [
        ("128, 256, 3, kDense, kB, kK, kK, kBf16", "HGMMA.64x256x16.F32.BF16", 4),
        ("64, 64, 12, kMasked, kNothing, kK, kMn, kBf16", "HGMMA.64x64x16.F32.BF16", 4),
        ("256, 192, 4, kAlongK, kA, kMn, kMn, kFp32", "HGMMA.64x192x16.F32.BF16", 8),
    ],
)
def test_bf16_gemm_uses_the_hardware_units(
    tmp_path: Path, arguments: str, wgmma: str, steps: int
) -> None:
    kernel = bf16_gemm(arguments)
    machine_code = disassemble(compile_kernel(kernel.source, kernel.expression), tmp_path)
    # Steps of k 16 of each wave, and nothing beside them that the compiler duplicated.
    assert machine_code.count(wgmma) == machine_code.count("HGMMA") == steps
    stores = ("UTMASTG.3D", "STSM.16") if "kBf16" in arguments else ("STG.E.64",)
    load = "UTMALDG.3D" if "kNothing" in arguments else "UTMALDG.3D.MULTICAST"
    for unit in (load, *stores, "USETMAXREG", "ACQBULK"):
        assert unit in machine_code, unit
    # Where clusters meet, at the beginning and at the end, and in no loop.
    assert machine_code.count("MEMBAR.ALL.GPU") == 2
    for local_memory in ("STL", "LDL"):
        assert not re.search(rf"\b{local_memory}\b", machine_code)


def bf16_gemm(arguments: str) -> Instantiation:
    """The kernel of these template arguments, given without their namespaces."""
    deepgemm, primitives = "openweek::deepgemm::", "openweek::primitives::"
    enums = (f"{deepgemm}Grouping::", f"{deepgemm}Share::", *(f"{primitives}Major::",) * 2)
    before = ("", "", "", *enums, f"{deepgemm}Output::")
    named = map(str.__add__, before, arguments.split(", "))
    name = f"{deepgemm}bf16_gemm_sm90_kernel<{', '.join(named)}>"
    return Instantiation("deepgemm/bf16_gemm.cu", name)


def disassemble(kernel: Kernel, folder: Path) -> str:
    """SASS, by the toolkit's cuobjdump or the one that Triton carries."""
    tool = shutil.which("cuobjdump")
    triton = find_spec("triton")
    if tool is None and triton is not None and triton.origin is not None:
        carried = Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"
        tool = str(carried) if carried.exists() else None
    if tool is None:
        pytest.skip("no cuobjdump (pip install triton)")
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(kernel.cubin)
    run = subprocess.run([tool, "-sass", str(cubin)], capture_output=True, text=True, check=True)
    return run.stdout


@pytest.mark.parametrize(
    ("block_m", "block_n", "num_stages", "output"),
    [(64, 16, 12, "kBf16"), (128, 256, 3, "kBf16"), (256, 144, 3, "kBf16"), (256, 192, 4, "kFp32")],
)
def test_bf16_gemm_shared_memory(
    tmp_path: Path, block_m: int, block_n: int, num_stages: int, output: str
) -> None:
    """The launcher asks for this much: stages of A and B, D if staged, two mbarriers a stage."""
    needed = num_stages * ((block_m + block_n) * 128 + 2 * 8)
    # Nothing of D would still be a byte for each of up to four times 64 rows.
    needed += block_m * block_n * 2 if output == "kBf16" else 4
    padded = -(-needed // 1024) * 1024
    assert padded <= SHARED_BYTES_PER_CTA
    config = (
        f"openweek::deepgemm::bf16_gemm::Config<{block_m}, {block_n}, {num_stages},"
        " openweek::deepgemm::Grouping::kDense, openweek::deepgemm::Share::kNothing, Major::kK,"
        f" Major::kK, openweek::deepgemm::Output::{output}>"
    )
    prove(tmp_path, ["deepgemm/bf16_gemm_sm90.cuh"], [f"sizeof({config}::Storage) == {padded}"])


@pytest.mark.parametrize("num_columns", [1, 2, 5])
@pytest.mark.parametrize("num_rows", [1, 7, 8, 9, 19])
def test_every_tile_has_a_turn(tmp_path: Path, num_rows: int, num_columns: int) -> None:
    expected = [
        (row, column)
        for first in range(0, num_rows, 8)
        for column in range(num_columns)
        for row in range(first, min(first + 8, num_rows))
    ]
    assert len(set(expected)) == num_rows * num_columns
    claims = [
        f"(place_of_turn({turn}, {num_rows}, {num_columns}).{field} == {value})"
        for turn, (row, column) in enumerate(expected)
        for field, value in (("row", row), ("column", column))
    ]
    using = "using namespace openweek::deepgemm;"
    prove(tmp_path, ["deepgemm/scheduler.cuh"], claims, using)


@pytest.mark.parametrize(
    ("name", "width"), [("kNone", 16), ("k32B", 32), ("k64B", 64), ("k128B", 128)]
)
def test_swizzle_permutes_the_chunks_of_a_row(tmp_path: Path, name: str, width: int) -> None:
    """The chunk's number XOR the number of the 128-byte line, within the width of the pattern."""
    claims = []
    for line in range(16):
        for chunk in range(8):
            inside = width // 16
            moved = chunk // inside * inside + (chunk % inside ^ line % inside)
            claims.append(
                f"swizzled<Swizzle::{name}>({line * 128 + chunk * 16 + 5})"
                f" == {line * 128 + moved * 16 + 5}"
            )
    prove(tmp_path, ["primitives/smem.cuh"], claims)


@pytest.mark.parametrize(
    ("name", "code", "width"), [("k128B", 1, 128), ("k64B", 2, 64), ("k32B", 3, 32)]
)
def test_descriptor_says_where_and_how(tmp_path: Path, name: str, code: int, width: int) -> None:
    """PTX ISA, "Matrix descriptor format": address, leading and stride offset, all in 16 bytes."""
    claims = []
    for address in (0, 1024, 0x38000, 0x01000400):  # the last one is of another CTA's window
        start = (address & 0x3FFFF) // 16
        bits = start | 1 << 16 | 8 * width // 16 << 32 | code << 62
        claims.append(f"k_major_descriptor<Swizzle::{name}>({address}) == {bits}ull")
    prove(tmp_path, ["primitives/wgmma.cuh"], claims)


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_ring_position_counts_stages_and_flips_phases(tmp_path: Path, stages: int) -> None:
    walk = (
        f"constexpr RingPosition<{stages}> after(int steps) {{"
        f" RingPosition<{stages}> at; while (steps-- > 0) at.advance(); return at; }}"
    )
    claims = [
        f"after({step}).{field} == {value}"
        for step in range(3 * stages + 1)
        for field, value in (("stage", step % stages), ("phase", step // stages % 2))
    ]
    prove(tmp_path, ["primitives/pipeline.cuh"], claims, "__device__ " + walk)


@pytest.mark.parametrize("n", [64, 128, 192, 256])
@pytest.mark.parametrize(
    ("element", "instruction"),
    [("kBf16", "m64n{}k16.f32.bf16.bf16"), ("kE4m3", "m64n{}k32.f32.e4m3.e4m3")],
)
def test_wgmma_names_every_accumulator(
    tmp_path: Path, element: str, instruction: str, n: int
) -> None:
    compiled = compile_text(
        tmp_path,
        f"""
        #include "primitives/wgmma.cuh"
        using namespace openweek::primitives;
        __global__ void __launch_bounds__(128)
            probe(float* out, unsigned long a, unsigned long b) {{
          float d[{n // 2}];
          wgmma_fence();
          wgmma<Element::{element}, {n}>(d, a, b, false);
          wgmma<Element::{element}, {n}>(d, a + 2, b + 2, true);
          wgmma_commit();
          wgmma_wait_all(d);
          for (int i = 0; i < {n // 2}; ++i) out[i * 128 + threadIdx.x] = d[i];
        }}""",
    )
    assert compiled.report.warnings == ()
    assert compiled.report.spill_store_bytes == 0
    products = re.findall(r"wgmma\.mma_async\.sync\.aligned\.(\S+) \{(.*?)\}, (.*?);", compiled.ptx)
    assert [kind for kind, _, _ in products] == [instruction.format(n)] * 2
    for _, accumulators, _ in products:
        names = re.findall(r"%f\d+", accumulators)
        assert len(names) == len(set(names)) == n // 2
    # The product accumulates, and negates and transposes nothing.
    tails = [inputs.split(", ")[2:] for _, _, inputs in products]
    assert tails == [["keep", "1", "1", *(["0", "0"] if element == "kBf16" else [])]] * 2


def test_every_copy_and_barrier_assembles(tmp_path: Path) -> None:
    compiled = compile_text(
        tmp_path,
        """
        #include "primitives/memory_order.cuh"
        #include "primitives/tma.cuh"
        using namespace openweek::primitives;
        __global__ void __launch_bounds__(64) probe(const __grid_constant__ TensorMap map) {
          __shared__ alignas(1024) uint8_t box[4096];
          __shared__ Mbarrier barrier;
          if (threadIdx.x == 0) {
            prefetch_tensor_map(map);
            barrier.init(2);
            fence_mbarrier_init();
          }
          __syncthreads();
          if (threadIdx.x == 0) {
            barrier.arrive_and_expect(3 * 4096);
            tma_load(box, map, barrier, 1, 2);
            tma_load(box, map, barrier, 1, 2, 3);
            tma_load_multicast(box, map, barrier, 3, 1, 2);
            barrier.arrive();
          }
          barrier.wait(0);
          fence_async_proxy();
          if (threadIdx.x < 32) named_barrier_arrive(1, 64);
          else named_barrier_sync(1, 64);
          if (threadIdx.x == 32) {
            tma_store(map, box, 1, 2);
            tma_store(map, box, 1, 2, 3);
            tma_store_commit();
            tma_store_wait_read<0>();
            tma_store_wait<0>();
          }
        }""",
    )
    for instruction in (
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [",
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [",
        "complete_tx::bytes.multicast::cluster",
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group",
        "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group",
        "cp.async.bulk.wait_group.read 0",
        "bar.arrive",
    ):
        assert instruction in compiled.ptx, instruction


@pytest.mark.parametrize(
    ("header", "misuse"),
    [
        ("wgmma", "float d[50]; wgmma<Element::kBf16, 100>(d, 0, 0, false);"),
        ("wgmma", "k_major_descriptor<Swizzle::kNone>(0);"),
        ("registers", "shrink_registers<20>();"),
        ("registers", "grow_registers<244>();"),
        ("pipeline", "RingPosition<0> at;"),
    ],
)
def test_what_the_hardware_does_not_do_is_refused(tmp_path: Path, header: str, misuse: str) -> None:
    include = f'#include "primitives/{header}.cuh"\nusing namespace openweek::primitives;\n'
    with pytest.raises(CompileError) as error:
        compile_text(tmp_path, f"{include}__global__ void probe() {{ {misuse} }}")
    # By C++, at the place of the mistake, and not by the assembler.
    assert re.search("static assertion|no instance of function template", str(error.value))
