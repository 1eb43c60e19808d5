// dp4a and dp2a: sums of products of bytes.
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

// In Inst::imm; dp2a takes 16 bits of a, and the low or the high half of b.
enum How : int64_t { kSignedA = 1, kSignedB = 2, kPairs = 4, kHigh = 8 };

int64_t part(uint32_t word, int index, int bits, bool is_signed) {
  const uint32_t raw = word >> index * bits & ((1u << bits) - 1);
  return is_signed && (raw >> (bits - 1)) ? int64_t{raw} - (int64_t{1} << bits) : int64_t{raw};
}

Step dot(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = warp.row<uint32_t>(inst.c);
  const bool pairs = inst.imm & kPairs;
  const int first = inst.imm & kHigh ? 2 : 0;
  for_lanes(lanes, [&](int lane) {
    int64_t sum = c[lane];
    for (int i = 0; i < (pairs ? 2 : 4); ++i) {
      sum += part(a[lane], i, pairs ? 16 : 8, inst.imm & kSignedA) *
             part(b[lane], first + i, 8, inst.imm & kSignedB);
    }
    dst[lane] = static_cast<uint32_t>(sum);
  });
  return Step::kNext;
}

template <bool kOfPairs>
void lower_dot(Lowering& lower) {
  const Type a = lower.take_type(), b = lower.take_type();
  for (const Type type : {a, b}) {
    if (type != Type::kU32 && type != Type::kS32) lower.fail("there is no such product");
  }
  int64_t how = (is_signed(a) ? kSignedA : 0) | (is_signed(b) ? kSignedB : 0);
  if (kOfPairs) {
    how |= kPairs;
    if (lower.take("hi")) {
      how |= kHigh;
    } else if (!lower.take("lo")) {
      lower.fail(".lo or .hi is missing");
    }
  }
  emit_operation(lower, dot, Type::kB32, {Type::kB32, Type::kB32, Type::kB32}, how);
}

}  // namespace

void add_dot_products(Lowerers& lowerers) {
  lowerers["dp4a"] = lower_dot<false>;
  lowerers["dp2a"] = lower_dot<true>;
}

}  // namespace openweek::simulator
