// What an FP8 GEMM without a second level of sums is: the tensor core adds up all of k by itself.
#include "primitives/memory_order.cuh"
#include "primitives/tma.cuh"
#include "primitives/wgmma.cuh"

namespace openweek::tests {

using namespace primitives;

// d [64, 64] = a [64, k] b [64, k]^T, by one warpgroup; boxes of 64 x 128.
__global__ void __launch_bounds__(128)
    one_level(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, float* d,
              int32_t k) {
  __shared__ alignas(1024) uint8_t rows[2][64 * 128];
  __shared__ Mbarrier full;
  if (threadIdx.x == 0) {
    full.init(1);
    fence_mbarrier_init();
  }
  __syncthreads();
  float sum[32];
  for (int32_t step = 0; step < k / 128; ++step) {
    if (threadIdx.x == 0) {
      full.arrive_and_expect(2 * 64 * 128);
      tma_load(rows[0], a, full, step * 128, 0);
      tma_load(rows[1], b, full, step * 128, 0);
    }
    full.wait(step % 2);
    const uint64_t of_a = k_major_descriptor<Swizzle::k128B>(shared_address(rows[0]));
    const uint64_t of_b = k_major_descriptor<Swizzle::k128B>(shared_address(rows[1]));
    wgmma_fence();
    for (int part = 0; part < 4; ++part) {
      wgmma<Element::kE4m3, 64>(sum, of_a + 2 * part, of_b + 2 * part, step > 0 || part > 0);
    }
    wgmma_commit();
    wgmma_wait_all(sum);
    __syncthreads();
  }
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  for (int i = 0; i < 32; ++i) {
    d[(row + 8 * (i / 2 % 2)) * 64 + 8 * (i / 4) + 2 * (threadIdx.x % 4) + i % 2] = sum[i];
  }
}

}  // namespace openweek::tests
