// Instructions that all lanes of a warp, or all warps of a warpgroup, have to execute together.
#include "planted.cuh"
#include "primitives/registers.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::tests {

__device__ __forceinline__ uint32_t lane() { return threadIdx.x % 32; }
__device__ __forceinline__ uint32_t warp() { return threadIdx.x / 32; }

// Two matrices of 64 x 64 in bf16, all zero, that the tensor cores may read.
struct Operands {
  alignas(1024) uint8_t a[8192];
  alignas(1024) uint8_t b[8192];
};

__device__ __forceinline__ void clear(Operands& operands) {
  auto* words = reinterpret_cast<int32_t*>(&operands);
  for (int i = threadIdx.x; i < sizeof(Operands) / 4; i += blockDim.x) words[i] = 0;
  fence_async_proxy();
  __syncthreads();
}

__device__ __forceinline__ uint64_t descriptor(const uint8_t* matrix) {
  return k_major_descriptor<Swizzle::k128B>(shared_address(matrix));
}

__device__ __forceinline__ void multiply(const Operands& operands, uint64_t a_offset,
                                         bool accumulate = false) {
  float d[32];
  wgmma_fence();
  wgmma<Element::kBf16, 64>(d, descriptor(operands.a) + a_offset, descriptor(operands.b),
                            accumulate);
  wgmma_commit();
  wgmma_wait_all(d);
}

template <bool kBug>
__device__ __forceinline__ void wgmma_by_half_a_warp(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  if (lane() < (kBug ? 16 : 32)) multiply(operands, 0);  // wgmma_by_half_a_warp
  __syncthreads();
}

// The other half ends, which leaves nobody to wait for.
template <bool kBug>
__device__ __forceinline__ void wgmma_by_the_rest(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  if (kBug && lane() >= 16) return;
  multiply(operands, 0);  // wgmma_by_the_rest
}

template <bool kBug>
__device__ __forceinline__ void wgmma_by_one_warp(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  if (!kBug || warp() == 1) multiply(operands, 0);  // wgmma_by_one_warp
}

// The others wait for it at a barrier: a deadlock.
template <bool kBug>
__device__ __forceinline__ void wgmma_by_three_warps(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  if (!kBug || warp() != 2) multiply(operands, 0);  // wgmma_by_three_warps
  __syncthreads();                                  // where warp 2 waits
}

template <bool kBug>
__device__ __forceinline__ void wgmma_descriptors_of_warps(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  multiply(operands, kBug && warp() == 3 ? 2 : 0);  // wgmma_descriptors_of_warps
}

template <bool kBug>
__device__ __forceinline__ void wgmma_descriptors_of_lanes(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  multiply(operands, kBug && lane() == 31 ? 2 : 0);  // wgmma_descriptors_of_lanes
}

template <bool kBug>
__device__ __forceinline__ void wgmma_accumulates_in_one_warp(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  multiply(operands, 0, kBug && warp() == 0);  // wgmma_accumulates_in_one_warp
}

template <bool kBug>
__device__ __forceinline__ void wgmma_accumulates_in_some_lanes(const Params& p) {
  __shared__ Operands operands;
  clear(operands);
  multiply(operands, 0, kBug && lane() == 7);  // wgmma_accumulates_in_some_lanes
}

// Three warpgroups, which begin with 168 registers a thread.
template <bool kBug>
__device__ __forceinline__ void registers_of_one_warp(const Params& p) {
  if (threadIdx.x >= 128) return;
  if (!kBug || warp() == 0) shrink_registers<40>();  // registers_of_one_warp
}

template <bool kBug>
__device__ __forceinline__ void registers_of_half_a_warp(const Params& p) {
  if (threadIdx.x >= 128) return;
  if (!kBug || lane() < 16) shrink_registers<40>();  // registers_of_half_a_warp
  __syncwarp();
}

template <bool kBug>
__device__ __forceinline__ void registers_of_the_rest(const Params& p) {
  if (threadIdx.x >= 128 || (kBug && lane() < 16)) return;
  shrink_registers<40>();  // registers_of_the_rest
}

template <bool kBug>
__device__ __forceinline__ void registers_differ(const Params& p) {
  if (threadIdx.x >= 128) return;
  if (kBug && warp() == 0) {
    shrink_registers<48>();  // registers_differ
  } else {
    shrink_registers<40>();  // registers_differ
  }
}

// 128 * 40 + 256 * 232 registers are all there are.
template <bool kBug>
__device__ __forceinline__ void registers_beyond_budget(const Params& p) {
  if (threadIdx.x < 128) {
    shrink_registers<40>();
  } else if (kBug) {
    grow_registers<240>();  // registers_beyond_budget
  } else {
    grow_registers<232>();
  }
}

template <bool kBug>
__device__ __forceinline__ void registers_nobody_gave(const Params& p) {
  if (threadIdx.x < 128) {
    if (!kBug) shrink_registers<40>();
  } else {
    grow_registers<232>();  // registers_nobody_gave
  }
}

