#include "machine.h"

#include <algorithm>

#include "errors.h"

namespace openweek::simulator {
namespace {

// Long slices are fast, short ones mix warps: a slice has a random length up to one of these.
constexpr std::array<int, 4> kSliceLengths = {4, 32, 256, 2048};

constexpr std::uint64_t kPollEvery = 4096;  // slices

int product(const Dim3& dims) { return dims[0] * dims[1] * dims[2]; }

Dim3 position(std::int64_t number, const Dim3& dims) {
  return {static_cast<int>(number % dims[0]), static_cast<int>(number / dims[0] % dims[1]),
          static_cast<int>(number / dims[0] / dims[1])};
}

}  // namespace

Cta::Cta(Cluster& cluster, int rank, Dim3 index)
    : cluster_(cluster),
      rank_(rank),
      index_(index),
      num_threads_(product(cluster.launch().config.block)) {
  const Launch& launch = cluster.launch();
  shared_.resize(launch.program->shared_bytes + launch.config.dynamic_shared_bytes);
  const int num_warps = (num_threads_ + kLanes - 1) / kLanes;
  for (int warp = 0; warp < num_warps; ++warp) {
    const int lanes = std::min(kLanes, num_threads_ - warp * kLanes);
    const Mask mask = lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1;
    warps_.push_back(std::make_unique<Warp>(*this, warp, mask));
  }
  warpgroups.resize((num_warps + kWarpgroup - 1) / kWarpgroup);
}

Launch& Cta::launch() { return cluster_.launch(); }

bool Cta::finished() const {
  return std::all_of(warps_.begin(), warps_.end(), [](const auto& w) { return w->finished(); });
}

Cluster::Cluster(Machine& machine, Launch& launch, std::int64_t number)
    : machine_(machine), launch_(launch) {
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

Machine::Machine(int num_devices, int num_sms, std::uint64_t seed)
    : num_sms_(num_sms), random_(seed), resident_(num_devices) {}

void Machine::launch(Launch launch) {
  launch.num_clusters = 1;
  for (int axis = 0; axis < 3; ++axis) {
    launch.num_clusters *= launch.config.grid[axis] / launch.config.cluster[axis];
  }
  launches_.push_back(std::move(launch));
}

RunReport Machine::run(const std::function<void()>& poll) {
  report_ = {};
  // Whatever ends the run, the machine is empty after it.
  const struct Clear {
    Machine& machine;
    ~Clear() {
      machine.pending_.clear();
      machine.warps_.clear();
      for (auto& clusters : machine.resident_) clusters.clear();
      machine.launches_.clear();
    }
  } clear{*this};
  while (start_clusters()) {
    if (report_.num_slices % kPollEvery == 0) poll();
    if (!pending_.empty()) finish_due();
    std::size_t idle = 0;
    std::size_t next = random_() % warps_.size();
    while (idle < warps_.size() && !warps_[next]->can_run()) {
      next = next + 1 == warps_.size() ? 0 : next + 1;
      ++idle;
    }
    if (idle == warps_.size()) {
      if (pending_.empty()) deadlock();
      finish(random_() % pending_.size());
      ++report_.num_slices;
      continue;
    }
    const std::uint64_t draw = random_();
    const int longest = kSliceLengths[draw % kSliceLengths.size()];
    const int budget = 1 + static_cast<int>((draw >> 8) % longest);
    report_.num_instructions += warps_[next]->run(budget);
    ++report_.num_slices;
    if (warps_[next]->finished()) retire();
  }
  while (!pending_.empty()) finish(random_() % pending_.size());
  return report_;
}

void Machine::post(Cluster& cluster, bool in_shared, std::function<void()> work) {
  // Late is where bugs show: half of the copies wait until somebody is stuck without them, or for
  // so long that a warp which only spins gets its data.
  constexpr std::array<std::uint64_t, 4> kDelays = {1, 16, 4096, 4096};
  const std::uint64_t delay = kDelays[random_() % kDelays.size()];
  pending_.push_back({report_.num_slices + delay, &cluster, in_shared, std::move(work)});
}

void Machine::finish(std::size_t index) {
  const Pending done = std::move(pending_[index]);
  pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
  done.work();
  // Whoever waits for it may be anywhere, and its own cluster may have ended.
  for (auto& clusters : resident_) {
    for (auto& cluster : clusters) cluster->changed();
  }
}

void Machine::finish_due() {
  for (std::size_t i = 0; i < pending_.size();) {
    if (pending_[i].due <= report_.num_slices) {
      finish(i);
    } else {
      ++i;
    }
  }
}

// Fills free SMs. Returns whether anything is resident.
bool Machine::start_clusters() {
  bool started = false;
  for (Launch& launch : launches_) {
    auto& here = resident_[launch.config.device];
    while (launch.next_cluster < launch.num_clusters) {
      int busy = 0;
      for (const auto& cluster : here) busy += static_cast<int>(cluster->ctas().size());
      const int wanted = product(launch.config.cluster);
      if (busy > 0 && busy + wanted > num_sms_) break;
      here.push_back(std::make_unique<Cluster>(*this, launch, launch.next_cluster++));
      report_.num_ctas += wanted;
      started = true;
    }
  }
  if (started) {
    warps_.clear();
    for (auto& clusters : resident_) {
      for (auto& cluster : clusters) {
        for (auto& cta : cluster->ctas()) {
          for (auto& warp : cta->warps()) {
            if (!warp->finished()) warps_.push_back(warp.get());
          }
        }
      }
    }
  }
  return !warps_.empty();
}

// Takes warps and clusters that have ended off the machine.
void Machine::retire() {
  std::erase_if(warps_, [](const Warp* warp) { return warp->finished(); });
  for (auto& clusters : resident_) {
    for (const auto& cluster : clusters) {
      if (!cluster->finished()) continue;
      for (const Pending& pending : pending_) {
        if (pending.cluster == cluster.get() && pending.in_shared) {
          throw HazardError("in flight at exit: a cluster of " + cluster->launch().program->name +
                            " has ended while a copy still uses its shared memory");
        }
      }
    }
    std::erase_if(clusters, [](const auto& cluster) { return cluster->finished(); });
  }
}

void Machine::deadlock() {
  std::string text = "deadlock: every warp waits";
  for (Warp* warp : warps_) text += "\n  " + warp->describe();
  throw DeadlockError(text);
}

}  // namespace openweek::simulator
