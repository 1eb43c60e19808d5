// Planted bugs around copies and products under way: what they read is overwritten, or what they
// write is read too soon.
#include "planted.cuh"

namespace openweek::tests {

// Names the source for the compiler; all other kernels are instances of templates.
__global__ void flight_hazards() {}

// ---- overwritten while an engine reads ----

template <bool kRepaired>
__global__ void store_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [earlier]
    tma_store_commit();
    if (kRepaired) tma_store_wait_read<0>();
  }
  __syncthreads();
  write_panel(s.a[0], 1);  // [later]
  tma_store_wait<0>();
}
OPENWEEK_PLANTED(store_not_waited_for)

// A thread waits for its own groups alone, so the others hear of it from a
// barrier.
template <bool kRepaired>
__global__ void store_waited_for_by_one(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [earlier]
    tma_store_commit();
  }
  __syncthreads();
  if (threadIdx.x == 0) tma_store_wait_read<0>();
  if (kRepaired) __syncthreads();
  if (threadIdx.x >= 32) write_panel(s.a[0], 1);  // [later]
}
OPENWEEK_PLANTED(store_waited_for_by_one)

template <bool kRepaired>
__global__ void one_store_too_few(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);
  write_panel(s.a[1]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);
    tma_store_commit();
    tma_store(args.out, s.a[1], 0, 64);  // [earlier]
    tma_store_commit();
    tma_store_wait_read<kRepaired ? 0 : 1>();
  }
  __syncthreads();
  write_panel(s.a[0], 1);
  write_panel(s.a[1], 1);  // [later]
  tma_store_wait<0>();
}
OPENWEEK_PLANTED(one_store_too_few)

// A store that is in no group is in the next one, for which nobody has waited.
template <bool kRepaired>
__global__ void store_not_committed(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [earlier]
    if (kRepaired) tma_store_commit();
    tma_store_wait_read<0>();
  }
  __syncthreads();
  write_panel(s.a[0], 1);  // [later]
  if (threadIdx.x == 0) tma_store_commit();
  tma_store_wait<0>();
}
OPENWEEK_PLANTED(store_not_committed)

template <bool kRepaired>
__global__ void bulk_store_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(args.words, s.a[0]);  // [earlier]
    tma_store_commit();
    if (kRepaired) tma_store_wait_read<0>();
  }
  __syncthreads();
  write_panel(s.a[0], 1);  // [later]
  tma_store_wait<0>();
}
OPENWEEK_PLANTED(bulk_store_not_waited_for)

// The sender knows from its peer alone that the bytes have left.
template <bool kRepaired>
__global__ void send_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t rank = cluster_rank();
  set_up(s, 1);
  if (rank == 1 && threadIdx.x == 0) s.full[0].arrive_and_expect(kPanelBytes);
  write_panel(s.a[0]);
  fence_async_proxy();
  cluster_sync();
  if (rank == 0 && threadIdx.x == 0) {
    bulk_send(s.a[1], s.a[0], s.full[0], 1);  // [earlier]
  }
  __syncthreads();
  if (rank == 1) s.full[0].wait(0);
  if (kRepaired) cluster_sync();
  if (rank == 0) write_panel(s.a[0], 1);  // [later]
  cluster_sync();
}
OPENWEEK_PLANTED(send_not_waited_for)

template <bool kRepaired>
__global__ void store_refilled_too_soon(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [earlier]
    tma_store_commit();
    if (kRepaired) tma_store_wait_read<0>();
    load_panel(args, s.a[0], s.full[0]);  // [later]
  }
  s.full[0].wait(0);
  tma_store_wait<0>();
}
OPENWEEK_PLANTED(store_refilled_too_soon)

template <bool kRepaired>
__global__ void product_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32];
  write_panel(s.a[0]);
  write_panel(s.b[0]);
  fence_async_proxy();
  __syncthreads();
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);  // [earlier]
  if (kRepaired) wgmma_wait<0>();
  __syncthreads();
  write_panel(s.b[0], 1);  // [later]
  wgmma_wait_all(d);
  keep(args, d);
}
OPENWEEK_PLANTED(product_not_waited_for)

template <bool kRepaired>
__global__ void one_product_too_few(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32], e[32];
  write_panel(s.a[0]);
  write_panel(s.b[0]);
  write_panel(s.a[1]);
  fence_async_proxy();
  __syncthreads();
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);
  multiply(e, s.a[1], s.b[0]);  // [earlier]
  wgmma_wait<kRepaired ? 0 : 1>();
  __syncthreads();
  write_panel(s.a[0], 1);
  write_panel(s.a[1], 1);  // [later]
  wgmma_wait_all(d);
  wgmma_wait_all(e);
  keep(args, d);
  keep(args, e);
}
OPENWEEK_PLANTED(one_product_too_few)

// A ring of one stage: warpgroup 1 multiplies what a thread of warpgroup 0
// loads, twice.
template <bool kWaitsForEmpty, bool kReleasesLate>
__device__ __forceinline__ void ring(const Args& args) {
  Shared& s = shared();
  set_up(s, 128);
  if (threadIdx.x == 0) {
    for (uint32_t turn = 0; turn < 2; ++turn) {
      if (kWaitsForEmpty) s.empty[0].wait(turn ^ 1);
      s.full[0].arrive_and_expect(2 * kPanelBytes);
      tma_load(s.a[0], args.in, s.full[0], 0, 0);
      tma_load(s.b[0], args.in, s.full[0], 0, 64);
    }
  } else if (threadIdx.x >= 128) {
    for (uint32_t turn = 0; turn < 2; ++turn) {
      float d[32];
      s.full[0].wait(turn);
      wgmma_fence();
      multiply(d, s.a[0], s.b[0]);
      if (!kReleasesLate) s.empty[0].arrive();
      wgmma_wait_all(d);
      if (kReleasesLate) s.empty[0].arrive();
      keep(args, d);
    }
  }
  __syncwarp();
  cluster_sync();
}

