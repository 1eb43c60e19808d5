// Questions about numbers, clocks and registers.
#include "primitives/registers.cuh"
#include "primitives/smem.cuh"
#include "silicon_probe.cuh"

namespace openweek::tests {

using namespace openweek::primitives;

// Adds a value to each cell by an atomic operation. in: 32 values for cells of
// f32, bf16x2 and f16x2. out: 32 cells of f32 in global memory, of f32 in shared
// memory, of bf16x2 and of f16x2 in global memory.
PROBE(atomic_sums) {
  __shared__ float shared[32];
  const uint32_t i = threadIdx.x;
  const float value = __uint_as_float(in[i]);
  shared[i] = __uint_as_float(out[32 + i]);
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(out + i), "f"(value) : "memory");
  asm volatile("red.relaxed.cta.shared.add.f32 [%0], %1;" ::"r"(shared_address(shared + i)),
               "f"(value)
               : "memory");
  asm volatile("red.relaxed.gpu.global.add.noftz.bf16x2 [%0], %1;" ::"l"(out + 64 + i),
               "r"(in[32 + i])
               : "memory");
  asm volatile("red.relaxed.gpu.global.add.noftz.f16x2 [%0], %1;" ::"l"(out + 96 + i),
               "r"(in[64 + i])
               : "memory");
  __syncthreads();
  out[32 + i] = __float_as_uint(shared[i]);
}

// Conversions of 32 floats: e4m3 and e5m2 (of x low, of 0 high), bf16 and f16,
// s32, tf32.
PROBE(conversions) {
  const uint32_t i = threadIdx.x;
  const float x = __uint_as_float(in[i]);
  uint16_t e4m3, e5m2;
  uint32_t bf16, f16, s32, tf32;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(e4m3) : "f"(0.f), "f"(x));
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(e5m2) : "f"(0.f), "f"(x));
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bf16) : "f"(0.f), "f"(x));
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(f16) : "f"(0.f), "f"(x));
  asm("cvt.rzi.s32.f32 %0, %1;" : "=r"(s32) : "f"(x));
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(tf32) : "f"(x));
  const uint32_t results[] = {e4m3, e5m2, bf16, f16, s32, tf32};
  for (int kind = 0; kind < 6; ++kind) out[32 * kind + i] = results[kind];
}

// The f16 that each of the 256 e4m3 and e5m2 is.
PROBE(fp8_values) {
  const auto pattern = static_cast<uint16_t>(threadIdx.x);
  uint32_t e4m3, e5m2;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(e4m3) : "h"(pattern));
  asm("cvt.rn.f16x2.e5m2x2 %0, %1;" : "=r"(e5m2) : "h"(pattern));
  out[threadIdx.x] = e4m3 & 0xffff;
  out[256 + threadIdx.x] = e5m2 & 0xffff;
}

#define APPROXIMATE(place, instruction)                           \
  {                                                               \
    float y;                                                      \
    asm(instruction " %0, %1;" : "=f"(y) : "f"(x));               \
    out[place * gridDim.x * blockDim.x + i] = __float_as_uint(y); \
  }

// The functions of the special unit, of a float per thread.
PROBE(approximations) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  const float x = __uint_as_float(in[i]);
  APPROXIMATE(0, "ex2.approx.f32");
  APPROXIMATE(1, "ex2.approx.ftz.f32");
  APPROXIMATE(2, "lg2.approx.f32");
  APPROXIMATE(3, "rcp.approx.f32");
  APPROXIMATE(4, "rcp.approx.ftz.f32");
  APPROXIMATE(5, "rsqrt.approx.f32");
  APPROXIMATE(6, "sqrt.approx.f32");
  APPROXIMATE(7, "tanh.approx.f32");
}

// ---- clocks and registers ----

// Do the clocks go forward?
PROBE(clocks) {
  uint64_t cycles[2], times[2];
  for (int turn = 0; turn < 2; ++turn) {
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles[turn])::"memory");
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(times[turn])::"memory");
    __nanosleep(100000);
  }
  if (threadIdx.x == 0) {
    out[0] = cycles[1] > cycles[0];
    out[1] = times[1] > times[0];
  }
}

// Two warpgroups take the registers that another one gives up. Do all go on?
extern "C" __global__ void __launch_bounds__(384, 1)
    registers(const __grid_constant__ TensorMap map, const uint32_t* in, uint32_t* out) {
  if (threadIdx.x < 128)
    shrink_registers<24>();
  else
    grow_registers<240>();
  if (threadIdx.x % 128 == 0) out[threadIdx.x / 128] = 1;
}

}  // namespace openweek::tests
