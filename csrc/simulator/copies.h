// Copies that a warp has begun and not waited for.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "clocks.h"
#include "program.h"

namespace openweek::simulator {

// cp.async: each lane has batches of copies, which end where it commits a group or lets an mbarrier
// count them, and waits for all but its last groups. The copies happen when somebody waits for
// them: as late as they may.
class LaneCopies {
 public:
  void add(int lane, std::uint8_t* to, const std::uint8_t* from, int num_bytes, int num_zeros);
  void commit(Mask lanes);

  // Ends a lane's batch, and returns its number.
  std::uint64_t end_batch(int lane) { return lanes_[lane].open++; }
  // Does a lane's copies up to that batch.
  void finish(int lane, std::uint64_t batch);

  // Does the copies that these lanes wait for. Batches are the times of these copies' agent:
  // returns that of the last one which is done in all of the lanes.
  std::uint64_t wait(Mask lanes, std::uint64_t num_pending);
  std::uint64_t wait_all(Mask lanes);

  // The batch that a lane adds to.
  std::uint64_t open_time(int lane) const { return lanes_[lane].open; }

  // Lanes that let an mbarrier (by its agent) count what they have copied. When the last of them
  // has arrived, returns up to which batch that was done; else 0.
  void begin_arrival(Agent mbarrier, std::uint64_t batch);
  std::uint64_t end_arrival(Agent mbarrier);

  std::optional<Agent> agent;

 private:
  struct Copy {
    int lane;
    std::uint64_t batch;
    std::uint8_t* to;
    const std::uint8_t* from;
    int num_bytes;
    int num_zeros;  // behind them
  };
  struct Lane {
    std::uint64_t open = 1;
    std::uint64_t done = 0;             // the last batch of the groups that were waited for
    std::vector<std::uint64_t> groups;  // the last batch of each that was not
  };

  std::vector<Copy> copies_;
  std::array<Lane, kLanes> lanes_;
  struct Arrival {
    int count = 0;
    std::uint64_t batch = 0;
  };
  std::map<Agent, Arrival> arrivals_;
};

// cp.async.bulk from shared memory: groups of copies of one lane, with what is left to be read of
// shared memory and to be written at the destination.
struct BulkGroup {
  int reads = 0;
  int writes = 0;
};

struct BulkGroups {
  std::shared_ptr<BulkGroup> open = std::make_shared<BulkGroup>();
  std::uint64_t num_committed = 0;
  // Those that had copies under way when they were last looked at, and their numbers from 1.
  std::vector<std::pair<std::uint64_t, std::shared_ptr<BulkGroup>>> committed;
  std::optional<Agent> reads;  // agents, whose times count groups from 1
  std::optional<Agent> writes;
};

}  // namespace openweek::simulator
