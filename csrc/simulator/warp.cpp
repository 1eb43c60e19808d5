#include "warp.h"

#include <algorithm>
#include <bit>

#include "errors.h"
#include "lanes.h"
#include "special_registers.h"
#include "world.h"

namespace openweek::simulator {

Warp::Warp(Cta& cta, int index, Mask lanes)
    : matrix_registers(cta.launch().program->num_matrix_registers),
      cta_(cta),
      program_(*cta.launch().program),
      index_(index),
      agent_(static_cast<Agent>(cta.rank() * num_warp_agents(cta.launch()) /
                                    product(cta.launch().config.cluster) +
                                index)),
      live_(lanes),
      file_(program_.file),
      local_bytes_(program_.local_bytes) {
  groups_.emplace_back();
  groups_.back().mask = lanes;
  local_.resize(local_bytes_ * kLanes);
  knowledge.own.seen.learn(agent_, 1);
  fill_late_rows();
}

void Warp::tick() {
  const std::uint32_t time = knowledge.own.seen.of(agent_);
  if (time + 1 == std::uint32_t{1} << Epoch::kTimeBits) {
    throw UnsupportedError("the run is too long for the history: a warp has released " +
                           std::to_string(time) + " times");
  }
  knowledge.own.seen.learn(agent_, time + 1);
}

Position Warp::position() const {
  return {cta_.launch().config.device, cta_.cluster().id(), cta_.rank()};
}

Message Warp::message(MemoryScope scope) const {
  return {position(), agent_, knowledge.own.seen.of(agent_), scope,
          std::make_shared<const Knowledge>(knowledge)};
}

void Warp::know_since(std::uint32_t time, Mask lanes) {
  for_lanes(lanes, [&](int lane) { met_[lane] = std::max(met_[lane], time); });
}

void Warp::learn(const Knowledge& other, Mask lanes) {
  knowledge.learn(other);
  know_since(other.own.seen.of(agent_) + 1, lanes);
}

// Up to which of the warp's own times a message tells of all its lanes.
std::uint32_t Warp::told_by(const Message& message) const {
  const std::uint32_t mine = cta_.cluster().id();
  if (message.from.cluster == mine) return message.knowledge->own.seen.of(agent_);
  const auto found = message.knowledge->others.find(mine);
  return found == message.knowledge->others.end() ? 0 : found->second->seen.of(agent_);
}

bool Warp::knows(const Message& message, int lane) const {
  return simulator::knows(knowledge, cta_.cluster().id(), message) && told_by(message) < met_[lane];
}

void Warp::learn(const Message& message, Mask lanes) {
  simulator::learn(knowledge, cta_.cluster().id(), message);
  know_since(told_by(message) + 1, lanes);
}

void Warp::meet(Mask lanes) {
  tick();
  know_since(knowledge.own.seen.of(agent_), lanes);
}

void Warp::fence_acquire(MemoryScope scope, Mask lanes) {
  const Position here = position();
  std::erase_if(fence_acquires, [&](const Message& found) {
    if (!reaches(std::min(found.scope, scope), found.from, here)) return false;
    learn(found, lanes);
    return true;
  });
}

void Warp::fence_release(MemoryScope scope) {
  std::erase_if(fence_releases, [&](const Message& older) { return older.scope <= scope; });
  fence_releases.push_back(message(scope));
  tick();
}

bool Warp::can_run() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const Group& group) { return !group.obstacle.blocks(); });
}

bool Warp::time_out(std::uint64_t progress) {
  for (Group& group : groups_) {
    if (group.obstacle.kind != Obstacle::Kind::kMbarrier || group.timed_out_at == progress) {
      continue;
    }
    group.timed_out_at = progress;
    group.gives_up = true;
    group.obstacle = {};
    return true;
  }
  return false;
}

