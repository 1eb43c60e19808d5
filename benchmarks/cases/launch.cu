// Kernels that do next to nothing, with the parameters of small and of large
// ones.
#include "primitives/tma.cuh"

namespace openweek::benchmarks {

__global__ void launch_small(float *y, float value) { y[threadIdx.x] = value; }

struct LargeParams {
  primitives::TensorMap maps[3];
  float *y;
  const float *inputs[5];
  float value;
  int m, n, k;
};

__global__ void launch_large(const __grid_constant__ LargeParams params) {
  params.y[threadIdx.x] = params.value;
}

} // namespace openweek::benchmarks
