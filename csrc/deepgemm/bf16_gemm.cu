// The entry of bf16_gemm: which warpgroup does what, and with how many registers.
#include "deepgemm/bf16_gemm_sm90.cuh"

namespace openweek::deepgemm {

template <int kBlockM, int kBlockN, int kNumStages, Grouping kGrouping, Share kShare,
          primitives::Major kMajorA, primitives::Major kMajorB, Output kOutput>
__global__ void __cluster_dims__(cluster_size(kShare), 1, 1)
    __launch_bounds__(kBlockM == 64 ? 256 : 384, 1)
        bf16_gemm_sm90_kernel(const __grid_constant__ Bf16GemmParams<kOutput> params) {
  using namespace bf16_gemm;
  using C = Config<kBlockM, kBlockN, kNumStages, kGrouping, kShare, kMajorA, kMajorB, kOutput>;
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& storage = *reinterpret_cast<typename C::Storage*>(shared_bytes);
  const uint32_t rank = kShare == Share::kNothing ? 0 : cluster_rank();
  const uint32_t warpgroup = threadIdx.x / kWarpgroupThreads;
  set_up<C>(params, storage);
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
