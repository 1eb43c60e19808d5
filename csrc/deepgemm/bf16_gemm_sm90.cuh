// D[m, n] = sum over k of A[m, k] B[n, k], once or for every group: bf16 in, FP32 accumulation,
// bf16 out; or FP32 out, added to C[m, n] if there is one.
//
// Tiling    kBlockM x kBlockN of D per CTA, in steps of 64 in k. In a cluster of two, what both
//           CTAs need alike is loaded by halves, each half for both (multicast).
// Operands  Each may run along k or along its own dim, m of A or n of B (Major). 64 of its rows
//           take 8 KB of a stage either way, so rows are counted alike: K-major ones come in one
//           box, MN-major ones in panels of 64.
// Roles     Warpgroup 0 produces: one thread drives TMA. One or two more consume, 64 rows at a
//           time; of 256 rows each has two such waves.
// Pipeline  kNumStages stages, each with two mbarriers:
//
//             producer   wait empty[s] -> expect bytes, TMA A and B -> full[s]
//             consumer   wait full[s]  -> 4 wgmma of k 16 -> empty[s] of the cluster, a step later
//
//           The grid is persistent: stages of the next tile fill while this one is stored.
// Epilogue  bf16: registers -> stmatrix, swizzled -> TMA store, which clips at m and n, and which
//           the next tile's epilogue waits for. FP32: from registers, 32 bytes of a row at a time.
// Bound     2 m n k flops at the tensor peak where 1 / (1/m + 1/n + 1/k), the flops per byte of
//           2 (m k + n k + m n), is beyond 989 TFLOPS over the HBM bandwidth: about 200 on an H200,
//           300 on an H100. Below, those bytes. Within an SM, operands take shared memory
//           (4096 / kBlockM + 64 + 8192 / kBlockN) bytes per clock of the 128 there are, at full
//           tensor speed; so tiles are as large as registers allow.
// Needs     m, n, k > 0; rows of A, B and of bf16 D are multiples of 16 bytes apart, those of FP32
//           C and D of 8, n is even then. Groups along k are multiples of 64 long, or 0: a step
//           would reach into the next one.
#pragma once

#include "deepgemm/epilogue.cuh"
#include "deepgemm/scheduler.cuh"
#include "primitives/grid.cuh"
#include "primitives/pipeline.cuh"
#include "primitives/registers.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::deepgemm::bf16_gemm {

using namespace openweek::primitives;

constexpr int kBlockK = 64;
constexpr int kWgmmaK = wgmma_k(Element::kBf16);
constexpr int kElementBytes = 2;
constexpr int kRowBytes = kBlockK * kElementBytes;  // of the swizzle too
constexpr int kPanelRows = 64;                      // of an MN-major operand
constexpr int kWarpgroupThreads = 128;
constexpr int kWarpgroupRows = 64;

template <int kBlockM_, int kBlockN_, int kNumStages_, Grouping kGrouping_, Share kShare_,
          Major kMajorA_, Major kMajorB_, Output kOutput_>
struct Config {
  static constexpr int kBlockM = kBlockM_;
  static constexpr int kBlockN = kBlockN_;
  static constexpr int kNumStages = kNumStages_;
  static constexpr Grouping kGrouping = kGrouping_;
  static constexpr Share kShare = kShare_;
  static constexpr Major kMajorA = kMajorA_;
  static constexpr Major kMajorB = kMajorB_;
  static constexpr Output kOutput = kOutput_;
  static_assert(kBlockM == 64 || kBlockM == 128 || (kBlockM == 256 && kBlockN <= 192));
  static_assert(kBlockN % 16 == 0 && kBlockN >= 16 && kBlockN <= 256);
  static_assert(kBlockM <= kGroupAlignment ||
                    (kGrouping != Grouping::kRowMap && kGrouping != Grouping::kPrefixSum),
                "rows of a tile may be of two groups");

  static constexpr int kClusterSize = cluster_size(kShare);
  static constexpr int kNumConsumers = kBlockM == 64 ? 1 : 2;  // warpgroups
  static constexpr int kNumWaves = kBlockM / (kNumConsumers * kWarpgroupRows);
  // What one CTA loads of A and B; the other half comes from its peer.
  static constexpr int kLoadedRowsA = kBlockM / (kShare == Share::kA ? 2 : 1);
  static constexpr int kLoadedRowsB = kBlockN / (kShare == Share::kB ? 2 : 1);
  static_assert(kMajorA == Major::kK || kLoadedRowsA % kPanelRows == 0);
  static_assert(kMajorB == Major::kK || kLoadedRowsB % kPanelRows == 0);
  // What lands in a stage of one CTA, from the whole cluster.
  static constexpr uint32_t kStageBytes = (kBlockM + kBlockN) * kRowBytes;
  // A stage is free when every consumer warp that reads what multicast puts there has done so.
  static constexpr uint32_t kNumReaders = kClusterSize * kNumConsumers * kWarpgroupThreads / 32;
  // 128 * 40 + 256 * 232 = 384 * 168, the share of 65536 registers that three warpgroups start
  // with.
  static constexpr uint32_t kProducerRegisters = 40;
  static constexpr uint32_t kConsumerRegisters = 232;

