// D[m, n] = C[m, n] + sum over k of A[m, k] B[n, k], FP32, of e4m3 operands that both have a scale
// for every row and 128 columns: the gradient of weights, where k counts tokens. Also once for
// every group of tokens, with a D of its own (Grouping::kAlongK).
//
// As fp8_gemm, whose tiles, pipeline and two levels of sums it has, but for
//   Scales    Those of B differ from column to column of D. A warp of their own copies them into
//             each stage.
//   Groups    A group's rows are as long as the group has tokens, so each has tensor maps of its
//   own,
//             which come as parameters.
//   Epilogue  Each thread adds two neighbours of C and stores them: k is long, and a tile of FP32
//             would take the shared memory of two stages.
#pragma once

#include "deepgemm/fp8_gemm_sm90.cuh"

namespace openweek::deepgemm::fp8_accumulate {

using namespace openweek::primitives;
using fp8_gemm::kBlockK;
using fp8_gemm::kWarpgroupRows;
using fp8_gemm::kWarpgroupThreads;

template <int kBlockM, int kBlockN, int kNumStages, Grouping kGrouping, Share kShare>
struct Config : fp8_gemm::Tiling<kBlockM, kBlockN, kNumStages, kGrouping, kShare> {
  static_assert(kGrouping == Grouping::kDense || kGrouping == Grouping::kAlongK);
  static constexpr uint32_t kNumArrivals = 2;  // at a full stage: bytes announced, scales stored

  struct Storage {
    alignas(1024) uint8_t a[kNumStages][kBlockM * kBlockK];
    alignas(1024) uint8_t b[kNumStages][kBlockN * kBlockK];
    alignas(16) float scale_b[kNumStages][kBlockN];
    Mbarrier full[kNumStages];
    Mbarrier empty[kNumStages];
  };
  static_assert(sizeof(Storage) <= 232448, "an SM has 227 KB for a CTA");

  template <int kMaxGroups>
  __device__ static fp8_gemm::Operands operands(const Fp8AccumulateParams<kMaxGroups>& params,
                                                const Tile& tile) {
    const int32_t group = kGrouping == Grouping::kAlongK ? tile.group : 0;
    return {params.a[group], params.b[group], 0, 0};
  }
};

// One warp. Beyond n there is no scale, and none is needed.
template <class C, class Params>
__device__ void scale_producer(const Params& params, typename C::Storage& storage, uint32_t rank) {
  const int32_t lane = threadIdx.x % 32;
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    for (int32_t k = 0; k < tile.size_k; k += kBlockK) {
      const float* scales =
          params.scale_b.data + (tile.first_k + k) / kBlockK * params.scale_b.k_stride;
      storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);
#pragma unroll 1  // the producers have few registers
      for (int32_t column = lane; column < C::kBlockN; column += 32) {
        const int32_t row = min(tile.column + column, params.problem.n - 1);
        storage.scale_b[at.stage][column] = __ldg(scales + row * params.scale_b.row_stride);
      }
      __syncwarp();
      if (lane == 0) storage.full[at.stage].arrive();
      at.advance();
    }
  }
}

// Of the rows in each wave whose accumulators a thread holds, step by step along k.
template <class C>
class RowScales {
 public:
  template <class Params>
  __device__ RowScales(const Params& params, const Tile& tile, int32_t row)
      : k_stride_(params.scale_a.k_stride) {
#pragma unroll
    for (int i = 0; i < 2 * C::kNumWaves; ++i) {
      const int32_t at = row + i / 2 * C::kNumConsumers * kWarpgroupRows + i % 2 * 8;
      at_[i / 2][i % 2] = params.scale_a.data + tile.first_k / kBlockK * k_stride_ +
                          min(at, params.problem.m - 1) * params.scale_a.row_stride;
    }
  }

  __device__ void next(float (&scales)[C::kNumWaves][2]) {
#pragma unroll
    for (int i = 0; i < 2 * C::kNumWaves; ++i) {
      scales[i / 2][i % 2] = __ldg(at_[i / 2][i % 2]);
      at_[i / 2][i % 2] += k_stride_;
    }
  }

 private:
  const float* at_[C::kNumWaves][2];
  int64_t k_stride_;
};

template <class C, class Params>
__device__ void multiply(fp8_gemm::Sums<C>& sums, const Params& params, const Tile& tile,
                         typename C::Storage& storage, typename C::Stage& at, int consumer_idx) {
  const int thread = threadIdx.x % kWarpgroupThreads;
  const int row = consumer_idx * kWarpgroupRows + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
  for (int i = 0; i < C::kNumWaves * C::kBlockN / 2; ++i) (&sums[0][0])[i] = 0;
  RowScales<C> scales(params, tile, tile.row + row);
  for (int32_t k = 0; k < tile.size_k; k += kBlockK) {
    float scale_a[C::kNumWaves][2];
    scales.next(scale_a);
    storage.full[at.stage].wait(at.phase);
    const float* scale_b = storage.scale_b[at.stage] + thread % 4 * 2;
#pragma unroll
    for (int wave = 0; wave < C::kNumWaves; ++wave) {
      float product[C::kBlockN / 2];
      fp8_gemm::multiply_step<C>(product, storage, at.stage,
                                 wave * C::kNumConsumers + consumer_idx);
#pragma unroll
      for (int i = 0; i < C::kBlockN / 2; ++i) {
        sums[wave][i] += scale_a[wave][i / 2 % 2] * scale_b[i / 4 * 8 + i % 2] * product[i];
      }
    }
    __syncwarp();  // all lanes have read the scales
    fp8_gemm::release<C>(storage, at);
    at.advance();
  }
}

template <class C, class Params>
__device__ void epilogue(const fp8_gemm::Sums<C>& sums, const Params& params, const Tile& tile,
                         int consumer_idx) {
  const int thread = threadIdx.x % kWarpgroupThreads;
  const int32_t first_row = tile.row + thread / 32 * 16 + thread % 32 / 4;
  const int32_t column = tile.column + thread % 4 * 2;
  const int32_t group = C::kGrouping == Grouping::kAlongK ? tile.group : 0;
#pragma unroll
  for (int i = 0; i < 2 * C::kNumWaves; ++i) {
    const int32_t row =
        first_row + (i / 2 * C::kNumConsumers + consumer_idx) * kWarpgroupRows + i % 2 * 8;
    if (row >= params.problem.m) continue;
    const float* c = params.c + group * params.group_stride_c + row * params.row_stride_c;
    float* d = params.d + group * params.group_stride_d + row * params.row_stride_d;
#pragma unroll
    for (int chunk = 0; chunk < C::kBlockN / 8; ++chunk) {
      const int32_t at = column + 8 * chunk;
      if (at >= params.problem.n) continue;
      const float2 old = *reinterpret_cast<const float2*>(c + at);
      const float* two = &sums[i / 2][4 * chunk + i % 2 * 2];
      *reinterpret_cast<float2*>(d + at) = {old.x + two[0], old.y + two[1]};
    }
  }
}

template <class C, class Params>
__device__ void consumer(const Params& params, typename C::Storage& storage, uint32_t rank,
                         int consumer_idx) {
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    fp8_gemm::Sums<C> sums;
    multiply<C>(sums, params, tile, storage, at, consumer_idx);
    epilogue<C>(sums, params, tile, consumer_idx);
  }
}

}  // namespace openweek::deepgemm::fp8_accumulate
