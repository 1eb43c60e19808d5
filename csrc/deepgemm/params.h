// Arguments of the GEMM kernels, laid out alike for the compiler and for the launcher.
#pragma once

#include <cstdint>

#include "primitives/tma.cuh"

namespace openweek::deepgemm {

// Of bf16_gemm. The boxes of the maps are those of bf16_gemm_sm90.cuh, all swizzled by 128 bytes.
struct Bf16GemmParams {
  primitives::TensorMap a;  // [m, k], boxes of 128 rows x 64
  primitives::TensorMap b;  // [n, k], boxes of 64 rows x 64
  primitives::TensorMap d;  // [m, n], boxes of 64 rows x 64
  int32_t m;
  int32_t n;
  int32_t k;
};
static_assert(sizeof(Bf16GemmParams) == 448 && alignof(Bf16GemmParams) == 64);

}  // namespace openweek::deepgemm