  using Params = Bf16GemmParams<kOutput>;
  using Stage = RingPosition<kNumStages>;
  using Scheduler = TileScheduler<kGrouping, kBlockM, kBlockN, kShare>;
  using Sums = float[kNumWaves][kBlockN / 2];

  // The engines swizzle by address bits, so each box begins at a multiple of 1024 bytes.
  struct Storage {
    using P = Panels<kBlockN>;
    alignas(1024) uint8_t a[kNumStages][kBlockM * kRowBytes];
    alignas(1024) uint8_t b[kNumStages][kBlockN * kRowBytes];
    // FP32 is not staged.
    alignas(1024)
        uint8_t d[kNumWaves][kNumConsumers][kOutput == Output::kBf16 ? P::kCount * P::kBytes : 1];
    Mbarrier full[kNumStages];
    Mbarrier empty[kNumStages];
  };
  static_assert(sizeof(Storage) <= 232448, "an SM has 227 KB for a CTA");
};

enum NamedBarrier : uint32_t { kEpilogueBarrier = 1 };  // and the next one, for consumer 1

// Loads rows of an operand for one step: all that the tile needs, or this CTA's half of them, which
// lands in both CTAs.
template <Major kMajor, bool kIsHalf, int kRows>
__device__ void load(uint8_t* tile, const TensorMap& map, const Mbarrier& full, uint32_t rank,
                     int32_t k, int32_t row, int32_t group) {
  constexpr uint16_t kBothCtas = 3;
  constexpr int kBoxRows = kMajor == Major::kK ? kRows : kPanelRows;
  const int32_t first = kIsHalf ? static_cast<int32_t>(rank) * kRows : 0;
#pragma unroll
  for (int32_t box = first; box < first + kRows; box += kBoxRows) {
    const int32_t x = kMajor == Major::kK ? k : row + box;
    const int32_t y = kMajor == Major::kK ? row + box : k;
    uint8_t* place = tile + box * kRowBytes;
    if constexpr (kIsHalf) {
      tma_load_multicast(place, map, full, kBothCtas, x, y, group);
    } else {
      tma_load(place, map, full, x, y, group);
    }
  }
}

// One thread. The peer's bytes may land in a stage before this thread expects them, but never
// before its own consumers have freed it: the peer waited for them as well.
template <class C>
__device__ void producer(const typename C::Params& params, typename C::Storage& storage,
                         uint32_t rank) {
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    const int32_t group_a = C::kGrouping == Grouping::kMasked ? tile.group : 0;
    const int32_t group_b = C::kGrouping == Grouping::kAlongK ? 0 : tile.group;
    for (int32_t k = 0; k < tile.size_k; k += kBlockK) {
      Mbarrier& full = storage.full[at.stage];
      storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);
      full.arrive_and_expect(C::kStageBytes);
      load<C::kMajorA, C::kShare == Share::kA, C::kLoadedRowsA>(
          storage.a[at.stage], params.a, full, rank, tile.first_k + k, tile.row, group_a);
      load<C::kMajorB, C::kShare == Share::kB, C::kLoadedRowsB>(
          storage.b[at.stage], params.b, full, rank, tile.first_k + k, tile.column, group_b);
      at.advance();
    }
  }
}

// One warp tells the producers of the cluster that it has read a stage.
template <class C>
__device__ void release(typename C::Storage& storage, const typename C::Stage& at) {
  const uint32_t lane = threadIdx.x % 32;
  if (lane < C::kClusterSize) storage.empty[at.stage].arrive_at_as_reader(lane);
}

template <Major kMajor>
__device__ uint64_t descriptor(const uint8_t* rows) {
  if constexpr (kMajor == Major::kMn) {
    return mn_major_descriptor<kPanelRows * kRowBytes>(shared_address(rows));
  }
  return k_major_descriptor<Swizzle::k128B>(shared_address(rows));
}

// From one product of a step to the next: on inside a row of the swizzle, or that many rows on.
template <Major kMajor>
constexpr uint64_t kDescriptorStep =
    kWgmmaK * (kMajor == Major::kK ? kElementBytes : kPanelRows * kElementBytes) >> 4;

// The first of a tile's rows that a consumer has in a wave.
template <class C>
__device__ int32_t first_row(int wave, int consumer_idx) {
  return (wave * C::kNumConsumers + consumer_idx) * kWarpgroupRows;
}

