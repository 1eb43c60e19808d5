// The machine: devices with SMs, launches, and the order in which their warps take turns.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "mbarrier.h"
#include "memory.h"
#include "program.h"
#include "warp.h"
#include "warpgroup.h"

namespace openweek::simulator {

using Dim3 = std::array<int, 3>;

struct LaunchConfig {
  Dim3 grid = {1, 1, 1};
  Dim3 block = {1, 1, 1};
  Dim3 cluster = {1, 1, 1};
  std::int64_t dynamic_shared_bytes = 0;
  int device = 0;
};

struct alignas(64) ArgumentBlock {
  std::uint8_t bytes[64];
};

// A kernel with its arguments, of which clusters are started one after the other.
struct Launch {
  std::shared_ptr<const Program> program;
  LaunchConfig config;
  std::vector<ArgumentBlock> arguments;  // aligned as tensor maps have to be
  std::int64_t argument_bytes = 0;
  GlobalMemory memory;
  std::shared_ptr<void> owner;  // of the module's variables
  std::int64_t next_cluster = 0;
  std::int64_t num_clusters = 0;
};

// bar.sync and its kin: one of a CTA's sixteen.
struct NamedBarrier {
  int expected = 0;  // threads, if those that arrived said how many; else all that are left
  int arrived = 0;
  std::uint64_t generation = 0;  // how often it has completed
  int population = 0;            // of bar.red: arrived with a true predicate
  bool all = true;               // so far
  int result_population = 0;
  bool result_and = false;
  bool result_or = false;
};

class Cluster;
class Machine;

class Cta {
 public:
  Cta(Cluster& cluster, int rank, Dim3 index);

  Cluster& cluster() { return cluster_; }
  Launch& launch();
  int rank() const { return rank_; }
  const Dim3& index() const { return index_; }
  std::vector<std::uint8_t>& shared() { return shared_; }
  std::vector<std::unique_ptr<Warp>>& warps() { return warps_; }
  NamedBarrier& barrier(int number) { return barriers_[number]; }
  int num_threads() const { return num_threads_; }
  bool finished() const;

  Mbarriers mbarriers;
  std::vector<Warpgroup> warpgroups;

 private:
  Cluster& cluster_;
  int rank_;
  Dim3 index_;
  int num_threads_;
  std::vector<std::uint8_t> shared_;
  std::vector<std::unique_ptr<Warp>> warps_;
  std::array<NamedBarrier, 16> barriers_;
};

// CTAs that are on their SMs together and see one another's shared memory.
class Cluster {
 public:
  Cluster(Machine& machine, Launch& launch, std::int64_t number);

  Machine& machine() { return machine_; }
  Launch& launch() { return launch_; }
  std::vector<std::unique_ptr<Cta>>& ctas() { return ctas_; }
  bool finished() const;

  // Counts what may let a blocked warp go on; whoever blocks remembers the count.
  std::uint64_t changes() const { return changes_; }
  void changed() { ++changes_; }

  // barrier.cluster: threads that have arrived in this phase, and how often it has completed.
  int arrived = 0;
  std::uint64_t phase = 0;

 private:
  Machine& machine_;
  Launch& launch_;
  std::vector<std::unique_ptr<Cta>> ctas_;
  std::uint64_t changes_ = 1;
};

struct RunReport {
  std::uint64_t num_instructions = 0;
  std::uint64_t num_slices = 0;
  std::int64_t num_ctas = 0;
};

// Runs everything that is launched, in an order that the seed decides. Warps of all resident
// clusters and devices take turns; each runs a random number of instructions at a time.
class Machine {
 public:
  Machine(int num_devices, int num_sms, std::uint64_t seed);

  void launch(Launch launch);
  // Lets a copy happen later: some soon, some only when nothing else can go on. `in_shared` tells
  // that it still touches the cluster's shared memory, so that the cluster must outlive it.
  void post(Cluster& cluster, bool in_shared, std::function<void()> work);
  std::uint64_t draw() { return random_(); }

  // Runs to the end. `poll` is called now and then, and may throw to stop the run.
  RunReport run(const std::function<void()>& poll);

 private:
  struct Pending {
    std::uint64_t due = 0;  // the slice after which it happens at the latest
    Cluster* cluster = nullptr;
    bool in_shared = false;
    std::function<void()> work;
  };

  bool start_clusters();
  void finish(std::size_t index);
  void finish_due();
  void retire();
  [[noreturn]] void deadlock();

  int num_sms_;
  std::mt19937_64 random_;
  std::deque<Launch> launches_;  // stays in place: clusters refer to their launch
  std::vector<std::vector<std::unique_ptr<Cluster>>> resident_;  // by device
  std::vector<Warp*> warps_;
  std::vector<Pending> pending_;
  RunReport report_;
};

}  // namespace openweek::simulator
