// Misuse of mbarriers, and of the wrong phase of one.
#include "planted.cuh"
#include "primitives/pipeline.cuh"

namespace openweek::tests {

template <bool kBug>
__device__ __forceinline__ void use_before_init(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0 && !kBug) barrier.init(32);
  __syncthreads();
  barrier.arrive();  // use_before_init
}

template <bool kBug>
__device__ __forceinline__ void use_without_barrier(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) barrier.init(1);
  if (!kBug) __syncthreads();
  if (threadIdx.x == 32) barrier.arrive();  // use_without_barrier
  __syncthreads();
}

// CTA 0 has a box copied to both CTAs of its cluster.
template <bool kBug>
__device__ __forceinline__ void init_without_fence(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    if (!kBug) fence_mbarrier_init();
    barrier.arrive_and_expect(kBoxBytes);
  }
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    tma_load_multicast(box, p.map, barrier, 3, 0, 0);  // init_without_fence
  }
  barrier.wait(0);
}

// CTA 0 arrives at the barrier of CTA 1, which it may know of by the cluster's barrier alone.
template <bool kBug>
__device__ __forceinline__ void remote_without_barrier(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) {
    barrier.init(1);
    fence_mbarrier_init();
  }
  __syncwarp();
  if (!kBug) cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) barrier.arrive_at(1);  // remote_without_barrier
  if (cluster_rank() == 1) barrier.wait_for_cluster(0);
  cluster_sync();
}

// Warp 1 waits for a copy of warp 0, which then makes the barrier anew.
template <bool kBug>
__device__ __forceinline__ void init_in_use(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) barrier.init(1);
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier.arrive_and_expect(kBoxBytes);
    tma_load(box, p.map, barrier, 0, 0);
  }
  barrier.wait(0);
  if (!kBug) __syncthreads();
  if (threadIdx.x == 0) barrier.init(1);  // init_in_use
  __syncthreads();
}

template <bool kBug>
__device__ __forceinline__ void init_under_copy(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(kBoxBytes);
    tma_load(box, p.map, barrier, 0, 0);
    if (!kBug) barrier.wait(0);
    barrier.init(1);  // init_under_copy
    if (kBug) barrier.wait(0);
  }
}

template <bool kBug>
__device__ __forceinline__ void invalidate_in_use(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) barrier.init(1);
  __syncthreads();
  if (threadIdx.x == 0) barrier.arrive();
  if (threadIdx.x == 32) barrier.wait(0);  // invalidate_in_use
  if (!kBug) __syncthreads();
  if (threadIdx.x == 0) invalidate(barrier);  // invalidate_in_use
}

template <bool kBug>
__device__ __forceinline__ void use_after_invalidate(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  if (kBug) invalidate(barrier);
  barrier.arrive();  // use_after_invalidate
  if (!kBug) invalidate(barrier);
}

// The barrier's bytes, as a number.
__device__ __forceinline__ volatile int32_t* bytes_of(Mbarrier& barrier) {
  return reinterpret_cast<int32_t*>(&barrier);
}

template <bool kBug>
__device__ __forceinline__ void load_of_object(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  bytes_of(barrier)[1] = 0;
  barrier.init(1);
  if (kBug) p.data[0] = bytes_of(barrier)[1];  // load_of_object
}

template <bool kBug>
__device__ __forceinline__ void store_to_object(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  if (!kBug) invalidate(barrier);
  bytes_of(barrier)[0] = 1;  // store_to_object
}

// Two boxes; the barrier expects the bytes of one.
template <bool kBug>
__device__ __forceinline__ void too_few_bytes(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t boxes[2][kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(kBug ? kBoxBytes : 2 * kBoxBytes);
    for (int i = 0; i < 2; ++i) tma_load(boxes[i], p.map, barrier, 0, 8 * i);  // too_few_bytes
  }
  __syncthreads();
  barrier.wait(0);
}

// One box, of which the barrier expects a part.
template <bool kBug>
__device__ __forceinline__ void fewer_bytes(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(kBoxBytes - (kBug ? 16 : 0));
    tma_load(box, p.map, barrier, 0, 0);
  }
  __syncthreads();
  barrier.wait(0);
}

