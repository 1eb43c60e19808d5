// The entry of fp8_small_m: which warp does what.
#include "deepgemm/fp8_small_m_sm90.cuh"

namespace openweek::deepgemm {

template <int kTokens, int kNumStages, int kSplit, Grouping kGrouping>
__global__ void __cluster_dims__(kSplit, 1, 1) __launch_bounds__(fp8_small_m::kNumThreads, 1)
    fp8_small_m_gemm_nt_sm90_kernel(const __grid_constant__ Fp8GemmParams params) {
  using namespace fp8_small_m;
  using C = Config<kTokens, kNumStages, kSplit, kGrouping>;
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& storage = *reinterpret_cast<typename C::Storage*>(shared_bytes);
  const uint32_t rank = kSplit == 1 ? 0 : cluster_rank();
  const uint32_t warp = threadIdx.x / 32;
  set_up<C>(params, storage);
  let_next_grid_start();
  if (warp == 0) {
    if (threadIdx.x == 0) producer<C>(params, storage, rank);
  } else if (warp == 1) {
    scale_producer<C>(params, storage, rank);
  } else if (warp >= kWarpgroupThreads / 32) {
    consumer<C>(params, storage, rank, threadIdx.x / kWarpgroupThreads - 1);
  }
  __syncwarp();
  // Its peers still arrive at CTA 0, and it at them, after their last tiles.
  cluster_sync();
}

}  // namespace openweek::deepgemm
