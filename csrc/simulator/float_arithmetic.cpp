// Arithmetic of f32 and f64, correctly rounded.
#include <cfenv>
#include <cmath>
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

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

struct Add {
  template <class T>
  static T run(T a, T b, T) {
    return a + b;
  }
};
struct Subtract {
  template <class T>
  static T run(T a, T b, T) {
    return a - b;
  }
};
struct Multiply {
  template <class T>
  static T run(T a, T b, T) {
    return a * b;
  }
};
struct MultiplyAdd {
  template <class T>
  static T run(T a, T b, T c) {
    return std::fma(a, b, c);
  }
};
struct Divide {
  template <class T>
  static T run(T a, T b, T) {
    return a / b;
  }
};
struct Root {
  template <class T>
  static T run(T a, T, T) {
    return std::sqrt(a);
  }
};
struct Reciprocal {
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
    const auto read = [variant](Word cell) {
      const T value = value_of<T>(cell);
      return variant & kFlush ? flushed(value) : value;
    };
    // Volatile, so that no operation moves out of the scope.
    const volatile T x = read(a[i]), y = read(b[i]), z = read(c[i]);
    const volatile T result = Op::template run<T>(x, y, z);
    dst[i] = cell_of<T>(finished<T>(result, variant));
  });
  return Step::kNext;
}

template <class Op>
Handler for_type(Type type) {
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
void lower_unary(Lowering& lower) {
  const Type type = lower.take_type();
  const int64_t variant = take_variant(lower, {"rn", "rz", "rm", "rp", "ftz"});
  emit_operation(lower, for_type<Op>(type), type, {type}, variant);
}

}  // namespace

Handler float_handler(FloatOp op, Type type) {
  switch (op) {
    case FloatOp::kAdd:
      return for_type<Add>(type);
    case FloatOp::kSubtract:
      return for_type<Subtract>(type);
    case FloatOp::kMultiply:
      return for_type<Multiply>(type);
    case FloatOp::kMultiplyAdd:
      return for_type<MultiplyAdd>(type);
  }
  return nullptr;
}

void lower_exact_root(Lowering& lower) { lower_unary<Root>(lower); }
void lower_exact_reciprocal(Lowering& lower) { lower_unary<Reciprocal>(lower); }

// .approx and .full promise less than the exact quotient, which they get all the same.
void lower_float_quotient(Lowering& lower, Type type) {
  lower.take_one_of({"approx", "full"});
  const int64_t variant = take_variant(lower, {"rn", "rz", "rm", "rp", "ftz"});
  emit_operation(lower, for_type<Divide>(type), type, {type, type}, variant);
}

}  // namespace openweek::simulator
