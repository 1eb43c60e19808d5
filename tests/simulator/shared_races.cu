// Planted races on shared memory: between lanes, warps and CTAs of a cluster.
#include "planted.cuh"

namespace openweek::tests {

// Names the source for the compiler; all other kernels are instances of
// templates.
__global__ void shared_races() {}

// ---- barriers of a block ----

template <bool kRepaired>
__global__ void read_after_write(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  __syncthreads();
  s.words[threadIdx.x] = threadIdx.x;  // [one]
  if (kRepaired) __syncthreads();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 32];  // [other]
}
OPENWEEK_PLANTED(read_after_write)

template <bool kRepaired>
__global__ void write_after_read(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = threadIdx.x;
  __syncthreads();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 32];  // [one]
  if (kRepaired) __syncthreads();
  s.words[threadIdx.x] = 0;  // [other]
}
OPENWEEK_PLANTED(write_after_read)

template <bool kRepaired>
__global__ void write_after_write(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = threadIdx.x;  // [one]
  if (kRepaired) __syncthreads();
  s.words[threadIdx.x ^ 32] = 0;  // [other]
  __syncthreads();
  args.words[threadIdx.x] = s.words[threadIdx.x];
}
OPENWEEK_PLANTED(write_after_write)

// The same value or not: two unordered writes are a race.
template <bool kRepaired>
__global__ void same_value(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired ? threadIdx.x == 0 : threadIdx.x % 32 == 0) s.words[0] = 7;  // [one]
  __syncthreads();
  args.words[threadIdx.x] = s.words[0];
}
OPENWEEK_PLANTED(same_value)

// Warps 0 and 1 meet, and 2 and 3, but values cross from one pair to the other.
template <bool kRepaired>
__global__ void disjoint_named_barriers(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  __syncthreads();
  s.words[threadIdx.x] = threadIdx.x;  // [one]
  if (kRepaired) {
    named_barrier_sync(1, 128);
  } else {
    named_barrier_sync(1 + threadIdx.x / 64, 64);
  }
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 64];  // [other]
}
OPENWEEK_PLANTED(disjoint_named_barriers)

// What came before two barriers with one warp in common is ordered before what
// comes after them.
template <bool kRepaired>
__global__ void chain_of_barriers(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t warp = threadIdx.x / 32;
  s.words[threadIdx.x] = 0;
  __syncthreads();
  if (warp == 0) s.words[threadIdx.x] = 1;  // [one]
  if (warp < 2) named_barrier_sync(1, 64);
  if (warp == 2 || warp == (kRepaired ? 1 : 3)) named_barrier_sync(2, 64);
  if (warp == 2) args.words[threadIdx.x] = s.words[threadIdx.x - 64];  // [other]
}
OPENWEEK_PLANTED(chain_of_barriers)

template <bool kRepaired>
__global__ void arrives_too_soon(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    if (!kRepaired) named_barrier_arrive(1, 64);
    s.words[threadIdx.x] = 1;  // [one]
    if (kRepaired) named_barrier_arrive(1, 64);
  } else if (threadIdx.x < 64) {
    named_barrier_sync(1, 64);
    args.words[threadIdx.x] = s.words[threadIdx.x - 32];  // [other]
  }
}
OPENWEEK_PLANTED(arrives_too_soon)

// Who only arrives has not waited: what the others did before the barrier is
// not ordered before it.
template <bool kRepaired>
__global__ void only_arrives(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  __syncthreads();
  if (threadIdx.x < 32) {
    s.words[threadIdx.x] = 1;  // [one]
    named_barrier_sync(1, 64);
  } else if (threadIdx.x < 64) {
    if (kRepaired) {
      named_barrier_sync(1, 64);
    } else {
      named_barrier_arrive(1, 64);
    }
    args.words[threadIdx.x] = s.words[threadIdx.x - 32];  // [other]
  }
}
OPENWEEK_PLANTED(only_arrives)

// ---- lanes of a warp ----

template <bool kRepaired>
__global__ void lanes_read_after_write(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = threadIdx.x;  // [one]
  if (kRepaired) __syncwarp();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 1];  // [other]
}
OPENWEEK_PLANTED(lanes_read_after_write)

