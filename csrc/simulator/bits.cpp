// Shifts, counts, bit fields and permutations.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <string_view>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

// Shifts by more than the width shift everything out.
struct ShiftLeft {
  template <class T>
  static T run(T a, uint32_t by) {
    return by >= 8 * sizeof(T) ? T{0} : static_cast<T>(a << by);
  }
};
struct ShiftRight {
  template <class T>
  static T run(T a, uint32_t by) {
    return static_cast<T>(a >> std::min<uint32_t>(by, 8 * sizeof(T) - 1) >>
                          (by >= 8 * sizeof(T) ? 1 : 0));
  }
};
template <bool kWrap>
struct FunnelLeft {
  static uint32_t run(uint32_t low, uint32_t high, uint32_t by) {
    by = kWrap ? by & 31 : std::min(by, 32u);
    return static_cast<uint32_t>(((uint64_t{high} << 32 | low) << by) >> 32);
  }
};
template <bool kWrap>
struct FunnelRight {
  static uint32_t run(uint32_t low, uint32_t high, uint32_t by) {
    by = kWrap ? by & 31 : std::min(by, 32u);
    return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> by);
  }
};
struct Reverse {
  template <class T>
  static T run(T a) {
    T reversed = 0;
    for (std::size_t bit = 0; bit < 8 * sizeof(T); ++bit) {
      reversed = reversed << 1 | (a >> bit & 1);
    }
    return reversed;
  }
};
struct CountZeros {
  template <class T>
  static uint32_t run(T a) {
    return std::countl_zero(a);
  }
};
struct CountOnes {
  template <class T>
  static uint32_t run(T a) {
    return std::popcount(a);
  }
};
// The position of the highest bit that differs from the sign; all ones if there is none.
template <bool kDistance>
struct HighestBit {
  template <class T>
  static uint32_t run(T a) {
    const auto bits = static_cast<std::make_unsigned_t<T>>(a < 0 ? ~a : a);
    if (bits == 0) return 0xffffffffu;
    const int zeros = std::countl_zero(bits);
    return kDistance ? zeros : 8 * sizeof(T) - 1 - zeros;
  }
};
struct Extract {
  template <class T>
  static T run(T a, uint32_t position, uint32_t length) {
    constexpr uint32_t kBits = 8 * sizeof(T);
    using Bits = std::make_unsigned_t<T>;
    position &= 0xff;
    length &= 0xff;
    const auto at = [a](uint32_t bit) { return static_cast<Bits>(a) >> bit & 1; };
    // Beyond the field, and beyond the register, stands the sign: the field's highest bit.
    const uint32_t last = std::min(position + length - 1, kBits - 1);
    const Bits sign = std::is_signed_v<T> && length != 0 ? at(last) : 0;
    Bits result = 0;
    for (uint32_t bit = 0; bit < kBits; ++bit) {
      const bool inside = bit < length && position + bit < kBits;
      result |= (inside ? at(position + bit) : sign) << bit;
    }
    return static_cast<T>(result);
  }
};
struct Insert {
  template <class T>
  static T insert(T field, T into, uint32_t position, uint32_t length) {
    position &= 0xff;
    length &= 0xff;
    for (uint32_t bit = 0; bit < length && position + bit < 8 * sizeof(T); ++bit) {
      const T mask = T{1} << (position + bit);
      into = (into & ~mask) | (field >> bit & 1 ? mask : 0);
    }
    return into;
  }
};
template <class T>
Step insert(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<T>>(inst.dst);
  const auto* field = warp.row<Cell<T>>(inst.a);
  const auto* into = warp.row<Cell<T>>(inst.b);
  const auto* position = warp.row<uint32_t>(inst.c);
  const auto* length = warp.row<uint32_t>(static_cast<uint32_t>(inst.imm));
  for_lanes(lanes,
            [&](int i) { dst[i] = Insert::insert<T>(field[i], into[i], position[i], length[i]); });
  return Step::kNext;
}

