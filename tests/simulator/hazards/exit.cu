// A CTA that ends while its shared memory is still in use, by its own copies or by other CTAs.
#include "planted.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::tests {

template <bool kBug>
__device__ __forceinline__ void load_in_flight(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x != 0) return;
  barrier.init(1);
  barrier.arrive_and_expect(kBoxBytes);
  tma_load(box, p.map, barrier, 0, 0);  // load_in_flight
  if (!kBug) barrier.wait(0);
}

// The phase that is waited for is the one before.
template <bool kBug>
__device__ __forceinline__ void second_load_in_flight(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x != 0) return;
  barrier.init(1);
  for (int turn = 0; turn < 2; ++turn) {
    barrier.arrive_and_expect(kBoxBytes);
    tma_load(box, p.map, barrier, 0, 0);  // second_load_in_flight
    if (!kBug || turn == 0) barrier.wait(turn);
  }
}

template <bool kBug>
__device__ __forceinline__ void bulk_load_in_flight(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(16) uint8_t bytes[256];
  if (threadIdx.x != 0) return;
  barrier.init(1);
  barrier.arrive_and_expect(256);
  bulk_load(bytes, p.data, 256, barrier);  // bulk_load_in_flight
  if (!kBug) barrier.wait(0);
}

// A box of numbers that the tensor does not have yet.
__device__ __forceinline__ void fill(int32_t* box) {
  for (int i = threadIdx.x; i < kBoxBytes / 4; i += blockDim.x) box[i] = i;
  fence_async_proxy();
  __syncthreads();
}

template <bool kBug>
__device__ __forceinline__ void store_in_flight(const Params& p) {
  __shared__ alignas(1024) int32_t box[kBoxBytes / 4];
  fill(box);
  if (threadIdx.x != 0) return;
  tma_store(p.map, box, 0, 0);  // store_in_flight
  tma_store_commit();
  if (!kBug) tma_store_wait_read<0>();
}

// The wait counts committed groups alone.
template <bool kBug>
__device__ __forceinline__ void store_not_committed(const Params& p) {
  __shared__ alignas(1024) int32_t box[kBoxBytes / 4];
  fill(box);
  if (threadIdx.x != 0) return;
  tma_store(p.map, box, 0, 0);  // store_not_committed
  if (!kBug) tma_store_commit();
  tma_store_wait<0>();
}

template <bool kBug>
__device__ __forceinline__ void last_store_in_flight(const Params& p) {
  __shared__ alignas(1024) int32_t box[kBoxBytes / 4];
  fill(box);
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 2; ++i) {
    tma_store(p.map, box, 0, 8 * i);  // last_store_in_flight
    tma_store_commit();
  }
  tma_store_wait_read<(kBug ? 1 : 0)>();
}

// The wait of another thread is none.
template <bool kBug>
__device__ __forceinline__ void store_waited_by_another(const Params& p) {
  __shared__ alignas(1024) int32_t box[kBoxBytes / 4];
  fill(box);
  if (threadIdx.x == 0) {
    tma_store(p.map, box, 0, 0);  // store_waited_by_another
    tma_store_commit();
  }
  if (threadIdx.x == (kBug ? 1 : 0)) tma_store_wait_read<0>();
}

template <bool kBug>
__device__ __forceinline__ void bulk_store_in_flight(const Params& p) {
  __shared__ alignas(1024) int32_t box[kBoxBytes / 4];
  fill(box);
  if (threadIdx.x != 0) return;
  bulk_store(p.data, box, 256);  // bulk_store_in_flight
  tma_store_commit();
  if (!kBug) tma_store_wait<0>();
}

template <bool kBug>
__device__ __forceinline__ void copy_in_flight(const Params& p) {
  __shared__ alignas(16) uint8_t bytes[512];
  copy_16(bytes + 16 * threadIdx.x, p.data);  // copy_in_flight
  if (!kBug) wait_for_copies();
}

