// The entry of fp8_gemm: which warpgroup does what, and with how many registers.
#include "deepgemm/fp8_gemm_sm90.cuh"

namespace openweek::deepgemm {

template <int kBlockM, int kBlockN, int kNumStages, Grouping kGrouping, Share kShare>
__global__ void __cluster_dims__(cluster_size(kShare), 1, 1)
    __launch_bounds__(kBlockM == 64 ? 256 : 384, 1)
        fp8_gemm_nt_sm90_kernel(const __grid_constant__ Fp8GemmParams params) {
  using namespace fp8_gemm;
  using C = Config<kBlockM, kBlockN, kNumStages, kGrouping, kShare>;
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& storage = *reinterpret_cast<typename C::Storage*>(shared_bytes);
  const uint32_t rank = kShare == Share::kNothing ? 0 : cluster_rank();
  const uint32_t warpgroup = threadIdx.x / kWarpgroupThreads;
  if (threadIdx.x == 0) {
    for (const TensorMap* map : {&params.a, &params.b, &params.d}) prefetch_tensor_map(*map);
  }
  set_up<C>(storage);
  let_next_grid_start();
  wait_for_earlier_grids();
  if (warpgroup == 0) {
    shrink_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) producer<C>(params, storage, rank);
    __syncwarp();
  } else {
    grow_registers<C::kConsumerRegisters>();
    consumer<C>(params, storage, rank, warpgroup - 1);
    __syncwarp();
  }
  // The peer still arrives here after this CTA's last tile: neither leaves before both are done.
  cluster_sync();
}

}  // namespace openweek::deepgemm
