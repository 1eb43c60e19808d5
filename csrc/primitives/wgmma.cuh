// wgmma: the four warps of a warpgroup multiply a 64 x K by a K x N matrix from shared memory into
// registers, asynchronously.
//
// Of the 64 x N accumulator, lane l of warp w holds in d[i] the element of
//   row 16 w + l / 4 + 8 ((i / 2) % 2), column 8 (i / 4) + 2 (l % 4) + i % 2.
#pragma once

#include "primitives/smem.cuh"
#include "primitives/wgmma_shapes.cuh"

namespace openweek::primitives {

enum class Element { kBf16, kE4m3 };

// Describes a K-major matrix (its rows run along k) whose rows are as long as the swizzle pattern:
// 8 rows are one pattern, the next 8 rows follow. It lies at a shared address that begins a
// pattern. To go on along k inside the row, add bytes >> 4: the hardware swizzles the final
// address.
template <Swizzle kSwizzle>
constexpr uint64_t k_major_descriptor(uint32_t address) {
  static_assert(kSwizzle != Swizzle::kNone, "without swizzle, the leading offset means something");
  constexpr uint64_t kEightRows = 8 * swizzle_row_bytes(kSwizzle);
  constexpr uint64_t kLeadingOffset = 1;  // not used with a swizzle
  return uint64_t{(address & 0x3FFFF) >> 4} | kLeadingOffset << 16 | kEightRows >> 4 << 32 |
         static_cast<uint64_t>(kSwizzle) << 62;
}

// Describes an MN-major matrix of 2-byte elements, swizzled by 128 bytes: panels of 64 elements of
// m or n, each with a row of 128 bytes for every k, `kPanelBytes` apart. To go on along k, add 128
// bytes for each.
template <uint32_t kPanelBytes>
constexpr uint64_t mn_major_descriptor(uint32_t address) {
  constexpr uint64_t kEightRows = 8 * 128;
  return uint64_t{(address & 0x3FFFF) >> 4} | uint64_t{kPanelBytes >> 4} << 16 |
         kEightRows >> 4 << 32 | static_cast<uint64_t>(Swizzle::k128B) << 62;
}

// Before the first wgmma, and when the warpgroup has touched registers that the next one takes.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Closes the group of the products since the last one.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until all but the last `kNumPending` groups are done: their operands may be overwritten.
template <int kNumPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kNumPending) : "memory");
}

// Until all are done: the accumulators may be read. They have changed behind the compiler's back,
// so it is told that they change here: no read of them moves up across the wait.
template <int kSize>
__device__ __forceinline__ void wgmma_wait_all(float (&d)[kSize]) {
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Whether the rows of an operand run along k, or along the other dim (m of A, n of B). Types of 8
// bits know the first alone.
enum class Major { kK, kMn };

constexpr int wgmma_k(Element element) { return element == Element::kBf16 ? 16 : 32; }

// d = a b^T, or d += a b^T if `accumulate`; K is 32 bytes: 16 elements of bf16, 32 of e4m3.
template <Element kElement, int kN, Major kMajorA = Major::kK, Major kMajorB = Major::kK>
  requires(kN % 8 == 0 && kN >= 8 && kN <= 256 &&
           (kElement == Element::kBf16 || (kMajorA == Major::kK && kMajorB == Major::kK)))
__device__ __forceinline__ void wgmma(float (&d)[kN / 2], uint64_t a_descriptor,
                                      uint64_t b_descriptor, bool accumulate) {
// The ones negate neither operand.
#define OPENWEEK_WGMMA(n, r, a, b, keep, transposed_a, transposed_b)                              \
  if constexpr (kN == n && kElement == Element::kBf16) {                                          \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep                                   \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n                                     \
                 "k16.f32.bf16.bf16 {" OPENWEEK_NAMES_##r                                         \
                 "}, " a ", " b ", keep, 1, 1, " transposed_a ", " transposed_b ";\n}"            \
                 : OPENWEEK_D_##r                                                                 \
                 : "l"(a_descriptor), "l"(b_descriptor), "r"(static_cast<uint32_t>(accumulate)),  \
                   "n"(static_cast<int>(kMajorA)), "n"(static_cast<int>(kMajorB)));               \
  } else if constexpr (kN == n) {                                                                 \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep                                   \
                 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n                                     \
                 "k32.f32.e4m3.e4m3 {" OPENWEEK_NAMES_##r "}, " a ", " b ", keep, 1, 1;\n}"       \
                 : OPENWEEK_D_##r                                                                 \
                 : "l"(a_descriptor), "l"(b_descriptor), "r"(static_cast<uint32_t>(accumulate))); \
  }
  OPENWEEK_WGMMA_SHAPES(OPENWEEK_WGMMA)
#undef OPENWEEK_WGMMA
}

}  // namespace openweek::primitives
