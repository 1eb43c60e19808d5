// The entry of bf16_gemm: which warpgroup does what, and with how many registers.
#include "deepgemm/bf16_gemm_sm90.cuh"

namespace openweek::deepgemm {

__global__ void __cluster_dims__(bf16_gemm::kClusterSize, 1, 1)
    __launch_bounds__(bf16_gemm::kNumThreads, 1)
        bf16_gemm_nt_sm90_kernel(const __grid_constant__ Bf16GemmParams params) {
  using namespace bf16_gemm;
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& storage = *reinterpret_cast<SharedStorage*>(shared_bytes);
  const uint32_t rank = cluster_rank();
  const uint32_t warpgroup = threadIdx.x / kWarpgroupThreads;
  set_up(params, storage);
  if (warpgroup == 0) {
    shrink_registers<kProducerRegisters>();
    if (threadIdx.x == 0) producer(params, storage, rank);
    __syncwarp();
  } else {
    grow_registers<kConsumerRegisters>();
    consumer(params, storage, rank, warpgroup - 1);
    __syncwarp();
  }
  // The peer still arrives here after this CTA's last tile: neither leaves before both are done.
  cluster_sync();
}

}  // namespace openweek::deepgemm
