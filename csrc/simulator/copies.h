// Copies that a warp has begun and not waited for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "program.h"

namespace openweek::simulator {

// cp.async: each lane has groups of copies, and waits for all but its last ones. The copies happen
// when a lane waits for them: as late as they may.
class LaneCopies {
 public:
  void add(int lane, std::uint8_t* to, const std::uint8_t* from, int num_bytes, int num_zeros);
  void commit(Mask lanes);
  void wait(Mask lanes, std::uint64_t num_pending);
  void wait_all(Mask lanes);
  bool idle() const { return copies_.empty(); }

 private:
  struct Copy {
    int lane;
    std::uint64_t group;
    std::uint8_t* to;
    const std::uint8_t* from;
    int num_bytes;
    int num_zeros;  // behind them
  };
  template <class Finishes>
  void finish(Finishes finishes);

  std::vector<Copy> copies_;
  std::array<std::uint64_t, kLanes> committed_ = {};
};

// cp.async.bulk from shared memory: groups of copies of one lane, with what is left to be read of
// shared memory and to be written at the destination.
struct BulkGroup {
  int reads = 0;
  int writes = 0;
};

struct BulkGroups {
  std::shared_ptr<BulkGroup> open = std::make_shared<BulkGroup>();
  std::vector<std::shared_ptr<BulkGroup>> committed;
};

}  // namespace openweek::simulator
