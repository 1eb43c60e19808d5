// D[m, n] = sum over k of A[m, k] B[n, k] for few rows of A (tokens), with the scales of fp8_gemm.
//
// Problem   With m tokens each weight of B is used m times only: the time is that of reading B. The
//           large kernel would fill 64 rows of the tensor core with m of them, and leave SMs idle
//           where n has few tiles.
// Tiling    Operands swapped: D^T = B A^T. 128 rows of B are the tensor core's rows, kTokens tokens
//           its columns: as few as there are, in steps of 8. A cluster of kSplit CTAs takes one
//           tile, each a part of k: then n = 2112 fills a GPU too.
// Scales    128 rows of B share one scale for 128 of k, so it is one number per step. Those of the
//           tokens are copied into each stage by a warp of their own.
// Pipeline  kNumStages stages, each with two mbarriers:
//
//             warp 0     wait empty[s] -> expect bytes, TMA B and A -> full[s]
//             warp 1     wait empty[s] -> scales of A               -> full[s]
//             consumer   wait full[s]  -> 4 wgmma of k 32 -> scale, add -> empty[s]
//
//           Weights do not come from the kernel before this one: the first stages of them are under
//           way before the wait for it (programmatic dependent launch).
// Epilogue  CTAs 1, 2, ... of a cluster write their sums into the shared memory of CTA 0, which
// adds
//           them in this order: the result does not depend on who is first. bf16 -> stmatrix,
//           transposed -> TMA store.
// Bound     n k bytes of B at the memory's bandwidth, as long as m < 200 or so.
// Needs     k a multiple of 16 and at least 128 (kSplit - 1) + 1, n of 8; m, n > 0.
#pragma once

#include "deepgemm/scheduler.cuh"
#include "primitives/grid.cuh"
#include "primitives/memory_order.cuh"
#include "primitives/pipeline.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::deepgemm::fp8_small_m {

using namespace openweek::primitives;

constexpr int kBlockK = 128;  // bytes: a row of the swizzle, and the columns of a scale
constexpr int kBlockN = 128;  // rows of B: one block of scales
constexpr int kWarpgroupThreads = 128;
constexpr int kNumConsumers = 2;
constexpr int kConsumerRows = kBlockN / kNumConsumers;  // of B
constexpr int kNumThreads = (1 + kNumConsumers) * kWarpgroupThreads;
constexpr int kConsumerWarps = kNumConsumers * kWarpgroupThreads / 32;

enum NamedBarrier : uint32_t { kEpilogueBarrier = 1 };  // and the next one, for consumer 1

template <int kTokens_, int kNumStages_, int kSplit_, Grouping kGrouping_>
struct Config {
  static constexpr int kTokens = kTokens_;
  static constexpr int kNumStages = kNumStages_;
  static constexpr int kSplit = kSplit_;
  static constexpr Grouping kGrouping = kGrouping_;
  static_assert(kTokens % 8 == 0 && kTokens >= 8 && kTokens <= 64);
  static_assert(kSplit == 1 || kSplit == 2 || kSplit == 4 || kSplit == 8);
  static_assert(kGrouping == Grouping::kDense || kGrouping == Grouping::kMasked);

  static constexpr uint32_t kStageBytes = (kBlockN + kTokens) * kBlockK;
  static constexpr int kSumsOfThread = kTokens / 2;

  using Stage = RingPosition<kNumStages>;
  using Scheduler = TileScheduler<kGrouping, kTokens, kBlockN, Share::kNothing>;

  // The engines swizzle by address bits, so each box begins at a multiple of 1024 bytes.
  struct Storage {
    alignas(1024) uint8_t b[kNumStages][kBlockN * kBlockK];
    alignas(1024) uint8_t a[kNumStages][kTokens * kBlockK];
    alignas(1024) uint8_t d[kNumConsumers][kTokens * 2 * kConsumerRows];
    // Of CTA 0: four sums of each consumer thread, again and again, from each of the others.
    alignas(16) float partial[kSplit - 1 > 0 ? kSplit - 1 : 1][kSplit > 1 ? kTokens * kBlockN : 4];
    float scale_a[kNumStages][kTokens];
    Mbarrier full[kNumStages];
    Mbarrier empty[kNumStages];
    Mbarrier partial_full;   // of CTA 0: all the others have written
    Mbarrier partial_empty;  // of the others: CTA 0 has read
  };
  static_assert(sizeof(Storage) <= 232448, "an SM has 227 KB for a CTA");
};

// The steps of k that one CTA of a cluster takes.
template <class C>
struct Part {
  int32_t begin;
  int32_t end;

