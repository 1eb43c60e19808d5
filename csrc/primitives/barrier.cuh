// Barriers of a CTA: mbarriers, which also count the bytes of asynchronous copies, and named ones.
#pragma once

#include "primitives/cluster.cuh"
#include "primitives/smem.cuh"

namespace openweek::primitives {

// An object in shared memory that runs through phases. A phase ends when the expected arrivals came
// and the bytes that were announced have landed; bytes may land before they are announced.
class Mbarrier {
 public:
  // One thread; then fence_mbarrier_init() and a barrier of all who use it.
  __device__ __forceinline__ void init(uint32_t num_arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(num_arrivals)
                 : "memory");
  }

  __device__ __forceinline__ void arrive() {
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(address())
                 : "memory");
  }

  // Arrives and announces bytes that copies of this phase will bring.
  __device__ __forceinline__ void arrive_and_expect(uint32_t num_bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(address()),
        "r"(num_bytes)
        : "memory");
  }

  // Arrives at the barrier of the same place in another CTA of the cluster.
  __device__ __forceinline__ void arrive_at(uint32_t rank) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     address_in_cluster(address(), rank))
                 : "memory");
  }

  // The same by a thread that has only read what others may overwrite now. A release to the whole
  // cluster would wait for all of the thread's writes (MEMBAR.ALL.GPU, hundreds of cycles).
  __device__ __forceinline__ void arrive_at_as_reader(uint32_t rank) {
    asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(
                     address_in_cluster(address(), rank))
                 : "memory");
  }

  // Waits for the end of the phase of that parity: phases count from 0, and a new barrier counts as
  // one whose phase of parity 1 has ended. Sees what the arriving threads of this CTA wrote and
  // what the copies brought.
  __device__ __forceinline__ void wait(uint32_t parity) {
    while (!has_ended(parity)) {
    }
  }

  // The same for a barrier at which threads of other CTAs arrive.
  __device__ __forceinline__ void wait_for_cluster(uint32_t parity) {
    while (!has_ended_in_cluster(parity)) {
    }
  }

  __device__ __forceinline__ uint32_t address() const { return shared_address(this); }

 private:
  // May suspend the thread for a time that the hardware chooses.
  __device__ __forceinline__ bool has_ended(uint32_t parity) {
    uint32_t ended;
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 ended, [%1], %2;\n"
        "selp.b32 %0, 1, 0, ended;\n"
        "}"
        : "=r"(ended)
        : "r"(address()), "r"(parity)
        : "memory");
    return ended != 0;
  }

  __device__ __forceinline__ bool has_ended_in_cluster(uint32_t parity) {
    uint32_t ended;
    asm volatile(
        "{\n"
        ".reg .pred ended;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 ended, [%1], %2;\n"
        "selp.b32 %0, 1, 0, ended;\n"
        "}"
        : "=r"(ended)
        : "r"(address()), "r"(parity)
        : "memory");
    return ended != 0;
  }

  uint64_t state_;
};
static_assert(sizeof(Mbarrier) == 8 && alignof(Mbarrier) == 8);

// All of `num_threads` threads, whole warps, meet. Barrier 0 is __syncthreads().
__device__ __forceinline__ void named_barrier_sync(uint32_t id, uint32_t num_threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

// Counts this warp in without waiting; the others wait by named_barrier_sync.
__device__ __forceinline__ void named_barrier_arrive(uint32_t id, uint32_t num_threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

}  // namespace openweek::primitives
