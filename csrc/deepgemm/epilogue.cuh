// From the accumulators of a warpgroup to D: rounded to bf16, through shared memory, by TMA; or in
// FP32, added to C, straight from registers.
#pragma once

#include "deepgemm/params.h"
#include "primitives/barrier.cuh"
#include "primitives/memory_order.cuh"
#include "primitives/tma.cuh"

namespace openweek::deepgemm {

// How 64 rows of D lie in shared memory: panels of as many columns as divide the tile and fit a row
// of a swizzle.
template <int kBlockN>
struct Panels {
  static_assert(kBlockN % 16 == 0);
  static constexpr int kColumns = kBlockN % 64 == 0 ? 64 : kBlockN % 32 == 0 ? 32 : 16;
  static constexpr int kCount = kBlockN / kColumns;
  static constexpr int kRowBytes = 2 * kColumns;
  static constexpr int kBytes = 64 * kRowBytes;  // of a panel
  static constexpr primitives::Swizzle kSwizzle = kColumns == 64   ? primitives::Swizzle::k128B
                                                  : kColumns == 32 ? primitives::Swizzle::k64B
                                                                   : primitives::Swizzle::k32B;
};

// Writes 64 rows of accumulators, all threads of a warpgroup, into `panels`.
template <int kBlockN>
__device__ void stage_bf16(const float (&sum)[kBlockN / 2], uint8_t* panels) {
  using P = Panels<kBlockN>;
  const uint32_t thread = threadIdx.x % 128;
  const uint32_t lane = thread % 32;
  const uint32_t row = thread / 32 * 16 + lane % 16;
#pragma unroll
  for (int column = 0; column < kBlockN; column += 16) {  // two chunks of 16 bytes
    const float* four = sum + column / 2;
    const uint32_t matrices[4] = {
        primitives::pack_bf16(four[0], four[1]), primitives::pack_bf16(four[2], four[3]),
        primitives::pack_bf16(four[4], four[5]), primitives::pack_bf16(four[6], four[7])};
    const uint8_t* panel = panels + column / P::kColumns * P::kBytes;
    const uint32_t chunk = column % P::kColumns / 8 + lane / 16;
    const uint32_t address = primitives::shared_address(panel) + row * P::kRowBytes + chunk * 16;
    primitives::store_matrices(primitives::swizzled<P::kSwizzle>(address), matrices);
  }
}

// Calls visit(two neighbours of the matrix, their sums) for what one thread holds of the 64 rows
// that begin at (row, column), as far as they lie in the problem's m x n.
template <int kBlockN, class Visit>
__device__ void for_each_pair(float (&sum)[kBlockN / 2], const Fp32Matrix& matrix,
                              const Problem& problem, int32_t group, int32_t row, int32_t column,
                              Visit visit) {
  const int32_t thread = threadIdx.x % 128;
  column += thread % 4 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t its_row = row + thread / 32 * 16 + thread % 32 / 4 + 8 * half;
    if (its_row >= problem.m) continue;
    float* begin = matrix.data + group * matrix.group_stride + its_row * matrix.row_stride;
#pragma unroll
    for (int i = 0; i < kBlockN; i += 8) {
      if (column + i >= problem.n) continue;
      float* two = sum + i / 2 + 2 * half;
      visit(*reinterpret_cast<float2*>(begin + column + i), two[0], two[1]);
    }
  }
}

// D = C + sum for 64 rows, all threads of a warpgroup. C may be D: who writes an element has read
// it. All is read first, as nothing is read ahead of a write that might change it.
template <int kBlockN>
__device__ void add_and_store_fp32(float (&sum)[kBlockN / 2], const Fp32Matrix& c,
                                   const Fp32Matrix& d, const Problem& problem, int32_t group,
                                   int32_t row, int32_t column) {
  if (c.data != nullptr) {
    for_each_pair<kBlockN>(sum, c, problem, group, row, column,
                           [](const float2& old, float& x, float& y) { x += old.x, y += old.y; });
  }
  for_each_pair<kBlockN>(sum, d, problem, group, row, column,
                         [](float2& now, float x, float y) { now = make_float2(x, y); });
}

// Sets rows that are padding to zero: a thread holds columns of two rows.
template <int kSize>
__device__ void clear_rows(float (&sum)[kSize], bool keeps_first, bool keeps_second) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) sum[i] = (i & 2 ? keeps_second : keeps_first) ? sum[i] : 0.0f;
}

}  // namespace openweek::deepgemm
