// The order in which warps take turns, and in which copies happen.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "cluster.h"
#include "global_history.h"

namespace openweek::simulator {

struct RunReport {
  std::uint64_t num_instructions = 0;
  std::uint64_t num_slices = 0;
  std::int64_t num_ctas = 0;
  std::int64_t num_wgmmas = 0;  // of a warpgroup
  std::int64_t num_bulk_copies = 0;

  void add(const RunReport& other);
};

// Says that a run takes more instructions than it may.
std::string too_long(const MachineConfig& config);

// What kernels print is kept until the run ends.
inline constexpr std::size_t kMaxPrintedBytes = std::size_t{1} << 24;
std::string too_much_printed();

// The clusters of a launch from one number to another, to be started one after the other.
struct Share {
  Launch* launch = nullptr;
  std::int64_t next = 0;
  std::int64_t end = 0;
  std::uint64_t num_wanted = 0;    // clusters: end - next at first
  std::uint64_t num_finished = 0;  // clusters
  std::int64_t num_released = 0;   // CTAs that have ended or let the next launch start

  Share(Launch& of, std::int64_t begin, std::int64_t behind)
      : launch(&of), next(begin), end(behind), num_wanted(behind - begin) {}
  bool finished() const { return num_finished == num_wanted; }
  std::int64_t num_ctas() const {
    return static_cast<std::int64_t>(num_wanted) * product(launch->config.cluster);
  }
};

// All that may see one another, and its history. Warps of all resident clusters take turns in an
// order that the seed decides; each runs a random number of instructions at a time.
class World {
 public:
  World(std::vector<Share> shares, const MachineConfig& config);
  ~World();

  // Lets a copy happen later: some soon, some only when nothing else can go on. `in_shared` tells
  // that it still touches the cluster's shared memory.
  void post(Cluster& cluster, bool in_shared, std::function<void()> work);
  std::uint64_t draw() { return random_(); }

  // Somebody has done what others may wait for.
  void progressed() {
    progress_ = report_.num_instructions;
    ++num_progress_;
  }

  // Programmatic launches: a CTA lets the next launch start; a counter that changes while an
  // earlier launch is not finished, or nullptr.
  void release_dependents(Cta& cta);
  const std::uint64_t* unfinished_before(const Cluster& cluster) const;

  // Runs to the end. `poll` is called now and then, and may throw to stop the run.
  RunReport run(const std::function<void()>& poll);

  // Of clusters that may have ended: whether one began when the other had ended, who an agent is.
  bool comes_after(const Knowledge& knowledge, std::uint32_t mine, std::uint32_t other) const;
  bool written_by_warp(std::uint32_t cluster, Agent agent) const;
  Position position(std::uint32_t cluster, Agent agent) const;
  std::string describe(std::uint32_t cluster, Epoch epoch) const;

  const MachineConfig& config() const { return config_; }
  RunReport& report() { return report_; }
  std::string& printed() { return printed_; }  // by vprintf
  GlobalHistory& history() { return history_; }
  std::unordered_map<std::uint64_t, Messages>& messages() { return messages_; }

 private:
  struct Pending {
    std::uint64_t due = 0;  // the slice after which it happens at the latest
    Cluster* cluster = nullptr;
    bool in_shared = false;
    std::function<void()> work;
  };

  struct Origin {
    std::size_t share;
    std::int64_t number;
  };

  bool may_start(const Share& share) const;
  bool start_clusters();
  void finish(std::size_t index);
  void finish_due();
  void retire();
  bool time_out();
  void run_slice(Warp& warp);
  void poll(const std::function<void()>& poll);
  [[noreturn]] void stop(const std::string& what);

  std::vector<Share> shares_;
  MachineConfig config_;
  std::mt19937_64 random_;
  std::vector<std::vector<std::unique_ptr<Cluster>>> resident_;  // by device
  std::vector<Warp*> warps_;
  std::vector<Pending> pending_;
  std::uint64_t next_due_ = ~std::uint64_t{0};
  std::vector<Origin> origins_;     // of clusters, by id
  std::uint64_t progress_ = 0;      // the instruction at which something was last achieved
  std::uint64_t num_progress_ = 1;  // how often
  GlobalHistory history_;
  std::unordered_map<std::uint64_t, Messages> messages_;  // by global address
  RunReport report_;
  std::string printed_;
  std::chrono::steady_clock::time_point polled_at_{};
};

}  // namespace openweek::simulator
