// What is on the SMs at a time: CTAs and the clusters that they form.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "agents.h"
#include "clocks.h"
#include "launch.h"
#include "mbarrier.h"
#include "shared_history.h"
#include "warp.h"
#include "warpgroup.h"

namespace openweek::simulator {

class Cluster;
class World;

// bar.sync and its kin: one of a CTA's sixteen.
struct NamedBarrier {
  int expected = 0;  // threads, if those that arrived said how many; else all that are left
  int arrived = 0;
  bool in_warps = false;         // whole warps arrive
  std::uint64_t generation = 0;  // how often it has completed
  int population = 0;            // of bar.red: arrived with a true predicate
  bool all = true;               // so far
  int result_population = 0;
  bool result_and = false;
  bool result_or = false;
  Knowledge gathered;  // of those that have arrived
  Knowledge result;    // of all, when it completed
};

class Cta {
 public:
  Cta(Cluster& cluster, int rank, Dim3 index);

  Cluster& cluster() { return cluster_; }
  Launch& launch();
  int rank() const { return rank_; }
  const Dim3& index() const { return index_; }
  std::string name() const;  // "CTA (1, 0, 0)"
  std::vector<std::uint8_t>& shared() { return shared_; }
  std::vector<std::unique_ptr<Warp>>& warps() { return warps_; }
  NamedBarrier& barrier(int number) { return barriers_[number]; }
  bool finished() const { return num_live_ == 0; }

  // The end of a warp. At the end of the last one, all that goes on in this CTA's shared memory
  // must be known to have ended.
  void warp_finished(Warp& warp);

  // An access to this CTA's shared memory that must be over before the CTA ends.
  void owe(Epoch epoch) {
    if (epoch.agent() >= owed_.size()) owed_.resize(epoch.agent() + 1);
    owed_[epoch.agent()] = epoch;
  }

  Mbarriers mbarriers;
  SharedHistory history;
  std::vector<Warpgroup> warpgroups;
  int free_registers = 0;  // of a thread of a warp each
  std::uint64_t register_changes = 0;
  bool released = false;  // the next launch may start, if this CTA is all that it waits for

 private:
  Cluster& cluster_;
  int rank_;
  Dim3 index_;
  int num_live_ = 0;
  std::vector<std::uint8_t> shared_;
  std::vector<std::unique_ptr<Warp>> warps_;
  std::array<NamedBarrier, 16> barriers_;
  std::vector<Epoch> owed_;  // by agent
  Clock known_at_end_;       // by the warps that have ended
};

// CTAs that are on their SMs together and see one another's shared memory.
class Cluster {
 public:
  Cluster(World& world, Launch& launch, std::int64_t number, std::uint32_t id);

  World& world() { return world_; }
  Launch& launch() { return launch_; }
  std::uint32_t id() const { return id_; }  // in the world
  std::vector<std::unique_ptr<Cta>>& ctas() { return ctas_; }
  bool finished() const;
  int num_live_threads() const;

  Agents agents;
  std::unordered_map<std::uint32_t, Messages> messages;  // by shared address

  // barrier.cluster: threads that have arrived in this phase, and how often it has completed.
  int arrived = 0;
  std::uint64_t phase = 0;
  Knowledge gathered;
  Knowledge result;
  void complete_barrier_if_full();

 private:
  World& world_;
  Launch& launch_;
  std::uint32_t id_;
  std::vector<std::unique_ptr<Cta>> ctas_;
};

}  // namespace openweek::simulator