void Warp::run(int budget, std::uint64_t& num_instructions) {
  int ran = 0;
  while (ran < budget && pick()) {
    // A lone group stays the one to run until it branches, blocks or ends.
    const bool alone = groups_.size() == 1;
    while (ran < budget) {
      Group& group = groups_[current_];
      const Inst& inst = program_.code[group.pc];
      Mask lanes = group.mask;
      if (inst.guard != kNoRow) {
        const Mask predicate = *row<Mask>(inst.guard);
        lanes &= inst.guard_negated ? ~predicate : predicate;
      }
      if (inst.gather != Gather::kNobody && !gathered(inst)) {
        group.obstacle = {.kind = Obstacle::Kind::kLanes};
        break;
      }
      if (inst.gather == Gather::kWarp && lanes != 0 && lanes != group.mask) {
        throw HazardError("divergent warp: the predicate holds for " +
                          std::to_string(std::popcount(lanes)) + " of the lanes, " + describe());
      }
      ++ran;
      ++num_instructions;
      Step step = Step::kNext;
      if (lanes != 0) {
        if (inst.watch >= 0) matrix_registers.touch(*this, program_.watches[inst.watch]);
        step = inst.run(*this, inst, lanes);
      }
      if (step == Step::kNext) {
        ++group.pc;
        if (alone) continue;
      }
      break;
    }
    settle();
  }
  // Lanes that wait for one another at different places wait for ever.
  if (std::all_of(
          groups_.begin(), groups_.end(),
          [](const Group& group) { return group.obstacle.kind == Obstacle::Kind::kLanes; }) &&
      !groups_.empty()) {
    throw HazardError("divergent warp: " + describe());
  }
  oldest_first_ = !oldest_first_;
  if (live_ == 0) cta_.warp_finished(*this);
}

namespace {

// Whether one group stands before another in the program, functions being where they are called.
bool behind(const Group& one, const Group& other) {
  const auto place = [](const Group& group, std::size_t depth) {
    return depth < group.returns.size() ? group.returns[depth] : group.pc;
  };
  const std::size_t depth_of_one = one.returns.size(), depth_of_other = other.returns.size();
  for (std::size_t depth = 0; depth <= std::min(depth_of_one, depth_of_other); ++depth) {
    const std::int32_t here = place(one, depth), there = place(other, depth);
    if (here != there) return here < there;
  }
  return depth_of_one > depth_of_other;  // has yet to come back to where the other is
}

}  // namespace

// Chooses a group that does not wait.
bool Warp::pick() {
  bool found = false;
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    if (groups_[i].obstacle.blocks()) continue;
    // The group that ran before may be gone, and its place with it.
    const auto is_sooner = [&](const Group& best) {
      return oldest_first_ ? groups_[i].chosen_at < best.chosen_at : behind(groups_[i], best);
    };
    if (!found || is_sooner(groups_[current_])) current_ = i;
    found = true;
  }
  if (found) {
    groups_[current_].chosen_at = ++clock_;
    groups_[current_].obstacle = {};
  }
  return found;
}

// Takes in groups that the last instruction made, drops empty ones and joins those that have met.
void Warp::settle() {
  for (Group& group : arriving_) groups_.push_back(std::move(group));
  arriving_.clear();
  if (groups_.size() == 1 && groups_[0].mask != 0) return;
  std::erase_if(groups_, [](const Group& group) { return group.mask == 0; });
  for (std::size_t i = 0; i < groups_.size(); ++i) {
    for (std::size_t j = groups_.size(); --j > i;) {
      if (!groups_[i].same_place(groups_[j])) continue;
      groups_[i].mask |= groups_[j].mask;
      groups_[i].obstacle = {};  // together they may be enough
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(j));
    }
  }
}

bool Warp::gathered(const Inst& inst) {
  const Mask here = group().mask;
  if (inst.gather == Gather::kWarp) return here == live_;
  // Lanes of one group may name different masks; each waits for its own.
  const std::uint32_t* members = row<std::uint32_t>(inst.members);
  for (Mask rest = here; rest != 0; rest &= rest - 1) {
    if (members[std::countr_zero(rest)] & live_ & ~here) return false;
  }
  return true;
}

// Lanes of the group go elsewhere, as `change` says, and the others to the next instruction.
template <class Change>
void Warp::depart(Mask lanes, Change change) {
  Group& from = group();
  if (lanes == from.mask) return change(from);
  Group other = from;
  other.mask = lanes;
  change(other);
  from.mask &= ~lanes;
  ++from.pc;
  add_group(std::move(other));
}

