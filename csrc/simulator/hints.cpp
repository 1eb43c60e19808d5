// Instructions about clusters and resources, and those that only make a GPU faster.
#include <cstdint>
#include <string>

#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "machine.h"

namespace openweek::simulator {
namespace {

using std::uint32_t, std::uint64_t;

Step nothing(Warp&, const Inst&, Mask) { return Step::kNext; }

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

void lower_registers(Lowering& lower) {
  if (lower.take_one_of({"inc", "dec"}).empty()) lower.fail(".inc or .dec is missing");
  if (!lower.take("sync") || !lower.take("aligned")) lower.fail(".sync.aligned is missing");
  lower.take_type();
  lower.emit(nothing).gather = Gather::kWarp;
}

}  // namespace

void add_hints(Lowerers& lowerers) {
  lowerers["mapa"] = lower_mapa;
  lowerers["createpolicy"] = lower_policy;
  lowerers["setmaxnreg"] = lower_registers;
  lowerers["griddepcontrol"] = [](Lowering& lower) {
    if (lower.take_one_of({"wait", "launch_dependents"}).empty()) {
      lower.fail("the simulator does not know this instruction");
    }
    lower.emit(nothing);
  };
}

}  // namespace openweek::simulator
