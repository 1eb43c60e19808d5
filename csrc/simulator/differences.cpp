// vabsdiff2 and vabsdiff4: distances of the 16-bit or 8-bit parts of two words.
#include <cstdint>
#include <cstdlib>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int32_t, std::int64_t, std::uint32_t;

// In Inst::imm. The distances are added to c, or they are the parts of the result.
enum How : int64_t { kSignedA = 1, kSignedB = 2, kAdds = 4, kQuarters = 8 };

int32_t part(uint32_t word, int shift, int bits, bool is_signed) {
  const uint32_t top = word << (32 - bits - shift);
  return static_cast<int32_t>(is_signed
                                  ? static_cast<uint32_t>(static_cast<int32_t>(top) >> (32 - bits))
                                  : top >> (32 - bits));
}

Step distances(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = warp.row<uint32_t>(inst.c);
  const int bits = inst.imm & kQuarters ? 8 : 16;
  for_lanes(lanes, [&](int i) {
    uint32_t sum = c[i], parts = 0;
    for (int shift = 0; shift < 32; shift += bits) {
      const auto distance =
          static_cast<uint32_t>(std::abs(part(a[i], shift, bits, inst.imm & kSignedA) -
                                         part(b[i], shift, bits, inst.imm & kSignedB)));
      sum += distance;
      parts |= (distance & ((1u << bits) - 1)) << shift;
    }
    dst[i] = inst.imm & kAdds ? sum : parts;
  });
  return Step::kNext;
}

template <bool kOfQuarters>
void lower_distances(Lowering& lower) {
  const Type types[] = {lower.take_type(), lower.take_type(), lower.take_type()};
  for (const Type type : types) {
    if (type != Type::kU32 && type != Type::kS32) lower.fail("there is no such difference");
  }
  int64_t how = kOfQuarters ? kQuarters : 0;
  if (is_signed(types[1])) how |= kSignedA;
  if (is_signed(types[2])) how |= kSignedB;
  if (lower.take("add")) how |= kAdds;
  emit_operation(lower, distances, Type::kB32, {Type::kB32, Type::kB32, Type::kB32}, how);
}

}  // namespace

void add_differences(Lowerers& lowerers) {
  lowerers["vabsdiff2"] = lower_distances<false>;
  lowerers["vabsdiff4"] = lower_distances<true>;
}

}  // namespace openweek::simulator