  __device__ Part(int32_t size_k, uint32_t rank) {
    const int32_t steps = num_blocks(size_k, kBlockK);
    begin = steps * static_cast<int32_t>(rank) / C::kSplit;
    end = steps * static_cast<int32_t>(rank + 1) / C::kSplit;
  }
};

template <class C>
__device__ int32_t group_of_tokens(const Tile& tile) {
  return C::kGrouping == Grouping::kMasked ? tile.group : 0;
}

// One thread. A dense product knows its first tile without reading anything.
template <class C>
__device__ void producer(const Fp8GemmParams& params, typename C::Storage& storage, uint32_t rank) {
  const auto load_weights = [&](const Tile& tile, int32_t step, int stage) {
    Mbarrier& full = storage.full[stage];
    full.arrive_and_expect(C::kStageBytes);
    tma_load(storage.b[stage], params.b, full, step * kBlockK, tile.column, tile.group);
  };
  int32_t num_early = 0;  // steps whose weights are under way
  if constexpr (C::kGrouping == Grouping::kDense) {
    typename C::Scheduler scheduler(params.problem, 0, C::kSplit);
    if (Tile tile; scheduler.next(tile)) {
      const Part<C> part(tile.size_k, rank);
      for (; num_early < C::kNumStages && part.begin + num_early < part.end; ++num_early) {
        load_weights(tile, part.begin + num_early, num_early);
      }
    }
  }
  wait_for_earlier_grids();
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, 0, C::kSplit);
  for (Tile tile; scheduler.next(tile);) {
    const Part<C> part(tile.size_k, rank);
    for (int32_t step = part.begin; step < part.end; ++step) {
      if (num_early > 0) {
        --num_early;
      } else {
        storage.empty[at.stage].wait(at.phase ^ 1);
        load_weights(tile, step, at.stage);
      }
      tma_load(storage.a[at.stage], params.a, storage.full[at.stage], step * kBlockK, tile.row,
               group_of_tokens<C>(tile));
      at.advance();
    }
  }
}

// One warp. Beyond m there is no scale, and none is needed.
template <class C>
__device__ void scale_producer(const Fp8GemmParams& params, typename C::Storage& storage,
                               uint32_t rank) {
  wait_for_earlier_grids();
  const int32_t lane = threadIdx.x % 32;
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, 0, C::kSplit);
  for (Tile tile; scheduler.next(tile);) {
    const Part<C> part(tile.size_k, rank);
    const float* scales =
        params.scale_a.data + group_of_tokens<C>(tile) * params.scale_a.group_stride;
    for (int32_t step = part.begin; step < part.end; ++step) {
      storage.empty[at.stage].wait(at.phase ^ 1);
      for (int32_t token = lane; token < C::kTokens; token += 32) {
        const int32_t row = min(tile.row + token, params.problem.m - 1);
        storage.scale_a[at.stage][token] =
            __ldg(scales + row * params.scale_a.row_stride + step * params.scale_a.k_stride);
      }
      __syncwarp();
      if (lane == 0) storage.full[at.stage].arrive();
      at.advance();
    }
  }
}

template <class C>
using Sums = float[C::kSumsOfThread];

// 64 rows of B times all tokens, summed over this CTA's part of k.
template <class C>
__device__ void multiply(Sums<C>& sums, const Fp8GemmParams& params, const Tile& tile,
                         typename C::Storage& storage, typename C::Stage& at, uint32_t rank,
                         int consumer_idx) {
  const uint32_t lane = threadIdx.x % 32;
  const float* scale_b = params.scale_b.data + tile.group * params.scale_b.group_stride +
                         tile.column / kBlockN * params.scale_b.row_stride;
#pragma unroll
  for (int i = 0; i < C::kSumsOfThread; ++i) sums[i] = 0;
  const Part<C> part(tile.size_k, rank);
  for (int32_t step = part.begin; step < part.end; ++step) {
    const float weight_scale = __ldg(scale_b + step * params.scale_b.k_stride);
    storage.full[at.stage].wait(at.phase);
    const uint8_t* rows = storage.b[at.stage] + consumer_idx * kConsumerRows * kBlockK;
    const uint64_t b = k_major_descriptor<Swizzle::k128B>(shared_address(rows));
    const uint64_t a = k_major_descriptor<Swizzle::k128B>(shared_address(storage.a[at.stage]));
    float product[C::kSumsOfThread];
    wgmma_fence();
#pragma unroll
    for (int part_of_k = 0; part_of_k < kBlockK / wgmma_k(Element::kE4m3); ++part_of_k) {
      const uint64_t offset = part_of_k * wgmma_k(Element::kE4m3) >> 4;
      wgmma<Element::kE4m3, C::kTokens>(product, b + offset, a + offset, part_of_k > 0);
    }
    wgmma_commit();
    wgmma_wait_all(product);
    const float* token_scales = storage.scale_a[at.stage] + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < C::kSumsOfThread; ++i) {
      sums[i] += weight_scale * token_scales[i / 4 * 8 + i % 2] * product[i];
    }
    __syncwarp();
    if (lane == 0) storage.empty[at.stage].arrive();
    at.advance();
  }
}