template <bool kBug>
__device__ __forceinline__ void too_many_bytes(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(kBoxBytes + (kBug ? 16 : 0));
    tma_load(box, p.map, barrier, 0, 0);
  }
  __syncthreads();
  barrier.wait(0);  // too_many_bytes
}

__device__ __forceinline__ void expect(Mbarrier& barrier, uint32_t num_bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier.address()),
               "r"(num_bytes)
               : "memory");
}

__device__ __forceinline__ void complete(Mbarrier& barrier, uint32_t num_bytes) {
  asm volatile(
      "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier.address()),
      "r"(num_bytes)
      : "memory");
}

constexpr uint32_t kMostBytes = (1 << 20) - 1;

template <bool kBug>
__device__ __forceinline__ void expects_overflow(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  expect(barrier, kMostBytes);
  expect(barrier, kBug ? 1 : 0);  // expects_overflow
}

template <bool kBug>
__device__ __forceinline__ void arrival_overflows(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(2);
  barrier.arrive_and_expect(kMostBytes);
  barrier.arrive_and_expect(kBug ? 1 : 0);  // arrival_overflows
}

template <bool kBug>
__device__ __forceinline__ void completes_underflow(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x != 0) return;
  barrier.init(1);
  complete(barrier, kMostBytes);
  complete(barrier, kBug ? 1 : 0);  // completes_underflow
}

// The phase cannot end before the bytes are there, so all arrivals belong to it.
template <bool kBug>
__device__ __forceinline__ void too_many_arrivals(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) {
    barrier.init(kBug ? 63 : 64);
    expect(barrier, 16);
  }
  __syncthreads();
  barrier.arrive();  // too_many_arrivals
  __syncthreads();
  if (threadIdx.x == 0) complete(barrier, 16);
}

// Half of the writers are enough for the phase to end.
template <bool kBug>
__device__ __forceinline__ void too_few_arrivals_expected(const Params& p) {
  __shared__ int32_t numbers[64];
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) barrier.init(kBug ? 32 : 64);
  __syncthreads();
  numbers[threadIdx.x] = 1;
  barrier.arrive();
  barrier.wait(0);
  p.data[threadIdx.x] = numbers[threadIdx.x ^ 32];
}

template <bool kBug>
__device__ __forceinline__ void no_arrival_expected(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) barrier.init(kBug ? 0 : 1);  // no_arrival_expected
}

constexpr int kNumTurns = 6;
constexpr uint32_t kNumStages = 2;

enum class Mistake {
  kNone,
  kConsumerAhead,    // waits for the phase before
  kConsumerStays,    // waits for the same phase for ever
  kConsumerSkips,    // does not wait for its first stage
  kConsumerForgets,  // does not wait at all
  kProducerBehind,   // waits for the stage to be freed before it was ever filled
  kProducerStays,    // waits for the same phase for ever
  kProducerForgets,  // does not wait at all
};

// Warp 0 loads boxes into a ring of two stages, warp 1 copies them out.
template <Mistake kMistake>
__device__ __forceinline__ void ring(const Params& p) {
  __shared__ alignas(1024) int32_t stages[kNumStages][kBoxBytes / 4];
  __shared__ Mbarrier full[kNumStages], empty[kNumStages];
  if (threadIdx.x == 0) {
    for (uint32_t stage = 0; stage < kNumStages; ++stage) {
      full[stage].init(1);
      empty[stage].init(32);
    }
    fence_mbarrier_init();
  }
  __syncthreads();
  RingPosition<kNumStages> at;
  for (int turn = 0; turn < kNumTurns; ++turn) {
    if (threadIdx.x == 0) {
      if (kMistake != Mistake::kProducerForgets) {
        const uint32_t phase = kMistake == Mistake::kProducerStays ? 0 : at.phase;
        const uint32_t ended = phase ^ (kMistake == Mistake::kProducerBehind ? 0 : 1);
        empty[at.stage].wait(ended);  // ring: empty
      }
      full[at.stage].arrive_and_expect(kBoxBytes);
      tma_load(stages[at.stage], p.map, full[at.stage], 0, turn % 4 * kBoxRows);
    } else if (threadIdx.x >= 32) {
      const bool waits = !(kMistake == Mistake::kConsumerSkips && turn == 0) &&
                         kMistake != Mistake::kConsumerForgets;
      const uint32_t phase = kMistake == Mistake::kConsumerStays ? 0 : at.phase;
      const uint32_t ended = phase ^ (kMistake == Mistake::kConsumerAhead ? 1 : 0);
      if (waits) full[at.stage].wait(ended);  // ring: full
      p.data[threadIdx.x % 32] = stages[at.stage][threadIdx.x % 32];
      empty[at.stage].arrive();
    }
    at.advance();
  }
}

