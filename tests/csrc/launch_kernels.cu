// Kernels that show whether a launch brought what it was asked to bring.
#include "primitives/barrier.cuh"
#include "primitives/memory_order.cuh"
#include "primitives/tma.cuh"

namespace openweek::tests {

struct AxpyParams {
  const float *x; // null counts as all ones
  float *y;
  float a;
  int n;
};

__global__ void axpy(const __grid_constant__ AxpyParams params) {
  // What the kernel before this one wrote is there, even if this one was
  // started early.
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < params.n)
    params.y[i] += params.a * (params.x != nullptr ? params.x[i] : 1.0f);
}

// Copies one 2D box of 4-byte elements, and writes how the launch looks from
// inside: grid x y z, block x y z, dynamic shared bytes, cluster x y z.
__global__ void copy_box(const __grid_constant__ primitives::TensorMap map,
                         int32_t *box, int32_t *shape, int32_t column,
                         int32_t row, int32_t num_elements) {
  extern __shared__ __align__(1024) int32_t staged[];
  __shared__ primitives::Mbarrier barrier;
  const int thread = threadIdx.y * blockDim.x + threadIdx.x;
  if (thread == 0) {
    barrier.init(1);
    primitives::fence_mbarrier_init();
    barrier.arrive_and_expect(num_elements * 4);
    primitives::tma_load(staged, map, barrier, column, row);
  }
  __syncthreads();
  barrier.wait(0);
  if (blockIdx.x != 0 || blockIdx.y != 0)
    return;
  for (int i = thread; i < num_elements; i += blockDim.x * blockDim.y)
    box[i] = staged[i];
  if (thread == 0) {
    uint32_t shared_bytes, x, y, z;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(shared_bytes));
    asm("mov.u32 %0, %%cluster_nctaid.x;" : "=r"(x));
    asm("mov.u32 %0, %%cluster_nctaid.y;" : "=r"(y));
    asm("mov.u32 %0, %%cluster_nctaid.z;" : "=r"(z));
    const uint32_t seen[] = {gridDim.x,  gridDim.y,  gridDim.z,    blockDim.x,
                             blockDim.y, blockDim.z, shared_bytes, x,
                             y,          z};
    for (int i = 0; i < 10; ++i)
      shape[i] = static_cast<int32_t>(seen[i]);
  }
}

} // namespace openweek::tests
