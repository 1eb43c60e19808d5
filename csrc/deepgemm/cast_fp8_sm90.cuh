// Casts to e4m3 with one FP32 scale for every row and 128 columns, every column and 128 rows, or
// every 128 x 128 elements: scale = largest absolute value / 448 (at least 1e-4 / 448), data = x /
// scale.
//
// Tiling    A CTA of 8 warps takes 128 x 128 elements: each warp 16 rows, each lane 4 columns, all
// of
//           them in registers between the maximum and the division.
// Bound     Reading x once and writing a byte for each element.
// Needs     columns a multiple of 4; rows of x that begin at a multiple of 4 elements.
#pragma once

#include "deepgemm/params.h"

namespace openweek::deepgemm::cast_fp8 {

enum class Input { kBf16, kFp16, kFp32 };
enum class Granularity { kRow, kColumn, kBlock };  // 1 x 128, 128 x 1, 128 x 128

constexpr int kBlock = 128;
constexpr int kNumWarps = 8;
constexpr int kRowsOfWarp = kBlock / kNumWarps;
constexpr int kColumnsOfLane = kBlock / 32;
constexpr float kLargest = 448.0f;  // e4m3
constexpr float kSmallestMaximum = 1e-4f;
constexpr float kLargestFloat = 3.402823466e38f;

// Unlike fmaxf, NaN if one of them is: a NaN must not vanish from its scale.
__device__ __forceinline__ float max_or_nan(float a, float b) {
  float largest;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(largest) : "f"(a), "f"(b));
  return largest;
}

template <Input kInput>
__device__ __forceinline__ void load_four(float (&four)[4], const void* x, int64_t at) {
  if constexpr (kInput == Input::kFp32) {
    const float4 loaded = __ldg(reinterpret_cast<const float4*>(static_cast<const float*>(x) + at));
    four[0] = loaded.x, four[1] = loaded.y, four[2] = loaded.z, four[3] = loaded.w;
    return;
  }
  const uint2 loaded = __ldg(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(x) + at));
  const uint32_t halves[4] = {loaded.x & 0xffff, loaded.x >> 16, loaded.y & 0xffff, loaded.y >> 16};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kInput == Input::kBf16) {
      four[i] = __uint_as_float(halves[i] << 16);
    } else {
      asm("cvt.f32.f16 %0, %1;" : "=f"(four[i]) : "h"(static_cast<uint16_t>(halves[i])));
    }
  }
}

// The power of two that is not below a positive number.
__device__ __forceinline__ float ceil_to_power_of_two(float x) {
  const uint32_t bits = __float_as_uint(x);
  return __uint_as_float((bits & 0x007fffff) == 0 ? bits : (bits & 0x7f800000) + 0x00800000);
}

__device__ __forceinline__ float scale_of(float maximum, bool to_power_of_two) {
  const float scale = max_or_nan(maximum, kSmallestMaximum) / kLargest;
  // NaN and infinity have no power of two above.
  return to_power_of_two && scale <= kLargestFloat ? ceil_to_power_of_two(scale) : scale;
}

__device__ __forceinline__ uint32_t four_to_e4m3(const float (&x)[4], const float (&scale)[4]) {
  uint16_t low, high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;"
      : "=h"(low)
      : "f"(x[1] / scale[1]), "f"(x[0] / scale[0]));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;"
      : "=h"(high)
      : "f"(x[3] / scale[3]), "f"(x[2] / scale[2]));
  return low | uint32_t{high} << 16;
}

__device__ __forceinline__ float maximum_of_warp(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    value = max_or_nan(value, __shfl_xor_sync(0xffffffff, value, mask));
  }
  return value;
}

// A warp's maxima of four columns, or of all of them, over the rows of all warps.
template <Granularity kGranularity>
__device__ void maxima_of_block(float (&maxima)[4], float (&storage)[kNumWarps][kBlock], int warp,
                                int lane) {
  if constexpr (kGranularity == Granularity::kBlock) {
    const float two[2] = {max_or_nan(maxima[0], maxima[1]), max_or_nan(maxima[2], maxima[3])};
    maxima[0] = maximum_of_warp(max_or_nan(two[0], two[1]));
#pragma unroll
    for (int i = 1; i < 4; ++i) maxima[i] = maxima[0];
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) storage[warp][kColumnsOfLane * lane + i] = maxima[i];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    for (int other = 0; other < kNumWarps; ++other) {
      maxima[i] = max_or_nan(maxima[i], storage[other][kColumnsOfLane * lane + i]);
    }
  }
}

template <Input kInput, Granularity kGranularity>
__device__ void cast_block(const CastParams& params) {
  __shared__ float storage[kNumWarps][kBlock];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int32_t first_row = static_cast<int32_t>(blockIdx.y) * kBlock + warp * kRowsOfWarp;
  const int32_t column = static_cast<int32_t>(blockIdx.x) * kBlock + kColumnsOfLane * lane;
  const bool has_columns = column < params.columns;
  const bool is_power = params.to_power_of_two;

  float x[kRowsOfWarp][4];
  float maxima[4] = {};
#pragma unroll
  for (int i = 0; i < kRowsOfWarp; ++i) {
    const int32_t row = first_row + i;
#pragma unroll
    for (int j = 0; j < 4; ++j) x[i][j] = 0;
    if (has_columns && row < params.rows) {
      load_four<kInput>(x[i], params.x, row * params.row_stride + column);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) maxima[j] = max_or_nan(maxima[j], fabsf(x[i][j]));
  }

  float scales[4];
  if constexpr (kGranularity != Granularity::kRow) {
    maxima_of_block<kGranularity>(maxima, storage, warp, lane);
#pragma unroll
    for (int j = 0; j < 4; ++j) scales[j] = scale_of(maxima[j], is_power);
    if constexpr (kGranularity == Granularity::kBlock) {
      if (threadIdx.x == 0) params.scale[blockIdx.y * gridDim.x + blockIdx.x] = scales[0];
    } else if (warp == 0 && has_columns) {
      const int64_t at = static_cast<int64_t>(blockIdx.y) * params.columns + column;
      *reinterpret_cast<float4*>(params.scale + at) = {scales[0], scales[1], scales[2], scales[3]};
    }
  }
#pragma unroll
  for (int i = 0; i < kRowsOfWarp; ++i) {
    const int32_t row = first_row + i;
    if constexpr (kGranularity == Granularity::kRow) {
      const float two[2] = {max_or_nan(fabsf(x[i][0]), fabsf(x[i][1])),
                            max_or_nan(fabsf(x[i][2]), fabsf(x[i][3]))};
      const float scale = scale_of(maximum_of_warp(max_or_nan(two[0], two[1])), is_power);
#pragma unroll
      for (int j = 0; j < 4; ++j) scales[j] = scale;
      if (lane == 0 && row < params.rows) {
        params.scale[static_cast<int64_t>(row) * gridDim.x + blockIdx.x] = scale;
      }
    }
    if (has_columns && row < params.rows) {
      const int64_t at = static_cast<int64_t>(row) * params.columns + column;
      *reinterpret_cast<uint32_t*>(params.data + at) = four_to_e4m3(x[i], scales);
    }
  }
}

}  // namespace openweek::deepgemm::cast_fp8
