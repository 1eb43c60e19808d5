// wgmma: the four warps of a warpgroup multiply a 64 x K by a K x N matrix from shared memory into
// registers, asynchronously.
//
// Of the 64 x N accumulator, lane l of warp w holds in d[i] the element of
//   row 16 w + l / 4 + 8 ((i / 2) % 2), column 8 (i / 4) + 2 (l % 4) + i % 2.
#pragma once

#include "primitives/smem.cuh"

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

// Operand lists of the instruction, which names every accumulator register. The three inputs follow
// the accumulators, so their numbers depend on how many of those there are.
#define OPENWEEK_NAMES_32                                                                     \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19," \
  " %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define OPENWEEK_NAMES_64                                                                       \
  OPENWEEK_NAMES_32                                                                             \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49," \
  " %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define OPENWEEK_NAMES_96                                                                       \
  OPENWEEK_NAMES_64                                                                             \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81," \
  " %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define OPENWEEK_NAMES_128                                                                        \
  OPENWEEK_NAMES_96                                                                               \
  ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111," \
  " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "   \
  "%127"
#define OPENWEEK_D8(i)                                                                        \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define OPENWEEK_D32(i) OPENWEEK_D8(i), OPENWEEK_D8(i + 8), OPENWEEK_D8(i + 16), OPENWEEK_D8(i + 24)
#define OPENWEEK_D64 OPENWEEK_D32(0), OPENWEEK_D32(32)
#define OPENWEEK_D96 OPENWEEK_D64, OPENWEEK_D32(64)
#define OPENWEEK_D128 OPENWEEK_D96, OPENWEEK_D32(96)
// The ones negate neither operand; 16-bit types say besides that neither is transposed.
#define OPENWEEK_WGMMA(shape_and_types, names, a, b, keep, ones, ...)                    \
  asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, " keep                            \
               ", 0;\n"                                                                  \
               "wgmma.mma_async.sync.aligned." shape_and_types " {" names "}, " a ", " b \
               ", keep, " ones ";\n}"                                                    \
               : __VA_ARGS__                                                             \
               : "l"(a_descriptor), "l"(b_descriptor), "r"(static_cast<uint32_t>(accumulate)))

// d = a b^T, or d += a b^T if `accumulate`; K is 32 bytes: 16 elements of bf16, 32 of e4m3.
template <Element kElement, int kN>
  requires(kN == 64 || kN == 128 || kN == 192 || kN == 256)
__device__ __forceinline__ void wgmma(float (&d)[kN / 2], uint64_t a_descriptor,
                                      uint64_t b_descriptor, bool accumulate) {
#define OPENWEEK_WGMMA_N(n, names, a, b, keep, ...)                                             \
  if constexpr (kElement == Element::kBf16) {                                                   \
    OPENWEEK_WGMMA("m64n" n "k16.f32.bf16.bf16", names, a, b, keep, "1, 1, 0, 0", __VA_ARGS__); \
  } else {                                                                                      \
    OPENWEEK_WGMMA("m64n" n "k32.f32.e4m3.e4m3", names, a, b, keep, "1, 1", __VA_ARGS__);       \
  }
  if constexpr (kN == 64) {
    OPENWEEK_WGMMA_N("64", OPENWEEK_NAMES_32, "%32", "%33", "%34", OPENWEEK_D32(0));
  } else if constexpr (kN == 128) {
    OPENWEEK_WGMMA_N("128", OPENWEEK_NAMES_64, "%64", "%65", "%66", OPENWEEK_D64);
  } else if constexpr (kN == 192) {
    OPENWEEK_WGMMA_N("192", OPENWEEK_NAMES_96, "%96", "%97", "%98", OPENWEEK_D96);
  } else {
    OPENWEEK_WGMMA_N("256", OPENWEEK_NAMES_128, "%128", "%129", "%130", OPENWEEK_D128);
  }
#undef OPENWEEK_WGMMA_N
}

#undef OPENWEEK_WGMMA
#undef OPENWEEK_D128
#undef OPENWEEK_D96
#undef OPENWEEK_D64
#undef OPENWEEK_D32
#undef OPENWEEK_D8
#undef OPENWEEK_NAMES_128
#undef OPENWEEK_NAMES_96
#undef OPENWEEK_NAMES_64
#undef OPENWEEK_NAMES_32

}  // namespace openweek::primitives
