// D[m, n] = sum over k of A[m, k] B[n, k]: e4m3 in, bf16 out. A has an FP32 scale for every row and
// 128 columns, B one for every 128 x 128 elements.
//
// Sums      The tensor core adds the products of FP8 with fewer bits than FP32. So its accumulators
//           hold 128 columns only, and are then multiplied by both scales and added to sums that
//           the CUDA cores keep in FP32 (DeepSeek-V3 technical report, section 3.3.2).
// Tiling    kBlockM x kBlockN of D per CTA in steps of 128 in k. In a cluster of two, what both
// CTAs
//           need alike is loaded by halves, each half for both (multicast).
// Roles     Warpgroup 0 produces: one thread drives TMA. One or two more consume, 64 rows at a
// time;
//           with 256 rows each takes two turns per step. While one warpgroup scales, the tensor
//           core works for the other.
// Pipeline  kNumStages stages, each with two mbarriers:
//
//             producer   wait empty[s] -> expect bytes, TMA A and B -> full[s]
//             consumer   wait full[s]  -> 4 wgmma of k 32 -> empty[s] of the cluster -> scale, add
//
//           Scales come through the read-only cache, one step ahead, with any strides: no pass
//           before the kernel has to lay them out. Stages of the next tile fill while this one is
//           stored.
// Epilogue  Sums -> bf16 -> stmatrix, swizzled -> TMA store, which clips at m and n, and which the
//           next tile's epilogue waits for.
// Bound     2 m n k flops at 1979 TFLOPS, or the bytes of A, B and D. Within an SM, reading
// operands
//           from shared memory: (4096 / kBlockM + 4096 / kBlockN + 64 + 4096 / kBlockN) bytes per
//           clock of the 128 there are, at full tensor speed; so tiles are as large as registers
//           allow.
// Needs     k a multiple of 16, n of 8; m, n, k > 0.
#pragma once

#include "deepgemm/epilogue.cuh"
#include "deepgemm/scheduler.cuh"
#include "primitives/grid.cuh"
#include "primitives/pipeline.cuh"
#include "primitives/registers.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::deepgemm::fp8_gemm {

using namespace openweek::primitives;

constexpr int kBlockK = 128;  // bytes: a row of the swizzle, and the columns of a scale
constexpr int kWarpgroupThreads = 128;
constexpr int kWarpgroupRows = 64;
constexpr int kScaleRows = 128;  // of B

constexpr int greatest_common_divisor(int a, int b) {
  return b == 0 ? a : greatest_common_divisor(b, a % b);
}

// A tile of kBlockN columns may lie in two blocks of scales of B, never in three.
constexpr bool is_block_n(int n) {
  return n % 16 == 0 && n >= 16 && (n <= 128 || n == 144 || n == 160 || n == 192);
}

// Where the operands of a tile are.
struct Operands {
  const TensorMap& a;
  const TensorMap& b;
  int32_t group_a;  // coordinates of the maps' outermost dims
  int32_t group_b;
};

template <int kBlockM_, int kBlockN_, int kNumStages_, Grouping kGrouping_, Share kShare_>
struct Tiling {
  static constexpr int kBlockM = kBlockM_;
  static constexpr int kBlockN = kBlockN_;
  static constexpr int kNumStages = kNumStages_;
  static constexpr Grouping kGrouping = kGrouping_;
  static constexpr Share kShare = kShare_;
  static_assert(kBlockM == 64 || kBlockM == 128 || (kBlockM == 256 && kBlockN <= 128));
  static_assert(is_block_n(kBlockN));

