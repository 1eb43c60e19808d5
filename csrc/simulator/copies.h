// Copies that a warp has begun and not waited for.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "clocks.h"
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

  // Times of the agent of these copies: of the group that a lane adds to, and of the last one that
  // is known to be done when all of these lanes have waited so.
  std::uint64_t open_time(int lane) const { return committed_[lane] + 1; }
  std::uint64_t done_time(Mask lanes, std::uint64_t num_pending) const;
  std::uint64_t all_time(Mask lanes) const;

  std::optional<Agent> agent;

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
  std::optional<Agent> reads;  // agents, whose times count groups from 1
  std::optional<Agent> writes;
};

}  // namespace openweek::simulator
