#include "mbarrier.h"

#include <cstdlib>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "machine.h"

namespace openweek::simulator {
namespace {

constexpr std::int64_t kMaxArrivals = (1 << 20) - 1;
constexpr std::int64_t kMaxBytes = (1 << 20) - 1;

void complete_if_due(Mbarrier& barrier, Cluster& cluster) {
  if (barrier.missing != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.missing = barrier.expected;
  cluster.changed();
}

}  // namespace

std::string Mbarrier::describe() const {
  return "phase " + std::to_string(phase) + ", " + std::to_string(missing) + " of " +
         std::to_string(expected) + " arrivals and " + std::to_string(bytes) + " bytes missing";
}

void Mbarriers::init(std::uint32_t offset, std::int64_t expected) {
  barriers_[offset] = {0, expected, expected, 0};
}

void Mbarriers::invalidate(std::uint32_t offset) { barriers_.erase(offset); }

Mbarrier& Mbarriers::at(std::uint32_t offset, const Origin& origin) {
  const auto found = barriers_.find(offset);
  if (found == barriers_.end()) {
    throw HazardError("mbarrier misuse: " + origin.text() + " uses shared address " +
                      std::to_string(offset) + ", where no mbarrier was initialised");
  }
  return found->second;
}

void arrive(Mbarrier& barrier, std::int64_t count, Cluster& cluster, const Origin& origin) {
  if (count > barrier.missing) {
    throw HazardError("mbarrier misuse: " + origin.text() + " arrives " + std::to_string(count) +
                      " times at a barrier in " + barrier.describe());
  }
  barrier.missing -= count;
  complete_if_due(barrier, cluster);
}

void expect_bytes(Mbarrier& barrier, std::int64_t num_bytes, Cluster& cluster,
                  const Origin& origin) {
  barrier.bytes += num_bytes;
  if (std::abs(barrier.bytes) > kMaxBytes) {
    throw HazardError("mbarrier misuse: " + origin.text() +
                      " announces more bytes than a barrier counts: " + barrier.describe());
  }
  complete_if_due(barrier, cluster);
}

void complete_bytes(Mbarrier& barrier, std::int64_t num_bytes, Cluster& cluster,
                    const Origin& origin) {
  barrier.bytes -= num_bytes;
  if (std::abs(barrier.bytes) > kMaxBytes) {
    throw HazardError("mbarrier misuse: " + origin.text() +
                      " brings more bytes than a barrier counts: " + barrier.describe());
  }
  complete_if_due(barrier, cluster);
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
  kWaitParity
};
constexpr int kTry = 0x100;  // the wait may suspend the thread

struct Found {
  Cta* cta;
  uint32_t offset;
};

// The CTA and the offset of an mbarrier's address.
Found find(Warp& warp, const Inst& inst, int lane) {
  const auto& step = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const uint64_t base =
      step.wide ? warp.row<uint64_t>(inst.a)[lane] : warp.row<uint32_t>(inst.a)[lane];
  uint64_t address = base + static_cast<uint64_t>(step.offset);
  if (step.window == static_cast<int>(Window::kGeneric)) address &= ~kSharedWindow;
  locate(warp, lane, Window::kShared, address, 8, 8);  // checks
  Cta& cta = *warp.cta().cluster().ctas()[address >> kRankShift];
  if (cta.finished()) {
    throw HazardError("exited CTA: " + who(warp, lane) +
                      " uses an mbarrier of a CTA that has ended");
  }
  return {&cta, static_cast<uint32_t>(address) & kOffsetMask};
}

int64_t operand(Warp& warp, uint32_t row, int lane, int64_t otherwise) {
  return row == kNoRow ? otherwise : warp.row<uint32_t>(row)[lane];
}

Step change(Warp& warp, const Inst& inst, Mask lanes) {
  Cluster& cluster = warp.cta().cluster();
  for_lanes(lanes, [&](int lane) {
    const auto [cta, offset] = find(warp, inst, lane);
    const Origin name = origin(warp, lane);
    if (inst.imm == kInit) {
      const int64_t expected = operand(warp, inst.b, lane, 1);
      if (expected < 1 || expected > kMaxArrivals) {
        throw HazardError("mbarrier misuse: " + name.text() + " expects " +
                          std::to_string(expected) + " arrivals");
      }
      cta->mbarriers.init(offset, expected);
      return;
    }
    Mbarrier& barrier = cta->mbarriers.at(offset, name);
    if (inst.dst != kNoRow) warp.row<uint64_t>(inst.dst)[lane] = barrier.phase;
    switch (inst.imm) {
      case kInvalidate:
        cta->mbarriers.invalidate(offset);
        break;
      case kArrive:
        arrive(barrier, operand(warp, inst.b, lane, 1), cluster, name);
        break;
      case kArriveExpect:
        // In this order, and as one: the phase cannot end in between.
        barrier.bytes += operand(warp, inst.b, lane, 0);
        arrive(barrier, 1, cluster, name);
        break;
      case kExpect:
        expect_bytes(barrier, operand(warp, inst.b, lane, 0), cluster, name);
        break;
      default:
        complete_bytes(barrier, operand(warp, inst.b, lane, 0), cluster, name);
    }
  });
  return Step::kNext;
}

// A test tells at once. A try may wait: here it waits until the phase has ended, or until another
// group of the warp has something to do.
Step wait(Warp& warp, const Inst& inst, Mask lanes) {
  Mask ended = 0;
  for_lanes(lanes, [&](int lane) {
    const auto [cta, offset] = find(warp, inst, lane);
    const Mbarrier& barrier = cta->mbarriers.at(offset, origin(warp, lane));
    const bool over = (inst.imm & 0xff) == kWaitParity
                          ? (barrier.phase & 1) != (warp.row<uint32_t>(inst.b)[lane] & 1)
                          : barrier.phase != warp.row<uint64_t>(inst.b)[lane];
    ended |= static_cast<Mask>(over) << lane;
  });
  if ((inst.imm & kTry) && ended == 0) return Step::kBlock;
  warp.set_predicate(inst.dst, lanes, ended);
  return Step::kNext;
}

void lower_mbarrier(Lowering& lower) {
  static constexpr std::pair<std::string_view, int> kOperations[] = {
      {"init", kInit},
      {"inval", kInvalidate},
      {"arrive", kArrive},
      {"expect_tx", kExpect},
      {"complete_tx", kComplete},
      {"test_wait", kWait},
      {"try_wait", kWait | kTry},
  };
  int what = -1;
  for (const auto& [name, operation] : kOperations) {
    if (!lower.take(name)) continue;
    what = what < 0 ? operation : what;
    if (what == kArrive && lower.take("expect_tx")) what = kArriveExpect;
  }
  if (what < 0) lower.fail("the simulator does not know this operation");
  if (lower.take("parity")) what = (what & kTry) | kWaitParity;
  lower.take_one_of({"release", "acquire", "relaxed"});
  lower.take_one_of({"cta", "cluster"});
  MemoryStep step;
  const std::string_view space = lower.take_one_of({"shared", "shared::cta", "shared::cluster"});
  step.window = static_cast<int>(space.empty() ? Window::kGeneric : Window::kShared);
  lower.take_type();

  const bool waits = (what & 0xff) == kWait || (what & 0xff) == kWaitParity;
  const bool tells = what == kArrive || what == kArriveExpect;
  int next = 0;
  uint32_t dst = kNoRow;
  if (waits) {
    dst = lower.predicate_destination(lower.operand(next++));
  } else if (tells && lower.operand(0).kind != ptx::Operand::Kind::kAddress) {
    dst = lower.destination_row(next++, Type::kB64);
  }
  const ptx::Operand& address = lower.operand(next++);
  if (address.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  const Lowering::Row base = lower.source(address.parts[0], Type::kB64);
  step.wide = base.width == 8;
  step.offset = address.bits;
  uint32_t value = kNoRow;
  if (next < lower.num_operands()) {
    value = lower.source_row(next, (what & 0xff) == kWait ? Type::kB64 : Type::kB32);
  }
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
