// Instructions about clusters and resources, and those that only make a GPU faster.
#include <cstdint>
#include <cstring>
#include <string>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using std::uint32_t, std::uint64_t;

constexpr int kDiscarded = 128;  // bytes

// The same offset in the memory of another CTA of the cluster.
template <class Word>
Step map_address(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* rank = warp.row<uint32_t>(inst.b);
  for_lanes(lanes, [&](int i) {
    if (rank[i] >= warp.cta().cluster().ctas().size()) {
      throw HazardError("out of bounds: mapa names CTA " + std::to_string(rank[i]) + " of " +
                        std::to_string(warp.cta().cluster().ctas().size()) + ", " +
                        warp.describe());
    }
    const Word ranks = static_cast<Word>(0xffull << kRankShift);
    dst[i] = (a[i] & ~ranks) | static_cast<Word>(static_cast<uint64_t>(rank[i]) << kRankShift);
  });
  return Step::kNext;
}

void lower_mapa(Lowering& lower) {
  lower.take("shared::cluster");
  const Type type = lower.take_type();
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t rank = lower.source_row(2, Type::kU32);
  Inst& inst = lower.emit(bytes_of(type) == 8 ? map_address<uint64_t> : map_address<uint32_t>);
  inst.dst = dst;
  inst.a = a;
  inst.b = rank;
}

Step zero(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint64_t>(inst.dst);
  for_lanes(lanes, [&](int i) { dst[i] = 0; });
  return Step::kNext;
}

void lower_policy(Lowering& lower) {
  lower.take_one_of({"fractional", "range"});
  for (const std::string_view hint :
       {"L2::evict_first", "L2::evict_last", "L2::evict_normal", "L2::evict_unchanged", "global"}) {
    lower.take(hint);
  }
  lower.take_type();
  const uint32_t dst = lower.destination_row(0, Type::kB64);
  lower.emit(zero).dst = dst;
}

// target: whether the count goes up; imm: the count. More registers may have to be waited for.
Step change_registers(Warp& warp, const Inst& inst, Mask lanes) {
  if (lanes != kAllLanes) {
    throw HazardError("divergent warpgroup: setmaxnreg by part of a warp, " + warp.describe());
  }
  const int count = static_cast<int>(inst.imm);
  Cta& cta = warp.cta();
  Group& group = warp.group();
  if (group.ticket == 0) {
    if (inst.target ? count < warp.registers : count > warp.registers) {
      throw HazardError("register budget: setmaxnreg asks for " + std::to_string(count) +
                        " registers a thread, which is " + (inst.target ? "less" : "more") +
                        " than the " + std::to_string(warp.registers) + " that it has, " +
                        warp.describe());
    }
    cta.warpgroups[warp.index() / kWarpgroup].request_registers(warp, count);
    group.ticket = 1;
  }
  if (count - warp.registers > cta.free_registers) {
    return warp.wait_for({.kind = Obstacle::Kind::kRegisters,
                          .change = &cta.register_changes,
                          .value = cta.register_changes,
                          .which = static_cast<uint32_t>(count - warp.registers)});
  }
  group.ticket = 0;
  cta.free_registers += warp.registers - count;
  ++cta.register_changes;
  warp.registers = count;
  return Step::kNext;
}

void lower_registers(Lowering& lower) {
  const bool up = lower.take("inc");
  if (!up && !lower.take("dec")) lower.fail(".inc or .dec is missing");
  if (!lower.take("sync") || !lower.take("aligned")) lower.fail(".sync.aligned is missing");
  lower.take_type();
  const ptx::Operand& count = lower.operand(0);
  if (count.kind != ptx::Operand::Kind::kInteger || count.bits < 24 || count.bits > 256 ||
      count.bits % 8 != 0) {
    lower.fail("the count must be a constant from 24 to 256, a multiple of 8");
  }
  Inst& inst = lower.emit(change_registers);
  inst.target = up;
  inst.imm = count.bits;
  inst.gather = Gather::kWarp;
}

Step wait_for_grid(Warp& warp, const Inst&, Mask) {
  const std::uint64_t* unfinished =
      warp.cta().cluster().world().unfinished_before(warp.cta().cluster());
  if (unfinished != nullptr) {
    return warp.wait_for(
        {.kind = Obstacle::Kind::kEarlierLaunch, .change = unfinished, .value = *unfinished});
  }
  warp.knowledge.waited_for_grid = true;
  return Step::kNext;
}

Step release_grid(Warp& warp, const Inst&, Mask) {
  warp.cta().cluster().world().release_dependents(warp.cta());
  return Step::kNext;
}

// What is discarded may be anything until it is written again: what nobody should use.
Step discard(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* address = warp.row<uint64_t>(inst.a);
  for_lanes(lanes, [&](int lane) {
    const uint64_t at = address[lane] + static_cast<uint64_t>(inst.imm);
    std::memset(locate(warp, lane, Window::kGeneric, at, kDiscarded, kDiscarded, Touch::kWrite),
                kPoison, kDiscarded);
  });
  return Step::kNext;
}

void lower_discard(Lowering& lower) {
  lower.take("global");
  if (!lower.take("L2")) lower.fail(".L2 is missing");
  const ptx::Operand& address = lower.operand(0);
  const ptx::Operand& size = lower.operand(1);
  if (address.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  if (size.kind != ptx::Operand::Kind::kInteger || size.bits != kDiscarded) {
    lower.fail("the size must be 128");
  }
  const uint32_t row = lower.narrowed(address.parts[0], Type::kB64);
  Inst& inst = lower.emit(discard);
  inst.a = row;
  inst.imm = address.bits;
}

Step nothing(Warp&, const Inst&, Mask) { return Step::kNext; }

}  // namespace

void add_hints(Lowerers& lowerers) {
  lowerers["discard"] = lower_discard;
  lowerers["applypriority"] = [](Lowering& lower) {
    lower.take("global");
    if (!lower.take("L2::evict_normal")) lower.fail(".L2::evict_normal is missing");
    lower.emit(nothing);
  };
  lowerers["prefetchu"] = [](Lowering& lower) {
    if (!lower.take("L1")) lower.fail(".L1 is missing");
    lower.emit(nothing);
  };
  lowerers["mapa"] = lower_mapa;
  lowerers["createpolicy"] = lower_policy;
  lowerers["setmaxnreg"] = lower_registers;
  lowerers["griddepcontrol"] = [](Lowering& lower) {
    if (lower.take("wait")) {
      lower.emit(wait_for_grid);
    } else if (lower.take("launch_dependents")) {
      lower.emit(release_grid);
    } else {
      lower.fail("the simulator does not know this instruction");
    }
  };
}

}  // namespace openweek::simulator