// The sums of a cluster, in CTA 0. `turn` counts the tiles of the CTA.
template <class C>
__device__ void add_partial_sums(Sums<C>& sums, typename C::Storage& storage, uint32_t rank,
                                 uint32_t turn) {
  if constexpr (C::kSplit == 1) return;
  const uint32_t thread = threadIdx.x - kWarpgroupThreads;
  constexpr int kConsumerThreads = kNumConsumers * kWarpgroupThreads;
  const uint32_t lane = threadIdx.x % 32;
  if (rank > 0) {
    storage.partial_empty.wait_for_cluster(turn % 2 ^ 1);
    const uint32_t place =
        address_in_cluster(shared_address(storage.partial[rank - 1] + 4 * thread), 0);
#pragma unroll
    for (int i = 0; i < C::kSumsOfThread; i += 4) {
      const float four[4] = {sums[i], sums[i + 1], sums[i + 2], sums[i + 3]};
      store_in_cluster(place + i * kConsumerThreads * 4, four);
    }
    __syncwarp();
    if (lane == 0) storage.partial_full.arrive_at(0);
    return;
  }
  storage.partial_full.wait_for_cluster(turn % 2);
  for (int other = 0; other < C::kSplit - 1; ++other) {
#pragma unroll
    for (int i = 0; i < C::kSumsOfThread; i += 4) {
      const float* four = storage.partial[other] + 4 * thread + i * kConsumerThreads;
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[i + j] += four[j];
    }
  }
  __syncwarp();
  if (lane > 0 && lane < C::kSplit) storage.partial_empty.arrive_at(lane);
}

// Write, fence, barrier, store, as in fp8_gemm; a row of the panel is a token.
template <class C>
__device__ void epilogue(const Sums<C>& sums, const Fp8GemmParams& params, const Tile& tile,
                         typename C::Storage& storage, int consumer_idx) {
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
  const uint32_t lane = thread % 32;
  if (thread == 0) tma_store_wait_read<0>();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
  const uint32_t panel = shared_address(storage.d[consumer_idx]);
  const uint32_t chunk = thread / 32 * 2 + lane / 8 % 2;  // of 8 rows of B
#pragma unroll
  for (int token = 0; token < C::kTokens; token += 8) {
    const float* four = sums + token / 2;
    const uint32_t matrices[2] = {pack_bf16(four[0], four[1]), pack_bf16(four[2], four[3])};
    const uint32_t address = panel + (token + lane % 8) * 2 * kConsumerRows + chunk * 16;
    store_matrices_transposed(swizzled<Swizzle::k128B>(address), matrices);
  }
  fence_async_proxy();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
  if (thread == 0) {
    tma_store(params.d, storage.d[consumer_idx], tile.column + consumer_idx * kConsumerRows,
              tile.row, group_of_tokens<C>(tile));
    tma_store_commit();
  }
}

template <class C>
__device__ void consumer(const Fp8GemmParams& params, typename C::Storage& storage, uint32_t rank,
                         int consumer_idx) {
  wait_for_earlier_grids();
  typename C::Stage at;
  typename C::Scheduler scheduler(params.problem, 0, C::kSplit);
  uint32_t turn = 0;
  for (Tile tile; scheduler.next(tile); ++turn) {
    Sums<C> sums;
    multiply<C>(sums, params, tile, storage, at, rank, consumer_idx);
    add_partial_sums<C>(sums, storage, rank, turn);
    if (rank == 0) epilogue<C>(sums, params, tile, storage, consumer_idx);
  }
  // Shared memory has to live until the stores have read it.
  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();
}

// Nothing here reads what an earlier kernel wrote.
template <class C>
__device__ void set_up(const Fp8GemmParams& params, typename C::Storage& storage) {
  if (threadIdx.x == 0) {
    for (const TensorMap* map : {&params.a, &params.b, &params.d}) prefetch_tensor_map(*map);
    for (int stage = 0; stage < C::kNumStages; ++stage) {
      storage.full[stage].init(2);
      storage.empty[stage].init(kConsumerWarps);
    }
    storage.partial_full.init((C::kSplit - 1) * kConsumerWarps + (C::kSplit == 1));
    storage.partial_empty.init(kConsumerWarps);
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
}

}  // namespace openweek::deepgemm::fp8_small_m
