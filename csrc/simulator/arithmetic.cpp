// Arithmetic on integers and floating-point numbers.
#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "formats.h"
#include "lanes.h"
#include "lowering.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

// ---- integers: sums and products wrap around ----

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
struct Minimum {
  template <class T>
  static T run(T a, T b) {
    return std::min(a, b);
  }
};
struct Maximum {
  template <class T>
  static T run(T a, T b) {
    return std::max(a, b);
  }
};
struct Absolute {
  template <class T>
  static T run(T a) {
    return a < 0 ? Subtract::run(T{0}, a) : a;
  }
};
struct Negate {
  template <class T>
  static T run(T a) {
    return Subtract::run(T{0}, a);
  }
};
struct DistanceAdd {
  template <class T>
  static T run(T a, T b, T c) {
    return Add::run(c, a > b ? Subtract::run(a, b) : Subtract::run(b, a));
  }
};

template <class Op>
Handler integer_unary(Type type) {
  switch (type) {
    case Type::kS16:
      return unary<Op, int16_t, int16_t>;
    case Type::kS32:
      return unary<Op, int32_t, int32_t>;
    case Type::kS64:
      return unary<Op, int64_t, int64_t>;
    default:
      return nullptr;
  }
}

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

// ---- floating point ----

// What a statement says of its result; in Inst::imm.
enum Variant : int64_t { kRoundMask = 3, kFlush = 4, kSaturate = 8, kNaNWins = 16, kRelu = 32 };