#define OPENWEEK_RING(name, mistake)                      \
  template <bool kBug>                                    \
  __device__ __forceinline__ void name(const Params& p) { \
    ring<kBug ? Mistake::mistake : Mistake::kNone>(p);    \
  }
OPENWEEK_RING(consumer_ahead, kConsumerAhead)
OPENWEEK_RING(consumer_stays, kConsumerStays)
OPENWEEK_RING(consumer_skips, kConsumerSkips)
OPENWEEK_RING(consumer_forgets, kConsumerForgets)
OPENWEEK_RING(producer_behind, kProducerBehind)
OPENWEEK_RING(producer_stays, kProducerStays)
OPENWEEK_RING(producer_forgets, kProducerForgets)

// The same without copies: warp 0 writes a number, warp 1 reads it.
template <bool kBug>
__device__ __forceinline__ void reader_ahead(const Params& p) {
  __shared__ int32_t number[32];
  __shared__ Mbarrier full, empty;
  if (threadIdx.x == 0) {
    full.init(32);
    empty.init(32);
  }
  if (threadIdx.x < 32) number[threadIdx.x] = 0;
  __syncthreads();
  for (int turn = 0; turn < kNumTurns; ++turn) {
    if (threadIdx.x < 32) {
      empty.wait(turn % 2 ^ 1);
      number[threadIdx.x] = turn;
      full.arrive();
    } else {
      full.wait(turn % 2 ^ (kBug ? 1 : 0));
      p.data[threadIdx.x % 32] = number[threadIdx.x % 32];
      empty.arrive();
    }
  }
}

}  // namespace openweek::tests

OPENWEEK_PLANTED(use_before_init)
OPENWEEK_PLANTED(use_without_barrier)
OPENWEEK_PLANTED(init_without_fence)
OPENWEEK_PLANTED(remote_without_barrier)
OPENWEEK_PLANTED(init_in_use)
OPENWEEK_PLANTED(init_under_copy)
OPENWEEK_PLANTED(invalidate_in_use)
OPENWEEK_PLANTED(use_after_invalidate)
OPENWEEK_PLANTED(load_of_object)
OPENWEEK_PLANTED(store_to_object)
OPENWEEK_PLANTED(too_few_bytes)
OPENWEEK_PLANTED(fewer_bytes)
OPENWEEK_PLANTED(too_many_bytes)
OPENWEEK_PLANTED(expects_overflow)
OPENWEEK_PLANTED(arrival_overflows)
OPENWEEK_PLANTED(completes_underflow)
OPENWEEK_PLANTED(too_many_arrivals)
OPENWEEK_PLANTED(too_few_arrivals_expected)
OPENWEEK_PLANTED(no_arrival_expected)
OPENWEEK_PLANTED(reader_ahead)
OPENWEEK_PLANTED(consumer_ahead)
OPENWEEK_PLANTED(consumer_stays)
OPENWEEK_PLANTED(consumer_skips)
OPENWEEK_PLANTED(consumer_forgets)
OPENWEEK_PLANTED(producer_behind)
OPENWEEK_PLANTED(producer_stays)
OPENWEEK_PLANTED(producer_forgets)