// Each of the four selectors picks a byte of b:a; its highest bit asks for that byte's sign.
struct Permute {
  static uint32_t run(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = uint64_t{b} << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t pick = selector >> 4 * i;
      uint32_t byte = bytes >> 8 * (pick & 7) & 0xff;
      if (pick & 8) byte = byte & 0x80 ? 0xff : 0;
      result |= byte << 8 * i;
    }
    return result;
  }
};

// Modes of prmt other than the general one: the selector's low two bits say where to begin.
uint32_t permute_selector(int mode, uint32_t c) {
  static constexpr uint32_t kSelectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543},  // f4e: four from the front
      {0x5670, 0x6701, 0x7012, 0x0123},  // b4e: four backwards
      {0x0000, 0x1111, 0x2222, 0x3333},  // rc8: one byte four times
      {0x3210, 0x3211, 0x3222, 0x3333},  // ecl: not below the edge
      {0x0000, 0x1110, 0x2210, 0x3210},  // ecr: not above the edge
      {0x1010, 0x3232, 0x1010, 0x3232},  // rc16: one half twice
  };
  return kSelectors[mode][c & 3];
}

Step permute_mode(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = warp.row<uint32_t>(inst.c);
  for_lanes(lanes, [&](int i) {
    dst[i] = Permute::run(a[i], b[i], permute_selector(static_cast<int>(inst.imm), c[i]));
  });
  return Step::kNext;
}

template <class Op>
Handler shift_handler(Type type) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return binary<Op, uint16_t, uint16_t, uint32_t>;
    case Type::kS16:
      return binary<Op, int16_t, int16_t, uint32_t>;
    case Type::kB32:
    case Type::kU32:
      return binary<Op, uint32_t, uint32_t, uint32_t>;
    case Type::kS32:
      return binary<Op, int32_t, int32_t, uint32_t>;
    case Type::kB64:
    case Type::kU64:
      return binary<Op, uint64_t, uint64_t, uint32_t>;
    case Type::kS64:
      return binary<Op, int64_t, int64_t, uint32_t>;
    default:
      return nullptr;
  }
}

void lower_shift_left(Lowering& lower) {
  const Type type = lower.take_type();
  const bool is_bits = type == Type::kB16 || type == Type::kB32 || type == Type::kB64;
  emit_operation(lower, is_bits ? shift_handler<ShiftLeft>(type) : nullptr, type,
                 {type, Type::kU32});
}

void lower_shift_right(Lowering& lower) {
  const Type type = lower.take_type();
  emit_operation(lower, shift_handler<ShiftRight>(type), type, {type, Type::kU32});
}

void take_b32(Lowering& lower) {
  if (lower.take_type() != Type::kB32) lower.fail("the only type is .b32");
}

void lower_funnel_shift(Lowering& lower) {
  take_b32(lower);
  const bool left = lower.take("l");
  if (!left && !lower.take("r")) lower.fail(".l or .r is missing");
  const bool wrap = lower.take("wrap");
  if (!wrap && !lower.take("clamp")) lower.fail(".wrap or .clamp is missing");
  using Word = uint32_t;
  const Handler handler =
      left ? (wrap ? ternary<FunnelLeft<true>, Word, Word> : ternary<FunnelLeft<false>, Word, Word>)
           : (wrap ? ternary<FunnelRight<true>, Word, Word>
                   : ternary<FunnelRight<false>, Word, Word>);
  emit_operation(lower, handler, Type::kB32, {Type::kB32, Type::kB32, Type::kU32});
}

template <class Op>
void lower_count(Lowering& lower) {
  const Type type = lower.take_type();
  const Handler handler = type == Type::kB64   ? Handler{unary<Op, uint32_t, uint64_t>}
                          : type == Type::kB32 ? Handler{unary<Op, uint32_t, uint32_t>}
                                               : nullptr;
  emit_operation(lower, handler, Type::kU32, {type});
}

