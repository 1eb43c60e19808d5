"""Triton kernels whose PTX an independent compiler writes: the witnesses of the simulator.

Every kernel is small and ordinary; between them they make Triton emit wgmma with operands in shared
memory and in registers, TMA loads and stores, mbarriers, cp.async, mma.sync, shuffles and atomics.
"""

import triton
import triton.language as tl


@triton.jit
def matmul(  # a: [m, k], b: [k, n] by its two strides, d: [m, n]
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    d_ptr: tl.tensor,
    m: tl.int32,
    n: tl.int32,
    k: tl.int32,
    b_stride_k: tl.int32,
    b_stride_n: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Computes d = a @ b by pointers, every edge masked: cp.async, ldmatrix, wgmma or mma.sync."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        depth = start + inner
        a = tl.load(
            a_ptr + rows[:, None] * k + depth[None, :],
            mask=(rows[:, None] < m) & (depth[None, :] < k),
            other=0.0,
        )
        b = tl.load(
            b_ptr + depth[:, None] * b_stride_k + columns[None, :] * b_stride_n,
            mask=(depth[:, None] < k) & (columns[None, :] < n),
            other=0.0,
        )
        accumulator = tl.dot(a, b, accumulator)
    tl.store(
        d_ptr + rows[:, None] * n + columns[None, :],
        accumulator.to(d_ptr.dtype.element_ty),
        mask=(rows[:, None] < m) & (columns[None, :] < n),
    )


@triton.jit
def scaled_matmul(  # a: [m, k], b: [n, k], scale: [k], d: [m, n]
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    d_ptr: tl.tensor,
    n: tl.int32,
    k: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Computes d = (a * scale) @ b.T: being computed, a comes to wgmma from registers."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        depth = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + rows[:, None] * k + depth[None, :])
        a = a * tl.load(scale_ptr + depth)[None, :]
        b = tl.load(b_ptr + columns[None, :] * k + depth[:, None])
        accumulator = tl.dot(a, b, accumulator)
    tl.store(d_ptr + rows[:, None] * n + columns[None, :], accumulator.to(d_ptr.dtype.element_ty))


@triton.jit
def descriptor_matmul(  # a: [m, k], b: [n, k], d: [m, n], each by a TMA descriptor
    a_map: tl.tensor,
    b_map: tl.tensor,
    d_map: tl.tensor,
    k: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Computes d = a @ b.T: TMA loads under mbarriers, wgmma, a TMA store."""
    row = tl.program_id(0) * BLOCK_M
    column = tl.program_id(1) * BLOCK_N
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        a = a_map.load([row, start])
        b = b_map.load([column, start])
        accumulator = tl.dot(a, b.T, accumulator)
    d_map.store([row, column], accumulator.to(d_map.dtype))


@triton.jit
def own_descriptor_matmul(  # a: [m, k], b: [n, k], d: [m, n]
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    d_ptr: tl.tensor,
    m: tl.int32,
    n: tl.int32,
    k: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Computes d = a @ b.T with TMA descriptors that the kernel itself writes to global memory."""
    a_map = tl.make_tensor_descriptor(a_ptr, (m, k), (k, 1), (BLOCK_M, BLOCK_K))
    b_map = tl.make_tensor_descriptor(b_ptr, (n, k), (k, 1), (BLOCK_N, BLOCK_K))
    d_map = tl.make_tensor_descriptor(d_ptr, (m, n), (n, 1), (BLOCK_M, BLOCK_N))
    row = tl.program_id(0) * BLOCK_M
    column = tl.program_id(1) * BLOCK_N
    accumulator = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        accumulator = tl.dot(a_map.load([row, start]), b_map.load([column, start]).T, accumulator)
    d_map.store([row, column], accumulator.to(d_ptr.dtype.element_ty))


@triton.jit
def persistent_matmul(  # a: [m, k], b: [n, k], d: [m, n]
    a_ptr: tl.tensor,
    b_ptr: tl.tensor,
    d_ptr: tl.tensor,
    m: tl.int32,
    n: tl.int32,
    k: tl.int32,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Computes d = a @ b.T tile after tile, and makes the map of each tile's rows of b anew."""
    a_map = tl.make_tensor_descriptor(a_ptr, (m, k), (k, 1), (BLOCK_M, BLOCK_K))
    tiles_n = tl.cdiv(n, BLOCK_N)
    for tile in range(tl.program_id(0), tl.cdiv(m, BLOCK_M) * tiles_n, tl.num_programs(0)):
        row = tile // tiles_n * BLOCK_M
        column = tile % tiles_n * BLOCK_N
        rows_left = n - column
        b_map = tl.make_tensor_descriptor(
            b_ptr + column * k, (rows_left, k), (k, 1), (BLOCK_N, BLOCK_K)
        )
        d_map = tl.make_tensor_descriptor(
            d_ptr + column, (m, rows_left), (n, 1), (BLOCK_M, BLOCK_N)
        )
        accumulator = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for start in range(0, k, BLOCK_K):
            accumulator = tl.dot(a_map.load([row, start]), b_map.load([0, start]).T, accumulator)
        d_map.store([row, 0], accumulator.to(d_ptr.dtype.element_ty))


@triton.jit
def attention(  # q, k, v, output: [heads, length, HEAD_DIM], contiguous
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    v_ptr: tl.tensor,
    output_ptr: tl.tensor,
    length: tl.int32,
    log2_scale: tl.float32,
    HEAD_DIM: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_KV: tl.constexpr,
) -> None:
    """Causal attention with a running softmax in base 2; length is a multiple of both blocks."""
    first = tl.program_id(0) * BLOCK_Q
    head = tl.program_id(1) * length * HEAD_DIM
    rows = first + tl.arange(0, BLOCK_Q)
    dims = tl.arange(0, HEAD_DIM)
    q = tl.load(q_ptr + head + rows[:, None] * HEAD_DIM + dims[None, :])
    largest = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    accumulator = tl.zeros((BLOCK_Q, HEAD_DIM), tl.float32)
    for start in range(0, first + BLOCK_Q, BLOCK_KV):
        columns = start + tl.arange(0, BLOCK_KV)
        k = tl.load(k_ptr + head + columns[None, :] * HEAD_DIM + dims[:, None])
        scores = tl.dot(q, k) * log2_scale
        scores = tl.where(rows[:, None] >= columns[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        v = tl.load(v_ptr + head + columns[:, None] * HEAD_DIM + dims[None, :])
        accumulator = tl.dot(weights.to(v.dtype), v, accumulator * shrink[:, None])
        largest = larger
    tl.store(
        output_ptr + head + rows[:, None] * HEAD_DIM + dims[None, :],
        (accumulator / total[:, None]).to(output_ptr.dtype.element_ty),
    )


@triton.jit
def elementwise(  # x, y, d: [length]
    x_ptr: tl.tensor,
    y_ptr: tl.tensor,
    d_ptr: tl.tensor,
    length: tl.int32,
    BLOCK: tl.constexpr,
) -> None:
    """Computes d = exp(-|x|) * sigmoid(y) + sqrt(x * x + 1), every special-function unit once."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < length
    x = tl.load(x_ptr + offsets, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + offsets, mask=inside).to(tl.float32)
    d = tl.exp(-tl.abs(x)) * tl.sigmoid(y) + tl.sqrt(x * x + 1.0)
    tl.store(d_ptr + offsets, d.to(d_ptr.dtype.element_ty), mask=inside)


@triton.jit
def row_softmax(  # x, d: [rows, columns]
    x_ptr: tl.tensor, d_ptr: tl.tensor, columns: tl.int32, BLOCK: tl.constexpr
) -> None:
    """Softmax of each row: reductions through shuffles and shared memory."""
    offsets = tl.arange(0, BLOCK)
    inside = offsets < columns
    start = tl.program_id(0) * columns
    x = tl.load(x_ptr + start + offsets, mask=inside, other=float("-inf")).to(tl.float32)
    weights = tl.exp(x - tl.max(x, 0))
    d = weights / tl.sum(weights, 0)
    tl.store(d_ptr + start + offsets, d.to(d_ptr.dtype.element_ty), mask=inside)


@triton.jit
def row_scan(  # x, d: [rows, BLOCK], arg_max: [rows]
    x_ptr: tl.tensor, d_ptr: tl.tensor, arg_max_ptr: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """The running sum and the place of the maximum of each row of int32."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets)
    tl.store(d_ptr + offsets, tl.cumsum(x, 0))
    tl.store(arg_max_ptr + tl.program_id(0), tl.argmax(x, 0))


@triton.jit
def count_values(  # x: [length], counts: [bins], seen: [2], a lock and a sum
    x_ptr: tl.tensor,
    counts_ptr: tl.tensor,
    seen_ptr: tl.tensor,
    length: tl.int32,
    BLOCK: tl.constexpr,
) -> None:
    """Counts each value of x by atomics, and takes a spin lock to add up what was seen."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < length
    x = tl.load(x_ptr + offsets, mask=inside, other=0)
    tl.atomic_add(counts_ptr + x, 1, mask=inside)
    while tl.atomic_cas(seen_ptr, 0, 1) == 1:
        pass
    tl.store(seen_ptr + 1, tl.load(seen_ptr + 1) + tl.sum(inside.to(tl.int32), 0))
    tl.debug_barrier()
    tl.atomic_xchg(seen_ptr, 0)


@triton.jit
def extremes(  # x: [length], largest_smallest: [2]
    x_ptr: tl.tensor, largest_smallest_ptr: tl.tensor, length: tl.int32, BLOCK: tl.constexpr
) -> None:
    """The largest and the smallest of x by atomics."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < length
    largest = tl.max(tl.load(x_ptr + offsets, mask=inside, other=-(2**31)), 0)
    smallest = tl.min(tl.load(x_ptr + offsets, mask=inside, other=2**31 - 1), 0)
    tl.atomic_max(largest_smallest_ptr, largest)
    tl.atomic_min(largest_smallest_ptr + 1, smallest)


@triton.jit
def transpose(  # x: [m, n], d: [n, m]
    x_ptr: tl.tensor, d_ptr: tl.tensor, m: tl.int32, n: tl.int32, BLOCK: tl.constexpr
) -> None:
    """Computes d = x.T through shared memory."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    x = tl.load(x_ptr + rows[:, None] * n + columns[None, :], mask=inside)
    tl.store(d_ptr + columns[:, None] * m + rows[None, :], x.T, mask=inside.T)
