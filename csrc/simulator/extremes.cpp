// min and max.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

template <bool kMax, bool kRectify>
struct IntegerExtreme {
  template <class T>
  static T run(T a, T b) {
    const T chosen = kMax ? std::max(a, b) : std::min(a, b);
    return kRectify ? std::max(chosen, T{0}) : chosen;
  }
};

// Two values of 16 bits, each for itself.
template <class Op, class T>
struct Pairs {
  static uint32_t run(uint32_t a, uint32_t b) {
    const auto half = [&](int shift) {
      const T value = Op::run(static_cast<T>(a >> shift), static_cast<T>(b >> shift));
      return static_cast<uint32_t>(static_cast<uint16_t>(value)) << shift;
    };
    return half(0) | half(16);
  }
};

template <class Op>
Handler integer_handler(Type type) {
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
    case Type::kU16x2:
      return binary<Pairs<Op, uint16_t>, uint32_t, uint32_t>;
    case Type::kS16x2:
      return binary<Pairs<Op, int16_t>, uint32_t, uint32_t>;
    default:
      return nullptr;
  }
}

// A NaN loses, unless .NaN is asked for; -0 is below +0. Of magnitudes, the result has the product
// of the signs.
template <bool kMax, class T>
T chosen(T a, T b, bool signs_differ, int64_t variant) {
  const bool magnitudes = variant & kMagnitudes;
  const bool negative = magnitudes && signs_differ;
  if (magnitudes) a = std::abs(a), b = std::abs(b);
  if (std::isnan(a) || std::isnan(b)) {
    if ((variant & kNaNWins) || (std::isnan(a) && std::isnan(b))) {
      return canonical(std::numeric_limits<T>::quiet_NaN());
    }
    a = b = std::isnan(a) ? b : a;
  }
  const bool first = a == b ? std::signbit(a) != kMax : (a < b) != kMax;
  const T result = first ? a : b;
  return negative ? -result : result;
}

template <bool kMax, class T>
Step extreme(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<T>>(inst.dst);
  const auto* a = warp.row<Cell<T>>(inst.a);
  const auto* b = warp.row<Cell<T>>(inst.b);
  for_lanes(lanes, [&](int i) {
    T x = value_of<T>(a[i]), y = value_of<T>(b[i]);
    if (inst.imm & kFlush) x = flushed(x), y = flushed(y);
    dst[i] = cell_of<T>(chosen<kMax>(x, y, std::signbit(x) != std::signbit(y), inst.imm));
  });
  return Step::kNext;
}

template <bool kMax, class Format, int kValues>
Step half_extreme(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  for_lanes(lanes, [&](int i) {
    uint32_t result = 0;
    for (int part = 0; part < kValues; ++part) {
      const int shift = 16 * part;
      const bool signs_differ = (a[i] ^ b[i]) >> shift & 0x8000;  // of NaN too
      const double value =
          chosen<kMax>(widened<Format>(a[i] >> shift, inst.imm),
                       widened<Format>(b[i] >> shift, inst.imm), signs_differ, inst.imm);
      result |= narrowed<Format>(value, inst.imm) << shift;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

template <bool kMax>
Handler float_extreme(Type type) {
  switch (type) {
    case Type::kF32:
      return extreme<kMax, float>;
    case Type::kF64:
      return extreme<kMax, double>;
    case Type::kF16:
      return half_extreme<kMax, F16, 1>;
    case Type::kF16x2:
      return half_extreme<kMax, F16, 2>;
    case Type::kBF16:
      return half_extreme<kMax, BF16, 1>;
    case Type::kBF16x2:
      return half_extreme<kMax, BF16, 2>;
    default:
      return nullptr;
  }
}

template <bool kMax>
void lower_extreme(Lowering& lower) {
  const Type type = lower.take_type();
  if (lower.num_operands() != 3) lower.fail("of three values there is one for sm_100 and later");
  if (is_float(type)) {
    int64_t variant = take_variant(lower, {"ftz", "NaN"});
    if (lower.take("xorsign")) {
      if (!lower.take("abs")) lower.fail(".abs is missing");
      variant |= kMagnitudes;
    }
    return emit_operation(lower, float_extreme<kMax>(type), type, {type, type}, variant);
  }
  const bool rectifies = lower.take("relu");
  if (rectifies && type != Type::kS32 && type != Type::kS16x2) {
    lower.fail(".relu is for .s32 and .s16x2");
  }
  const Handler handler = rectifies ? integer_handler<IntegerExtreme<kMax, true>>(type)
                                    : integer_handler<IntegerExtreme<kMax, false>>(type);
  emit_operation(lower, handler, type, {type, type});
}

}  // namespace

void add_extremes(Lowerers& lowerers) {
  lowerers["min"] = lower_extreme<false>;
  lowerers["max"] = lower_extreme<true>;
}

}  // namespace openweek::simulator
