// The register budget of a warpgroup, which may change while the kernel runs.
#pragma once

#include <cstdint>

namespace openweek::primitives {

// What setmaxnreg takes.
constexpr bool is_register_budget(uint32_t num_registers) {
  return num_registers >= 24 && num_registers <= 256 && num_registers % 8 == 0;
}

// All warps of the warpgroup; returns at once.
template <uint32_t kNumRegisters>
  requires(is_register_budget(kNumRegisters))
__device__ __forceinline__ void shrink_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kNumRegisters));
}

// All warps of the warpgroup; waits until other warpgroups have given up enough.
template <uint32_t kNumRegisters>
  requires(is_register_budget(kNumRegisters))
__device__ __forceinline__ void grow_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kNumRegisters));
}

}  // namespace openweek::primitives