void Warp::branch(Mask taken, std::int32_t target) {
  depart(taken, [target](Group& group) { group.pc = target; });
}

void Warp::call(Mask lanes, std::int32_t target) {
  depart(lanes, [target](Group& group) {
    group.returns.push_back(group.pc + 1);
    group.pc = target;
  });
}

void Warp::give_back(Mask lanes) {
  depart(lanes, [](Group& group) {
    group.pc = group.returns.back();
    group.returns.pop_back();
  });
}

void Warp::exit(Mask lanes) {
  live_ &= ~lanes;
  Group& from = group();
  from.mask &= ~lanes;
  ++from.pc;
  // Nobody waits for those that have ended, so they do not count among those that came, either.
  Cluster& cluster = cta_.cluster();
  if (cluster_ticket > cluster.phase) cluster.arrived -= std::popcount(cluster_arrived & lanes);
  cluster.complete_barrier_if_full();
  // Those that waited for these lanes need not any more.
  for (Group& group : groups_) {
    if (group.obstacle.kind == Obstacle::Kind::kLanes) group.obstacle = {};
  }
}

std::string Warp::describe() const {
  std::string text = cta_.name() + " warp " + std::to_string(index_) + ":";
  for (const Group& group : groups_) {
    text += " " + std::to_string(std::popcount(group.mask)) + " lanes at " + place(group.pc) +
            describe(group.obstacle) + ";";
  }
  text.pop_back();
  return text;
}

std::string Warp::describe(const Obstacle& obstacle) const {
  using Kind = Obstacle::Kind;
  const std::string which = std::to_string(obstacle.which);
  Cluster& cluster = cta_.cluster();
  switch (obstacle.kind) {
    case Kind::kNone:
      return "";
    case Kind::kLanes:
      return " wait for the warp's other lanes (divergent)";
    case Kind::kMbarrier: {
      Cta& cta = *cluster.ctas()[obstacle.rank];
      return " wait for the mbarrier at " + which + " of CTA rank " +
             std::to_string(obstacle.rank) + " (" + cta.mbarriers.describe(obstacle.which) + ")";
    }
    case Kind::kNamedBarrier: {
      const NamedBarrier& barrier = cta_.barrier(static_cast<int>(obstacle.which));
      const std::string wanted = barrier.expected != 0 ? std::to_string(barrier.expected) : "all";
      return " wait for barrier " + which + " (" + std::to_string(barrier.arrived) + " of " +
             wanted + " threads have arrived)";
    }
    case Kind::kClusterBarrier:
      return " wait for the cluster's barrier (" + std::to_string(cluster.arrived) + " of " +
             std::to_string(cluster.num_live_threads()) + " threads have arrived)";
    case Kind::kWarpgroup:
      return " wait for the other warps of the warpgroup to issue the same wgmma";
    case Kind::kBulkGroups:
      return " wait for copies";
    case Kind::kRegisters:
      return " wait for " + which + " more registers a thread (" +
             std::to_string(cta_.free_registers) + " are free)";
    case Kind::kEarlierLaunch:
      return " wait for an earlier launch";
  }
  return "";
}

void Warp::fill_late_rows() {
  for (const LateRow& late : program_.late_rows) {
    for (int lane = 0; lane < kLanes; ++lane) {
      std::uint64_t value = 0;
      switch (late.kind) {
        case LateRow::Kind::kSpecial:
          value = special_register(late, cta_, index_, lane);
          break;
        case LateRow::Kind::kShared:
          value = (static_cast<std::uint64_t>(cta_.rank()) << kRankShift) + late.value;
          break;
        case LateRow::Kind::kDynamicShared:
          value = (static_cast<std::uint64_t>(cta_.rank()) << kRankShift) + program_.shared_bytes;
          break;
      }
      if (late.width == 8) {
        row<std::uint64_t>(late.row)[lane] = value;
      } else {
        row<std::uint32_t>(late.row)[lane] = static_cast<std::uint32_t>(value);
      }
    }
  }
}

}  // namespace openweek::simulator
