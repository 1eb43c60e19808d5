// Planted bugs in what engines are given: bytes that nothing wrote, or that no proxy fence
// followed.
#include "planted.cuh"

namespace openweek::tests {

// Names the source for the compiler; all other kernels are instances of templates.
__global__ void proxy_hazards() {}

// ---- bytes that nothing wrote ----

template <bool kRepaired>
__global__ void unwritten_word(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired || threadIdx.x != 5) s.words[threadIdx.x] = threadIdx.x;
  __syncthreads();
  args.words[threadIdx.x] = s.words[threadIdx.x ^ 1];  // [later]
}
OPENWEEK_PLANTED(unwritten_word)

template <bool kRepaired>
__global__ void unwritten_byte(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired || threadIdx.x != 6) s.bytes[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x < 32) {
    args.words[threadIdx.x] = reinterpret_cast<uint32_t*>(s.bytes)[threadIdx.x];  // [later]
  }
}
OPENWEEK_PLANTED(unwritten_byte)

template <bool kRepaired>
__global__ void unwritten_sum(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired && threadIdx.x == 0) s.words[0] = 0;
  __syncthreads();
  atomicAdd(&s.words[0], 1);  // [later]
  __syncthreads();
  args.words[threadIdx.x] = s.words[0];
}
OPENWEEK_PLANTED(unwritten_sum)

template <bool kRepaired>
__global__ void unwritten_box(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired || threadIdx.x < 96) write_panel(s.a[0]);
  fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(unwritten_box)

template <bool kRepaired>
__global__ void unwritten_operand(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32];
  write_panel(s.a[0]);
  if (kRepaired || threadIdx.x < 96) write_panel(s.b[0]);
  fence_async_proxy();
  __syncthreads();
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);  // [later]
  wgmma_wait_all(d);
  keep(args, d);
}
OPENWEEK_PLANTED(unwritten_operand)

template <bool kRepaired>
__global__ void unwritten_matrix(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (kRepaired || threadIdx.x < 96) s.words[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x < 32) {
    args.words[threadIdx.x] = load_matrices(s.words);  // [later]
  }
}
OPENWEEK_PLANTED(unwritten_matrix)

// ---- proxy fences ----

template <bool kRepaired>
__global__ void unfenced_tma_store(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(unfenced_tma_store)

template <bool kRepaired>
__global__ void fence_before_the_write(const __grid_constant__ Args args) {
  Shared& s = shared();
  if (!kRepaired) fence_async_proxy();
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(fence_before_the_write)

// The one that starts the copy fences before the barrier, so for its own writes
// alone. After it, it fences for all that it knows of: a fence anywhere on the
// way from the write to the copy will do.
template <bool kRepaired>
__global__ void fence_by_one_thread(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);  // [earlier]
  if (!kRepaired && threadIdx.x == 0) fence_async_proxy();
  __syncthreads();
  if (kRepaired && threadIdx.x == 0) fence_async_proxy();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(fence_by_one_thread)

// A fence off the way from the write to the copy.
template <bool kRepaired>
__global__ void fence_by_a_bystander(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);  // [earlier]
  __syncthreads();
  if (threadIdx.x == 64) fence_async_proxy();
  if (kRepaired) __syncthreads();
  if (threadIdx.x == 0) {
    tma_store(args.out, s.a[0], 0, 0);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(fence_by_a_bystander)

template <bool kRepaired>
__global__ void unfenced_bulk_store(const __grid_constant__ Args args) {
  Shared& s = shared();
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) {
    bulk_store(args.words, s.a[0]);  // [later]
    tma_store_commit();
    tma_store_wait_read<0>();
  }
}
OPENWEEK_PLANTED(unfenced_bulk_store)

template <bool kRepaired>
__global__ void unfenced_send(const __grid_constant__ Args args) {
  Shared& s = shared();
  const uint32_t rank = cluster_rank();
  set_up(s, 1);
  if (rank == 1 && threadIdx.x == 0) s.full[0].arrive_and_expect(kPanelBytes);
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  cluster_sync();
  if (rank == 0 && threadIdx.x == 0) {
    bulk_send(s.a[1], s.a[0], s.full[0], 1);  // [later]
  }
  if (rank == 1) s.full[0].wait(0);
  cluster_sync();
}
OPENWEEK_PLANTED(unfenced_send)

template <bool kRepaired>
__global__ void unfenced_a(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32];
  write_panel(s.b[0]);
  fence_async_proxy();
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);  // [later]
  wgmma_wait_all(d);
  keep(args, d);
}
OPENWEEK_PLANTED(unfenced_a)

template <bool kRepaired>
__global__ void unfenced_b(const __grid_constant__ Args args) {
  Shared& s = shared();
  float d[32];
  write_panel(s.a[0]);
  fence_async_proxy();
  write_panel(s.b[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  wgmma_fence();
  multiply(d, s.a[0], s.b[0]);  // [later]
  wgmma_wait_all(d);
  keep(args, d);
}
OPENWEEK_PLANTED(unfenced_b)

template <bool kRepaired>
__global__ void unfenced_load_over_writes(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  write_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [later]
  s.full[0].wait(0);
  args.words[threadIdx.x] = read_panel(s.a[0]);
}
OPENWEEK_PLANTED(unfenced_load_over_writes)

template <bool kRepaired>
__global__ void unfenced_load_over_reads(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);
  s.full[0].wait(0);
  args.words[threadIdx.x] = read_panel(s.a[0]);  // [earlier]
  if (kRepaired) fence_async_proxy();
  __syncthreads();
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [later]
  s.full[0].wait(1);
  args.words[threadIdx.x] += read_panel(s.a[0]);
}
OPENWEEK_PLANTED(unfenced_load_over_reads)

// Where an mbarrier lies between the reads and the copy, no fence is needed.
template <bool kRepaired>
__global__ void handshake_over_reads(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, blockDim.x);
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);
  s.full[0].wait(0);
  args.words[threadIdx.x] = read_panel(s.a[0]);  // [earlier]
  if (kRepaired) {
    s.empty[0].arrive();
    if (threadIdx.x == 0) s.empty[0].wait(0);
  } else {
    __syncthreads();
  }
  if (threadIdx.x == 0) load_panel(args, s.a[0], s.full[0]);  // [later]
  s.full[0].wait(1);
  args.words[threadIdx.x] += read_panel(s.a[0]);
}
OPENWEEK_PLANTED(handshake_over_reads)

// Generic writes to global memory that the copy engine reads.
template <bool kRepaired>
__global__ void unfenced_global(const __grid_constant__ Args args) {
  Shared& s = shared();
  set_up(s, 1);
  for (int i = threadIdx.x; i < kPanelWords; i += blockDim.x) args.words[i] = i;  // [earlier]
  if (kRepaired) asm volatile("fence.proxy.async.global;" ::: "memory");
  __syncthreads();
  if (threadIdx.x == 0) bulk_load(s.a[0], args.words, s.full[0]);  // [later]
  s.full[0].wait(0);
}
OPENWEEK_PLANTED(unfenced_global)

}  // namespace openweek::tests
