// ex2, lg2 and their like: the exact function, rounded. Hardware may differ in the last bits.
#include <bit>
#include <cmath>
#include <cstdint>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

double exact(Approximation which, double x) {
  switch (which) {
    case Approximation::kPower:
      return std::exp2(x);
    case Approximation::kLogarithm:
      return std::log2(x);
    case Approximation::kReciprocal:
      return 1 / x;
    case Approximation::kReciprocalRoot:
      return 1 / std::sqrt(x);
    case Approximation::kRoot:
      return std::sqrt(x);
    case Approximation::kSine:
      return std::sin(x);
    case Approximation::kCosine:
      return std::cos(x);
    case Approximation::kTangent:
      return std::tanh(x);
  }
  return x;
}

Approximation which_of(const Inst& inst) {
  return static_cast<Approximation>(inst.imm >> kVariantBits);
}

Step approximate(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  for_lanes(lanes, [&](int i) {
    float x = value_of<float>(a[i]);
    if (inst.imm & kFlush) x = flushed(x);
    dst[i] = cell_of<float>(finished(static_cast<float>(exact(which_of(inst), x)), inst.imm));
  });
  return Step::kNext;
}

// Of f64 the hardware looks at the upper half of the argument and gives that of the result.
Step approximate_double(Warp& warp, const Inst& inst, Mask lanes) {
  constexpr uint64_t kUpper = 0xffffffff00000000;
  auto* dst = warp.row<uint64_t>(inst.dst);
  const auto* a = warp.row<uint64_t>(inst.a);
  for_lanes(lanes, [&](int i) {
    const double x = flushed(std::bit_cast<double>(a[i] & kUpper));
    const double result = flushed(exact(which_of(inst), x));
    dst[i] = std::isnan(result) ? 0x7fffffff00000000 : std::bit_cast<uint64_t>(result) & kUpper;
  });
  return Step::kNext;
}

template <class Format, int kValues>
Step approximate_half(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  for_lanes(lanes, [&](int i) {
    uint32_t result = 0;
    for (int part = 0; part < kValues; ++part) {
      const double x = widened<Format>(a[i] >> 16 * part, inst.imm);
      result |= narrowed<Format>(exact(which_of(inst), x), inst.imm) << 16 * part;
    }
    dst[i] = result;
  });
  return Step::kNext;
}

Handler handler_for(Type type) {
  switch (type) {
    case Type::kF32:
      return approximate;
    case Type::kF64:
      return approximate_double;
    case Type::kF16:
      return approximate_half<F16, 1>;
    case Type::kF16x2:
      return approximate_half<F16, 2>;
    case Type::kBF16:
      return approximate_half<BF16, 1>;
    case Type::kBF16x2:
      return approximate_half<BF16, 2>;
    default:
      return nullptr;
  }
}

// Which types a function has.
bool has_type(Approximation which, Type type) {
  if (type == Type::kF32) return true;
  const bool is_reciprocal =
      which == Approximation::kReciprocal || which == Approximation::kReciprocalRoot;
  if (type == Type::kF64) return is_reciprocal;
  return which == Approximation::kPower || which == Approximation::kTangent;
}

template <Approximation kWhich>
void lower_approx(Lowering& lower) {
  if (!lower.take("approx")) lower.fail(".approx is missing");
  lower_approximation(lower, kWhich);
}

}  // namespace

void lower_approximation(Lowering& lower, Approximation which) {
  const Type type = lower.take_type();
  const int64_t variant = take_variant(lower, {"ftz"});
  const bool is_bf16 = type == Type::kBF16 || type == Type::kBF16x2;
  // Of f32 flushing is a choice, of the narrow formats the rule or not there at all.
  const bool flushes = which == Approximation::kPower && is_bf16;
  const bool chooses =
      type != Type::kF16 && type != Type::kF16x2 && !is_bf16 && which != Approximation::kTangent;
  if (!chooses && flushes != (variant != 0)) lower.fail(flushes ? ".ftz is missing" : "no .ftz");
  const Handler handler = has_type(which, type) ? handler_for(type) : nullptr;
  emit_operation(lower, handler, type, {type},
                 variant | static_cast<int64_t>(which) << kVariantBits);
}

void add_approximations(Lowerers& lowerers) {
  lowerers["ex2"] = lower_approx<Approximation::kPower>;
  lowerers["lg2"] = lower_approx<Approximation::kLogarithm>;
  lowerers["rsqrt"] = lower_approx<Approximation::kReciprocalRoot>;
  lowerers["sin"] = lower_approx<Approximation::kSine>;
  lowerers["cos"] = lower_approx<Approximation::kCosine>;
  lowerers["tanh"] = lower_approx<Approximation::kTangent>;
}

}  // namespace openweek::simulator
