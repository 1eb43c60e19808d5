// Barriers of a CTA (bar, barrier) and of a cluster (barrier.cluster).
#include "barriers.h"

#include <bit>
#include <cstdint>
#include <string>
#include <utility>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "world.h"

namespace openweek::simulator {

void lower_warp_barrier(Lowering& lower);      // lane_exchange.cpp
void lower_tensor_map_fence(Lowering& lower);  // tensor_maps.cpp

namespace {

void complete(Cta& cta, NamedBarrier& barrier) {
  barrier.arrived = 0;
  barrier.expected = 0;
  ++barrier.generation;
  barrier.result_population = barrier.population;
  barrier.result_and = barrier.all;
  barrier.result_or = barrier.population > 0;
  barrier.population = 0;
  barrier.all = true;
  barrier.result = std::exchange(barrier.gathered, {});
  cta.cluster().world().progressed();
}

}  // namespace

void complete_if_full(Cta& cta, NamedBarrier& barrier) {
  if (barrier.arrived == 0) return;
  int wanted = barrier.expected;
  if (wanted == 0) {
    for (const auto& warp : cta.warps()) {
      if (warp->finished()) continue;
      wanted += barrier.in_warps ? kLanes : std::popcount(warp->live());
    }
  }
  if (barrier.arrived == wanted) complete(cta, barrier);
}

namespace {

using std::uint32_t, std::uint64_t;

enum What : int { kSync, kArrive, kReducePopulation, kReduceAnd, kReduceOr };
constexpr int kAligned = 0x100, kNegated = 0x200, kRelaxed = 0x400;

NamedBarrier& barrier_of(Warp& warp, const Inst& inst, int lane) {
  const uint32_t number = warp.row<uint32_t>(inst.a)[lane];
  if (number >= 16) {
    throw HazardError("barrier misuse: " + who(warp, lane) + " names barrier " +
                      std::to_string(number) + " of 16");
  }
  return warp.cta().barrier(static_cast<int>(number));
}

// How many threads an instruction expects; 0 for all.
int expected_by(Warp& warp, const Inst& inst, int lane) {
  if (inst.b == kNoRow) return 0;
  const uint32_t expected = warp.row<uint32_t>(inst.b)[lane];
  if (expected % kLanes != 0 || expected == 0) {
    throw HazardError("barrier misuse: " + who(warp, lane) + " expects " +
                      std::to_string(expected) + " threads, which is no multiple of 32");
  }
  return static_cast<int>(expected);
}

void arrive(Warp& warp, const Inst& inst, Mask lanes, NamedBarrier& barrier) {
  const bool aligned = inst.imm & kAligned;
  const int lane = std::countr_zero(lanes);
  const int num_all = static_cast<int>(warp.cta().warps().size()) * kLanes;
  const auto number = [num_all](int expected) { return expected == 0 ? num_all : expected; };
  const int expected = expected_by(warp, inst, lane);
  if (barrier.arrived != 0 && number(expected) != number(barrier.expected)) {
    throw HazardError("barrier misuse: " + who(warp, lane) + " expects " +
                      std::to_string(number(expected)) + " threads, others expect " +
                      std::to_string(number(barrier.expected)));
  }
  barrier.expected = expected;
  barrier.arrived += aligned ? kLanes : std::popcount(lanes);
  if (barrier.arrived > number(expected)) {
    throw HazardError("barrier misuse: " + who(warp, lane) + " is one of " +
                      std::to_string(barrier.arrived) + " threads that have arrived at barrier " +
                      std::to_string(warp.row<uint32_t>(inst.a)[lane]) + ", where " +
                      std::to_string(number(expected)) + " are expected");
  }
  barrier.in_warps = aligned;
  barrier.gathered.learn(warp.knowledge);
  warp.tick();
  if (inst.c != kNoRow) {
    const Mask yes = warp.predicate(inst.c) ^ (inst.imm & kNegated ? kAllLanes : 0);
    barrier.population += std::popcount(yes & lanes);
    barrier.all = barrier.all && (yes & lanes) == lanes;
  }
}

Step cta_barrier(Warp& warp, const Inst& inst, Mask lanes) {
  NamedBarrier& barrier = barrier_of(warp, inst, std::countr_zero(lanes));
  const int what = static_cast<int>(inst.imm & 0xff);
  Group& group = warp.group();
  if (group.ticket == 0) {
    arrive(warp, inst, lanes, barrier);
    group.ticket = barrier.generation + 1;
    complete_if_full(warp.cta(), barrier);
  }
  if (what != kArrive && barrier.generation < group.ticket) {
    return warp.wait_for({.kind = Obstacle::Kind::kNamedBarrier,
                          .change = &barrier.generation,
                          .value = barrier.generation,
                          .which = warp.row<uint32_t>(inst.a)[std::countr_zero(lanes)]});
  }
  if (what != kArrive) warp.learn(barrier.result, lanes);
  group.ticket = 0;
  if (what == kReducePopulation) {
    auto* dst = warp.row<uint32_t>(inst.dst);
    for_lanes(lanes, [&](int i) { dst[i] = static_cast<uint32_t>(barrier.result_population); });
  } else if (what == kReduceAnd || what == kReduceOr) {
    const bool result = what == kReduceAnd ? barrier.result_and : barrier.result_or;
    warp.set_predicate(inst.dst, lanes, result ? kAllLanes : 0);
  }
  return Step::kNext;
}

Step cluster_arrive(Warp& warp, const Inst& inst, Mask lanes) {
  Cluster& cluster = warp.cta().cluster();
  if (warp.cluster_arrived & lanes) {
    throw HazardError("barrier misuse: a thread arrives twice at the cluster's barrier, " +
                      warp.describe());
  }
  warp.cluster_arrived |= lanes;
  warp.cluster_ticket = cluster.phase + 1;
  if (!(inst.imm & kRelaxed)) {
    cluster.gathered.learn(warp.knowledge);
    warp.tick();
  }
  cluster.arrived += std::popcount(lanes);
  cluster.complete_barrier_if_full();
  return Step::kNext;
}

Step cluster_wait(Warp& warp, const Inst& inst, Mask lanes) {
  Cluster& cluster = warp.cta().cluster();
  if ((warp.cluster_arrived & lanes) != lanes) {
    throw HazardError(
        "barrier misuse: a thread waits at the cluster's barrier before it arrives, " +
        warp.describe());
  }
  if (cluster.phase < warp.cluster_ticket) {
    return warp.wait_for({.kind = Obstacle::Kind::kClusterBarrier,
                          .change = &cluster.phase,
                          .value = cluster.phase});
  }
  warp.cluster_arrived &= ~lanes;
  warp.cluster_phases_seen = warp.cluster_ticket;
  if (!(inst.imm & kRelaxed)) warp.learn(cluster.result, lanes);
  return Step::kNext;
}

Step fence(Warp& warp, const Inst& inst, Mask lanes) {
  warp.fence_acquire(static_cast<MemoryScope>(inst.imm), lanes);
  warp.fence_release(static_cast<MemoryScope>(inst.imm));
  return Step::kNext;
}

Step fence_proxy(Warp& warp, const Inst&, Mask) {
  warp.knowledge.fence();
  warp.tick();  // what the warp writes from here on is not fenced
  warp.cta().mbarriers.fence(warp);
  return Step::kNext;
}

Step fence_mbarriers(Warp& warp, const Inst&, Mask) {
  warp.cta().mbarriers.fence(warp);
  return Step::kNext;
}

Step nothing(Warp&, const Inst&, Mask) { return Step::kNext; }

// ---- lowering ----

void lower_cta_barrier(Lowering& lower, bool aligned) {
  int what = -1;
  if (lower.take("sync")) what = kSync;
  if (lower.take("arrive")) what = kArrive;
  if (lower.take("red")) {
    if (lower.take("popc")) what = kReducePopulation;
    if (lower.take("and")) what = kReduceAnd;
    if (lower.take("or")) what = kReduceOr;
    lower.take_type();
  }
  if (what < 0) lower.fail("the simulator does not know this barrier");
  lower.take("cta");
  if (lower.take("aligned")) aligned = true;
  const bool reduces = what >= kReducePopulation;
  int next = 0;
  uint32_t dst = kNoRow, predicate = kNoRow;
  bool negated = false;
  if (reduces) {
    dst = what == kReducePopulation ? lower.destination_row(0, Type::kU32)
                                    : lower.predicate_destination(lower.operand(0));
    next = 1;
    predicate = lower.predicate(lower.operand(lower.num_operands() - 1), &negated);
  }
  const uint32_t number = lower.source_row(next, Type::kU32);
  const int num_counts = lower.num_operands() - next - 1 - (reduces ? 1 : 0);
  const uint32_t count = num_counts > 0 ? lower.source_row(next + 1, Type::kU32) : kNoRow;
  Inst& inst = lower.emit(cta_barrier);
  inst.dst = dst;
  inst.a = number;
  inst.b = count;
  inst.c = predicate;
  inst.imm = what | (aligned ? kAligned : 0) | (negated ? kNegated : 0);
  if (aligned) inst.gather = Gather::kWarp;
}

void lower_cluster_barrier(Lowering& lower) {
  const bool arrives = lower.take("arrive");
  if (!arrives && !lower.take("wait")) lower.fail(".arrive or .wait is missing");
  const bool relaxed = lower.take_one_of({"release", "acquire", "relaxed"}) == "relaxed";
  const bool aligned = lower.take("aligned");
  Inst& inst = lower.emit(arrives ? cluster_arrive : cluster_wait);
  inst.imm = relaxed ? kRelaxed : 0;
  if (aligned) inst.gather = Gather::kWarp;
}

void lower_bar(Lowering& lower) {
  if (lower.take("warp")) {
    if (!lower.take("sync")) lower.fail("only bar.warp.sync is there");
    return lower_warp_barrier(lower);
  }
  lower_cta_barrier(lower, true);
}

void lower_barrier(Lowering& lower) {
  if (lower.take("cluster")) return lower_cluster_barrier(lower);
  lower_cta_barrier(lower, false);
}

// Memory is one and the order of accesses that of the run, so fences change no value: they tell
// which order a kernel may rely on.
void lower_fence(Lowering& lower) {
  if (lower.take("mbarrier_init")) {
    lower.take("release");
    lower.take("cluster");
    lower.emit(fence_mbarriers);
    return;
  }
  if (lower.take("proxy")) {
    if (lower.take("tensormap::generic")) return lower_tensor_map_fence(lower);
    if (lower.take("alias")) {
      lower.emit(nothing);
      return;
    }
    if (!lower.take("async")) {
      lower.fail("the simulator does not know this fence");
    }
    lower.take_one_of({"global", "shared::cta", "shared::cluster"});
    lower.emit(fence_proxy);
    return;
  }
  lower.take_one_of({"sc", "acq_rel", "acquire", "release"});
  static constexpr std::pair<std::string_view, MemoryScope> kScopes[] = {
      {"cta", MemoryScope::kCta}, {"cluster", MemoryScope::kCluster}, {"gpu", MemoryScope::kGpu},
      {"gl", MemoryScope::kGpu},  {"sys", MemoryScope::kSys},
  };
  for (const auto& [name, scope] : kScopes) {
    if (!lower.take(name)) continue;
    lower.emit(fence).imm = static_cast<int>(scope);
    return;
  }
  lower.fail("the simulator does not know this fence");
}

}  // namespace

void add_barriers(Lowerers& lowerers) {
  lowerers["bar"] = lower_bar;
  lowerers["barrier"] = lower_barrier;
  lowerers["fence"] = lower_fence;
  lowerers["membar"] = lower_fence;
  lowerers["nanosleep"] = [](Lowering& lower) {
    lower.take_type();
    lower.emit(nothing);
  };
}

}  // namespace openweek::simulator
