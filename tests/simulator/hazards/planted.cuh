// Kernels in pairs: one with a planted mistake, and its twin, which the mistake's repair alone
// tells apart. The line where the simulator should find it ends with a comment: its name.
#pragma once

#include "primitives/memory_order.cuh"
#include "primitives/tma.cuh"

namespace openweek::tests {

using namespace openweek::primitives;

struct Params {
  TensorMap map;       // of `box_rows`, 8 rows at a time: 1024 bytes
  TensorMap stranger;  // the same of memory that the launch does not have
  int32_t* data;       // 64 numbers; 64 that are nobody's lie between them and `other`
  int32_t* other;      // 64 more
  int32_t* freed;
  int32_t* null;
  int32_t* box_rows;  // 32 x 32, each its own index
  int32_t eight;      // that the compiler does not know
  int32_t table[7];
};

constexpr uint32_t kBoxBytes = 1024;
constexpr int kBoxRows = 8;

// Without a tensor map: bytes of global memory, whose arrival the barrier is told.
__device__ __forceinline__ void bulk_load(void* to, const void* from, uint32_t num_bytes,
                                          const Mbarrier& barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(num_bytes), "r"(barrier.address())
      : "memory");
}

__device__ __forceinline__ void bulk_store(void* to, const void* from, uint32_t num_bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(
                   __cvta_generic_to_global(to)),
               "r"(shared_address(from)), "r"(num_bytes)
               : "memory");
}

// 16 bytes by this thread; of the source no more than `read_bytes` are read, the rest is zero.
__device__ __forceinline__ void copy_16(void* to, const void* from, uint32_t read_bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
               "l"(__cvta_generic_to_global(from)), "r"(read_bytes)
               : "memory");
}

__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ __forceinline__ void invalidate(const Mbarrier& barrier) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(barrier.address()) : "memory");
}

}  // namespace openweek::tests

#define OPENWEEK_PLANTED(name)                                                                \
  extern "C" __global__ void name##_bug(const __grid_constant__ openweek::tests::Params p) {  \
    openweek::tests::name<true>(p);                                                           \
  }                                                                                           \
  extern "C" __global__ void name##_twin(const __grid_constant__ openweek::tests::Params p) { \
    openweek::tests::name<false>(p);                                                          \
  }