  static constexpr int kClusterSize = cluster_size(kShare);
  static constexpr int kNumConsumers = kBlockM == 64 ? 1 : 2;  // warpgroups
  static constexpr int kNumWaves = kBlockM / (kNumConsumers * kWarpgroupRows);
  static constexpr int kNumThreads = (1 + kNumConsumers) * kWarpgroupThreads;
  // What one CTA loads of A and B; the other half comes from its peer.
  static constexpr int kLoadedRowsA = kBlockM / (kShare == Share::kA ? 2 : 1);
  static constexpr int kLoadedRowsB = kBlockN / (kShare == Share::kB ? 2 : 1);
  static constexpr uint32_t kStageBytes = (kBlockM + kBlockN) * kBlockK;
  // A stage is free when every consumer warp that reads what multicast puts there has done so.
  static constexpr uint32_t kNumReaders = kClusterSize * kNumConsumers * kWarpgroupThreads / 32;
  // 128 * 40 + 256 * 232 = 384 * 168, the share of 65536 registers that three warpgroups start
  // with.
  static constexpr uint32_t kProducerRegisters = 40;
  static constexpr uint32_t kConsumerRegisters = 232;

  using Stage = RingPosition<kNumStages>;
  using Scheduler = TileScheduler<kGrouping, kBlockM, kBlockN, kShare>;
};

template <int kBlockM, int kBlockN, int kNumStages, Grouping kGrouping, Share kShare>
struct Config : Tiling<kBlockM, kBlockN, kNumStages, kGrouping, kShare> {
  using Base = Tiling<kBlockM, kBlockN, kNumStages, kGrouping, kShare>;
  static constexpr uint32_t kNumArrivals = 1;  // at a full stage

  // The engines swizzle by address bits, so each box begins at a multiple of 1024 bytes.
  struct Storage {
    alignas(1024) uint8_t a[kNumStages][kBlockM * kBlockK];
    alignas(1024) uint8_t b[kNumStages][kBlockN * kBlockK];
    alignas(1024) uint8_t
        d[Base::kNumWaves][Base::kNumConsumers][Panels<kBlockN>::kCount * Panels<kBlockN>::kBytes];
    Mbarrier full[kNumStages];
    Mbarrier empty[kNumStages];
  };
  static_assert(sizeof(Storage) <= 232448, "an SM has 227 KB for a CTA");

  __device__ static Operands operands(const Fp8GemmParams& params, const Tile& tile) {
    return {params.a, params.b, kGrouping == Grouping::kMasked ? tile.group : 0, tile.group};
  }
};

enum NamedBarrier : uint32_t { kEpilogueBarrier = 1 };  // and the next one, for consumer 1

// One thread. The peer's bytes may land in a stage before this thread expects them, but never
// before its own consumers have freed it: the peer waited for them as well.
template <class C, class Params>
__device__ void producer(const Params& params, typename C::Storage& storage, uint32_t rank) {
  constexpr uint16_t kBothCtas = 3;
  const auto load = [&](uint8_t* tile, const TensorMap& map, const Mbarrier& full, bool is_shared,
                        int loaded_rows, int32_t k, int32_t row, int32_t group) {
    if (!is_shared) return tma_load(tile, map, full, k, row, group);
    const int32_t half = static_cast<int32_t>(rank) * loaded_rows;
    tma_load_multicast(tile + half * kBlockK, map, full, kBothCtas, k, row + half, group);
  };
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    const Operands from = C::operands(params, tile);
    for (int32_t k = 0; k < tile.size_k; k += kBlockK) {
      Mbarrier& full = storage.full[at.stage];
      storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);
      full.arrive_and_expect(C::kStageBytes);
      load(storage.a[at.stage], from.a, full, C::kShare == Share::kA, C::kLoadedRowsA, k, tile.row,
           from.group_a);
      load(storage.b[at.stage], from.b, full, C::kShare == Share::kB, C::kLoadedRowsB, k,
           tile.column, from.group_b);
      at.advance();
    }
  }
}

// The scales that one thread needs, step by step along k: of the two rows in each wave whose
// accumulators it holds, and of the one or two blocks of B that the tile lies in.
template <class C>
class ScaleReader {
 public:
  struct Step {
    float a[C::kNumWaves][2];
    float b[2];
  };

