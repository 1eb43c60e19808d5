// What the files of arithmetic share.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "formats.h"
#include "lowering.h"

namespace openweek::simulator {

// Emits dst = handler(a, b, c), as many sources as there are types. Fails without a handler.
void emit_operation(Lowering& lower, Handler handler, Type to, std::initializer_list<Type> from,
                    std::int64_t variant = 0, std::int32_t target = 0);

// What a statement says of a floating-point result; in Inst::imm, below what else is there.
enum Variant : std::int64_t {
  kRoundMask = 3,  // rn, rz, rm, rp
  kFlush = 4,
  kSaturate = 8,
  kNaNWins = 16,
  kRelu = 32,
  kMagnitudes = 64,  // .xorsign.abs
};
constexpr int kVariantBits = 8;
std::int64_t take_variant(Lowering& lower, std::initializer_list<std::string_view> allowed);

// add, sub, mul and fma. Null for other types.
enum class FloatOp : std::uint8_t { kAdd, kSubtract, kMultiply, kMultiplyAdd };
Handler float_handler(FloatOp op, Type type);
Handler half_handler(FloatOp op, Type type);

void lower_exact_root(Lowering& lower);
void lower_exact_reciprocal(Lowering& lower);
void lower_float_quotient(Lowering& lower, Type type);

// Each takes the rest of the statement.
void lower_integer_sum(Lowering& lower, Type type, bool subtracts);
void lower_integer_product(Lowering& lower, Type type, bool adds);
void lower_integer_quotient(Lowering& lower, Type type);
void lower_carry_sum(Lowering& lower, Type type, bool subtracts, bool continues);
void lower_carry_product(Lowering& lower, Type type, bool continues);

enum class Approximation : std::uint8_t {
  kPower,
  kLogarithm,
  kReciprocal,
  kReciprocalRoot,
  kRoot,
  kSine,
  kCosine,
  kTangent,
};
void lower_approximation(Lowering& lower, Approximation which);

template <class T>
T flushed(T value) {
  return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(T{0}, value) : value;
}

// Every NaN that arithmetic on f32 makes is this one.
template <class T>
T canonical(T value) {
  if (!std::isnan(value)) return value;
  if constexpr (sizeof(T) == 4) return std::bit_cast<float>(0x7fffffffu);
  return value;
}

template <class T>
T finished(T value, std::int64_t variant) {
  if (variant & kFlush) value = flushed(value);
  if (variant & kSaturate) return value > 0 ? std::min(value, T{1}) : T{0};
  if ((variant & kRelu) && !(value > 0) && !std::isnan(value)) return T{0};
  return canonical(value);
}

// Sixteen bits as a double, and back: rounded once to nearest.
template <class Format>
double widened(std::uint32_t bits, std::int64_t variant) {
  Real x = decode<Format>(bits & 0xffff);
  const bool subnormal = x.kind == Real::Kind::kFinite && x.significand <= Format::kMantissaMask;
  if ((variant & kFlush) && subnormal) x.significand = 0;
  return std::bit_cast<double>(encode<F64>(x, Rounding::kNearestEven, false));
}

template <class Format>
std::uint32_t narrowed(double value, std::int64_t variant) {
  if (variant & kSaturate) value = value > 0 ? std::min(value, 1.0) : 0.0;
  if ((variant & kRelu) && !(value > 0) && !std::isnan(value)) value = 0.0;
  const Real x = decode<F64>(std::bit_cast<std::uint64_t>(value));
  auto bits = static_cast<std::uint32_t>(encode<Format>(x, Rounding::kNearestEven, false));
  constexpr std::uint32_t kSign = 0x8000;
  const bool subnormal = (bits & Format::kMagnitudeMask) <= Format::kMantissaMask;
  if ((variant & kFlush) && subnormal) bits &= kSign;
  return bits;
}

}  // namespace openweek::simulator
