// Sums and products that set the thread's carry flag, and those that go on from it.
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

// In Inst::imm; the row of the flag is Inst::target.
enum Chain : int64_t { kCarryIn = 1, kCarryOut = 2, kSubtracts = 4, kHigh = 8 };

template <class T>
using Double = std::conditional_t<sizeof(T) == 4, int64_t, __int128>;

// One step of a chain: x + y or x - y with the flag, whose bit `lane` changes.
template <class T>
T step(T x, T y, int64_t chain, int lane, Mask& flags) {
  const bool in = (chain & kCarryIn) && (flags >> lane & 1);
  const Double<T> exact = chain & kSubtracts ? Double<T>{x} - y - in : Double<T>{x} + y + in;
  if (chain & kCarryOut) {
    const Mask out = static_cast<Mask>(exact >> 8 * sizeof(T) & 1) << lane;  // or a borrow
    flags = (flags & ~(Mask{1} << lane)) | out;
  }
  return static_cast<T>(exact);
}

template <class T>
Step sum(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<T>(inst.dst);
  const auto* a = warp.row<T>(inst.a);
  const auto* b = warp.row<T>(inst.b);
  Mask& flags = *warp.row<Mask>(static_cast<uint32_t>(inst.target));
  for_lanes(lanes, [&](int i) { dst[i] = step<T>(a[i], b[i], inst.imm, i, flags); });
  return Step::kNext;
}

// Signed or unsigned, and twice as wide.
template <class T, class Wide>
Step product(Warp& warp, const Inst& inst, Mask lanes) {
  using Word = Cell<T>;
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* b = warp.row<Word>(inst.b);
  const auto* c = warp.row<Word>(inst.c);
  Mask& flags = *warp.row<Mask>(static_cast<uint32_t>(inst.target));
  const int shift = inst.imm & kHigh ? 8 * sizeof(T) : 0;
  for_lanes(lanes, [&](int i) {
    const Wide exact = Wide{static_cast<T>(a[i])} * static_cast<T>(b[i]);
    dst[i] = step<Word>(static_cast<Word>(exact >> shift), c[i], inst.imm, i, flags);
  });
  return Step::kNext;
}

void emit(Lowering& lower, Handler handler, Type type, std::initializer_list<Type> from,
          int64_t chain) {
  if (lower.take("cc")) chain |= kCarryOut;
  const uint32_t flags = lower.carry();
  emit_operation(lower, handler, type, from, chain, static_cast<int32_t>(flags));
}

}  // namespace

uint32_t Lowering::carry() {
  if (carry_ == kNoRow) carry_ = scratch(4);
  return carry_;
}

void lower_carry_sum(Lowering& lower, Type type, bool subtracts, bool continues) {
  const int64_t chain = (subtracts ? kSubtracts : 0) | (continues ? kCarryIn : 0);
  const bool known = !is_float(type) && (bytes_of(type) == 4 || bytes_of(type) == 8);
  if (!known) lower.fail("there is no such instruction for this type");
  emit(lower, bytes_of(type) == 8 ? sum<uint64_t> : sum<uint32_t>, type, {type, type}, chain);
}

void lower_carry_product(Lowering& lower, Type type, bool continues) {
  int64_t chain = continues ? kCarryIn : 0;
  if (lower.take("hi")) {
    chain |= kHigh;
  } else if (!lower.take("lo")) {
    lower.fail(".lo or .hi is missing");
  }
  const Handler handler = type == Type::kU32   ? Handler{product<uint32_t, uint64_t>}
                          : type == Type::kS32 ? Handler{product<int32_t, int64_t>}
                          : type == Type::kU64 ? Handler{product<uint64_t, unsigned __int128>}
                          : type == Type::kS64 ? Handler{product<int64_t, __int128>}
                                               : nullptr;
  emit(lower, handler, type, {type, type, type}, chain);
}

}  // namespace openweek::simulator