  // `row`: the first of the thread's, within its tile's group.
  __device__ ScaleReader(const Fp8GemmParams& params, const Tile& tile, int32_t row) {
    const int32_t group_a = C::kGrouping == Grouping::kMasked ? tile.group : 0;
    const float* a = params.scale_a.data + group_a * params.scale_a.group_stride;
    const float* b = params.scale_b.data + tile.group * params.scale_b.group_stride;
    // Beyond m and n no scale is there, and none is needed.
    const int32_t last_row = params.problem.m - 1;
    const int32_t last_block = (params.problem.n - 1) / kScaleRows;
#pragma unroll
    for (int i = 0; i < 2 * C::kNumWaves; ++i) {
      const int32_t at = row + i / 2 * C::kNumConsumers * kWarpgroupRows + i % 2 * 8;
      a_[i / 2][i % 2] = a + min(at, last_row) * params.scale_a.row_stride;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      b_[i] = b + min(tile.column / kScaleRows + i, last_block) * params.scale_b.row_stride;
    }
    k_stride_a_ = params.scale_a.k_stride;
    k_stride_b_ = params.scale_b.k_stride;
  }

  __device__ Step next() {
    Step step;
#pragma unroll
    for (int i = 0; i < 2 * C::kNumWaves; ++i) {
      step.a[i / 2][i % 2] = __ldg(a_[i / 2][i % 2]);
      a_[i / 2][i % 2] += k_stride_a_;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      step.b[i] = __ldg(b_[i]);
      b_[i] += k_stride_b_;
    }
    return step;
  }

 private:
  const float* a_[C::kNumWaves][2];
  const float* b_[2];
  int64_t k_stride_a_;
  int64_t k_stride_b_;
};

// sum += scales * product. The first kFormer columns lie in the first block of scales of B.
template <int kFormer, int kSize>
__device__ void add_scaled(float (&sum)[kSize], const float (&product)[kSize],
                           const float (&scale_a)[2], const float (&scale_b)[2]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    const bool former = i / 4 * 8 < kFormer;
    sum[i] += scale_a[i / 2 % 2] * scale_b[former ? 0 : 1] * product[i];
  }
}

// The same for a number of columns that only the tile knows: each one that it may be is compiled,
// which costs a branch, where a choice in the loop would cost one per column. Tiles begin at
// multiples of what divides both their width and that of a block.
template <int kBlockN, int kFormer = kBlockN < kScaleRows ? kBlockN : kScaleRows, int kSize>
__device__ void add_scaled_at(int former, float (&sum)[kSize], const float (&product)[kSize],
                              const float (&scale_a)[2], const float (&scale_b)[2]) {
  constexpr int kStep = greatest_common_divisor(kBlockN, kScaleRows);
  if constexpr (kFormer > kStep) {
    if (former != kFormer) {
      return add_scaled_at<kBlockN, kFormer - kStep>(former, sum, product, scale_a, scale_b);
    }
  }
  add_scaled<kFormer>(sum, product, scale_a, scale_b);
}

// One warp tells the producers of the cluster that it has read a stage.
template <class C>
__device__ void release(typename C::Storage& storage, const typename C::Stage& at) {
  const uint32_t lane = threadIdx.x % 32;
  if (lane < C::kClusterSize) storage.empty[at.stage].arrive_at_as_reader(lane);
}

// 64 rows of A, the which-th in the tile, times all of B in a stage.
template <class C>
__device__ void multiply_step(float (&product)[C::kBlockN / 2], const typename C::Storage& storage,
                              uint32_t stage, int which) {
  constexpr int kStep = wgmma_k(Element::kE4m3);
  const uint64_t a = k_major_descriptor<Swizzle::k128B>(
      shared_address(storage.a[stage] + which * kWarpgroupRows * kBlockK));
  const uint64_t b = k_major_descriptor<Swizzle::k128B>(shared_address(storage.b[stage]));
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < kBlockK; k += kStep) {
    wgmma<Element::kE4m3, C::kBlockN>(product, a + (k >> 4), b + (k >> 4), k > 0);
  }
  wgmma_commit();
  wgmma_wait_all(product);
}

template <class C>
using Sums = float[C::kNumWaves][C::kBlockN / 2];

