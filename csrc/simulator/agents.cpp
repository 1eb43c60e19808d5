#include "agents.h"

#include "errors.h"

namespace openweek::simulator {

Agent Agents::add(Kind kind, int rank, std::uint32_t which) {
  if (all_.size() == std::size_t{1} << Epoch::kAgentBits) {
    throw UnsupportedError("the history has no room for more than " + std::to_string(all_.size()) +
                           " warps, mbarriers and threads that copy in one cluster");
  }
  all_.push_back({kind, rank, which});
  return static_cast<Agent>(all_.size() - 1);
}

}  // namespace openweek::simulator
