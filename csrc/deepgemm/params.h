// Arguments of the GEMM kernels, laid out alike for the compiler and for the launcher.
#pragma once

#include <cstdint>

#include "primitives/tma.cuh"

namespace openweek::deepgemm {

// D[m, n] = sum over k of A[m, k] B[n, k], once or for every group. Of scheduler.cuh.
struct Problem {
  const int32_t* layout;  // of the groups; null for one product
  int32_t m;
  int32_t n;
  int32_t k;
  int32_t num_groups;
};

// FP32 scales of an operand, by which its elements are multiplied; strides in elements.
struct Scales {
  const float* data;
  int64_t row_stride;  // from one row, or block of 128 rows, to the next
  int64_t k_stride;    // from one block of 128 columns to the next
  int64_t group_stride;
};

// Of fp8_gemm and fp8_gemm_small_m. All maps have three dims, the first of which counts groups or
// is 1; boxes are those of the kernels, swizzled by 128 bytes, those of D by the width of a panel.
struct Fp8GemmParams {
  primitives::TensorMap a;  // [groups or 1, m, k] e4m3
  primitives::TensorMap b;  // [groups, n, k] e4m3
  primitives::TensorMap d;  // [groups or 1, m, n] bf16
  Scales scale_a;           // by rows
  Scales scale_b;           // by blocks of 128 rows
  Problem problem;
};

// Of fp8_accumulate: maps of [1, m, k] and [1, n, k], a pair for each group.
template <int kMaxGroups>
struct Fp8AccumulateParams {
  primitives::TensorMap a[kMaxGroups];
  primitives::TensorMap b[kMaxGroups];
  Scales scale_a;  // by rows; the blocks along k of all groups one after another
  Scales scale_b;
  const float* c;  // [groups or 1, m, n]
  float* d;        // may be c
  int64_t row_stride_c;
  int64_t group_stride_c;
  int64_t row_stride_d;
  int64_t group_stride_d;
  Problem problem;
};

// Of cast_fp8.
struct CastParams {
  const void* x;  // [rows, columns] bf16, fp16 or fp32
  uint8_t* data;  // [rows, columns] e4m3, contiguous
  float* scale;   // contiguous: [rows, blocks], [blocks, columns] or [blocks, blocks]
  int64_t row_stride;
  int32_t rows;
  int32_t columns;
  bool to_power_of_two;
};

// A row-major matrix of FP32, or one for every group; strides in elements, and even.
struct Fp32Matrix {
  float* data;
  int64_t row_stride;
  int64_t group_stride;
};

// What a product is written as: bf16 by TMA, or FP32, which it may be added to.
enum class Output { kBf16, kFp32 };

// Of bf16_gemm. All maps have three dims, the first of which counts groups or is 1; a and b name
// their dims in the order of their strides. Boxes are those of the kernel, swizzled by 128 bytes,
// those of D by the width of a panel.
template <Output>
struct Bf16GemmParams {
  primitives::TensorMap a;  // [groups or 1, m, k] or [groups or 1, k, m]
  primitives::TensorMap b;  // [groups or 1, n, k] or [groups or 1, k, n]
  primitives::TensorMap d;  // [groups or 1, m, n]
  Problem problem;
};

template <>
struct Bf16GemmParams<Output::kFp32> {
  primitives::TensorMap a;
  primitives::TensorMap b;
  Fp32Matrix c;  // D = C + A B^T; null for nothing; may be d
  Fp32Matrix d;
  Problem problem;
};

}  // namespace openweek::deepgemm