template <bool kBug>
__device__ __forceinline__ void registers_grow_to_less(const Params& p) {
  grow_registers<(kBug ? 160 : 168)>();  // registers_grow_to_less
}

template <bool kBug>
__device__ __forceinline__ void registers_shrink_to_more(const Params& p) {
  shrink_registers<(kBug ? 176 : 168)>();  // registers_shrink_to_more
}

template <bool kBug>
__device__ __forceinline__ void barrier_in_both_branches(const Params& p) {
  if (lane() < (kBug ? 16 : 32)) {
    p.data[threadIdx.x] = 1;
    named_barrier_sync(1, 64);  // barrier_in_both_branches
  } else {
    p.other[threadIdx.x] = 1;
    named_barrier_sync(1, 64);
  }
  __syncthreads();
}

template <bool kBug>
__device__ __forceinline__ void barrier_in_one_branch(const Params& p) {
  if (lane() < (kBug ? 16 : 32)) named_barrier_sync(1, 64);  // barrier_in_one_branch
  named_barrier_sync(2, 64);
}

// As compilers write short branches.
template <bool kBug>
__device__ __forceinline__ void barrier_with_predicate(const Params& p) {
  asm volatile(  // barrier_with_predicate
      "{\n"
      ".reg .pred some;\n"
      "setp.lt.u32 some, %0, %1;\n"
      "@some bar.sync 1, 64;\n"
      "}" ::"r"(lane()),
      "r"(kBug ? 16 : 32)
      : "memory");
}

template <bool kBug>
__device__ __forceinline__ void barrier_counts_differ(const Params& p) {
  const uint32_t num_threads = kBug && warp() == 0 ? 96 : 64;
  named_barrier_sync(1, num_threads);  // barrier_counts_differ
}

// __syncthreads() means all 64 threads, the other one 32 of them.
template <bool kBug>
__device__ __forceinline__ void barrier_counts_differ_from_all(const Params& p) {
  if (warp() == 0) {
    asm volatile("bar.sync 3;" ::: "memory");  // barrier_counts_differ_from_all
  } else {
    named_barrier_sync(3, kBug ? 96 : 64);  // barrier_counts_differ_from_all
  }
}

// Half a warp and a whole one are more than 32 threads.
template <bool kBug>
__device__ __forceinline__ void barrier_too_many_threads(const Params& p) {
  const uint32_t most = kBug && warp() == 1 ? 32 : 16;
  if (lane() < most) asm volatile("barrier.sync 1, 32;" ::: "memory");  // barrier_too_many_threads
}

template <bool kBug>
__device__ __forceinline__ void cluster_barrier_divergent(const Params& p) {
  if (lane() < (kBug ? 16 : 32)) cluster_sync();  // cluster_barrier_divergent
  __syncthreads();
}

template <bool kBug>
__device__ __forceinline__ void cluster_barrier_twice(const Params& p) {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  if (kBug) asm volatile("barrier.cluster.arrive.aligned;" ::: "memory");  // cluster_barrier_twice
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

template <bool kBug>
__device__ __forceinline__ void matrix_by_half_a_warp(const Params& p) {
  __shared__ alignas(16) uint8_t rows[512];
  const uint32_t matrices[4] = {0, 1, 2, 3};
  const uint32_t row = shared_address(rows) + 16 * lane();
  if (lane() < (kBug ? 16 : 32)) store_matrices(row, matrices);  // matrix_by_half_a_warp
  __syncthreads();
}

}  // namespace openweek::tests

OPENWEEK_PLANTED(wgmma_by_half_a_warp)
OPENWEEK_PLANTED(wgmma_by_the_rest)
OPENWEEK_PLANTED(wgmma_by_one_warp)
OPENWEEK_PLANTED(wgmma_by_three_warps)
OPENWEEK_PLANTED(wgmma_descriptors_of_warps)
OPENWEEK_PLANTED(wgmma_descriptors_of_lanes)
OPENWEEK_PLANTED(wgmma_accumulates_in_one_warp)
OPENWEEK_PLANTED(wgmma_accumulates_in_some_lanes)
OPENWEEK_PLANTED(registers_of_one_warp)
OPENWEEK_PLANTED(registers_of_half_a_warp)
OPENWEEK_PLANTED(registers_of_the_rest)
OPENWEEK_PLANTED(registers_differ)
OPENWEEK_PLANTED(registers_beyond_budget)
OPENWEEK_PLANTED(registers_nobody_gave)
OPENWEEK_PLANTED(registers_grow_to_less)
OPENWEEK_PLANTED(registers_shrink_to_more)
OPENWEEK_PLANTED(barrier_in_both_branches)
OPENWEEK_PLANTED(barrier_in_one_branch)
OPENWEEK_PLANTED(barrier_with_predicate)
OPENWEEK_PLANTED(barrier_counts_differ)
OPENWEEK_PLANTED(barrier_counts_differ_from_all)
OPENWEEK_PLANTED(barrier_too_many_threads)
OPENWEEK_PLANTED(cluster_barrier_divergent)
OPENWEEK_PLANTED(cluster_barrier_twice)
OPENWEEK_PLANTED(matrix_by_half_a_warp)
