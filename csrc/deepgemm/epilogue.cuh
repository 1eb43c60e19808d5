// From the accumulators of a warpgroup to D: rounded to bf16, through shared memory, by TMA.
#pragma once

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

// Sets rows that are padding to zero: a thread holds columns of two rows.
template <int kSize>
__device__ void clear_rows(float (&sum)[kSize], bool keeps_first, bool keeps_second) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) sum[i] = (i & 2 ? keeps_second : keeps_first) ? sum[i] : 0.0f;
}

}  // namespace openweek::deepgemm
