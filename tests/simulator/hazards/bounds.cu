// Accesses to memory that is not there, and to addresses that the instruction cannot take.
#include "planted.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::tests {

extern __shared__ __align__(1024) uint8_t dynamic[];

template <bool kBug>
__device__ __forceinline__ void global_behind(const Params& p) {
  p.data[threadIdx.x + (kBug ? 33 : 32)] = 1;  // global_behind
}

template <bool kBug>
__device__ __forceinline__ void global_before(const Params& p) {
  const int first = kBug ? -1 : 0;
  p.other[0] = p.data[first + static_cast<int>(threadIdx.x)];  // global_before
}

template <bool kBug>
__device__ __forceinline__ void global_between(const Params& p) {
  if (threadIdx.x == 0) p.data[kBug ? 112 : 12] = 1;  // global_between
}

template <bool kBug>
__device__ __forceinline__ void global_freed(const Params& p) {
  (kBug ? p.freed : p.data)[threadIdx.x] = 1;  // global_freed
}

template <bool kBug>
__device__ __forceinline__ void global_null(const Params& p) {
  (kBug ? p.null : p.data)[threadIdx.x] = 1;  // global_null
}

template <bool kBug>
__device__ __forceinline__ void global_null_with_offset(const Params& p) {
  (kBug ? p.null : p.data)[threadIdx.x + 20] = 1;  // global_null_with_offset
}

// A generic access: the compiler cannot tell which memory is meant.
template <bool kBug>
__device__ __forceinline__ void generic_null_minus(const Params& p) {
  __shared__ int32_t mine[64];
  mine[threadIdx.x] = 0;
  int32_t* from = p.eight == 9 ? mine : (kBug ? p.null - 8 : p.data);
  *static_cast<volatile int32_t*>(from) = 1;  // generic_null_minus
}

template <bool kBug>
__device__ __forceinline__ void global_atomic(const Params& p) {
  atomicAdd(&p.data[kBug ? 64 : 63], 1);  // global_atomic
}

template <bool kBug>
__device__ __forceinline__ void shared_static(const Params& p) {
  __shared__ int32_t mine[64];
  mine[threadIdx.x] = 1;
  mine[threadIdx.x + (kBug ? 33 : 32)] = 1;  // shared_static
  __syncwarp();
  p.data[threadIdx.x] = mine[threadIdx.x + 32];
}

// The launch gives 4096 bytes.
template <bool kBug>
__device__ __forceinline__ void shared_dynamic(const Params& p) {
  int32_t* mine = reinterpret_cast<int32_t*>(dynamic);
  mine[1024 - 31 - (kBug ? 0 : 1) + threadIdx.x] = p.eight;  // shared_dynamic
}

template <bool kBug>
__device__ __forceinline__ void local_index(const Params& p) {
  int32_t mine[8];
  for (int i = 0; i < 8; ++i) mine[i] = p.data[i];
  volatile int32_t* at = mine + p.eight - (kBug ? 0 : 1);
  p.other[threadIdx.x] = *at;  // local_index
}

template <bool kBug>
__device__ __forceinline__ void parameter_index(const Params& p) {
  p.data[threadIdx.x] = p.table[p.eight * (kBug ? 4 : 0)];  // parameter_index
}

// One box, waited for.
__device__ __forceinline__ void load_box(void* box, const TensorMap& map) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(kBoxBytes);
    tma_load(box, map, barrier, 0, 0);
  }
  __syncthreads();
  barrier.wait(0);
}

template <bool kBug>
__device__ __forceinline__ void tma_box_too_large(const Params& p) {
  load_box(dynamic + 4096 - (kBug ? 896 : 1024), p.map);  // tma_box_too_large
}

template <bool kBug>
__device__ __forceinline__ void tma_strange_tensor(const Params& p) {
  load_box(dynamic, kBug ? p.stranger : p.map);  // tma_strange_tensor
}

template <bool kBug>
__device__ __forceinline__ void tma_destination(const Params& p) {
  load_box(dynamic + (kBug ? 64 : 128), p.map);  // tma_destination
}

template <bool kBug>
__device__ __forceinline__ void tma_source(const Params& p) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < kBoxBytes + 128; ++i) dynamic[i] = 0;
  fence_async_proxy();
  tma_store(p.map, dynamic + (kBug ? 64 : 128), 0, 0);  // tma_source
  tma_store_commit();
  tma_store_wait<0>();
}

