// Masks of bits: made (bmsk), cut to (szext) and searched (fns).
#include <algorithm>
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int32_t, std::int64_t, std::uint32_t, std::uint64_t;

// A position or a length beyond the word is its size with .clamp, and goes round with .wrap.
template <bool kWrap>
uint32_t limited(uint32_t bits) {
  return kWrap ? bits & 31 : std::min(bits, 32u);
}

template <bool kWrap>
struct MakeMask {
  static uint32_t run(uint32_t position, uint32_t length) {
    const uint64_t mask = (uint64_t{1} << limited<kWrap>(length)) - 1;
    return static_cast<uint32_t>(mask << limited<kWrap>(position));
  }
};

template <bool kWrap>
struct Extend {
  template <class T>
  static T run(T a, uint32_t length) {
    const uint32_t bits = limited<kWrap>(length);
    if (bits == 0) return 0;
    return static_cast<T>(static_cast<uint32_t>(a) << (32 - bits)) >> (32 - bits);
  }
};

// The offset-th set bit from the base on, upwards or, if it is negative, downwards.
struct FindSet {
  static uint32_t run(uint32_t mask, uint32_t base, int32_t offset) {
    if (offset == 0) return base < 32 && (mask >> base & 1) ? base : 0xffffffffu;
    int64_t left = offset < 0 ? -int64_t{offset} : offset;
    const int step = offset < 0 ? -1 : 1;
    for (int64_t at = base; at >= 0 && at < 32; at += step) {
      if ((mask >> at & 1) && --left == 0) return static_cast<uint32_t>(at);
    }
    return 0xffffffffu;
  }
};

bool take_wrap(Lowering& lower) {
  const bool wrap = lower.take("wrap");
  if (!wrap && !lower.take("clamp")) lower.fail(".clamp or .wrap is missing");
  return wrap;
}

void lower_make(Lowering& lower) {
  const Handler handler = take_wrap(lower) ? binary<MakeMask<true>, uint32_t, uint32_t>
                                           : binary<MakeMask<false>, uint32_t, uint32_t>;
  if (lower.take_type() != Type::kB32) lower.fail("bmsk has no such type");
  emit_operation(lower, handler, Type::kB32, {Type::kB32, Type::kB32});
}

void lower_extend(Lowering& lower) {
  const bool wrap = take_wrap(lower);
  const Type type = lower.take_type();
  Handler handler = nullptr;
  if (type == Type::kU32) {
    handler =
        wrap ? binary<Extend<true>, uint32_t, uint32_t> : binary<Extend<false>, uint32_t, uint32_t>;
  } else if (type == Type::kS32) {
    handler = wrap ? binary<Extend<true>, int32_t, int32_t, uint32_t>
                   : binary<Extend<false>, int32_t, int32_t, uint32_t>;
  }
  emit_operation(lower, handler, type, {type, Type::kU32});
}

void lower_find(Lowering& lower) {
  if (lower.take_type() != Type::kB32) lower.fail("fns has no such type");
  emit_operation(lower, ternary<FindSet, uint32_t, uint32_t, uint32_t, int32_t>, Type::kB32,
                 {Type::kB32, Type::kB32, Type::kS32});
}

}  // namespace

void add_masks(Lowerers& lowerers) {
  lowerers["bmsk"] = lower_make;
  lowerers["szext"] = lower_extend;
  lowerers["fns"] = lower_find;
}

}  // namespace openweek::simulator
