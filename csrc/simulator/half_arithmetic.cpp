// add, sub, mul and fma of f16 and bf16, one or two in a register.
#include <bit>
#include <cmath>
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

struct Add {};
struct Subtract {};
struct Multiply {};
struct MultiplyAdd {};

// The sum of two doubles, rounded to odd: rounding it once more to fewer bits is then right.
double sum_to_odd(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  const double lost = (a - (sum - part)) + (b - part);
  if (lost == 0 || !std::isfinite(sum) || (std::bit_cast<uint64_t>(sum) & 1)) return sum;
  return std::nextafter(sum, lost > 0 ? HUGE_VAL : -HUGE_VAL);
}

// Products of two 16-bit floats are exact in double precision.
double sixteen_bits(const Add&, double a, double b, double) { return sum_to_odd(a, b); }
double sixteen_bits(const Subtract&, double a, double b, double) { return sum_to_odd(a, -b); }
double sixteen_bits(const Multiply&, double a, double b, double) { return a * b; }
double sixteen_bits(const MultiplyAdd&, double a, double b, double c) {
  return sum_to_odd(a * b, c);
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
      const double exact = sixteen_bits(Op{}, widened<Format>(a[i] >> shift, inst.imm),
                                        widened<Format>(b[i] >> shift, inst.imm),
                                        widened<Format>(c[i] >> shift, inst.imm));
      result |= narrowed<Format>(exact, inst.imm) << shift;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

template <class Op>
Handler for_type(Type type) {
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
      return nullptr;
  }
}

}  // namespace

Handler half_handler(FloatOp op, Type type) {
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

}  // namespace openweek::simulator
