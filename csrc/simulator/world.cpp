#include "world.h"

#include <algorithm>
#include <array>

#include "errors.h"

namespace openweek::simulator {
namespace {

// Long slices are fast, short ones mix warps: a slice has a random length up to one of these.
constexpr std::array<int, 4> kSliceLengths = {4, 32, 256, 2048};

// Slices between two looks at the clock, which costs less than the shortest slice, and time between
// two polls, which may cost a turn of Python's.
constexpr std::uint64_t kLookEvery = 16;
constexpr std::chrono::milliseconds kPollEvery{50};

// So many instructions of all warps without a store, a copy or a barrier are a loop without end.
constexpr std::uint64_t kMostIdleInstructions = std::uint64_t{1} << 26;

// Copies under way: so many that only a kernel which starts them without end has more.
constexpr std::size_t kMostPending = std::size_t{1} << 14;

}  // namespace

std::string too_long(const MachineConfig& config) {
  return "endless: the run takes more than the machine's max_instructions, " +
         std::to_string(config.max_instructions);
}

std::string too_much_printed() {
  return "the run prints more than " + std::to_string(kMaxPrintedBytes) + " bytes";
}

void RunReport::add(const RunReport& other) {
  num_instructions += other.num_instructions;
  num_slices += other.num_slices;
  num_ctas += other.num_ctas;
  num_wgmmas += other.num_wgmmas;
  num_bulk_copies += other.num_bulk_copies;
}

World::World(std::vector<Share> shares, const MachineConfig& config)
    : shares_(std::move(shares)),
      config_(config),
      random_(config.seed),
      resident_(config.num_devices) {}

World::~World() = default;

RunReport World::run(const std::function<void()>& poll) {
  while (start_clusters()) {
    if (report_.num_slices % kLookEvery == 0) this->poll(poll);
    if (next_due_ <= report_.num_slices) finish_due();
    std::size_t idle = 0;
    std::size_t next = random_() % warps_.size();
    while (idle < warps_.size() && !warps_[next]->can_run()) {
      next = next + 1 == warps_.size() ? 0 : next + 1;
      ++idle;
    }
    while (pending_.size() > kMostPending) finish(random_() % pending_.size());
    ++report_.num_slices;
    if (idle < warps_.size()) {
      run_slice(*warps_[next]);
    } else if (!pending_.empty()) {
      finish(random_() % pending_.size());
    } else if (!time_out()) {
      stop("deadlock: every warp waits");
    }
    if (report_.num_instructions - progress_ > kMostIdleInstructions) {
      stop("deadlock: warps spin, and nothing has changed for a long time");
    }
    if (report_.num_instructions > config_.max_instructions) stop(too_long(config_));
  }
  while (!pending_.empty()) finish(random_() % pending_.size());
  return report_;
}

void World::poll(const std::function<void()>& poll) {
  const auto now = std::chrono::steady_clock::now();
  if (now - polled_at_ < kPollEvery) return;
  polled_at_ = now;
  poll();
}

void World::run_slice(Warp& warp) {
  const std::uint64_t draw = random_();
  const int longest = kSliceLengths[draw % kSliceLengths.size()];
  warp.run(1 + static_cast<int>((draw >> 8) % longest), report_.num_instructions);
  if (warp.finished()) retire();
}

// A try_wait may give up before the phase has ended, and what comes behind it may be what others
// wait for. So when nobody can go on, each may once.
bool World::time_out() {
  for (Warp* warp : warps_) {
    if (warp->time_out(num_progress_)) return true;
  }
  return false;
}

void World::post(Cluster& cluster, bool in_shared, std::function<void()> work) {
  // Late is where bugs show: half of the copies wait until somebody is stuck without them, or for
  // so long that a warp which only spins gets its data.
  constexpr std::array<std::uint64_t, 4> kDelays = {1, 16, 4096, 4096};
  const std::uint64_t due = report_.num_slices + kDelays[random_() % kDelays.size()];
  pending_.push_back({due, &cluster, in_shared, std::move(work)});
  next_due_ = std::min(next_due_, due);
}

void World::finish(std::size_t index) {
  std::swap(pending_[index], pending_.back());
  const Pending done = std::move(pending_.back());
  pending_.pop_back();
  done.work();
  progressed();
}

void World::finish_due() {
  for (std::size_t i = 0; i < pending_.size();) {
    if (pending_[i].due <= report_.num_slices) {
      finish(i);
    } else {
      ++i;
    }
  }
  next_due_ = ~std::uint64_t{0};
  for (const Pending& pending : pending_) next_due_ = std::min(next_due_, pending.due);
}

// Whether the launches of its device before it let this one start, as one stream would: when they
// have ended, or, if it may overlap them, when each of their CTAs has ended or said so.
bool World::may_start(const Share& share) const {
  for (const Share& earlier : shares_) {
    if (&earlier == &share) return true;
    if (earlier.launch->config.device != share.launch->config.device) continue;
    const bool goes_ahead = share.launch->config.programmatic && earlier.next == earlier.end &&
                            earlier.num_released == earlier.num_ctas();
    if (!earlier.finished() && !goes_ahead) return false;
  }
  return true;
}

// Fills free SMs. Returns whether anything is resident.
bool World::start_clusters() {
  bool started = false;
  for (std::size_t i = 0; i < shares_.size(); ++i) {
    Share& share = shares_[i];
    if (share.next == share.end || !may_start(share)) continue;
    auto& here = resident_[share.launch->config.device];
    while (share.next < share.end) {
      int busy = 0;
      for (const auto& cluster : here) busy += static_cast<int>(cluster->ctas().size());
      const int wanted = product(share.launch->config.cluster);
      if (busy > 0 && busy + wanted > config_.num_sms) break;
      const auto id = static_cast<std::uint32_t>(origins_.size());
      origins_.push_back({i, share.next});
      here.push_back(std::make_unique<Cluster>(*this, *share.launch, share.next++, id));
      report_.num_ctas += wanted;
      started = true;
    }
  }
  if (started) {
    progressed();
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
void World::retire() {
  progressed();
  std::erase_if(warps_, [](const Warp* warp) { return warp->finished(); });
  for (auto& clusters : resident_) {
    std::erase_if(clusters, [this](const auto& cluster) {
      if (!cluster->finished()) return false;
      // The histories of its CTAs have found nothing that is still going on in shared memory, but
      // copies whose end is known may be posted all the same.
      for (std::size_t i = 0; i < pending_.size();) {
        if (pending_[i].cluster == cluster.get() && pending_[i].in_shared) {
          finish(i);
        } else {
          ++i;
        }
      }
      Share& share = shares_[origins_[cluster->id()].share];
      ++share.num_finished;
      for (const auto& cta : cluster->ctas()) share.num_released += cta->released ? 0 : 1;
      return true;
    });
  }
}

void World::release_dependents(Cta& cta) {
  if (cta.released) return;
  cta.released = true;
  ++shares_[origins_[cta.cluster().id()].share].num_released;
  progressed();
}

const std::uint64_t* World::unfinished_before(const Cluster& cluster) const {
  const Share& mine = shares_[origins_[cluster.id()].share];
  for (const Share& earlier : shares_) {
    if (&earlier == &mine) break;
    if (earlier.launch->config.device == mine.launch->config.device && !earlier.finished()) {
      return &earlier.num_finished;
    }
  }
  return nullptr;
}

bool World::comes_after(const Knowledge& knowledge, std::uint32_t mine, std::uint32_t other) const {
  const std::size_t here = origins_[mine].share, there = origins_[other].share;
  if (there >= here) return false;
  const LaunchConfig& config = shares_[here].launch->config;
  if (shares_[there].launch->config.device != config.device) return false;
  return !config.programmatic || knowledge.waited_for_grid;
}

bool World::written_by_warp(std::uint32_t cluster, Agent agent) const {
  const Launch& launch = *shares_[origins_[cluster].share].launch;
  return agent < static_cast<Agent>(num_warp_agents(launch));
}

// Of an agent other than a warp the rank is not known, and its accesses have a wider scope anyway.
Position World::position(std::uint32_t cluster, Agent agent) const {
  const Launch& launch = *shares_[origins_[cluster].share].launch;
  const int num_warps = num_warp_agents(launch) / product(launch.config.cluster);
  return {launch.config.device, cluster, static_cast<int>(agent) / num_warps};
}

std::string World::describe(std::uint32_t cluster, Epoch epoch) const {
  const auto& [share, number] = origins_[cluster];
  const Launch& launch = *shares_[share].launch;
  const int num_warps = (product(launch.config.block) + kLanes - 1) / kLanes;
  std::string text;
  if (written_by_warp(cluster, epoch.agent())) {
    text = (epoch.lane() == Epoch::kSeveral ? "lanes" : "lane " + std::to_string(epoch.lane())) +
           " of warp " + std::to_string(epoch.agent() % num_warps) + " of CTA rank " +
           std::to_string(epoch.agent() / num_warps) + " of ";
  }
  text += "cluster " + std::to_string(number);
  if (shares_.size() > 1) text += " of " + launch.program->name;
  if (resident_.size() > 1) text += " on device " + std::to_string(launch.config.device);
  return text + " (" + launch.program->place(epoch.place()) + ")";
}

void World::stop(const std::string& what) {
  std::string text = what;
  for (Warp* warp : warps_) {
    text += "\n  ";
    if (resident_.size() > 1) {
      text += "device " + std::to_string(warp->cta().launch().config.device) + " ";
    }
    text += warp->describe();
  }
  throw DeadlockError(text);
}

}  // namespace openweek::simulator
