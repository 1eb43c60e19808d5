#include "mbarrier.h"

#include <cstdlib>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "world.h"

namespace openweek::simulator {
namespace {

constexpr std::int64_t kMaxArrivals = (1 << 20) - 1;
constexpr std::int64_t kMaxBytes = (1 << 20) - 1;
constexpr int kCountBits = 20;  // of what is missing, in the state that an arrival gives back

std::string where(const Mbarrier& barrier) {
  return "the mbarrier at shared address " + std::to_string(barrier.offset) + " of CTA rank " +
         std::to_string(barrier.cta->rank()) + " (" + barrier.describe() + ")";
}

// Nobody may end the life of an object of which others may still make use.
void check_unused(const Mbarrier& barrier, const char* what, const Origin& origin) {
  const bool is_known = origin.warp->knowledge.own.seen.knows(barrier.used);
  if (!barrier.is_valid || (barrier.under_way == 0 && is_known)) return;
  throw HazardError("mbarrier misuse: " + origin.text() + " " + what + " " + where(barrier) +
                    ", which is in use: " +
                    (is_known ? std::to_string(barrier.under_way) + " bytes of copies are under way"
                              : "nothing orders this after all that threads did with it"));
}

void check_bytes(const Mbarrier& barrier, const char* does, const Origin& origin) {
  if (std::abs(barrier.bytes) <= kMaxBytes) return;
  throw HazardError("mbarrier misuse: " + origin.text() + " " + does + " more bytes than the " +
                    std::to_string(kMaxBytes) + " that a barrier counts, at " + where(barrier));
}

void complete_if_due(Mbarrier& barrier, const Origin& origin) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  if (barrier.under_way != 0) {
    throw HazardError("mbarrier misuse: " + origin.text() + " ends a phase of " + where(barrier) +
                      " while " + std::to_string(barrier.under_way) +
                      " bytes of its copies are still under way: fewer bytes are expected than "
                      "the copies bring");
  }
  ++barrier.phase;
  barrier.missing = barrier.expected;
  barrier.result = barrier.gathered;
  barrier.cta->cluster().world().progressed();
}

}  // namespace

std::string Mbarrier::describe() const {
  return "phase " + std::to_string(phase) + ", " + std::to_string(missing) + " of " +
         std::to_string(expected) + " arrivals and " + std::to_string(bytes) + " bytes missing";
}

void Mbarriers::init(Cta& cta, std::uint32_t offset, std::int64_t expected, const Origin& origin) {
  Mbarrier& barrier = barriers_[offset];
  const Epoch now = origin.warp->epoch(origin.lane);
  if (barrier.expected != 0) check_unused(barrier, "initialises", origin);
  const bool is_new = barrier.cta == nullptr;
  const Agent agent = is_new ? cta.cluster().agents.add(Agents::Kind::kMbarrier, cta.rank(), offset)
                             : barrier.agent;
  // Phases go on counting, so that copies of the object before are not taken for its own.
  const std::uint64_t phase = is_new ? 0 : (barrier.phase + 2) / 2 * 2;
  barrier = {};
  barrier.phase = phase;
  barrier.expected = barrier.missing = expected;
  barrier.cta = &cta;
  barrier.offset = offset;
  barrier.agent = agent;
  barrier.made = now;
  barrier.used.learn(now.agent(), now.time());
  cta.history.claim(offset);
}

Mbarrier& Mbarriers::at(std::uint32_t offset, bool asynchronous, const Origin& origin) {
  const auto found = barriers_.find(offset);
  if (found == barriers_.end() || !found->second.is_valid) {
    throw HazardError("mbarrier misuse: " + origin.text() + " uses shared address " +
                      std::to_string(offset) + ", where no mbarrier was initialised");
  }
  Mbarrier& barrier = found->second;
  const Warp& warp = *origin.warp;
  const bool by_cluster_barrier = barrier.is_fenced && warp.cluster_phases_seen > barrier.fenced_in;
  if (!by_cluster_barrier && !warp.knowledge.own.seen.knows(barrier.made)) {
    throw HazardError("mbarrier misuse: " + origin.text() + " uses " + where(barrier) +
                      ", and no barrier of threads is between its initialisation (" +
                      warp.place(barrier.made.place()) + ") and this");
  }
  // Triton leaves the fence out within a CTA.
  if (asynchronous && barrier.cta != &origin.warp->cta() && !barrier.is_fenced) {
    throw HazardError("mbarrier misuse: " + origin.text() + " lets a copy use " + where(barrier) +
                      ", and no fence.mbarrier_init or fence.proxy.async followed its "
                      "initialisation (" +
                      warp.place(barrier.made.place()) + ")");
  }
  return barrier;
}

