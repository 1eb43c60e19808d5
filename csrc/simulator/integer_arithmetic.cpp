// Arithmetic on integers: sums and products wrap around unless .sat is asked for.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

template <class T>
using Bits = std::make_unsigned_t<T>;

struct Add {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Bits<T>>(a) + static_cast<Bits<T>>(b));
  }
};
struct Subtract {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Bits<T>>(a) - static_cast<Bits<T>>(b));
  }
};
template <class T>
struct Twice;
template <>
struct Twice<int16_t> {
  using type = int32_t;
};
template <>
struct Twice<uint16_t> {
  using type = uint32_t;
};
template <>
struct Twice<int32_t> {
  using type = int64_t;
};
template <>
struct Twice<uint32_t> {
  using type = uint64_t;
};
template <>
struct Twice<int64_t> {
  using type = __int128;
};
template <>
struct Twice<uint64_t> {
  using type = unsigned __int128;
};
template <class T>
using Wide = typename Twice<T>::type;

struct MultiplyLow {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Wide<T>>(a) * b);
  }
};
struct MultiplyHigh {
  template <class T>
  static T run(T a, T b) {
    return static_cast<T>(static_cast<Wide<T>>(a) * b >> 8 * sizeof(T));
  }
};
struct MultiplyWide {
  template <class T>
  static Wide<T> run(T a, T b) {
    return static_cast<Wide<T>>(a) * b;
  }
};
struct MultiplyAddLow {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(MultiplyLow::run(a, b), c);
  }
};
struct MultiplyAddHigh {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(MultiplyHigh::run(a, b), c);
  }
};
struct MultiplyAddWide {
  template <class T>
  static Wide<T> run(T a, T b, Wide<T> c) {
    return Add::run(MultiplyWide::run(a, b), c);
  }
};
// Division by zero gives all ones, as the hardware's sequence does.
struct Divide {
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return static_cast<T>(~T{0});
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Subtract::run(T{0}, a);
    return static_cast<T>(a / b);
  }
};
struct Remainder {
  template <class T>
  static T run(T a, T b) {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
struct DistanceAdd {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(c, a > b ? Subtract::run(a, b) : Subtract::run(b, a));
  }
};

// Of s32 alone.
int32_t clamped(int64_t value) {
  using Limits = std::numeric_limits<int32_t>;
  return static_cast<int32_t>(std::clamp<int64_t>(value, Limits::min(), Limits::max()));
}
struct AddSaturated {
  static int32_t run(int32_t a, int32_t b) { return clamped(int64_t{a} + b); }
};
struct SubtractSaturated {
  static int32_t run(int32_t a, int32_t b) { return clamped(int64_t{a} - b); }
};
struct MultiplyAddHighSaturated {
  static int32_t run(int32_t a, int32_t b, int32_t c) {
    return clamped(int64_t{MultiplyHigh::run(a, b)} + c);
  }
};

// Two sums of 16 bits.
struct AddPairs {
  static uint32_t run(uint32_t a, uint32_t b) {
    return ((a + b) & 0xffff) | ((a & 0xffff0000) + (b & 0xffff0000));
  }
};

// The product of the low 24 bits: its low 32 bits, or those above the lowest 16.
template <bool kHigh>
struct Multiply24 {
  template <class T>
  static T run(T a, T b) {
    const int64_t product = low(a) * low(b);
    return static_cast<T>(kHigh ? product >> 16 : product);
  }
  static int64_t low(uint32_t a) { return a & 0xffffff; }
  static int64_t low(int32_t a) { return static_cast<int32_t>(static_cast<uint32_t>(a) << 8) >> 8; }
};
template <bool kHigh>
struct MultiplyAdd24 {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(Multiply24<kHigh>::run(a, b), c);
  }
};
struct MultiplyAdd24Saturated {
  static int32_t run(int32_t a, int32_t b, int32_t c) {
    return clamped(int64_t{Multiply24<true>::run(a, b)} + c);
  }
};

template <class Op>
Handler integer_binary(Type type) {
  switch (type) {
    case Type::kU16:
      return binary<Op, uint16_t, uint16_t>;
    case Type::kS16:
      return binary<Op, int16_t, int16_t>;
    case Type::kU32:
      return binary<Op, uint32_t, uint32_t>;
    case Type::kS32:
      return binary<Op, int32_t, int32_t>;
    case Type::kU64:
      return binary<Op, uint64_t, uint64_t>;
    case Type::kS64:
      return binary<Op, int64_t, int64_t>;
    default:
      return nullptr;
  }
}

template <class Op>
Handler integer_ternary(Type type) {
  switch (type) {
    case Type::kU16:
      return ternary<Op, uint16_t, uint16_t>;
    case Type::kS16:
      return ternary<Op, int16_t, int16_t>;
    case Type::kU32:
      return ternary<Op, uint32_t, uint32_t>;
    case Type::kS32:
      return ternary<Op, int32_t, int32_t>;
    case Type::kU64:
      return ternary<Op, uint64_t, uint64_t>;
    case Type::kS64:
      return ternary<Op, int64_t, int64_t>;
    default:
      return nullptr;
  }
}
Handler multiply_wide(Type type) {
  switch (type) {
    case Type::kU16:
      return binary<MultiplyWide, uint32_t, uint16_t>;
    case Type::kS16:
      return binary<MultiplyWide, int32_t, int16_t>;
    case Type::kU32:
      return binary<MultiplyWide, uint64_t, uint32_t>;
    case Type::kS32:
      return binary<MultiplyWide, int64_t, int32_t>;
    default:
      return nullptr;
  }
}

