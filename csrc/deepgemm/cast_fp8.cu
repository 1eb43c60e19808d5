// The entry of cast_fp8: a CTA for every block of 128 x 128 elements.
#include "deepgemm/cast_fp8_sm90.cuh"

namespace openweek::deepgemm {

template <cast_fp8::Input kInput, cast_fp8::Granularity kGranularity>
__global__ void __launch_bounds__(32 * cast_fp8::kNumWarps)
    cast_fp8_sm90_kernel(const __grid_constant__ CastParams params) {
  cast_fp8::cast_block<kInput, kGranularity>(params);
}

}  // namespace openweek::deepgemm
