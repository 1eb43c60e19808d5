// cvt.pack: two integers, cut to the range of fewer bits, side by side.
#include <algorithm>
#include <cstdint>
#include <string_view>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int32_t, std::int64_t, std::uint32_t, std::uint64_t;

struct Packed {
  std::string_view name;
  int num_bits;
  bool is_signed;
};
constexpr Packed kPacked[] = {{"u16", 16, false}, {"s16", 16, true}, {"u8", 8, false},
                              {"s8", 8, true},    {"u4", 4, false},  {"s4", 4, true},
                              {"u2", 2, false},   {"s2", 2, true}};

uint32_t cut(int32_t value, const Packed& to) {
  const int64_t low = to.is_signed ? -(int64_t{1} << (to.num_bits - 1)) : 0;
  const int64_t high = low + (int64_t{1} << to.num_bits) - 1;
  const int64_t mask = (int64_t{1} << to.num_bits) - 1;
  return static_cast<uint32_t>(std::clamp<int64_t>(value, low, high) & mask);
}

// The low bits of c go above those of a, and these above those of b.
Step pack(Warp& warp, const Inst& inst, Mask lanes) {
  const Packed& to = kPacked[inst.imm];
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<int32_t>(inst.a);
  const auto* b = warp.row<int32_t>(inst.b);
  const auto* c = inst.c == kNoRow ? nullptr : warp.row<uint32_t>(inst.c);
  for_lanes(lanes, [&](int i) {
    const uint64_t pair = uint64_t{cut(a[i], to)} << to.num_bits | cut(b[i], to);
    const uint64_t above = c == nullptr ? 0 : uint64_t{c[i]} << 2 * to.num_bits;
    dst[i] = static_cast<uint32_t>(above | pair);
  });
  return Step::kNext;
}

}  // namespace

void lower_pack(Lowering& lower) {
  if (!lower.take("sat")) lower.fail(".sat is missing");
  int64_t which = -1;
  for (std::size_t i = 0; i < std::size(kPacked); ++i) {
    if (which < 0 && lower.take(kPacked[i].name)) which = static_cast<int64_t>(i);
  }
  if (which < 0 || !lower.take("s32")) lower.fail("there is no such conversion");
  const bool appends = lower.take("b32");
  if (!appends && kPacked[which].num_bits < 16) lower.fail(".b32 is missing");
  if (appends) {
    emit_operation(lower, pack, Type::kB32, {Type::kS32, Type::kS32, Type::kB32}, which);
  } else {
    emit_operation(lower, pack, Type::kB32, {Type::kS32, Type::kS32}, which);
  }
}

}  // namespace openweek::simulator
