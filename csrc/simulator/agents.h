// The agents of a cluster: who makes accesses, by number, for the clocks and for messages.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clocks.h"

namespace openweek::simulator {

class Agents {
 public:
  enum class Kind : std::uint8_t {
    kWarp,
    kMbarrier,   // copies that an mbarrier counts; its time is the number of phases that have ended
    kBulkRead,   // of a thread's cp.async.bulk: reading shared memory; its time counts groups
    kBulkWrite,  // the same: writing the destination
    kLaneCopy,   // cp.async of a warp; its time counts groups
    kWarpgroup,  // wgmma; its time counts multiplications
  };
  struct Description {
    Kind kind;
    int rank;             // of the CTA
    std::uint32_t which;  // warp, thread, warpgroup, or the mbarrier's offset
  };

  Agent add(Kind kind, int rank, std::uint32_t which);
  const Description& operator[](Agent agent) const { return all_[agent]; }

 private:
  std::vector<Description> all_;
};

}  // namespace openweek::simulator