void Mbarriers::invalidate(std::uint32_t offset, const Origin& origin) {
  Mbarrier& barrier = barriers_.at(offset);
  check_unused(barrier, "invalidates", origin);
  barrier.is_valid = false;
}

bool Mbarriers::contains(std::uint32_t offset) const {
  const auto found = barriers_.find(offset);
  return found != barriers_.end() && found->second.is_valid;
}

void Mbarriers::fence(const Warp& warp) {
  for (auto& [offset, barrier] : barriers_) {
    if (barrier.is_fenced || barrier.made.agent() != warp.agent()) continue;
    barrier.is_fenced = true;
    barrier.fenced_in = barrier.cta->cluster().phase;
  }
}

void arrive(Mbarrier& barrier, std::int64_t count, const Origin& origin) {
  if (count < 1 || count > barrier.missing) {
    throw HazardError("mbarrier misuse: " + origin.text() + " arrives " + std::to_string(count) +
                      " times at " + where(barrier));
  }
  barrier.missing -= count;
  complete_if_due(barrier, origin);
}

void expect_arrival(Mbarrier& barrier, const Origin& origin) {
  if (++barrier.missing > kMaxArrivals) {
    throw HazardError("mbarrier misuse: " + origin.text() + " makes " + where(barrier) +
                      " wait for more arrivals than it counts");
  }
}

// The next phases expect fewer.
void drop(Mbarrier& barrier, std::int64_t count, const Origin& origin) {
  if (count > barrier.expected) {
    throw HazardError("mbarrier misuse: " + origin.text() + " drops " + std::to_string(count) +
                      " arrivals of " + where(barrier));
  }
  barrier.expected -= count;
}

void announce_bytes(Mbarrier& barrier, std::int64_t num_bytes, const Origin& origin) {
  barrier.bytes += num_bytes;
  check_bytes(barrier, "announces", origin);
}

void expect_bytes(Mbarrier& barrier, std::int64_t num_bytes, const Origin& origin) {
  announce_bytes(barrier, num_bytes, origin);
  complete_if_due(barrier, origin);
}

std::uint64_t start_bytes(Mbarrier& barrier, std::int64_t num_bytes) {
  barrier.under_way += num_bytes;
  return barrier.phase;
}

void complete_bytes(Mbarrier& barrier, std::int64_t num_bytes, std::uint64_t phase,
                    const Origin& origin) {
  if (barrier.phase != phase) {
    throw HazardError("mbarrier misuse: bytes of " + origin.text() + " come in phase " +
                      std::to_string(barrier.phase) + ", and belong to phase " +
                      std::to_string(phase) + ", at " + where(barrier));
  }
  barrier.under_way -= num_bytes;
  barrier.bytes -= num_bytes;
  check_bytes(barrier, "brings", origin);
  complete_if_due(barrier, origin);
}