constexpr int kRoundings[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

class RoundingScope {
 public:
  explicit RoundingScope(int mode) : changed_(mode != FE_TONEAREST) {
    if (changed_) std::fesetround(mode);
  }
  ~RoundingScope() {
    if (changed_) std::fesetround(FE_TONEAREST);
  }
  RoundingScope(const RoundingScope&) = delete;
  RoundingScope& operator=(const RoundingScope&) = delete;

 private:
  bool changed_;
};

template <class T>
T flushed(T value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(T{0}, value) : value;
}

// Every NaN that arithmetic makes is this one.
template <class T>
T canonical(T value) {
  if (!std::isnan(value)) return value;
  if constexpr (sizeof(T) == 4) return std::bit_cast<float>(0x7fffffffu);
  return value;
}

template <class T>
T finished(T value, int64_t variant) {
  if (variant & kFlush) value = flushed(value);
  if (variant & kSaturate) return value > 0 ? std::min(value, T{1}) : T{0};
  return canonical(value);
}

struct FloatAdd {
  template <class T>
  static T run(T a, T b, T) {
    return a + b;
  }
};
struct FloatSubtract {
  template <class T>
  static T run(T a, T b, T) {
    return a - b;
  }
};
struct FloatMultiply {
  template <class T>
  static T run(T a, T b, T) {
    return a * b;
  }
};
struct FloatMultiplyAdd {
  template <class T>
  static T run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct FloatDivide {
  template <class T>
  static T run(T a, T b, T) {
    return a / b;
  }
};
struct FloatRoot {
  template <class T>
  static T run(T a, T, T) {
    return std::sqrt(a);
  }
};
struct FloatReciprocal {
  template <class T>
  static T run(T a, T, T) {
    return T{1} / a;
  }
};

template <class Op, class T>
Step floating(Warp& warp, const Inst& inst, Mask lanes) {
  using Word = Cell<T>;
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* b = inst.b == kNoRow ? a : warp.row<Word>(inst.b);
  const auto* c = inst.c == kNoRow ? a : warp.row<Word>(inst.c);
  const int64_t variant = inst.imm;
  if (variant == 0) {  // round to nearest, keep subnormals: what compilers ask for most
    for_lanes(lanes, [&](int i) {
      dst[i] =
          cell_of<T>(canonical(Op::run(value_of<T>(a[i]), value_of<T>(b[i]), value_of<T>(c[i]))));
    });
    return Step::kNext;
  }
  const RoundingScope scope(kRoundings[variant & kRoundMask]);
  for_lanes(lanes, [&](int i) {
    volatile T x = value_of<T>(a[i]), y = value_of<T>(b[i]), z = value_of<T>(c[i]);
    if (variant & kFlush) x = flushed<T>(x), y = flushed<T>(y), z = flushed<T>(z);
    volatile T result = Op::template run<T>(x, y, z);
    dst[i] = cell_of<T>(finished<T>(result, variant));
  });
  return Step::kNext;
}

// The sum of two doubles, rounded to odd: rounding it once more to fewer bits is then right.
double sum_to_odd(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double lost = (a - (sum - part)) + (b - part);
  if (lost == 0 || !std::isfinite(sum) || (std::bit_cast<uint64_t>(sum) & 1)) return sum;
  return std::nextafter(sum, lost > 0 ? HUGE_VAL : -HUGE_VAL);
}

// Products of two 16-bit floats are exact in double precision.
double sixteen_bits(const FloatAdd&, double a, double b, double) { return sum_to_odd(a, b); }
double sixteen_bits(const FloatSubtract&, double a, double b, double) { return sum_to_odd(a, -b); }
double sixteen_bits(const FloatMultiply&, double a, double b, double) { return a * b; }
double sixteen_bits(const FloatMultiplyAdd&, double a, double b, double c) {
  return sum_to_odd(a * b, c);
}

template <class Format>
double widened(uint32_t bits) {
  const Real x = decode<Format>(bits & 0xffff);
  return std::bit_cast<double>(encode<F64>(x, Rounding::kNearestEven, false));
}

template <class Format>
uint32_t narrowed(double value, int64_t variant) {
  if (variant & kSaturate) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if ((variant & kRelu) && !(value > 0) && !std::isnan(value)) value = 0.0;
  const Real x = decode<F64>(std::bit_cast<uint64_t>(value));
  auto bits = static_cast<uint32_t>(encode<Format>(x, Rounding::kNearestEven, false));
  constexpr uint32_t kSign = 0x8000;
  const bool subnormal = (bits & Format::kMagnitudeMask) <= Format::kMantissaMask;
  if ((variant & kFlush) && subnormal) bits &= kSign;
  return bits;
}

template <class Op, class Format, int kValues>
Step half(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = inst.c == kNoRow ? a : warp.row<uint32_t>(inst.c);
  for_lanes(lanes, [&](int i) {
    uint32_t result = 0;
    for (int part = 0; part < kValues; ++part) {
      const int shift = 16 * part;
      const double exact =
          sixteen_bits(Op{}, widened<Format>(a[i] >> shift), widened<Format>(b[i] >> shift),
                       widened<Format>(c[i] >> shift));
      result |= narrowed<Format>(exact, inst.imm) << shift;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

template <class Op>
Handler floating_handler(Type type) {
  switch (type) {
    case Type::kF32:
      return floating<Op, float>;
    case Type::kF64:
      return floating<Op, double>;
    default:
      return nullptr;
  }
}

template <class Op>
Handler any_floating_handler(Type type) {
  switch (type) {
    case Type::kF16:
      return half<Op, F16, 1>;
    case Type::kF16x2:
      return half<Op, F16, 2>;
    case Type::kBF16:
      return half<Op, BF16, 1>;
    case Type::kBF16x2:
      return half<Op, BF16, 2>;
    default:
      return floating_handler<Op>(type);
  }
}

// min and max: a NaN loses, unless .NaN is asked for; -0 is below +0.
template <bool kMax>
struct Extreme {
  template <class T>
  static T run(T a, T b, bool nan_wins) {
    if (std::isnan(a) || std::isnan(b)) {
      if (nan_wins || (std::isnan(a) && std::isnan(b))) {
        return canonical(std::numeric_limits<T>::quiet_NaN());
      }
      return std::isnan(a) ? b : a;
    }
    const bool first = a == b ? std::signbit(a) != kMax : (a < b) != kMax;
    return first ? a : b;
  }
};

template <bool kMax, class T>
Step extreme(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<T>>(inst.dst);
  const auto* a = warp.row<Cell<T>>(inst.a);
  const auto* b = warp.row<Cell<T>>(inst.b);
  for_lanes(lanes, [&](int i) {
    T x = value_of<T>(a[i]), y = value_of<T>(b[i]);
    if (inst.imm & kFlush) x = flushed(x), y = flushed(y);
    dst[i] = cell_of<T>(Extreme<kMax>::run(x, y, inst.imm & kNaNWins));
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
      const double value =
          Extreme<kMax>::run(widened<Format>(a[i] >> shift), widened<Format>(b[i] >> shift),
                             static_cast<bool>(inst.imm & kNaNWins));
      result |= narrowed<Format>(value, inst.imm) << shift;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

template <bool kMax>
Handler extreme_handler(Type type) {
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

// abs, neg and copysign only touch signs, NaN's too.
enum class Sign { kClear, kFlip, kCopy };

template <Sign kWhat, class Word>
Step change_sign(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* b = inst.b == kNoRow ? a : warp.row<Word>(inst.b);
  const auto signs = static_cast<Word>(static_cast<uint64_t>(inst.imm));
  for_lanes(lanes, [&](int i) {
    if (kWhat == Sign::kClear) dst[i] = a[i] & ~signs;
    if (kWhat == Sign::kFlip) dst[i] = a[i] ^ signs;
    if (kWhat == Sign::kCopy) dst[i] = (b[i] & ~signs) | (a[i] & signs);
  });
  return Step::kNext;
}

template <Sign kWhat>
void lower_sign(Lowering& lower, Type type) {
  lower.take("ftz");  // NOLINT: flushing below is an instruction of its own
  const std::uint32_t dst = lower.destination_row(0, type);
  const std::uint32_t a = lower.source_row(1, type);
  const std::uint32_t b = kWhat == Sign::kCopy ? lower.source_row(2, type) : kNoRow;
  Inst& inst =
      lower.emit(bytes_of(type) == 8 ? change_sign<kWhat, uint64_t> : change_sign<kWhat, uint32_t>);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  const bool pair = type == Type::kF16x2 || type == Type::kBF16x2;
  inst.imm = bytes_of(type) == 8   ? std::numeric_limits<int64_t>::min()
             : pair                ? 0x80008000ll
             : bytes_of(type) == 2 ? 0x8000ll
                                   : 0x80000000ll;
}

// ---- approximations: the exact function, rounded; hardware may differ in the last bits ----

template <class T>
T approximate(int which, T x) {
  switch (which) {
    case 0:
      return std::exp2(x);
    case 1:
      return std::log2(x);
    case 2:
      return T{1} / x;
    case 3:
      return T{1} / std::sqrt(x);
    case 4:
      return std::sqrt(x);
    case 5:
      return std::sin(x);
    case 6:
      return std::cos(x);
    default:
      return std::tanh(x);
  }
}

template <class T>
Step approximation(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Cell<T>>(inst.dst);
  const auto* a = warp.row<Cell<T>>(inst.a);
  const int which = static_cast<int>(inst.imm >> 8);
  for_lanes(lanes, [&](int i) {
    T x = value_of<T>(a[i]);
    if (inst.imm & kFlush) x = flushed(x);
    const double exact = approximate<double>(which, x);
    dst[i] = cell_of<T>(finished(static_cast<T>(exact), inst.imm));
  });
  return Step::kNext;
}

template <class Format, int kValues>
Step half_approximation(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const int which = static_cast<int>(inst.imm >> 8);
  for_lanes(lanes, [&](int i) {
    uint32_t result = 0;
    for (int part = 0; part < kValues; ++part) {
      const double exact = approximate<double>(which, widened<Format>(a[i] >> 16 * part));
      result |= narrowed<Format>(exact, inst.imm) << 16 * part;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

// ---- lowering ----

void emit(Lowering& lower, Handler handler, Type to, std::initializer_list<Type> from,
          int64_t variant = 0) {
  if (handler == nullptr) lower.fail("there is no such instruction for this type");
  const std::uint32_t dst = lower.destination_row(0, to);
  std::uint32_t rows[3] = {kNoRow, kNoRow, kNoRow};
  int i = 0;
  for (const Type type : from) {
    rows[i] = lower.source_row(i + 1, type);
    ++i;
  }
  Inst& inst = lower.emit(handler);
  inst.dst = dst;
  inst.a = rows[0];
  inst.b = rows[1];
  inst.c = rows[2];
  inst.imm = variant;
}

int64_t take_variant(Lowering& lower) {
  static constexpr std::string_view kNames[] = {"rn", "rz", "rm", "rp"};
  int64_t variant = 0;
  for (int mode = 0; mode < 4; ++mode) {
    if (lower.take(kNames[mode])) variant |= mode;
  }
  if (lower.take("ftz")) variant |= kFlush;
  if (lower.take("sat")) variant |= kSaturate;
  if (lower.take("NaN")) variant |= kNaNWins;
  if (lower.take("relu")) variant |= kRelu;
  return variant;
}

template <class Integer, class Floating>
void lower_sum(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) {
    const int64_t variant = take_variant(lower);
    emit(lower, any_floating_handler<Floating>(type), type, {type, type}, variant);
  } else {
    emit(lower, integer_binary<Integer>(type), type, {type, type});
  }
}

void lower_multiply(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) {
    const int64_t variant = take_variant(lower);
    emit(lower, any_floating_handler<FloatMultiply>(type), type, {type, type}, variant);
  } else if (lower.take("wide")) {
    emit(lower, multiply_wide(type), twice(type), {type, type});
  } else if (lower.take("hi")) {
    emit(lower, integer_binary<MultiplyHigh>(type), type, {type, type});
  } else {
    if (!lower.take("lo")) lower.fail(".lo, .hi or .wide is missing");
    emit(lower, integer_binary<MultiplyLow>(type), type, {type, type});
  }
}

void lower_multiply_add(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) {
    const int64_t variant = take_variant(lower);
    emit(lower, any_floating_handler<FloatMultiplyAdd>(type), type, {type, type, type}, variant);
  } else if (lower.take("wide")) {
    emit(lower, multiply_add_wide(type), twice(type), {type, type, twice(type)});
  } else if (lower.take("hi")) {
    emit(lower, integer_ternary<MultiplyAddHigh>(type), type, {type, type, type});
  } else {
    if (!lower.take("lo")) lower.fail(".lo, .hi or .wide is missing");
    emit(lower, integer_ternary<MultiplyAddLow>(type), type, {type, type, type});
  }
}

void lower_divide(Lowering& lower) {
  const Type type = lower.take_type();
  if (!is_float(type)) return emit(lower, integer_binary<Divide>(type), type, {type, type});
  lower.take_one_of({"approx", "full"});
  const int64_t variant = take_variant(lower);
  emit(lower, floating_handler<FloatDivide>(type), type, {type, type}, variant);
}

template <class Integer, bool kMax>
void lower_extreme(Lowering& lower) {
  const Type type = lower.take_type();
  if (!is_float(type)) return emit(lower, integer_binary<Integer>(type), type, {type, type});
  const int64_t variant = take_variant(lower);
  emit(lower, extreme_handler<kMax>(type), type, {type, type}, variant);
}

template <class Integer, Sign kWhat>
void lower_one_sign(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) return lower_sign<kWhat>(lower, type);
  emit(lower, integer_unary<Integer>(type), type, {type});
}

// Root and reciprocal are exact with a rounding mode, approximations with .approx.
template <int kWhich, class Exact>
void lower_root(Lowering& lower) {
  const Type type = lower.take_type();
  const bool approx = lower.take("approx");
  const int64_t variant = take_variant(lower);
  if (!approx) return emit(lower, floating_handler<Exact>(type), type, {type}, variant);
  const Handler handler = type == Type::kF32   ? Handler{approximation<float>}
                          : type == Type::kF64 ? Handler{approximation<double>}
                                               : nullptr;
  emit(lower, handler, type, {type}, variant | kWhich << 8);
}

template <int kWhich>
void lower_approximation(Lowering& lower) {
  const Type type = lower.take_type();
  if (!lower.take("approx") && bytes_of(type) == 4 && type == Type::kF32) {
    lower.fail(".approx is missing");
  }
  const int64_t variant = take_variant(lower) | kWhich << 8;
  switch (type) {
    case Type::kF32:
      return emit(lower, approximation<float>, type, {type}, variant);
    case Type::kF64:
      return emit(lower, approximation<double>, type, {type}, variant);
    case Type::kF16:
      return emit(lower, half_approximation<F16, 1>, type, {type}, variant);
    case Type::kF16x2:
      return emit(lower, half_approximation<F16, 2>, type, {type}, variant);
    case Type::kBF16:
      return emit(lower, half_approximation<BF16, 1>, type, {type}, variant);
    case Type::kBF16x2:
      return emit(lower, half_approximation<BF16, 2>, type, {type}, variant);
    default:
      lower.fail("there is no such instruction for this type");
  }
}

}  // namespace

void add_arithmetic(Lowerers& lowerers) {
  lowerers["add"] = lower_sum<Add, FloatAdd>;
  lowerers["sub"] = lower_sum<Subtract, FloatSubtract>;
  lowerers["mul"] = lower_multiply;
  lowerers["mad"] = lower_multiply_add;
  lowerers["fma"] = lower_multiply_add;
  lowerers["div"] = lower_divide;
  lowerers["rem"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    emit(lower, integer_binary<Remainder>(type), type, {type, type});
  };
  lowerers["sad"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    emit(lower, integer_ternary<DistanceAdd>(type), type, {type, type, type});
  };
  lowerers["min"] = lower_extreme<Minimum, false>;
  lowerers["max"] = lower_extreme<Maximum, true>;
  lowerers["abs"] = lower_one_sign<Absolute, Sign::kClear>;
  lowerers["neg"] = lower_one_sign<Negate, Sign::kFlip>;
  lowerers["copysign"] = [](Lowering& lower) { lower_sign<Sign::kCopy>(lower, lower.take_type()); };
  lowerers["sqrt"] = lower_root<4, FloatRoot>;
  lowerers["rcp"] = lower_root<2, FloatReciprocal>;
  lowerers["ex2"] = lower_approximation<0>;
  lowerers["lg2"] = lower_approximation<1>;
  lowerers["rsqrt"] = lower_approximation<3>;
  lowerers["sin"] = lower_approximation<5>;
  lowerers["cos"] = lower_approximation<6>;
  lowerers["tanh"] = lower_approximation<7>;
}

}  // namespace openweek::simulator