Handler multiply_add_wide(Type type) {
  switch (type) {
    case Type::kU16:
      return ternary<MultiplyAddWide, uint32_t, uint16_t, uint16_t, uint32_t>;
    case Type::kS16:
      return ternary<MultiplyAddWide, int32_t, int16_t, int16_t, int32_t>;
    case Type::kU32:
      return ternary<MultiplyAddWide, uint64_t, uint32_t, uint32_t, uint64_t>;
    case Type::kS32:
      return ternary<MultiplyAddWide, int64_t, int32_t, int32_t, int64_t>;
    default:
      return nullptr;
  }
}

Type twice(Type type) {
  switch (type) {
    case Type::kU16:
      return Type::kU32;
    case Type::kS16:
      return Type::kS32;
    case Type::kU32:
      return Type::kU64;
    default:
      return Type::kS64;
  }
}

template <class Op>
Handler of_32_bits(Type type) {
  if (type == Type::kU32) return binary<Op, uint32_t, uint32_t>;
  return type == Type::kS32 ? Handler{binary<Op, int32_t, int32_t>} : nullptr;
}
template <class Op>
Handler three_of_32_bits(Type type) {
  if (type == Type::kU32) return ternary<Op, uint32_t, uint32_t>;
  return type == Type::kS32 ? Handler{ternary<Op, int32_t, int32_t>} : nullptr;
}

bool take_saturation(Lowering& lower, Type type) {
  if (!lower.take("sat")) return false;
  if (type != Type::kS32) lower.fail(".sat is for .s32");
  return true;
}

void lower_multiply_24(Lowering& lower) {
  const Type type = lower.take_type();
  const bool high = lower.take("hi");
  if (!high && !lower.take("lo")) lower.fail(".lo or .hi is missing");
  const Handler handler =
      high ? of_32_bits<Multiply24<true>>(type) : of_32_bits<Multiply24<false>>(type);
  emit_operation(lower, handler, type, {type, type});
}

void lower_multiply_add_24(Lowering& lower) {
  const Type type = lower.take_type();
  const bool high = lower.take("hi");
  if (!high && !lower.take("lo")) lower.fail(".lo or .hi is missing");
  Handler handler = high ? three_of_32_bits<MultiplyAdd24<true>>(type)
                         : three_of_32_bits<MultiplyAdd24<false>>(type);
  if (high && take_saturation(lower, type)) {
    handler = ternary<MultiplyAdd24Saturated, int32_t, int32_t>;
  }
  emit_operation(lower, handler, type, {type, type, type});
}

}  // namespace

void lower_integer_sum(Lowering& lower, Type type, bool subtracts) {
  Handler handler = subtracts ? integer_binary<Subtract>(type) : integer_binary<Add>(type);
  if (!subtracts && (type == Type::kU16x2 || type == Type::kS16x2)) {
    handler = binary<AddPairs, uint32_t, uint32_t>;
  }
  if (take_saturation(lower, type)) {
    handler = subtracts ? binary<SubtractSaturated, int32_t, int32_t>
                        : binary<AddSaturated, int32_t, int32_t>;
  }
  emit_operation(lower, handler, type, {type, type});
}

void lower_integer_product(Lowering& lower, Type type, bool adds) {
  if (lower.take("wide")) {
    if (!adds) return emit_operation(lower, multiply_wide(type), twice(type), {type, type});
    return emit_operation(lower, multiply_add_wide(type), twice(type), {type, type, twice(type)});
  }
  const bool high = lower.take("hi");
  if (!high && !lower.take("lo")) lower.fail(".lo, .hi or .wide is missing");
  if (!adds) {
    const Handler handler =
        high ? integer_binary<MultiplyHigh>(type) : integer_binary<MultiplyLow>(type);
    return emit_operation(lower, handler, type, {type, type});
  }
  Handler handler =
      high ? integer_ternary<MultiplyAddHigh>(type) : integer_ternary<MultiplyAddLow>(type);
  if (high && take_saturation(lower, type)) {
    handler = ternary<MultiplyAddHighSaturated, int32_t, int32_t>;
  }
  emit_operation(lower, handler, type, {type, type, type});
}

void lower_integer_quotient(Lowering& lower, Type type) {
  emit_operation(lower, integer_binary<Divide>(type), type, {type, type});
}

void add_integer_arithmetic(Lowerers& lowerers) {
  lowerers["rem"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    emit_operation(lower, integer_binary<Remainder>(type), type, {type, type});
  };
  lowerers["sad"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    emit_operation(lower, integer_ternary<DistanceAdd>(type), type, {type, type, type});
  };
  lowerers["mul24"] = lower_multiply_24;
  lowerers["mad24"] = lower_multiply_add_24;
}

}  // namespace openweek::simulator
