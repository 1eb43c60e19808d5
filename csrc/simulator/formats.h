// Number formats and the conversions between them, as PTX `cvt` defines them.
//
// Every value passes through Real, an exact sign * significand * 2^exponent, so that one rounding
// step serves all pairs of formats and no pair rounds twice.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <utility>

namespace openweek::simulator {

enum class Rounding : std::uint8_t {
  kNearestEven,  // .rn .rni
  kTowardZero,   // .rz .rzi
  kDown,         // .rm .rmi
  kUp,           // .rp .rpi
  kNearestAway,  // .rna
};

// Sign, exponent with the bias 2^(bits - 1) - 1, mantissa, and low bits that say nothing (tf32).
template <int exponent_bits, int mantissa_bits, bool has_infinity = true, int unused_bits = 0>
struct FloatFormat {
  static constexpr int kMantissaBits = mantissa_bits;
  static constexpr int kUnusedBits = unused_bits;
  static constexpr bool kHasInfinity = has_infinity;
  static constexpr int kBias = (1 << (exponent_bits - 1)) - 1;
  static constexpr int kMinExponent = 1 - kBias;
  static constexpr int kSignBit = exponent_bits + mantissa_bits;
  static constexpr std::uint64_t kMantissaMask = (1ull << mantissa_bits) - 1;
  static constexpr std::uint64_t kMagnitudeMask = (1ull << kSignBit) - 1;
  // Without infinities only the magnitude of all ones is not a number.
  static constexpr std::uint64_t kInfinity = kMagnitudeMask - (has_infinity ? kMantissaMask : 0);
  static constexpr std::uint64_t kMax = kInfinity - 1;
  // The one NaN that conversions give: all ones but the sign.
  static constexpr std::uint64_t kNaN = (1ull << (kSignBit + unused_bits)) - 1;
};

using F16 = FloatFormat<5, 10>;
using BF16 = FloatFormat<8, 7>;
using TF32 = FloatFormat<8, 10, true, 13>;
using E4M3 = FloatFormat<4, 3, false>;
using E5M2 = FloatFormat<5, 2>;
using F32 = FloatFormat<8, 23>;
using F64 = FloatFormat<11, 52>;

struct Real {
  enum class Kind : std::uint8_t { kFinite, kInfinite, kNaN };
  Kind kind = Kind::kFinite;
  bool negative = false;
  std::uint64_t significand = 0;
  int exponent = 0;

