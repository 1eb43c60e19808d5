#include "cluster.h"

#include <algorithm>
#include <bit>

#include "barriers.h"
#include "errors.h"
#include "world.h"

namespace openweek::simulator {
namespace {

constexpr int kRegistersOfSm = 64 * 1024;
constexpr int kMostRegisters = 255;

Dim3 position(std::int64_t number, const Dim3& dims) {
  return {static_cast<int>(number % dims[0]), static_cast<int>(number / dims[0] % dims[1]),
          static_cast<int>(number / dims[0] / dims[1])};
}

// What ptxas would give a kernel that says nothing: as many as fit, in steps of 8.
int default_registers(int num_warps) {
  return std::min(kMostRegisters, kRegistersOfSm / (num_warps * kLanes)) / 8 * 8;
}

}  // namespace

Cta::Cta(Cluster& cluster, int rank, Dim3 index)
    : history(*this, cluster.launch().program->shared_bytes +
                         cluster.launch().config.dynamic_shared_bytes),
      cluster_(cluster),
      rank_(rank),
      index_(index) {
  const Launch& launch = cluster.launch();
  const int num_threads = product(launch.config.block);
  shared_.resize(launch.program->shared_bytes + launch.config.dynamic_shared_bytes);
  const int num_warps = (num_threads + kLanes - 1) / kLanes;
  const int registers = launch.config.registers_per_thread > 0 ? launch.config.registers_per_thread
                                                               : default_registers(num_warps);
  for (int warp = 0; warp < num_warps; ++warp) {
    const int lanes = std::min(kLanes, num_threads - warp * kLanes);
    const Mask mask = lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1;
    warps_.push_back(std::make_unique<Warp>(*this, warp, mask));
    warps_.back()->registers = registers;
  }
  num_live_ = num_warps;
  const int num_groups = (num_warps + kWarpgroup - 1) / kWarpgroup;
  for (int group = 0; group < num_groups; ++group) {
    warpgroups.emplace_back(cluster.agents.add(Agents::Kind::kWarpgroup, rank, group),
                            num_warps - group * kWarpgroup);
  }
}

std::string Cta::name() const {
  return "CTA (" + std::to_string(index_[0]) + ", " + std::to_string(index_[1]) + ", " +
         std::to_string(index_[2]) + ")";
}

Launch& Cta::launch() { return cluster_.launch(); }

void Cta::warp_finished(Warp& warp) {
  known_at_end_.learn(warp.knowledge.own.seen);
  --num_live_;
  for (NamedBarrier& barrier : barriers_) complete_if_full(*this, barrier);
  warpgroups[warp.index() / kWarpgroup].end(warp);
  if (num_live_ > 0) return;
  for (const Epoch owed : owed_) {
    if (known_at_end_.knows(owed)) continue;
    const Agents::Description& agent = cluster_.agents[owed.agent()];
    const std::string what = warp.place(owed.place());
    if (agent.kind == Agents::Kind::kWarp) {
      throw HazardError("exited CTA: warp " + std::to_string(agent.which) + " of " +
                        cluster_.ctas()[agent.rank]->name() + " touches shared memory of " +
                        name() + " by " + what + ", and nothing keeps that one from ending before");
    }
    throw HazardError("in flight at exit: " + name() + " of " + launch().program->name +
                      " ends, and nobody in it has waited for " + what);
  }
}

Cluster::Cluster(World& world, Launch& launch, std::int64_t number, std::uint32_t id)
    : world_(world), launch_(launch), id_(id) {
  const int num_ctas = product(launch.config.cluster);
  for (int i = 0, n = num_warp_agents(launch); i < n; ++i) {
    agents.add(Agents::Kind::kWarp, i / (n / num_ctas), i % (n / num_ctas));
  }
  const Dim3& shape = launch.config.cluster;
  Dim3 clusters;
  for (int axis = 0; axis < 3; ++axis) clusters[axis] = launch.config.grid[axis] / shape[axis];
  const Dim3 first = position(number, clusters);
  for (int rank = 0; rank < product(shape); ++rank) {
    Dim3 index = position(rank, shape);
    for (int axis = 0; axis < 3; ++axis) index[axis] += first[axis] * shape[axis];
    ctas_.push_back(std::make_unique<Cta>(*this, rank, index));
  }
}

bool Cluster::finished() const {
  return std::all_of(ctas_.begin(), ctas_.end(), [](const auto& cta) { return cta->finished(); });
}

int Cluster::num_live_threads() const {
  int count = 0;
  for (const auto& cta : ctas_) {
    for (const auto& warp : cta->warps()) count += std::popcount(warp->live());
  }
  return count;
}

void Cluster::complete_barrier_if_full() {
  if (arrived == 0 || arrived != num_live_threads()) return;
  arrived = 0;
  ++phase;
  result = gathered;
  gathered = {};
  world_.progressed();
}

}  // namespace openweek::simulator
