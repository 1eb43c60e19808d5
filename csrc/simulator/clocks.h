// Who knows of what: vector clocks, by which one access is known to come before another.
//
// Every access belongs to an agent, which counts its own time: a warp, or something that a warp has
// set going and that ends when somebody waits for it (a phase of an mbarrier, a group of copies, a
// multiplication). A warp knows of an access when a chain of barriers, waits and releases leads
// from there to it. What no such chain orders is a race, in whatever order this run had it.
//
// After: Flanagan and Freund, FastTrack: efficient and precise dynamic race detection, PLDI 2009.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace openweek::simulator {

// An agent of a cluster: its number in the cluster's Agents.
using Agent = std::uint32_t;

// One access to a word: by whom, when, by which instruction and lane, to which of the word's bytes.
// Time 0 is no access, of which everybody knows.
class Epoch {
 public:
  static constexpr int kTimeBits = 23, kPlaceBits = 17, kAgentBits = 13, kLaneBits = 6;
  static constexpr unsigned kSeveral = 32;  // lanes

  constexpr Epoch() = default;
  constexpr Epoch(Agent agent, std::uint32_t time, std::int32_t place, unsigned bytes, bool strong,
                  unsigned lane = 0)
      : bits_(std::uint64_t{time} << 41 | static_cast<std::uint64_t>(place) << 24 |
              std::uint64_t{agent} << 11 | lane << 5 | bytes << 1 | (strong ? 1 : 0)) {}

  bool none() const { return bits_ == 0; }
  std::uint32_t time() const { return static_cast<std::uint32_t>(bits_ >> 41); }
  std::int32_t place() const { return static_cast<std::int32_t>(field(24, kPlaceBits)); }
  Agent agent() const { return static_cast<Agent>(field(11, kAgentBits)); }
  unsigned lane() const { return static_cast<unsigned>(field(5, kLaneBits)); }
  unsigned bytes() const { return static_cast<unsigned>(field(1, 4)); }
  bool strong() const { return bits_ & 1; }  // atomic: does not race with other atomic ones
  Epoch with_bytes(unsigned bytes) const {
    return Epoch(agent(), time(), place(), bytes, strong(), lane());
  }
  Epoch with_lane(unsigned lane) const {
    return Epoch(agent(), time(), place(), bytes(), strong(), lane);
  }
  // Whether one instruction made both, in whichever lanes.
  bool is_of_one_instruction(Epoch other) const {
    return agent() == other.agent() && time() == other.time() && place() == other.place();
  }
  bool operator==(const Epoch&) const = default;

 private:
  constexpr std::uint64_t field(int at, int num_bits) const {
    return bits_ >> at & ((std::uint64_t{1} << num_bits) - 1);
  }

  std::uint64_t bits_ = 0;
};

// For each agent of a cluster, up to which of its times one knows all.
class Clock {
 public:
  std::uint32_t of(Agent agent) const { return agent < times_.size() ? times_[agent] : 0; }
  bool knows(Epoch epoch) const { return epoch.time() <= of(epoch.agent()); }
  bool knows(const Clock& other) const {
    for (std::size_t i = 0; i < other.times_.size(); ++i) {
      if (other.times_[i] > of(static_cast<Agent>(i))) return false;
    }
    return true;
  }
  void learn(Agent agent, std::uint32_t time) {
    if (agent >= times_.size()) times_.resize(agent + 1);
    times_[agent] = std::max(times_[agent], time);
  }
  void learn(const Clock& other) {
    if (times_.size() < other.times_.size()) times_.resize(other.times_.size());
    for (std::size_t i = 0; i < other.times_.size(); ++i) {
      times_[i] = std::max(times_[i], other.times_[i]);
    }
  }

 private:
  std::vector<std::uint32_t> times_;
};

// What is known of one cluster: of all accesses; of writes that the asynchronous proxy sees, as a
// proxy fence has come since; of reads whose bytes it may write, as a proxy fence or an mbarrier
// has come since; of writes that it may use as a tensor map. The PTX ISA asks for a fence between
// any two proxies; that a phase of an mbarrier is enough behind a read is what every ring of TMA
// loads relies on.
struct ClusterClocks {
  Clock seen;
  Clock fenced;
  Clock yielded;
  Clock maps;

  void learn(const ClusterClocks& other) {
    seen.learn(other.seen);
    fenced.learn(other.fenced);
    yielded.learn(other.yielded);
    maps.learn(other.maps);
  }
};

// What a warp knows, or a barrier hands on: of its own cluster, and of others by their numbers.
struct Knowledge {
  ClusterClocks own;
  std::map<std::uint32_t, std::shared_ptr<const ClusterClocks>> others;
  bool waited_for_grid = false;  // griddepcontrol.wait: earlier launches have ended
  // By the address of a tensor map: what was known when it was last acquired.
  std::map<std::uint64_t, std::shared_ptr<const Knowledge>> maps;

  void learn(const Knowledge& other);  // of the same cluster
  void learn(std::uint32_t cluster, const std::shared_ptr<const ClusterClocks>& known);
  void fence();         // the asynchronous proxy follows all that is seen
  void release_maps();  // the same of tensor maps
  void acquire_map(std::uint64_t address);
};

}  // namespace openweek::simulator
