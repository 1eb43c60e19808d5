"""An FP8 matrix product with block scales as one writes it in Triton: a peer, not a product."""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def block_scaled_gemm(
    a: tl.tensor,  # [m, k] e4m3
    a_scale: tl.tensor,  # [m, ceil(k / 128)] float32
    b: tl.tensor,  # [n, k] e4m3
    b_scale: tl.tensor,  # [ceil(n / 128), ceil(k / 128)] float32
    d: tl.tensor,  # [m, n] bf16
    m: tl.int32,
    n: tl.int32,
    k: tl.int32,
    stride_a: tl.int32,
    stride_a_scale: tl.int32,
    step_a_scale: tl.int32,
    stride_b: tl.int32,
    stride_b_scale: tl.int32,
    step_b_scale: tl.int32,
    stride_d: tl.int32,
    BLOCK_M: tl.constexpr,
) -> None:
    """A program for each BLOCK_M x 128 of d, in bands of 8 rows of programs for L2."""
    block: tl.constexpr = 128
    band: tl.constexpr = 8
    rows, columns = tl.cdiv(m, BLOCK_M), tl.cdiv(n, block)
    turn = tl.program_id(0)
    first = turn // (band * columns) * band
    height = tl.minimum(rows - first, band)
    within = turn - first * columns
    row, column = first + within % height, within // height

    m_idx = (row * BLOCK_M + tl.arange(0, BLOCK_M)) % m
    n_idx = (column * block + tl.arange(0, block)) % n
    k_idx = tl.arange(0, block)
    a_at = a + m_idx[:, None] * stride_a + k_idx[None, :]
    b_at = b + n_idx[None, :] * stride_b + k_idx[:, None]
    total = tl.zeros((BLOCK_M, block), dtype=tl.float32)
    for step in range(tl.cdiv(k, block)):
        rest = k - step * block
        a_tile = tl.load(a_at + step * block, mask=k_idx[None, :] < rest, other=0.0)
        b_tile = tl.load(b_at + step * block, mask=k_idx[:, None] < rest, other=0.0)
        scale_of_a = tl.load(a_scale + m_idx * stride_a_scale + step * step_a_scale)
        scale_of_b = tl.load(b_scale + column * stride_b_scale + step * step_b_scale)
        total += tl.dot(a_tile, b_tile) * (scale_of_a * scale_of_b)[:, None]
    m_out = row * BLOCK_M + tl.arange(0, BLOCK_M)
    n_out = column * block + tl.arange(0, block)
    inside = (m_out[:, None] < m) & (n_out[None, :] < n)
    tl.store(d + m_out[:, None] * stride_d + n_out[None, :], total.to(tl.bfloat16), mask=inside)
