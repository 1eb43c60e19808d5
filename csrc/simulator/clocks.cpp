#include "clocks.h"

namespace openweek::simulator {
namespace {

using Known = std::shared_ptr<const ClusterClocks>;

// Most of what is learned is known already, by the same object.
void add(Known& mine, const Known& other) {
  if (mine == other) return;
  if (mine == nullptr) {
    mine = other;
    return;
  }
  auto joined = std::make_shared<ClusterClocks>(*mine);
  joined->learn(*other);
  mine = std::move(joined);
}

}  // namespace

void Knowledge::learn(const Knowledge& other) {
  own.learn(other.own);
  waited_for_grid = waited_for_grid || other.waited_for_grid;
  for (const auto& [cluster, known] : other.others) add(others[cluster], known);
}

void Knowledge::fence() {
  own.fenced.learn(own.seen);
  for (auto& [cluster, known] : others) {
    known = std::make_shared<const ClusterClocks>(ClusterClocks{known->seen, known->seen});
  }
}

void learn(Knowledge& mine, std::uint32_t my_cluster, const Message& message) {
  if (message.knowledge == nullptr) return;
  if (message.cluster == my_cluster) {
    mine.learn(*message.knowledge);
    return;
  }
  // Shares the message's clocks: they never change.
  add(mine.others[message.cluster], Known(message.knowledge, &message.knowledge->own));
  for (const auto& [cluster, known] : message.knowledge->others) {
    if (cluster == my_cluster) {
      mine.own.learn(*known);
    } else {
      add(mine.others[cluster], known);
    }
  }
}

}  // namespace openweek::simulator
