// The machine that Python sees: takes launches and runs them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "world.h"

namespace openweek::simulator {

// Launches of one device run one after the other, as on one stream; devices run at the same time.
class Machine {
 public:
  explicit Machine(const MachineConfig& config) : config_(config) {}

  // A range of addresses for multimem instructions of all launches: the same place of each replica.
  // Returns its beginning.
  std::uint64_t multicast(std::uint64_t num_bytes, std::vector<std::uint64_t> replicas);

  void launch(Launch launch) {
    launch.config.number = ++num_launches_;
    launches_.push_back(std::move(launch));
  }

  // Runs all that is launched to the end, with up to so many host threads where clusters cannot
  // see one another. `poll` is called now and then, and may throw to stop the run. Whatever ends
  // it, `print` gets what kernels have printed, and the machine is empty after it.
  RunReport run(int num_threads, const std::function<void()>& poll,
                const std::function<void(const std::string&)>& print);

 private:
  MachineConfig config_;
  std::deque<Launch> launches_;
  std::uint64_t num_launches_ = 0;
};

}  // namespace openweek::simulator
