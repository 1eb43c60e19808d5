// Branches, and the ends that are none of a kernel's own.
#include <bit>
#include <cstdint>

#include "errors.h"
#include "lanes.h"
#include "lowering.h"

namespace openweek::simulator {
namespace {

Step jump(Warp& warp, const Inst& inst, Mask lanes) {
  warp.branch(lanes, inst.target);
  return Step::kJump;
}

// Lanes that go to the same place go together.
Step jump_by_index(Warp& warp, const Inst& inst, Mask lanes) {
  const std::vector<std::uint32_t>& targets = warp.program().lists[inst.list];
  const auto* index = warp.row<std::uint32_t>(inst.a);
  const std::int32_t here = warp.group().pc;
  while (lanes != 0) {
    const std::uint32_t chosen = index[std::countr_zero(lanes)];
    if (chosen >= targets.size()) {
      throw HazardError("out of bounds: brx.idx with index " + std::to_string(chosen) + " of " +
                        std::to_string(targets.size()) + " targets, " + warp.place(here));
    }
    Mask same = 0;
    for_lanes(lanes, [&](int i) { same |= static_cast<Mask>(index[i] == chosen) << i; });
    warp.group().pc = here;
    const bool all = same == warp.group().mask;
    warp.branch(same, static_cast<std::int32_t>(targets[chosen]));
    if (all) break;
    lanes &= ~same;
  }
  return Step::kJump;
}

Step trap(Warp& warp, const Inst& inst, Mask) {
  (void)inst;
  throw HazardError("trap: the kernel stopped itself, " + warp.describe());
}

Step nothing(Warp&, const Inst&, Mask) { return Step::kNext; }

void lower_branch(Lowering& lower) {
  lower.take("uni");
  Inst& inst = lower.emit(jump);
  lower.target(inst, lower.operand(0));
}

void lower_indexed_branch(Lowering& lower) {
  lower.take("idx");
  lower.take("uni");
  const std::uint32_t index = lower.source_row(0, Type::kU32);
  const std::uint32_t targets = lower.target_list(lower.operand(1));
  Inst& inst = lower.emit(jump_by_index);
  inst.a = index;
  inst.list = targets;
}

template <Handler kHandler>
void lower_plain(Lowering& lower) {
  lower.emit(kHandler);
}

}  // namespace

void add_control(Lowerers& lowerers) {
  lowerers["bra"] = lower_branch;
  lowerers["brx"] = lower_indexed_branch;
  lowerers["trap"] = lower_plain<trap>;
  lowerers["brkpt"] = lower_plain<trap>;
  lowerers["pmevent"] = lower_plain<nothing>;
}

}  // namespace openweek::simulator