template <bool kBug>
__device__ __forceinline__ void tma_store_to_strange(const Params& p) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < kBoxBytes; ++i) dynamic[i] = 0;
  fence_async_proxy();
  tma_store(kBug ? p.stranger : p.map, dynamic, 0, 0);  // tma_store_to_strange
  tma_store_commit();
  tma_store_wait<0>();
}

// Coordinates may lie outside of the tensor, and there nothing is stored.
template <bool kBug>
__device__ __forceinline__ void tma_map_of_another_rank(const Params& p) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < kBoxBytes; ++i) dynamic[i] = 0;
  fence_async_proxy();
  if (kBug) {
    tma_store(p.map, dynamic, -4, 30, 0);  // tma_map_of_another_rank
  } else {
    tma_store(p.map, dynamic, -4, 30);
  }
  tma_store_commit();
  tma_store_wait<0>();
}

// `num_bytes` from a place in the rows, waited for.
__device__ __forceinline__ void load_bytes(const Params& p, uint32_t from, uint32_t num_bytes) {
  __shared__ Mbarrier barrier;
  if (threadIdx.x == 0) {
    barrier.init(1);
    barrier.arrive_and_expect(num_bytes < 4096 ? num_bytes : 0);
    bulk_load(dynamic, reinterpret_cast<uint8_t*>(p.box_rows) + from, num_bytes, barrier);
  }
  __syncthreads();
  barrier.wait(0);
}

template <bool kBug>
__device__ __forceinline__ void bulk_size(const Params& p) {
  load_bytes(p, 0, kBug ? 40 : 48);  // bulk_size
}

template <bool kBug>
__device__ __forceinline__ void bulk_size_negative(const Params& p) {
  load_bytes(p, 0, kBug ? -16u : 16u);  // bulk_size_negative
}

template <bool kBug>
__device__ __forceinline__ void bulk_source_behind(const Params& p) {
  load_bytes(p, 4096 - 16, kBug ? 32 : 16);  // bulk_source_behind
}

template <bool kBug>
__device__ __forceinline__ void bulk_source_misaligned(const Params& p) {
  load_bytes(p, kBug ? 8 : 16, 32);  // bulk_source_misaligned
}

template <bool kBug>
__device__ __forceinline__ void bulk_store_behind(const Params& p) {
  if (threadIdx.x != 0) return;
  for (int i = 0; i < 64; ++i) dynamic[i] = 0;
  fence_async_proxy();
  bulk_store(p.data + 48, dynamic, kBug ? 80 : 64);  // bulk_store_behind
  tma_store_commit();
  tma_store_wait<0>();
}

template <bool kBug>
__device__ __forceinline__ void copy_source_behind(const Params& p) {
  const int32_t* from = p.data + 4 * (threadIdx.x % 16) + (kBug ? 4 : 0);
  copy_16(dynamic + 16 * threadIdx.x, from);  // copy_source_behind
  wait_for_copies();
}

template <bool kBug>
__device__ __forceinline__ void copy_target_behind(const Params& p) {
  copy_16(dynamic + 16 * threadIdx.x + 4096 - 512 + (kBug ? 16 : 0), p.data);  // copy_target_behind
  wait_for_copies();
}

template <bool kBug>
__device__ __forceinline__ void copy_reads_more(const Params& p) {
  copy_16(dynamic + 16 * threadIdx.x, p.data, kBug ? 20 : 12);  // copy_reads_more
  wait_for_copies();
}

template <bool kBug>
__device__ __forceinline__ void copy_misaligned(const Params& p) {
  copy_16(dynamic + 16 * threadIdx.x + (kBug ? 8 : 0), p.data);  // copy_misaligned
  wait_for_copies();
}

template <bool kBug>
__device__ __forceinline__ void vector_load(const Params& p) {
  const int32_t* from = p.data + 4 * (threadIdx.x % 8) + (kBug ? 2 : 4);
  const int4 four = *reinterpret_cast<const int4*>(from);  // vector_load
  p.other[threadIdx.x] = four.x + four.y + four.z + four.w;
}

