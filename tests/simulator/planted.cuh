// What kernels with a planted bug share. Each kernel is a template: <false> has
// the bug, <true> its repair. Lines that the finding must name end in [earlier]
// and [later].
#pragma once

#include "primitives/memory_order.cuh"
#include "primitives/tma.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::tests {

using namespace openweek::primitives;

constexpr int kRowBytes = 128;  // 64 bf16, a row of the swizzle
constexpr int kPanelBytes = 64 * kRowBytes;
constexpr int kPanelWords = kPanelBytes / 4;

struct Args {
  TensorMap in;   // [128, 64] bf16, boxes of 64 x 64, swizzled by 128 bytes
  TensorMap out;  // the same
  uint32_t* words;
};

struct Shared {
  alignas(1024) uint8_t a[2][kPanelBytes];
  alignas(1024) uint8_t b[2][kPanelBytes];
  uint32_t words[1024];
  uint8_t bytes[1024];
  Mbarrier full[2];
  Mbarrier empty[2];
};

__device__ __forceinline__ Shared& shared() {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  return *reinterpret_cast<Shared*>(shared_bytes);
}

// Barriers for one producer and so many readers.
__device__ __forceinline__ void set_up(Shared& s, uint32_t num_readers) {
  if (threadIdx.x == 0) {
    for (int i = 0; i < 2; ++i) {
      s.full[i].init(1);
      s.empty[i].init(num_readers);
    }
    fence_mbarrier_init();
  }
  __syncwarp();
  cluster_sync();
}

// All threads of the block, each its share.
__device__ __forceinline__ void write_panel(uint8_t* panel, uint32_t value = 0x3F803F80) {
  for (uint32_t i = threadIdx.x; i < kPanelWords; i += blockDim.x) {
    reinterpret_cast<uint32_t*>(panel)[i] = value;
  }
}

__device__ __forceinline__ uint32_t read_panel(const uint8_t* panel) {
  uint32_t sum = 0;
  for (uint32_t i = threadIdx.x; i < kPanelWords; i += blockDim.x) {
    sum += reinterpret_cast<const uint32_t*>(panel)[i];
  }
  return sum;
}

__device__ __forceinline__ void load_panel(const Args& args, uint8_t* panel, Mbarrier& full,
                                           int row = 0) {
  full.arrive_and_expect(kPanelBytes);
  tma_load(panel, args.in, full, 0, row);
}

__device__ __forceinline__ void bulk_load(uint8_t* panel, const uint32_t* words, Mbarrier& full) {
  full.arrive_and_expect(kPanelBytes);
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::"
      "bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(panel)),
      "l"(words), "r"(kPanelBytes), "r"(full.address())
      : "memory");
}

__device__ __forceinline__ void bulk_store(uint32_t* words, const uint8_t* panel) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(words),
               "r"(shared_address(panel)), "r"(kPanelBytes)
               : "memory");
}

// Into the shared memory of another CTA, whose barrier at the place of `full`
// counts the bytes.
__device__ __forceinline__ void bulk_send(const uint8_t* to, const uint8_t* panel,
                                          const Mbarrier& full, uint32_t rank) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_"
      "tx::bytes [%0], [%1], %2, "
      "[%3];" ::"r"(address_in_cluster(shared_address(to), rank)),
      "r"(shared_address(panel)), "r"(kPanelBytes), "r"(address_in_cluster(full.address(), rank))
      : "memory");
}

// One warp, 512 bytes.
__device__ __forceinline__ uint32_t load_matrices(const uint32_t* rows) {
  uint32_t m[4];
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(shared_address(rows + threadIdx.x % 32 * 4))
               : "memory");
  return m[0] + m[1] + m[2] + m[3];
}

// The 64 x 64 product of two panels' first 16 columns.
__device__ __forceinline__ void multiply(float (&d)[32], const uint8_t* a, const uint8_t* b) {
  wgmma<Element::kBf16, 64>(d, k_major_descriptor<Swizzle::k128B>(shared_address(a)),
                            k_major_descriptor<Swizzle::k128B>(shared_address(b)), false);
  wgmma_commit();
}

template <int kSize>
__device__ __forceinline__ void keep(const Args& args, const float (&d)[kSize]) {
  float sum = 0;
  for (int i = 0; i < kSize; ++i) sum += d[i];
  args.words[threadIdx.x] = __float_as_uint(sum);
}

#define OPENWEEK_PLANTED(kernel)                                        \
  template __global__ void kernel<false>(const __grid_constant__ Args); \
  template __global__ void kernel<true>(const __grid_constant__ Args);

}  // namespace openweek::tests
