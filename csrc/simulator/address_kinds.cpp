// Of which window an address is (isspacep), and of which CTA (getctarank).
#include <cstdint>
#include <string_view>

#include "cluster.h"
#include "lanes.h"
#include "lowering.h"
#include "memory.h"

namespace openweek::simulator {
namespace {

using std::int32_t, std::int64_t, std::uint32_t, std::uint64_t;

enum Space : int64_t { kGlobal, kConst, kSharedOfCta, kSharedOfCluster, kLocal, kParameter };

bool is_constant(const Program& program, uint64_t address) {
  for (const auto& [begin, end] : program.constants) {
    if (begin <= address && address < end) return true;
  }
  return false;
}

bool is_in(Warp& warp, int64_t space, uint64_t address) {
  switch (space) {
    case kConst:
      return is_constant(warp.program(), address);
    case kSharedOfCta:
      return (address & kSharedWindow) &&
             (address & ~kSharedWindow) >> kRankShift == static_cast<uint64_t>(warp.cta().rank());
    case kSharedOfCluster:
      return address & kSharedWindow;
    case kLocal:
      return address & kLocalWindow;
    case kParameter:
      return address & kParameterWindow;
    default:
      return is_global(address) && !is_constant(warp.program(), address);
  }
}

Step test_space(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<uint64_t>(inst.a);
  Mask result = 0;
  for_lanes(lanes, [&](int i) { result |= static_cast<Mask>(is_in(warp, inst.imm, a[i])) << i; });
  warp.set_predicate(inst.dst, lanes, result);
  return Step::kNext;
}

void lower_test(Lowering& lower) {
  static constexpr std::pair<std::string_view, Space> kSpaces[] = {
      {"global", kGlobal},           {"const", kConst},    {"shared", kSharedOfCta},
      {"shared::cta", kSharedOfCta}, {"local", kLocal},    {"shared::cluster", kSharedOfCluster},
      {"param::entry", kParameter},  {"param", kParameter}};
  int64_t space = -1;
  for (const auto& [name, value] : kSpaces) {
    if (lower.take(name)) space = value;
  }
  if (space < 0) lower.fail("a state space is missing");
  const uint32_t dst = lower.predicate_destination(lower.operand(0));
  const uint32_t a = lower.source_row(1, Type::kU64);
  Inst& inst = lower.emit(test_space);
  inst.dst = dst;
  inst.a = a;
  inst.imm = space;
}

template <class Word>
Step rank_of(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  for_lanes(lanes, [&](int i) { dst[i] = static_cast<uint32_t>(a[i] >> kRankShift & 0xff); });
  return Step::kNext;
}

// The address is one of shared memory, or generic without a state space.
void lower_rank(Lowering& lower) {
  lower.take("shared::cluster");
  const Type type = lower.take_type();
  const uint32_t dst = lower.destination_row(0, Type::kU32);
  const uint32_t a = lower.source_row(1, type);
  Inst& inst = lower.emit(bytes_of(type) == 8 ? rank_of<uint64_t> : rank_of<uint32_t>);
  inst.dst = dst;
  inst.a = a;
}

}  // namespace

void add_address_kinds(Lowerers& lowerers) {
  lowerers["isspacep"] = lower_test;
  lowerers["getctarank"] = lower_rank;
}

}  // namespace openweek::simulator