// The rows of a tile that a consumer has, summed over k.
template <class C>
__device__ void multiply(Sums<C>& sums, const Fp8GemmParams& params, const Tile& tile,
                         typename C::Storage& storage, typename C::Stage& at, int consumer_idx) {
  const int thread = threadIdx.x % kWarpgroupThreads;
  const int row = consumer_idx * kWarpgroupRows + thread / 32 * 16 + thread % 32 / 4;
  const int former = min(C::kBlockN, kScaleRows - tile.column % kScaleRows);
#pragma unroll
  for (int i = 0; i < C::kNumWaves * C::kBlockN / 2; ++i) (&sums[0][0])[i] = 0;
  if (tile.size_k == 0) return;
  ScaleReader<C> scales(params, tile, tile.row + row);
  typename ScaleReader<C>::Step ahead = scales.next();
  for (int32_t k = 0; k < tile.size_k; k += kBlockK) {
    const typename ScaleReader<C>::Step scale = ahead;
    if (k + kBlockK < tile.size_k) ahead = scales.next();
    storage.full[at.stage].wait(at.phase);
#pragma unroll
    for (int wave = 0; wave < C::kNumWaves; ++wave) {
      float product[C::kBlockN / 2];
      multiply_step<C>(product, storage, at.stage, wave * C::kNumConsumers + consumer_idx);
      if (wave == C::kNumWaves - 1) release<C>(storage, at);
      add_scaled_at<C::kBlockN>(former, sums[wave], product, scale.a[wave], scale.b);
    }
    at.advance();
  }
}

// Write, fence, barrier, store: the fence of every thread orders its own stmatrix before the
// barrier, and the barrier before the one thread that starts the TMA store. The panels may be
// written again when that thread has seen them read, which a barrier tells the others.
template <class C>
__device__ void epilogue(Sums<C>& sums, const Fp8GemmParams& params, const Tile& tile,
                         typename C::Storage& storage, int consumer_idx) {
  using P = Panels<C::kBlockN>;
  const int thread = threadIdx.x % kWarpgroupThreads;
  const auto row_of_wave = [&](int wave) {
    return tile.row + (wave * C::kNumConsumers + consumer_idx) * kWarpgroupRows;
  };
  if (thread == 0) tma_store_wait_read<0>();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
#pragma unroll
  for (int wave = 0; wave < C::kNumWaves; ++wave) {
    if constexpr (C::kGrouping == Grouping::kRowMap || C::kGrouping == Grouping::kPrefixSum) {
      const int32_t row = row_of_wave(wave) + thread / 32 * 16 + thread % 32 / 4;
      clear_rows(sums[wave], is_of_group<C::kGrouping>(params.problem, tile, row),
                 is_of_group<C::kGrouping>(params.problem, tile, row + 8));
    }
    stage_bf16<C::kBlockN>(sums[wave], storage.d[wave][consumer_idx]);
  }
  fence_async_proxy();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
  if (thread == 0) {
    const int32_t group = C::kGrouping == Grouping::kMasked ? tile.group : 0;
    for (int wave = 0; wave < C::kNumWaves; ++wave) {
      for (int panel = 0; panel < P::kCount; ++panel) {
        tma_store(params.d, storage.d[wave][consumer_idx] + panel * P::kBytes,
                  tile.column + panel * P::kColumns, row_of_wave(wave), group);
      }
    }
    tma_store_commit();
  }
}

template <class C>
__device__ void consumer(const Fp8GemmParams& params, typename C::Storage& storage, uint32_t rank,
                         int consumer_idx) {
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    Sums<C> sums;
    multiply<C>(sums, params, tile, storage, at, consumer_idx);
    epilogue<C>(sums, params, tile, storage, consumer_idx);
  }
  // Shared memory has to live until the stores have read it.
  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();
}

// Barriers exist in both CTAs before either copies into the other; nothing here reads what an
// earlier kernel wrote.
template <class C>
__device__ void set_up(typename C::Storage& storage) {
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < C::kNumStages; ++stage) {
      storage.full[stage].init(C::kNumArrivals);
      storage.empty[stage].init(C::kNumReaders);
    }
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
}

}  // namespace openweek::deepgemm::fp8_gemm