template <bool kRepaired>
__global__ void released_too_soon(const __grid_constant__ Args args) {
  ring<true, kRepaired>(args);  // [earlier] [later]
}
OPENWEEK_PLANTED(released_too_soon)

// Without a wait for "empty" the copies of two phases meet; the expected bytes
// meet as well.
template <bool kRepaired>
__global__ void empty_barrier_skipped(const __grid_constant__ Args args) {
  ring<kRepaired, true>(args);  // [later]
}
OPENWEEK_PLANTED(empty_barrier_skipped)

// ---- read while an engine fills ----

template <bool kRepaired>
__global__ void full_barrier_skipped(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [earlier]
  __syncthreads();
  if (kRepaired) s.full[0].wait(0);
  args.words[threadIdx.x] = read_panel(s.a[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(full_barrier_skipped)

template <bool kRepaired>
__global__ void full_barrier_for_one_warp(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [earlier]
  __syncthreads();
  if (threadIdx.x < 32) s.full[0].wait(0);
  __syncwarp();
  if (kRepaired) __syncthreads();
  args.words[threadIdx.x] = read_panel(s.a[0]);  // [later]
  __syncthreads();
}
OPENWEEK_PLANTED(full_barrier_for_one_warp)

template <bool kRepaired>
__global__ void other_barrier(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) {
    load_panel(args, s.a[0], s.full[0]);  // [earlier]
    load_panel(args, s.a[1], s.full[1]);
  }
  s.full[1].wait(0);
  if (kRepaired) s.full[0].wait(0);
  args.words[threadIdx.x] = read_panel(s.a[1]) + read_panel(s.a[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(other_barrier)

template <bool kRepaired>
__global__ void operand_still_filling(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32];
  set_up(s, 1);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);
  if (threadIdx.x == 0) load_panel(args, s.b[0], s.full[1], 64);  // [earlier]
  s.full[0].wait(0);
  if (kRepaired) s.full[1].wait(0);
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);  // [later]
  s.full[1].wait(0);
  wgmma_wait_all(d);
  keep(args, d);
}
OPENWEEK_PLANTED(operand_still_filling)

template <bool kRepaired>
__global__ void box_still_filling(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) {
    load_panel(args, s.a[0], s.full[0]);  // [earlier]
    if (kRepaired) s.full[0].wait(0);
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    s.full[0].wait(0);
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(box_still_filling)

template <bool kRepaired>
__global__ void overwritten_while_filling(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [earlier]
  __syncthreads();
  if (kRepaired) s.full[0].wait(0);
  write_panel(s.a[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(overwritten_while_filling)

// A multicast box lands in the peer as well, whose own barrier tells of it.
template <bool kRepaired>
__global__ void multicast_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t rank = cluster_rank();
  set_up(s, 1);
  if (threadIdx.x == 0) s.full[0].arrive_and_expect(kPanelBytes);
  if (rank == 0 && threadIdx.x == 0) {
    tma_load_multicast(s.a[0], args.in, s.full[0], 3, 0, 0);  // [earlier]
  }
  cluster_sync();
  if (kRepaired || rank == 0) s.full[0].wait(0);
  args.words[rank * 128 + threadIdx.x] = read_panel(s.a[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(multicast_not_waited_for)

template <bool kRepaired>
__global__ void bulk_load_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) bulk_load(s.a[0], args.words, s.full[0]);  // [earlier]
  __syncthreads();
  if (kRepaired) s.full[0].wait(0);
  args.words[kPanelWords + threadIdx.x] = read_panel(s.a[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(bulk_load_not_waited_for)

__device__ __forceinline__ void copy_async(uint32_t* to, const uint32_t* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared_address(to)), "l"(from)
               : "memory");
}

__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int kNumPending>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNumPending) : "memory");
}

template <bool kRepaired>
__global__ void copy_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  copy_async(&s.words[threadIdx.x], &args.words[threadIdx.x]);  // [earlier]
  commit_copies();
  if (kRepaired) wait_for_copies<0>();
  args.words[1024 + threadIdx.x] = s.words[threadIdx.x];  // [later]
  wait_for_copies<0>();
}
OPENWEEK_PLANTED(copy_not_waited_for)

template <bool kRepaired>
__global__ void one_copy_too_few(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t first = threadIdx.x, second = 128 + first;
  copy_async(&s.words[first], &args.words[first]);
  commit_copies();
  copy_async(&s.words[second], &args.words[second]);  // [earlier]
  commit_copies();
  wait_for_copies<kRepaired ? 0 : 1>();
  args.words[1024 + first] = s.words[first];
  args.words[1024 + second] = s.words[second];  // [later]
  wait_for_copies<0>();
}
OPENWEEK_PLANTED(one_copy_too_few)

// A thread waits for its own copies alone.
template <bool kRepaired>
__global__ void copy_of_another_warp(const __grid_constant__ Args args) {
  Shared& s = shared();
  copy_async(&s.words[threadIdx.x], &args.words[threadIdx.x]);  // [earlier]
  commit_copies();
  __syncthreads();
  wait_for_copies<0>();
  if (kRepaired) __syncthreads();
  args.words[1024 + threadIdx.x] = s.words[threadIdx.x ^ 32];  // [later]
}
OPENWEEK_PLANTED(copy_of_another_warp)

}  // namespace openweek::tests