template <bool kBug>
__device__ __forceinline__ void vector_store(const Params& p) {
  int32_t* to = reinterpret_cast<int32_t*>(dynamic) + 2 * threadIdx.x + (kBug ? 1 : 2);
  *reinterpret_cast<int2*>(to) = make_int2(1, p.eight);  // vector_store
}

template <bool kBug>
__device__ __forceinline__ void mbarrier_misaligned(const Params& p) {
  auto* barrier = reinterpret_cast<Mbarrier*>(dynamic + (kBug ? 4 : 8));
  if (threadIdx.x == 0) barrier->init(1);  // mbarrier_misaligned
}

template <bool kBug>
__device__ __forceinline__ void matrix_row(const Params& p) {
  const uint32_t matrices[4] = {0, 1, 2, 3};
  const uint32_t shift = kBug && threadIdx.x == 5 ? 8 : 0;
  store_matrices(shared_address(dynamic) + 16 * threadIdx.x + shift, matrices);  // matrix_row
}

template <bool kBug>
__device__ __forceinline__ void matrix_load_row(const Params& p) {
  for (int i = threadIdx.x; i < 256; i += 32) reinterpret_cast<int32_t*>(dynamic)[i] = i;
  __syncwarp();
  const uint32_t row = shared_address(dynamic) + 16 * threadIdx.x + (kBug ? 4 : 0);
  uint32_t matrix;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"  // matrix_load_row
               : "=r"(matrix)
               : "r"(row)
               : "memory");
  p.data[threadIdx.x] = static_cast<int32_t>(matrix);
}

// 64 x 16 by 16 x 64; the rows of either operand lie 128 bytes apart, 8192 bytes in all.
template <bool kBug>
__device__ __forceinline__ void wgmma_operand(const Params& p) {
  for (int i = threadIdx.x; i < 4096; i += 128) reinterpret_cast<int32_t*>(dynamic)[i] = 0;
  fence_async_proxy();
  __syncthreads();
  float d[32];
  const uint64_t a = k_major_descriptor<Swizzle::k128B>(shared_address(dynamic));
  const uint64_t b = a + ((kBug ? 8192 + 1024 : 8192) >> 4);
  wgmma_fence();
  wgmma<Element::kBf16, 64>(d, a, b, false);  // wgmma_operand
  wgmma_commit();
  wgmma_wait_all(d);
  if (threadIdx.x < 64) p.data[threadIdx.x] = static_cast<int32_t>(d[0]);
}

}  // namespace openweek::tests

OPENWEEK_PLANTED(global_behind)
OPENWEEK_PLANTED(global_before)
OPENWEEK_PLANTED(global_between)
OPENWEEK_PLANTED(global_freed)
OPENWEEK_PLANTED(global_null)
OPENWEEK_PLANTED(global_null_with_offset)
OPENWEEK_PLANTED(generic_null_minus)
OPENWEEK_PLANTED(global_atomic)
OPENWEEK_PLANTED(shared_static)
OPENWEEK_PLANTED(shared_dynamic)
OPENWEEK_PLANTED(local_index)
OPENWEEK_PLANTED(parameter_index)
OPENWEEK_PLANTED(tma_box_too_large)
OPENWEEK_PLANTED(tma_strange_tensor)
OPENWEEK_PLANTED(tma_destination)
OPENWEEK_PLANTED(tma_source)
OPENWEEK_PLANTED(tma_store_to_strange)
OPENWEEK_PLANTED(tma_map_of_another_rank)
OPENWEEK_PLANTED(bulk_size)
OPENWEEK_PLANTED(bulk_size_negative)
OPENWEEK_PLANTED(bulk_source_behind)
OPENWEEK_PLANTED(bulk_source_misaligned)
OPENWEEK_PLANTED(bulk_store_behind)
OPENWEEK_PLANTED(copy_source_behind)
OPENWEEK_PLANTED(copy_target_behind)
OPENWEEK_PLANTED(copy_reads_more)
OPENWEEK_PLANTED(copy_misaligned)
OPENWEEK_PLANTED(vector_load)
OPENWEEK_PLANTED(vector_store)
OPENWEEK_PLANTED(mbarrier_misaligned)
OPENWEEK_PLANTED(matrix_row)
OPENWEEK_PLANTED(matrix_load_row)
OPENWEEK_PLANTED(wgmma_operand)
