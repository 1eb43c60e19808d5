#include "clocks.h"

namespace openweek::simulator {
void Knowledge::learn(const Knowledge& other) {
  own.learn(other.own);
  waited_for_grid = waited_for_grid || other.waited_for_grid;
  for (const auto& [cluster, known] : other.others) learn(cluster, known);
  for (const auto& [address, known] : other.maps) {
    std::shared_ptr<const Knowledge>& mine = maps[address];
    if (mine == known || mine == nullptr) {
      mine = known;
    } else {
      auto joined = std::make_shared<Knowledge>(*mine);
      joined->learn(*known);
      mine = std::move(joined);
    }
  }
}

// Most of what is learned is known already, by the same object.
void Knowledge::learn(std::uint32_t cluster, const std::shared_ptr<const ClusterClocks>& known) {
  std::shared_ptr<const ClusterClocks>& mine = others[cluster];
  if (mine == known) return;
  if (mine == nullptr) {
    mine = known;
    return;
  }
  auto joined = std::make_shared<ClusterClocks>(*mine);
  joined->learn(*known);
  mine = std::move(joined);
}

void Knowledge::fence() {
  own.fenced.learn(own.seen);
  own.yielded.learn(own.seen);
  for (auto& [cluster, known] : others) {
    known = std::make_shared<const ClusterClocks>(
        ClusterClocks{known->seen, known->seen, known->seen, known->maps});
  }
}

void Knowledge::release_maps() {
  own.maps.learn(own.seen);
  for (auto& [cluster, known] : others) {
    known = std::make_shared<const ClusterClocks>(
        ClusterClocks{known->seen, known->fenced, known->yielded, known->seen});
  }
}

void Knowledge::acquire_map(std::uint64_t address) {
  auto now = std::make_shared<Knowledge>(*this);
  now->maps.clear();
  maps[address] = std::move(now);
}

}  // namespace openweek::simulator
