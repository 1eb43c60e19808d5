#include "formats.h"

#include <array>
#include <concepts>
#include <type_traits>

namespace openweek::simulator {
namespace {

template <class To>
std::uint64_t bits_of(Real x, const Conversion& how) {
  if (how.integral) x = to_integral(x, how.rounding);
  const bool nan = x.kind == Real::Kind::kNaN;
  if (how.sat) {
    const bool one = !nan && !x.negative &&
                     (x.kind == Real::Kind::kInfinite ||
                      (x.significand != 0 && x.exponent + 64 > std::countl_zero(x.significand)));
    if (nan || x.negative) x = {};
    if (one) x = {.significand = 1};
  }
  if (how.relu && !nan && x.negative) x = {};
  const std::uint64_t bits = encode<To>(x, how.rounding, how.satfinite);
  const bool subnormal = (bits & To::kMagnitudeMask) <= To::kMantissaMask;
  const bool flush = how.ftz && std::same_as<To, F32> && subnormal;
  return flush ? bits & ~To::kMagnitudeMask : bits;
}

template <class From>
Real real_of(std::uint64_t bits, const Conversion& how) {
  Real x = decode<From>(bits);
  const bool subnormal = x.kind == Real::Kind::kFinite && x.significand <= From::kMantissaMask;
  if (how.ftz && std::same_as<From, F32> && subnormal) x.significand = 0;
  return x;
}

// PTX: NaN becomes 0, unless 64 bits are on either side; then it becomes the top bit alone.
template <class Int, class From>
Int integer_nan() {
  const bool wide = sizeof(Int) == 8 || std::same_as<From, F64>;
  return wide ? static_cast<Int>(1ull << (8 * sizeof(Int) - 1)) : Int{0};
}

template <class To, class From>
std::uint64_t between_integers(From value, bool sat) {
  using Limits = std::numeric_limits<To>;
  To result = static_cast<To>(value);
  if (sat && std::cmp_less(value, Limits::min())) result = Limits::min();
  if (sat && std::cmp_greater(value, Limits::max())) result = Limits::max();
  return static_cast<std::make_unsigned_t<To>>(result);
}

template <class To, class From>
std::uint64_t convert(std::uint64_t bits, const Conversion& how) {
  if constexpr (std::integral<To> && std::integral<From>) {
    return between_integers<To>(static_cast<From>(bits), how.sat);
  } else if constexpr (std::integral<From>) {
    return bits_of<To>(from_integer(static_cast<From>(bits)), how);
  } else if constexpr (std::integral<To>) {
    const Real x = real_of<From>(bits, how);
    const bool nan = x.kind == Real::Kind::kNaN;
    const To value = nan ? integer_nan<To, From>() : to_integer<To>(x, how.rounding);
    return static_cast<std::make_unsigned_t<To>>(value);
  } else {
    return bits_of<To>(real_of<From>(bits, how), how);
  }
}

template <class... Types>
struct Table {
  template <class To>
  static constexpr std::array<Converter, sizeof...(Types)> kRow = {&convert<To, Types>...};
  static constexpr std::array<std::array<Converter, sizeof...(Types)>, sizeof...(Types)> kAll = {
      kRow<Types>...};
};

// In the order of NumberType.
using Converters =
    Table<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
          std::uint64_t, std::int64_t, F16, BF16, TF32, E4M3, E5M2, F32, F64>;

}  // namespace

Converter find_converter(NumberType to, NumberType from) {
  return Converters::kAll[static_cast<std::size_t>(to)][static_cast<std::size_t>(from)];
}

}  // namespace openweek::simulator
