// TMA: one thread has a box of a tensor copied between global and shared memory.
//
// A box may reach beyond the tensor: loads fill with zeros there (and count the full bytes at the
// barrier), stores leave them out. Coordinates are in elements, the innermost dimension first.
#pragma once

#include "primitives/barrier.cuh"

namespace openweek::primitives {

// A tensor map as the driver encodes it; a kernel takes it inside a __grid_constant__ parameter.
struct alignas(64) TensorMap {
  uint8_t encoded[128];
};

__device__ __forceinline__ void prefetch_tensor_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The barrier is told of the bytes when they have landed.
__device__ __forceinline__ void tma_load(void* box, const TensorMap& map, const Mbarrier& barrier,
                                         int32_t x, int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(box)),
      "l"(&map), "r"(x), "r"(y), "r"(barrier.address())
      : "memory");
}

__device__ __forceinline__ void tma_load(void* box, const TensorMap& map, const Mbarrier& barrier,
                                         int32_t x, int32_t y, int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(box)),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier.address())
      : "memory");
}

// The box lands at the same place in every CTA whose bit is set, and each one's own barrier (at the
// same place as `barrier`) is told of the bytes.
__device__ __forceinline__ void tma_load_multicast(void* box, const TensorMap& map,
                                                   const Mbarrier& barrier, uint16_t cta_mask,
                                                   int32_t x, int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(shared_address(box)),
      "l"(&map), "r"(x), "r"(y), "r"(barrier.address()), "h"(cta_mask)
      : "memory");
}

__device__ __forceinline__ void tma_load_multicast(void* box, const TensorMap& map,
                                                   const Mbarrier& barrier, uint16_t cta_mask,
                                                   int32_t x, int32_t y, int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(shared_address(box)),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier.address()), "h"(cta_mask)
      : "memory");
}

// Every thread that wrote the box has called fence_async_proxy(), and a barrier lies between.
__device__ __forceinline__ void tma_store(const TensorMap& map, const void* box, int32_t x,
                                          int32_t y) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
          &map),
      "r"(x), "r"(y), "r"(shared_address(box))
      : "memory");
}

__device__ __forceinline__ void tma_store(const TensorMap& map, const void* box, int32_t x,
                                          int32_t y, int32_t z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(
          &map),
      "r"(x), "r"(y), "r"(z), "r"(shared_address(box))
      : "memory");
}

// Closes the group of the stores that this thread has issued since the last one.
__device__ __forceinline__ void tma_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until all but the last `kNumPending` groups of this thread have read their boxes: the shared
// memory may be written again.
template <int kNumPending>
__device__ __forceinline__ void tma_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kNumPending) : "memory");
}

// Until they are done: the tensor holds the boxes.
template <int kNumPending>
__device__ __forceinline__ void tma_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(kNumPending) : "memory");
}

}  // namespace openweek::primitives