template <bool kRepaired>
__global__ void lanes_write_after_read(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = threadIdx.x;
  __syncwarp();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 1];  // [one]
  if (kRepaired) __syncwarp();
  s.words[threadIdx.x] = 0;  // [other]
}
OPENWEEK_PLANTED(lanes_write_after_read)

// All lanes read what one has written and one overwrites.
template <bool kRepaired>
__global__ void lanes_broadcast(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (threadIdx.x == 0) s.words[0] = 1;
  __syncwarp();
  args.words[threadIdx.x] = s.words[0];  // [one]
  if (kRepaired) __syncwarp();
  if (threadIdx.x == 3) s.words[0] = 2;  // [other]
}
OPENWEEK_PLANTED(lanes_broadcast)

// Votes and shuffles bring lanes together and order no memory.
template <bool kRepaired>
__global__ void lanes_only_vote(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = threadIdx.x;  // [one]
  const bool all = __all_sync(~0u, threadIdx.x < 64);
  if (kRepaired) __syncwarp();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 1] + all;  // [other]
}
OPENWEEK_PLANTED(lanes_only_vote)

// ---- atomics, bytes, flags ----

// Atomic operations do not race with one another; a plain read does.
template <bool kRepaired>
__global__ void read_among_atomics(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (threadIdx.x == 0) s.words[0] = 0;
  __syncthreads();
  atomicAdd(&s.words[0], 1);  // [one]
  if (kRepaired) __syncthreads();
  args.words[threadIdx.x] = s.words[0];  // [other]
}
OPENWEEK_PLANTED(read_among_atomics)

// Those who count do not race with one another, but with the one that begins at zero.
template <bool kRepaired>
__global__ void counts_before_zero(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (threadIdx.x == 0) s.words[0] = 9;
  __syncthreads();
  if (threadIdx.x == 0) s.words[0] = 0;  // [one]
  if (kRepaired) __syncthreads();
  atomicAdd(&s.words[0], 1);  // [other]
  __syncthreads();
  args.words[threadIdx.x] = s.words[0];
}
OPENWEEK_PLANTED(counts_before_zero)

// Neighbouring bytes are no race, the same byte is.
template <bool kRepaired>
__global__ void neighbouring_bytes(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  s.bytes[4 * lane + (kRepaired ? warp : 1)] = warp;  // [one]
  __syncthreads();
  args.words[threadIdx.x] = s.bytes[4 * lane + 1];
}
OPENWEEK_PLANTED(neighbouring_bytes)

template <bool kOrders>
__device__ __forceinline__ void raise(uint32_t* flag) {
  if (kOrders) {
    asm volatile("st.release.cta.shared.u32 [%0], 1;" ::"r"(shared_address(flag)) : "memory");
  } else {
    asm volatile("st.volatile.shared.u32 [%0], 1;" ::"r"(shared_address(flag)) : "memory");
  }
}

template <bool kOrders>
__device__ __forceinline__ void await(const uint32_t* flag) {
  uint32_t value = 0;
  while (value == 0) {
    if (kOrders) {
      asm volatile("ld.acquire.cta.shared.u32 %0, [%1];"
                   : "=r"(value)
                   : "r"(shared_address(flag))
                   : "memory");
    } else {
      asm volatile("ld.volatile.shared.u32 %0, [%1];"
                   : "=r"(value)
                   : "r"(shared_address(flag))
                   : "memory");
    }
  }
}

template <bool kReleases, bool kAcquires>
__device__ __forceinline__ void flag(const Args& args) {
  Shared& s = shared();
  if (threadIdx.x == 0) s.words[1] = 0;
  __syncthreads();
  if (threadIdx.x == 0) {
    s.words[0] = 1;  // written
    raise<kReleases>(&s.words[1]);
  } else if (threadIdx.x == 32) {
    await<kAcquires>(&s.words[1]);
    args.words[0] = s.words[0];  // read
  }
}

// Volatile accesses are atomic, so the flag itself is no race; they order
// nothing else.
template <bool kRepaired>
__global__ void volatile_flag(const __grid_constant__ Args args) {
  flag<kRepaired, kRepaired>(args);  // [one] [other]
}
OPENWEEK_PLANTED(volatile_flag)