template <bool kBug>
__device__ __forceinline__ void wgmma_in_flight(const Params& p) {
  __shared__ alignas(1024) int32_t operands[4096];
  for (int i = threadIdx.x; i < 4096; i += blockDim.x) operands[i] = 0;
  fence_async_proxy();
  __syncthreads();
  const uint64_t a = k_major_descriptor<Swizzle::k128B>(shared_address(operands));
  float d[32];
  wgmma_fence();
  wgmma<Element::kBf16, 64>(d, a, a + (8192 >> 4), false);  // wgmma_in_flight
  wgmma_commit();
  if (!kBug) wgmma_wait<0>();
}

// CTA 0 arrives at the barrier of CTA 1, which has to stay until then.
template <bool kBug>
__device__ __forceinline__ void remote_arrival(const Params& p) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) {
    barrier.init(1);
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) barrier.arrive_at(1);  // remote_arrival
  if (!kBug) cluster_sync();
}

template <bool kBug>
__device__ __forceinline__ void remote_store(const Params& p) {
  __shared__ int32_t number;
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    const uint32_t there = address_in_cluster(shared_address(&number), 1);
    asm volatile("st.shared::cluster.u32 [%0], 7;" ::"r"(there) : "memory");  // remote_store
  }
  if (!kBug) cluster_sync();
}

template <bool kBug>
__device__ __forceinline__ void remote_load(const Params& p) {
  __shared__ int32_t number;
  if (threadIdx.x == 0) number = 5;
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    const uint32_t there = address_in_cluster(shared_address(&number), 1);
    int32_t read;
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(read) : "r"(there));  // remote_load
    p.data[0] = read;
  }
  if (!kBug) cluster_sync();
}

// CTA 0 has a box copied to both and waits for its own; CTA 1 has to wait for its own, too.
template <bool kBug>
__device__ __forceinline__ void multicast_to_the_gone(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(1024) uint8_t box[kBoxBytes];
  if (threadIdx.x == 0) {
    barrier.init(1);
    fence_mbarrier_init();
    barrier.arrive_and_expect(kBoxBytes);
  }
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    tma_load_multicast(box, p.map, barrier, 3, 0, 0);  // multicast_to_the_gone
  }
  if (!kBug || cluster_rank() == 0) barrier.wait(0);
}

// CTA 0 sends bytes of its own to CTA 1.
template <bool kBug>
__device__ __forceinline__ void bytes_to_the_gone(const Params& p) {
  __shared__ Mbarrier barrier;
  __shared__ alignas(16) int32_t sent[32], received[32];
  sent[threadIdx.x] = threadIdx.x;
  fence_async_proxy();
  if (threadIdx.x == 0) {
    barrier.init(1);
    fence_mbarrier_init();
    barrier.arrive_and_expect(cluster_rank() == 1 ? 128 : 0);
  }
  __syncwarp();
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) {
    asm volatile(  // bytes_to_the_gone
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], 128, "
        "[%2];" ::"r"(address_in_cluster(shared_address(received), 1)),
        "r"(shared_address(sent)), "r"(address_in_cluster(barrier.address(), 1))
        : "memory");
  }
  if (!kBug && cluster_rank() == 1) {
    barrier.wait_for_cluster(0);
    p.data[threadIdx.x] = received[threadIdx.x];
  }
  if (!kBug) cluster_sync();
}

}  // namespace openweek::tests

OPENWEEK_PLANTED(load_in_flight)
OPENWEEK_PLANTED(second_load_in_flight)
OPENWEEK_PLANTED(bulk_load_in_flight)
OPENWEEK_PLANTED(store_in_flight)
OPENWEEK_PLANTED(store_not_committed)
OPENWEEK_PLANTED(last_store_in_flight)
OPENWEEK_PLANTED(store_waited_by_another)
OPENWEEK_PLANTED(bulk_store_in_flight)
OPENWEEK_PLANTED(copy_in_flight)
OPENWEEK_PLANTED(wgmma_in_flight)
OPENWEEK_PLANTED(remote_arrival)
OPENWEEK_PLANTED(remote_store)
OPENWEEK_PLANTED(remote_load)
OPENWEEK_PLANTED(multicast_to_the_gone)
OPENWEEK_PLANTED(bytes_to_the_gone)