namespace {

using std::int64_t, std::uint32_t, std::uint64_t;

enum What : int {
  kInit,
  kInvalidate,
  kArrive,
  kArriveExpect,
  kExpect,
  kComplete,
  kWait,
  kWaitParity,
  kPendingCount
};
constexpr int kTry = 0x100;      // the wait may suspend the thread
constexpr int kRelaxed = 0x200;  // orders nothing
constexpr int kDrop = 0x400;
constexpr int kNoComplete = 0x800;  // the arrival must not end the phase

// The place of the mbarrier that a lane names.
SharedPlace find(Warp& warp, const Inst& inst, int lane) {
  const auto& step = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const uint64_t base =
      step.wide ? warp.row<uint64_t>(inst.a)[lane] : warp.row<uint32_t>(inst.a)[lane];
  return shared_place(warp, lane, base + static_cast<uint64_t>(step.offset), 8, 8);
}

int64_t operand(Warp& warp, uint32_t row, int lane, int64_t otherwise) {
  return row == kNoRow ? otherwise : warp.row<uint32_t>(row)[lane];
}

void init(Warp& warp, const Inst& inst, int lane) {
  const auto [cta, offset] = find(warp, inst, lane);
  const Origin name = origin(warp, lane);
  const int64_t expected = operand(warp, inst.b, lane, 1);
  if (expected < 1 || expected > kMaxArrivals) {
    throw HazardError("mbarrier misuse: " + name.text() + " expects " + std::to_string(expected) +
                      " arrivals");
  }
  cta->mbarriers.init(*cta, offset, expected, name);
}

void use(Mbarrier& barrier, const Warp& warp) {
  barrier.used.learn(warp.agent(), warp.knowledge.own.seen.of(warp.agent()));
}

uint64_t state_of(const Mbarrier& barrier) {
  return barrier.phase << kCountBits | static_cast<uint64_t>(barrier.missing);
}

void arrive(Mbarrier& barrier, int64_t how, int64_t count, const Origin& name) {
  const uint64_t phase = barrier.phase;
  if (how & kDrop) drop(barrier, count, name);
  arrive(barrier, count, name);
  if ((how & kNoComplete) && barrier.phase != phase) {
    throw HazardError("mbarrier misuse: " + name.text() + " ends the phase of " + where(barrier) +
                      ", which .noComplete rules out");
  }
}

Step change(Warp& warp, const Inst& inst, Mask lanes) {
  const int what = static_cast<int>(inst.imm & 0xff);
  for_lanes(lanes, [&](int lane) {
    if (what == kInit) return init(warp, inst, lane);
    const auto [cta, offset] = find(warp, inst, lane);
    const Origin name = origin(warp, lane);
    Mbarrier& barrier = cta->mbarriers.at(offset, false, name);
    if (cta != &warp.cta()) cta->owe(warp.epoch(lane));
    if (inst.dst != kNoRow) warp.row<uint64_t>(inst.dst)[lane] = state_of(barrier);
    if (what == kInvalidate) return cta->mbarriers.invalidate(offset, name);
    if (!(inst.imm & kRelaxed)) use(barrier, warp);
    if ((what == kArrive || what == kArriveExpect) && !(inst.imm & kRelaxed)) {
      barrier.gathered.learn(warp.knowledge);
    }
    switch (what) {
      case kArrive:
        arrive(barrier, inst.imm, operand(warp, inst.b, lane, 1), name);
        break;
      case kArriveExpect:
        // As one: the phase cannot end in between.
        announce_bytes(barrier, operand(warp, inst.b, lane, 0), name);
        arrive(barrier, inst.imm, 1, name);
        break;
      case kExpect:
        expect_bytes(barrier, operand(warp, inst.b, lane, 0), name);
        break;
      default: {
        const int64_t num_bytes = operand(warp, inst.b, lane, 0);
        complete_bytes(barrier, num_bytes, start_bytes(barrier, num_bytes), name);
      }
    }
  });
  warp.tick();
  return Step::kNext;
}

// A test tells at once. A try may wait: here it waits until the phase has ended, or until nobody
// else can go on.
Step wait(Warp& warp, const Inst& inst, Mask lanes) {
  const bool by_parity = (inst.imm & 0xff) == kWaitParity;
  Mask ended = 0;
  Mbarrier* last = nullptr;
  const Mbarrier* learned = nullptr;
  bool is_one = true;
  for_lanes(lanes, [&](int lane) {
    const auto [cta, offset] = find(warp, inst, lane);
    if (cta != &warp.cta()) {
      throw HazardError("mbarrier misuse: " + who(warp, lane) +
                        " waits for an mbarrier of CTA rank " + std::to_string(cta->rank()) +
                        ": only its own CTA may");
    }
    Mbarrier& barrier = cta->mbarriers.at(offset, false, origin(warp, lane));
    is_one = is_one && (last == nullptr || last == &barrier);
    last = &barrier;
    if (!(inst.imm & kRelaxed)) use(barrier, warp);
    const bool over = by_parity ? (barrier.phase & 1) != (warp.row<uint32_t>(inst.b)[lane] & 1)
                                : barrier.phase != warp.row<uint64_t>(inst.b)[lane] >> kCountBits;
    if (!over) return;
    ended |= Mask{1} << lane;
    if ((inst.imm & kRelaxed) || learned == &barrier) return;
    learned = &barrier;
    warp.learn(barrier.result, lanes);
    warp.knowledge.own.yielded.learn(barrier.result.own.seen);
    warp.knowledge.own.seen.learn(barrier.agent, static_cast<uint32_t>(barrier.phase));
  });
  Group& group = warp.group();
  if ((inst.imm & kTry) && ended == 0 && is_one && !group.gives_up) {
    return warp.wait_for({.kind = Obstacle::Kind::kMbarrier,
                          .change = &last->phase,
                          .value = last->phase,
                          .rank = last->cta->rank(),
                          .which = last->offset});
  }
  group.gives_up = false;
  warp.set_predicate(inst.dst, lanes, ended);
  return Step::kNext;
}

Step pending_count(Warp& warp, const Inst& inst, Mask lanes) {
  for_lanes(lanes, [&](int lane) {
    const uint64_t state = warp.row<uint64_t>(inst.a)[lane];
    warp.row<uint32_t>(inst.dst)[lane] = static_cast<uint32_t>(state & kMaxArrivals);
  });
  return Step::kNext;
}

void lower_pending_count(Lowering& lower) {
  lower.take_type();
  const uint32_t dst = lower.destination_row(0, Type::kU32);
  const uint32_t state = lower.source_row(1, Type::kB64);
  Inst& inst = lower.emit(pending_count);
  inst.dst = dst;
  inst.a = state;
}

void lower_mbarrier(Lowering& lower) {
  static constexpr std::pair<std::string_view, int> kOperations[] = {
      {"init", kInit},        {"inval", kInvalidate},
      {"arrive", kArrive},    {"arrive_drop", kArrive | kDrop},
      {"expect_tx", kExpect}, {"complete_tx", kComplete},
      {"test_wait", kWait},   {"try_wait", kWait | kTry},
  };
  if (lower.take("pending_count")) return lower_pending_count(lower);
  int what = -1;
  for (const auto& [name, operation] : kOperations) {
    if (what >= 0 || !lower.take(name)) continue;
    what = operation;
    if ((what & 0xff) != kArrive) continue;
    if (lower.take("expect_tx")) what = (what & ~0xff) | kArriveExpect;
    if (lower.take("noComplete")) what |= kNoComplete;
  }
  if (what < 0) lower.fail("the simulator does not know this operation");
  if (lower.take("parity")) what = (what & kTry) | kWaitParity;
  if (lower.take_one_of({"release", "acquire", "relaxed"}) == "relaxed") what |= kRelaxed;
  lower.take_one_of({"cta", "cluster"});
  MemoryStep step;
  const std::string_view space = lower.take_one_of({"shared", "shared::cta", "shared::cluster"});
  step.window = static_cast<int>(space.empty() ? Window::kGeneric : Window::kShared);
  lower.take_type();

  const bool waits = (what & 0xff) == kWait || (what & 0xff) == kWaitParity;
  const bool tells = (what & 0xff) == kArrive || (what & 0xff) == kArriveExpect;
  int next = 0;
  uint32_t dst = kNoRow;
  if (waits) {
    dst = lower.predicate_destination(lower.operand(next++));
  } else if (tells && lower.operand(0).kind != ptx::Operand::Kind::kAddress) {
    if (space == "shared::cluster" && lower.operand(0).kind != ptx::Operand::Kind::kSink) {
      lower.fail("the state of another CTA's mbarrier is not told: the destination must be _");
    }
    dst = lower.destination_row(next++, Type::kB64);
  }
  if (space == "shared::cluster" && (waits || (what & kNoComplete))) {
    lower.fail("this is for an mbarrier of the own CTA alone");
  }
  const ptx::Operand& address = lower.operand(next++);
  if (address.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  const Lowering::Row base = lower.source(address.parts[0], Type::kB64);
  step.wide = base.width == 8;
  step.offset = address.bits;
  uint32_t value = kNoRow;
  if (next < lower.num_operands()) {
    value = lower.source_row(next++, (what & 0xff) == kWait ? Type::kB64 : Type::kB32);
  }
  // How long a try may wait: here as long as others can go on.
  if ((what & kTry) && next < lower.num_operands()) lower.source_row(next++, Type::kB32);
  if (next != lower.num_operands()) lower.fail("there are too many operands");
  if (waits && value == kNoRow) lower.fail("the phase or its parity is missing");
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(step)));
  Inst& inst = lower.emit(waits ? wait : change);
  inst.dst = dst;
  inst.a = base.offset;
  inst.b = value;
  inst.target = number;
  inst.imm = what;
}

}  // namespace

void add_mbarriers(Lowerers& lowerers) { lowerers["mbarrier"] = lower_mbarrier; }

}  // namespace openweek::simulator
