// D[m, n] = sum over k of A[m, k] B[n, k]: bf16 in, FP32 accumulation, bf16 out, all row-major.
//
// Tiling    A cluster of two CTAs computes 256 x 128 of D, each CTA 128 x 128, in steps of 64 in k.
//           Both need the same 128 rows of B: each loads half of them for both (multicast).
// Roles     Warpgroup 0 produces: one thread drives TMA. Warpgroups 1 and 2 consume, 64 rows each.
// Pipeline  Four stages of 32 KB, each with two mbarriers:
//
//             producer   wait empty[s] -> expect bytes, TMA A and half of B -> full[s]
//             consumer   wait full[s]  -> 4 wgmma of k 16 -> empty[s] of both CTAs
//
//           The grid is persistent: stages of the next tile fill while this one is stored.
// Epilogue  Registers -> bf16 -> stmatrix, swizzled -> TMA store, which clips at m and n.
// Bound     2 m n k flops at the tensor peak where 1 / (1/m + 1/n + 1/k), the flops per byte of
//           2 (m k + n k + m n), is beyond 989 TFLOPS over the HBM bandwidth: about 200 on an H200,
//           300 on an H100. Below, those bytes.
// Needs     m, n, k > 0; k and n multiples of 8 (rows of TMA are multiples of 16 bytes); an even
//           grid of any size (a CTA without a tile leaves at once).
#pragma once

#include "deepgemm/params.h"
#include "primitives/memory_order.cuh"
#include "primitives/pipeline.cuh"
#include "primitives/registers.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::deepgemm::bf16_gemm {

using namespace openweek::primitives;

constexpr int kBlockM = 128;
constexpr int kBlockN = 128;
constexpr int kBlockK = 64;  // 128 bytes: a row of the swizzle
constexpr int kWgmmaK = 16;
constexpr int kNumStages = 4;
constexpr int kClusterSize = 2;
constexpr int kNumConsumers = 2;  // warpgroups
constexpr int kWarpgroupThreads = 128;
constexpr int kNumThreads = (1 + kNumConsumers) * kWarpgroupThreads;
constexpr int kConsumerRows = kBlockM / kNumConsumers;
constexpr int kSharedRowsB = kBlockN / kClusterSize;  // of B, that one CTA loads for both
constexpr int kElementBytes = 2;
constexpr int kRowBytes = kBlockK * kElementBytes;
constexpr int kPanelColumns = 64;  // of D, that fit a row of the swizzle
constexpr int kNumPanels = kBlockN / kPanelColumns;
// What lands in a stage of one CTA, from both CTAs together.
constexpr uint32_t kStageBytes = (kBlockM + kBlockN) * kRowBytes;
// A stage is free when every consumer warp of both CTAs has read what multicast puts there.
constexpr uint32_t kNumReaders = kClusterSize * kNumConsumers * kWarpgroupThreads / 32;
// 128 * 40 + 256 * 232 = 384 * 168, the share of 65536 registers that three warpgroups start with.
constexpr uint32_t kProducerRegisters = 40;
constexpr uint32_t kConsumerRegisters = 232;

enum NamedBarrier : uint32_t { kEpilogueBarrier = 1 };  // and the next one, for consumer 1

// The engines swizzle by address bits, so each box begins at a multiple of 1024 bytes.
struct SharedStorage {
  alignas(1024) uint8_t a[kNumStages][kBlockM * kRowBytes];
  alignas(1024) uint8_t b[kNumStages][kBlockN * kRowBytes];
  alignas(1024) uint8_t d[kNumConsumers][kNumPanels][kConsumerRows * kRowBytes];
  Mbarrier full[kNumStages];
  Mbarrier empty[kNumStages];
};
static_assert(sizeof(SharedStorage) <= 232448, "an SM has 227 KB for a CTA");

using Stage = RingPosition<kNumStages>;

// For extent > 0; extent + block could overflow.
constexpr int32_t num_blocks(int32_t extent, int32_t block) { return (extent - 1) / block + 1; }

struct Tile {
  int32_t row;  // of tiles along m, or of pairs of them
  int32_t column;
};

// The order in which pairs of tiles are computed: bands of 8 pairs run along m, then on to the next
// column, so that what all clusters read at one time stays in L2.
constexpr Tile pair_of_turn(int32_t turn, int32_t num_pairs, int32_t num_columns) {
  constexpr int32_t kBand = 8;
  const int32_t first = turn / (kBand * num_columns) * kBand;
  const int32_t height = num_pairs - first < kBand ? num_pairs - first : kBand;
  const int32_t within = turn - first * num_columns;
  return {first + within % height, within / height};
}

// The tiles of this CTA: its cluster takes every gridDim.x / 2-th turn, and this CTA its half of
// the pair. The last pair may reach beyond m by a whole tile: TMA reads zeros there and stores
// nothing.
class TileScheduler {
 public:
  __device__ TileScheduler(const Bf16GemmParams& params, uint32_t rank)
      : num_pairs_(num_blocks(params.m, kClusterSize * kBlockM)),
        num_columns_(num_blocks(params.n, kBlockN)),
        rank_(rank),
        turn_(blockIdx.x / kClusterSize) {}

  __device__ bool next(Tile& tile) {
    if (turn_ >= num_pairs_ * num_columns_) return false;
    const Tile pair = pair_of_turn(turn_, num_pairs_, num_columns_);
    tile = {pair.row * kClusterSize + rank_, pair.column};
    turn_ += gridDim.x / kClusterSize;
    return true;
  }