template <bool kRepaired>
__global__ void flag_not_released(const __grid_constant__ Args args) {
  flag<kRepaired, true>(args);  // [one] [other]
}
OPENWEEK_PLANTED(flag_not_released)

template <bool kRepaired>
__global__ void flag_not_acquired(const __grid_constant__ Args args) {
  flag<true, kRepaired>(args);  // [one] [other]
}
OPENWEEK_PLANTED(flag_not_acquired)

// ---- mbarriers ----

template <bool kRepaired>
__global__ void arrives_before_it_writes(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  set_up(s, 32);
  if (threadIdx.x < 32) {
    if (!kRepaired) s.empty[0].arrive();
    s.words[threadIdx.x] = 1;  // [one]
    if (kRepaired) s.empty[0].arrive();
  } else {
    s.empty[0].wait(0);
    args.words[threadIdx.x] = s.words[threadIdx.x % 32];  // [other]
  }
}
OPENWEEK_PLANTED(arrives_before_it_writes)

template <bool kRepaired>
__global__ void mbarrier_not_waited_for(const __grid_constant__ Args args) {
  Shared& s = shared();
  s.words[threadIdx.x] = 0;
  set_up(s, 32);
  if (threadIdx.x < 32) {
    s.words[threadIdx.x] = 1;  // [one]
    s.empty[0].arrive();
  } else {
    if (kRepaired) s.empty[0].wait(0);
    args.words[threadIdx.x] = s.words[threadIdx.x % 32];  // [other]
  }
}
OPENWEEK_PLANTED(mbarrier_not_waited_for)

// ---- CTAs of a cluster ----

__device__ __forceinline__ void write_remote(const uint32_t* word, uint32_t rank) {
  asm volatile(
      "st.shared::cluster.u32 [%0], 1;" ::"r"(address_in_cluster(shared_address(word), rank))
      : "memory");
}

template <bool kRepaired>
__global__ void remote_write(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t peer = cluster_rank() ^ 1;
  s.words[threadIdx.x] = 0;
  cluster_sync();
  write_remote(&s.words[threadIdx.x], peer);  // [one]
  if (kRepaired) cluster_sync();
  args.words[128 * peer + threadIdx.x] = s.words[threadIdx.x];  // [other]
  cluster_sync();
}
OPENWEEK_PLANTED(remote_write)

// A block's own barrier does not order what the other block does.
template <bool kRepaired>
__global__ void block_barrier_for_a_cluster(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t peer = cluster_rank() ^ 1;
  s.words[threadIdx.x] = 0;
  cluster_sync();
  write_remote(&s.words[threadIdx.x], peer);  // [one]
  if (kRepaired) {
    cluster_sync();
  } else {
    __syncthreads();
  }
  args.words[128 * peer + threadIdx.x] = s.words[threadIdx.x];  // [other]
  cluster_sync();
}
OPENWEEK_PLANTED(block_barrier_for_a_cluster)

template <bool kRepaired>
__global__ void relaxed_cluster_barrier(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t peer = cluster_rank() ^ 1;
  s.words[threadIdx.x] = 0;
  cluster_sync();
  write_remote(&s.words[threadIdx.x], peer);  // [one]
  if (kRepaired) {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  } else {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
  }
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  args.words[128 * peer + threadIdx.x] = s.words[threadIdx.x];  // [other]
  cluster_sync();
}
OPENWEEK_PLANTED(relaxed_cluster_barrier)

// The write goes to the peer, and so does the arrival that tells of it.
template <bool kRepaired>
__global__ void remote_arrival_too_soon(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t peer = cluster_rank() ^ 1;
  s.words[threadIdx.x] = 0;
  set_up(s, blockDim.x);
  if (!kRepaired) s.empty[0].arrive_at(peer);
  write_remote(&s.words[threadIdx.x], peer);  // [one]
  if (kRepaired) s.empty[0].arrive_at(peer);
  s.empty[0].wait_for_cluster(0);
  args.words[128 * peer + threadIdx.x] = s.words[threadIdx.x];  // [other]
  cluster_sync();
}
OPENWEEK_PLANTED(remote_arrival_too_soon)

}  // namespace openweek::tests