  bool is_zero() const { return kind == Kind::kFinite && significand == 0; }
};

// significand / 2^drop, rounded; 0 <= drop <= 63.
inline std::uint64_t rounded_shift(std::uint64_t significand, int drop, bool negative,
                                   Rounding rounding) {
  const std::uint64_t quotient = significand >> drop;
  const std::uint64_t rest = significand - (quotient << drop);
  const std::uint64_t half = (1ull << drop) >> 1;  // 0 if nothing is dropped
  bool up = false;
  switch (rounding) {
    case Rounding::kNearestEven:
      up = rest > half || (rest == half && rest != 0 && (quotient & 1));
      break;
    case Rounding::kNearestAway:
      up = rest >= half && rest != 0;
      break;
    case Rounding::kDown:
      up = negative && rest != 0;
      break;
    case Rounding::kUp:
      up = !negative && rest != 0;
      break;
    case Rounding::kTowardZero:
      break;
  }
  return quotient + up;
}

template <class Format>
Real decode(std::uint64_t bits) {
  bits >>= Format::kUnusedBits;
  const std::uint64_t magnitude = bits & Format::kMagnitudeMask;
  Real x;
  x.negative = (bits >> Format::kSignBit) & 1;
  if (magnitude >= Format::kInfinity) {
    const bool infinite = Format::kHasInfinity && magnitude == Format::kInfinity;
    x.kind = infinite ? Real::Kind::kInfinite : Real::Kind::kNaN;
    return x;
  }
  const int field = static_cast<int>(magnitude >> Format::kMantissaBits);
  const std::uint64_t hidden = field != 0 ? Format::kMantissaMask + 1 : 0;
  x.significand = (magnitude & Format::kMantissaMask) + hidden;
  x.exponent = std::max(field, 1) - Format::kBias - Format::kMantissaBits;
  return x;
}

// The magnitude bits of what is too large: infinity, unless the rounding or the format forbids it.
template <class Format>
std::uint64_t overflow(bool negative, Rounding rounding, bool satfinite) {
  const bool inward =
      rounding == Rounding::kTowardZero || rounding == (negative ? Rounding::kUp : Rounding::kDown);
  return satfinite || inward || !Format::kHasInfinity ? Format::kMax : Format::kInfinity;
}

template <class Format>
std::uint64_t encode_magnitude(const Real& x, Rounding rounding, bool satfinite) {
  if (x.kind == Real::Kind::kInfinite) {
    return satfinite || !Format::kHasInfinity ? Format::kMax : Format::kInfinity;
  }
  if (x.significand == 0) return 0;
  // The leading one goes to bit 61, and what falls off is kept as one sticky bit: then no shift
  // below ever reaches 64.
  const int zeros = std::countl_zero(x.significand);
  const std::uint64_t aligned = x.significand << zeros;
  const std::uint64_t significand = (aligned >> 2) | ((aligned & 3) != 0);
  const int above = x.exponent + 63 - zeros - Format::kMinExponent;  // < 0: subnormal
  const int drop = std::min(61 - Format::kMantissaBits - std::min(above, 0), 63);
  const std::uint64_t rounded = rounded_shift(significand, drop, x.negative, rounding);
  // The hidden bit of `rounded` counts as one in the exponent field, and so does a carry.
  const std::uint64_t magnitude =
      rounded + (static_cast<std::uint64_t>(std::max(above, 0)) << Format::kMantissaBits);
  return magnitude <= Format::kMax ? magnitude : overflow<Format>(x.negative, rounding, satfinite);
}

template <class Format>
std::uint64_t encode(const Real& x, Rounding rounding, bool satfinite) {
  if (x.kind == Real::Kind::kNaN) return Format::kNaN;
  const std::uint64_t sign = static_cast<std::uint64_t>(x.negative) << Format::kSignBit;
  return (sign | encode_magnitude<Format>(x, rounding, satfinite)) << Format::kUnusedBits;
}

template <class Int>
Real from_integer(Int value) {
  const bool negative = value < 0;
  const auto magnitude = static_cast<std::uint64_t>(value);
  return {.negative = negative, .significand = negative ? 0 - magnitude : magnitude};
}

// The integer next to x by the rounding; what is out of range becomes the nearest limit.
template <class Int>
Int to_integer(const Real& x, Rounding rounding) {
  using Limits = std::numeric_limits<Int>;
  const std::uint64_t limit = x.negative ? 0 - static_cast<std::uint64_t>(Limits::min())
                                         : static_cast<std::uint64_t>(Limits::max());
  std::uint64_t magnitude = x.significand;
  if (x.kind == Real::Kind::kInfinite || (magnitude != 0 && x.exponent > 0)) {
    const bool fits =
        x.kind == Real::Kind::kFinite && x.exponent <= std::countl_zero(x.significand);
    magnitude = fits ? magnitude << x.exponent : limit;
  } else if (x.exponent < 0) {
    // No significand of a float has its bit 62 set: 63 places away is always below a half.
    magnitude = rounded_shift(magnitude, std::min(-x.exponent, 63), x.negative, rounding);
  }
  magnitude = std::min(magnitude, limit);
  return static_cast<Int>(x.negative ? 0 - magnitude : magnitude);
}

// x rounded to an integer; zero keeps the sign.
inline Real to_integral(const Real& x, Rounding rounding) {
  if (x.kind != Real::Kind::kFinite || x.exponent >= 0) return x;
  Real result{.negative = x.negative};
  result.significand =
      rounded_shift(x.significand, std::min(-x.exponent, 63), x.negative, rounding);
  return result;
}

// The qualifiers of a cvt instruction.
struct Conversion {
  Rounding rounding = Rounding::kNearestEven;
  bool integral = false;   // .rni .rzi .rmi .rpi of a float result: round to an integer
  bool ftz = false;        // subnormal f32 inputs and results become zero, the sign stays
  bool sat = false;        // float results: clamp to [0, 1], NaN to 0; integers: clamp to the range
  bool satfinite = false;  // what is too large becomes the largest finite value
  bool relu = false;       // negative results become 0
};

enum class NumberType : std::uint8_t {
  kU8,
  kS8,
  kU16,
  kS16,
  kU32,
  kS32,
  kU64,
  kS64,
  kF16,
  kBF16,
  kTF32,
  kE4M3,
  kE5M2,
  kF32,
  kF64,
};

// Converts one value, in the low bits of the argument and of the result; higher bits of the
// argument are ignored, those of the result are zero.
using Converter = std::uint64_t (*)(std::uint64_t bits, const Conversion& how);

// The function for `cvt.to.from`. Never null; PTX allows fewer pairs.
Converter find_converter(NumberType to, NumberType from);

// The x2 forms: two values of num_bits each, the first source of the instruction in the high half.
inline std::uint64_t pack_pair(std::uint64_t high, std::uint64_t low, int num_bits) {
  return high << num_bits | low;
}
inline std::pair<std::uint64_t, std::uint64_t> unpack_pair(std::uint64_t pair, int num_bits) {
  return {pair >> num_bits, pair & ((1ull << num_bits) - 1)};
}

}  // namespace openweek::simulator
