// A place in a ring of buffers that producer and consumer walk in step.
#pragma once

#include <cstdint>

namespace openweek::primitives {

// Both sides begin at stage 0, phase 0. The consumer waits for "full" with parity `phase`, the
// producer for "empty" with parity `phase ^ 1`, which a new barrier passes: all stages are free.
template <uint32_t kNumStages>
struct RingPosition {
  static_assert(kNumStages > 0);
  uint32_t stage = 0;
  uint32_t phase = 0;

  constexpr void advance() {
    stage = stage + 1 == kNumStages ? 0 : stage + 1;
    phase ^= stage == 0 ? 1 : 0;
  }
};

}  // namespace openweek::primitives