// The rows of a tile that a consumer has, summed over k: from zero, as a sum of nothing is zero
// too. A stage is released when the products after it are issued: the wait for it then costs
// nothing.
template <class C>
__device__ void multiply(typename C::Sums& sums, int32_t size_k, typename C::Storage& storage,
                         typename C::Stage& at, int consumer_idx) {
  for (auto& wave : sums) {
#pragma unroll
    for (float& sum : wave) sum = 0;
  }
  if (size_k == 0) return;
  typename C::Stage reading = at;
  for (int32_t k = 0; k < size_k; k += kBlockK) {
    storage.full[at.stage].wait(at.phase);
    const uint64_t b = descriptor<C::kMajorB>(storage.b[at.stage]);
    wgmma_fence();
#pragma unroll
    for (int wave = 0; wave < C::kNumWaves; ++wave) {
      const uint64_t a = descriptor<C::kMajorA>(storage.a[at.stage] +
                                                first_row<C>(wave, consumer_idx) * kRowBytes);
#pragma unroll
      for (int step = 0; step < kBlockK / kWgmmaK; ++step) {
        wgmma<Element::kBf16, C::kBlockN, C::kMajorA, C::kMajorB>(
            sums[wave], a + step * kDescriptorStep<C::kMajorA>,
            b + step * kDescriptorStep<C::kMajorB>, true);
      }
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (k > 0) release<C>(storage, reading);
    reading = at;
    at.advance();
  }
#pragma unroll
  for (int wave = 0; wave < C::kNumWaves; ++wave) wgmma_wait_all(sums[wave]);
  release<C>(storage, reading);
}

// The group of D that a tile is in, where D has groups.
template <class C>
__device__ int32_t group_of_d(const Tile& tile) {
  return C::kGrouping == Grouping::kMasked || C::kGrouping == Grouping::kAlongK ? tile.group : 0;
}

// Write, fence, barrier, store: the fence of every thread orders its own stmatrix before the
// barrier, and the barrier before the one thread that starts the TMA store. The panels may be
// written again when that thread has seen them read, which a barrier tells the others.
template <class C>
__device__ void epilogue(const typename C::Sums& sums, const Tile& tile,
                         const Bf16GemmParams<Output::kBf16>& params, typename C::Storage& storage,
                         int consumer_idx) {
  using P = Panels<C::kBlockN>;
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
  if (thread == 0) tma_store_wait_read<0>();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
#pragma unroll
  for (int wave = 0; wave < C::kNumWaves; ++wave) {
    stage_bf16<C::kBlockN>(sums[wave], storage.d[wave][consumer_idx]);
  }
  fence_async_proxy();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
  if (thread == 0) {
    for (int wave = 0; wave < C::kNumWaves; ++wave) {
      for (int panel = 0; panel < P::kCount; ++panel) {
        tma_store(params.d, storage.d[wave][consumer_idx] + panel * P::kBytes,
                  tile.column + panel * P::kColumns, tile.row + first_row<C>(wave, consumer_idx),
                  group_of_d<C>(tile));
      }
    }
    tma_store_commit();
  }
}

// The same in FP32.
template <class C>
__device__ void epilogue(typename C::Sums& sums, const Tile& tile,
                         const Bf16GemmParams<Output::kFp32>& params, typename C::Storage&,
                         int consumer_idx) {
  const bool changes_nothing = tile.size_k == 0 && params.c.data == params.d.data;
  if (changes_nothing) return;
#pragma unroll
  for (int wave = 0; wave < C::kNumWaves; ++wave) {
    add_and_store_fp32<C::kBlockN>(sums[wave], params.c, params.d, params.problem,
                                   group_of_d<C>(tile), tile.row + first_row<C>(wave, consumer_idx),
                                   tile.column);
  }
}

// Rows of D that are padding become zero.
template <class C>
__device__ void clear_padding(typename C::Sums& sums, const Problem& problem, const Tile& tile,
                              int consumer_idx) {
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
#pragma unroll
  for (int wave = 0; wave < C::kNumWaves; ++wave) {
    const int32_t row =
        tile.row + first_row<C>(wave, consumer_idx) + thread / 32 * 16 + thread % 32 / 4;
    clear_rows(sums[wave], is_of_group<C::kGrouping>(problem, tile, row),
               is_of_group<C::kGrouping>(problem, tile, row + 8));
  }
}

template <class C>
__device__ void consumer(const typename C::Params& params, typename C::Storage& storage,
                         uint32_t rank, int consumer_idx) {
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, rank);
  for (Tile tile; scheduler.next(tile);) {
    typename C::Sums sums;
    multiply<C>(sums, tile.size_k, storage, at, consumer_idx);
    if constexpr (C::kGrouping == Grouping::kRowMap || C::kGrouping == Grouping::kPrefixSum) {
      clear_padding<C>(sums, params.problem, tile, consumer_idx);
    }
    epilogue<C>(sums, tile, params, storage, consumer_idx);
  }
  // Shared memory has to live until the stores have read it.
  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();
}

// Barriers exist in both CTAs before either copies into the other; nothing here reads what an
// earlier kernel wrote.
template <class C>
__device__ void set_up(const typename C::Params& params, typename C::Storage& storage) {
  if (threadIdx.x == 0) {
    prefetch_tensor_map(params.a);
    prefetch_tensor_map(params.b);
    if constexpr (C::kOutput == Output::kBf16) prefetch_tensor_map(params.d);
    for (int stage = 0; stage < C::kNumStages; ++stage) {
      storage.full[stage].init(1);
      storage.empty[stage].init(C::kNumReaders);
    }
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
}

}  // namespace openweek::deepgemm::bf16_gemm