void lower_reverse(Lowering& lower) {
  const Type type = lower.take_type();
  const Handler handler = type == Type::kB64   ? Handler{unary<Reverse, uint64_t, uint64_t>}
                          : type == Type::kB32 ? Handler{unary<Reverse, uint32_t, uint32_t>}
                                               : nullptr;
  emit_operation(lower, handler, type, {type});
}

template <bool kDistance>
Handler highest_bit(Type type) {
  using Op = HighestBit<kDistance>;
  switch (type) {
    case Type::kU32:
      return unary<Op, uint32_t, uint32_t>;
    case Type::kS32:
      return unary<Op, uint32_t, int32_t>;
    case Type::kU64:
      return unary<Op, uint32_t, uint64_t>;
    case Type::kS64:
      return unary<Op, uint32_t, int64_t>;
    default:
      return nullptr;
  }
}

void lower_highest_bit(Lowering& lower) {
  const bool distance = lower.take("shiftamt");
  const Type type = lower.take_type();
  const Handler handler = distance ? highest_bit<true>(type) : highest_bit<false>(type);
  emit_operation(lower, handler, Type::kU32, {type});
}

Handler extract_handler(Type type) {
  switch (type) {
    case Type::kU32:
      return ternary<Extract, uint32_t, uint32_t, uint32_t, uint32_t>;
    case Type::kS32:
      return ternary<Extract, int32_t, int32_t, uint32_t, uint32_t>;
    case Type::kU64:
      return ternary<Extract, uint64_t, uint64_t, uint32_t, uint32_t>;
    case Type::kS64:
      return ternary<Extract, int64_t, int64_t, uint32_t, uint32_t>;
    default:
      return nullptr;
  }
}

void lower_extract(Lowering& lower) {
  const Type type = lower.take_type();
  emit_operation(lower, extract_handler(type), type, {type, Type::kU32, Type::kU32});
}

void lower_insert(Lowering& lower) {
  const Type type = lower.take_type();
  if (type != Type::kB32 && type != Type::kB64) lower.fail("bfi has no such type");
  const std::uint32_t dst = lower.destination_row(0, type);
  const std::uint32_t field = lower.source_row(1, type);
  const std::uint32_t into = lower.source_row(2, type);
  const std::uint32_t position = lower.source_row(3, Type::kU32);
  const std::uint32_t length = lower.source_row(4, Type::kU32);
  Inst& inst = lower.emit(bytes_of(type) == 8 ? insert<uint64_t> : insert<uint32_t>);
  inst.dst = dst;
  inst.a = field;
  inst.b = into;
  inst.c = position;
  inst.imm = length;
}

void lower_permute(Lowering& lower) {
  take_b32(lower);
  static constexpr std::string_view kModes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
  int mode = -1;
  for (int i = 0; i < 6; ++i) {
    if (lower.take(kModes[i])) mode = i;
  }
  const std::uint32_t dst = lower.destination_row(0, Type::kB32);
  const std::uint32_t a = lower.source_row(1, Type::kB32);
  const std::uint32_t b = lower.source_row(2, Type::kB32);
  const std::uint32_t c = lower.source_row(3, Type::kB32);
  Inst& inst = lower.emit(mode < 0 ? ternary<Permute, uint32_t, uint32_t> : permute_mode);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = c;
  inst.imm = mode;
}

}  // namespace

void add_bits(Lowerers& lowerers) {
  lowerers["shl"] = lower_shift_left;
  lowerers["shr"] = lower_shift_right;
  lowerers["shf"] = lower_funnel_shift;
  lowerers["brev"] = lower_reverse;
  lowerers["clz"] = lower_count<CountZeros>;
  lowerers["popc"] = lower_count<CountOnes>;
  lowerers["bfind"] = lower_highest_bit;
  lowerers["bfe"] = lower_extract;
  lowerers["bfi"] = lower_insert;
  lowerers["prmt"] = lower_permute;
}

}  // namespace openweek::simulator
