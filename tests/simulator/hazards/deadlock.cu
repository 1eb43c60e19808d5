// Warps that wait for what never comes. Each place where one waits is marked.
#include "planted.cuh"
#include "primitives/registers.cuh"

namespace openweek::tests {

__device__ __forceinline__ uint32_t lane() { return threadIdx.x % 32; }
__device__ __forceinline__ uint32_t warp() { return threadIdx.x / 32; }

// Warp 0 waits for one arrival of three, warp 1 for bytes, warp 2 at a barrier for both.
template <bool kBug>
__device__ __forceinline__ void all_kinds(const Params& p) {
  __shared__ Mbarrier arrivals, bytes;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    arrivals.init(3);
    bytes.init(1);
    bytes.arrive();
  }
  __syncthreads();
  if (lane() == 0 && (!kBug || warp() != 1)) arrivals.arrive();
  if (threadIdx.x == 32) {
    bytes.arrive_and_expect(kBug ? kBoxBytes + 48 : kBoxBytes);
    tma_load(box, p.map, bytes, 0, 0);
  }
  if (warp() == 0) {
    arrivals.wait(0);  // all_kinds: arrivals
  } else if (warp() == 1) {
    bytes.wait(1);  // all_kinds: bytes
  }
  named_barrier_sync(5, 96);  // all_kinds: named
}

template <bool kBug>
__device__ __forceinline__ void missing_warp(const Params& p) {
  if (kBug && warp() == 1) return;
  named_barrier_sync(2, 96);  // missing_warp
}

// CTA 1 waits for a message that CTA 0 sends after the cluster's barrier.
template <bool kBug>
__device__ __forceinline__ void cluster_and_message(const Params& p) {
  __shared__ Mbarrier message;
  if (threadIdx.x == 0) {
    message.init(1);
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
  if (kBug && cluster_rank() == 1) message.wait_for_cluster(0);  // cluster_and_message: mbarrier
  cluster_sync();                                                // cluster_and_message: cluster
  if (threadIdx.x == 0 && cluster_rank() == 0) message.arrive_at(1);
  if (!kBug && cluster_rank() == 1) message.wait_for_cluster(0);
  cluster_sync();
}

// Each of two CTAs waits for the other before it sends.
template <bool kBug>
__device__ __forceinline__ void circle_of_ctas(const Params& p) {
  __shared__ Mbarrier message;
  if (threadIdx.x == 0) {
    message.init(1);
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
  const uint32_t peer = cluster_rank() ^ 1;
  if (!kBug && threadIdx.x == 0) message.arrive_at(peer);
  message.wait_for_cluster(0);  // circle_of_ctas
  if (kBug && threadIdx.x == 0) message.arrive_at(peer);
  cluster_sync();
}

// A lane waits for its neighbour, which waits for the whole warp.
template <bool kBug>
__device__ __forceinline__ void lanes_of_a_warp(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) barrier.init(1);
  __syncwarp();
  if (threadIdx.x == 5) {
    barrier.wait(0);  // lanes_of_a_warp: waits
  } else {
    if (!kBug && threadIdx.x == 6) barrier.arrive();
  }
  __syncwarp();  // lanes_of_a_warp: whole warp
  if (kBug && threadIdx.x == 6) barrier.arrive();
}

// Two warpgroups of 248 registers a thread; nobody gives any away.
template <bool kBug>
__device__ __forceinline__ void registers(const Params& p) {
  if (threadIdx.x < 128) {
    if (!kBug) shrink_registers<232>();
    __syncthreads();  // registers: given
  } else {
    grow_registers<256>();  // registers: wanted
    __syncthreads();
  }
}

}  // namespace openweek::tests

OPENWEEK_PLANTED(all_kinds)
OPENWEEK_PLANTED(missing_warp)
OPENWEEK_PLANTED(cluster_and_message)
OPENWEEK_PLANTED(circle_of_ctas)
OPENWEEK_PLANTED(lanes_of_a_warp)
OPENWEEK_PLANTED(registers)