 private:
  int32_t num_pairs_;  // of tiles along m, one of each CTA
  int32_t num_columns_;
  int32_t rank_;
  int32_t turn_;
};

// One thread. The peer's bytes may land in a stage before this thread expects them, but never
// before its own consumers have freed it: the peer waited for them as well.
__device__ void producer(const Bf16GemmParams& params, SharedStorage& storage, uint32_t rank) {
  constexpr uint16_t kBothCtas = (1 << kClusterSize) - 1;
  const uint32_t half_b = rank * kSharedRowsB;
  Stage at;
  TileScheduler scheduler(params, rank);
  for (Tile tile; scheduler.next(tile);) {
    for (int32_t k = 0; k < params.k; k += kBlockK) {
      Mbarrier& full = storage.full[at.stage];
      storage.empty[at.stage].wait_for_cluster(at.phase ^ 1);
      full.arrive_and_expect(kStageBytes);
      tma_load(storage.a[at.stage], params.a, full, k, tile.row * kBlockM);
      tma_load_multicast(storage.b[at.stage] + half_b * kRowBytes, params.b, full, kBothCtas, k,
                         tile.column * kBlockN + half_b);
      at.advance();
    }
  }
}

// One warp tells both CTAs' producers that it has read a stage.
__device__ void release(SharedStorage& storage, const Stage& at) {
  const uint32_t lane = threadIdx.x % 32;
  if (lane < kClusterSize) storage.empty[at.stage].arrive_at(lane);
}

// 64 rows of a tile, summed over k. A stage is released when the products after it are issued: the
// wait for it then costs nothing.
__device__ void multiply(float (&d)[kBlockN / 2], int32_t size_k, SharedStorage& storage, Stage& at,
                         int consumer_idx) {
  Stage reading = at;
  for (int32_t k = 0; k < size_k; k += kBlockK) {
    storage.full[at.stage].wait(at.phase);
    const uint8_t* rows = storage.a[at.stage] + consumer_idx * kConsumerRows * kRowBytes;
    const uint64_t a = k_major_descriptor<Swizzle::k128B>(shared_address(rows));
    const uint64_t b = k_major_descriptor<Swizzle::k128B>(shared_address(storage.b[at.stage]));
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockK / kWgmmaK; ++step) {
      const uint64_t offset = step * kWgmmaK * kElementBytes >> 4;
      wgmma<Element::kBf16, kBlockN>(d, a + offset, b + offset, k > 0 || step > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (k > 0) release(storage, reading);
    reading = at;
    at.advance();
  }
  wgmma_wait_all(d);
  release(storage, reading);
}

// Write, fence, barrier, store: the fence of every thread orders its own stmatrix before the
// barrier, and the barrier before the one thread that starts the TMA store. The box may be written
// again when that thread has seen it read, which a barrier tells the others.
__device__ void epilogue(const float (&d)[kBlockN / 2], const Tile& tile,
                         const Bf16GemmParams& params, SharedStorage& storage, int consumer_idx) {
  const uint32_t thread = threadIdx.x % kWarpgroupThreads;
  const uint32_t lane = thread % 32;
  const uint32_t row = thread / 32 * 16 + lane % 16;
  if (thread == 0) tma_store_wait_read<0>();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
#pragma unroll
  for (int chunk = 0; chunk < kBlockN / 8; chunk += 2) {  // 8 columns, 16 bytes each
    const uint32_t matrices[4] = {pack_bf16(d[4 * chunk], d[4 * chunk + 1]),
                                  pack_bf16(d[4 * chunk + 2], d[4 * chunk + 3]),
                                  pack_bf16(d[4 * chunk + 4], d[4 * chunk + 5]),
                                  pack_bf16(d[4 * chunk + 6], d[4 * chunk + 7])};
    const uint8_t* panel = storage.d[consumer_idx][chunk / 8];
    const uint32_t address = shared_address(panel) + row * kRowBytes + (chunk % 8 + lane / 16) * 16;
    store_matrices(swizzled<Swizzle::k128B>(address), matrices);
  }
  fence_async_proxy();
  named_barrier_sync(kEpilogueBarrier + consumer_idx, kWarpgroupThreads);
  if (thread == 0) {
    for (int panel = 0; panel < kNumPanels; ++panel) {
      tma_store(params.d, storage.d[consumer_idx][panel],
                tile.column * kBlockN + panel * kPanelColumns,
                tile.row * kBlockM + consumer_idx * kConsumerRows);
    }
    tma_store_commit();
  }
}

__device__ void consumer(const Bf16GemmParams& params, SharedStorage& storage, uint32_t rank,
                         int consumer_idx) {
  Stage at;
  TileScheduler scheduler(params, rank);
  for (Tile tile; scheduler.next(tile);) {
    float d[kBlockN / 2];
    multiply(d, params.k, storage, at, consumer_idx);
    epilogue(d, tile, params, storage, consumer_idx);
  }
  // Shared memory has to live until the stores have read it.
  if (threadIdx.x % kWarpgroupThreads == 0) tma_store_wait_read<0>();
}

// Barriers exist in both CTAs before either copies into the other.
__device__ void set_up(const Bf16GemmParams& params, SharedStorage& storage) {
  if (threadIdx.x == 0) {
    prefetch_tensor_map(params.a);
    prefetch_tensor_map(params.b);
    prefetch_tensor_map(params.d);
    for (int stage = 0; stage < kNumStages; ++stage) {
      storage.full[stage].init(1);
      storage.empty[stage].init(kNumReaders);
    }
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
}

}  // namespace openweek::deepgemm::bf16_gemm
