// Programmatic dependent launch: a kernel that starts while the one before it on the stream ends.
//
// Without the launch attribute for it, both do nothing.
#pragma once

namespace openweek::primitives {

// Until the kernels before have ended: what they wrote is seen. Every thread that reads it, or that
// writes what they might still read.
__device__ __forceinline__ void wait_for_earlier_grids() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

// The next kernel may start as soon as every CTA has said so, or ended; it waits by itself.
__device__ __forceinline__ void let_next_grid_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace openweek::primitives
