#include "reduction.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstring>
#include <functional>
#include <type_traits>

#include "errors.h"

namespace openweek::simulator {
namespace {

// A 16-bit float in memory. Sums are made in f64, whose 53 bits are more than twice those of the
// format and two: rounding twice then gives what rounding once would.
template <class Format>
struct Half {
  std::uint16_t bits = 0;

  double value() const {
    return std::bit_cast<double>(encode<F64>(decode<Format>(bits), Rounding::kNearestEven, false));
  }
  static Half of(double value) {
    const Real exact = decode<F64>(std::bit_cast<std::uint64_t>(value));
    return {static_cast<std::uint16_t>(encode<Format>(exact, Rounding::kNearestEven, false))};
  }
};

inline float flushed(float x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.f, x) : x;
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::integral<T>) {
      using Wrapping = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<Wrapping>(a) + static_cast<Wrapping>(b));
    } else if constexpr (std::same_as<T, double>) {
      return a + b;
    } else if constexpr (std::same_as<T, float>) {
      return flushed(flushed(a) + flushed(b));
    } else {
      return T::of(a.value() + b.value());
    }
  }
};

template <bool kLargest>
struct Extreme {
  template <class T>
  T operator()(T a, T b) const {
    if constexpr (std::integral<T>) {
      return kLargest ? std::max(a, b) : std::min(a, b);
    } else {
      // IEEE 754 minimumNumber: -0 is less than +0, which the library's fmin leaves open.
      const double x = a.value(), y = b.value();
      const bool tie = x == y && std::signbit(x) != std::signbit(y);
      if (tie) return std::signbit(x) == kLargest ? b : a;
      return T::of(kLargest ? std::fmax(x, y) : std::fmin(x, y));
    }
  }
};

// Up to a limit and around (PTX ISA, atom).
struct Increment {
  std::uint32_t operator()(std::uint32_t old, std::uint32_t limit) const {
    return old >= limit ? 0 : old + 1;
  }
};
struct Decrement {
  std::uint32_t operator()(std::uint32_t old, std::uint32_t limit) const {
    return old == 0 || old > limit ? limit : old - 1;
  }
};

template <class T, class Op>
void reduce(std::uint8_t* to, const std::uint8_t* from, std::size_t num_bytes) {
  for (std::size_t at = 0; at + sizeof(T) <= num_bytes; at += sizeof(T)) {
    T old, value;
    std::memcpy(&old, to + at, sizeof(T));
    std::memcpy(&value, from + at, sizeof(T));
    old = Op{}(old, value);
    std::memcpy(to + at, &old, sizeof(T));
  }
}

template <class T>
Reduce integer(ReduceOp op) {
  switch (op) {
    case ReduceOp::kAdd:
      return &reduce<T, Add>;
    case ReduceOp::kMin:
      return &reduce<T, Extreme<false>>;
    case ReduceOp::kMax:
      return &reduce<T, Extreme<true>>;
    case ReduceOp::kAnd:
      return &reduce<T, std::bit_and<>>;
    case ReduceOp::kOr:
      return &reduce<T, std::bit_or<>>;
    case ReduceOp::kXor:
      return &reduce<T, std::bit_xor<>>;
    case ReduceOp::kIncrement:
    case ReduceOp::kDecrement:
      break;
  }
  return nullptr;
}

template <class T>
Reduce half(ReduceOp op) {
  if (op == ReduceOp::kAdd) return &reduce<T, Add>;
  if (op == ReduceOp::kMin) return &reduce<T, Extreme<false>>;
  if (op == ReduceOp::kMax) return &reduce<T, Extreme<true>>;
  return nullptr;
}

Reduce find(ReduceOp op, NumberType type) {
  switch (type) {
    case NumberType::kU32:
      if (op == ReduceOp::kIncrement) return &reduce<std::uint32_t, Increment>;
      if (op == ReduceOp::kDecrement) return &reduce<std::uint32_t, Decrement>;
      return integer<std::uint32_t>(op);
    case NumberType::kS32:
      return integer<std::int32_t>(op);
    case NumberType::kU64:
      return integer<std::uint64_t>(op);
    case NumberType::kS64:
      // PTX has no sum of s64: it is the sum of u64.
      return op == ReduceOp::kAdd ? nullptr : integer<std::int64_t>(op);
    case NumberType::kF16:
      return half<Half<F16>>(op);
    case NumberType::kBF16:
      return half<Half<BF16>>(op);
    case NumberType::kF32:
      return op == ReduceOp::kAdd ? &reduce<float, Add> : nullptr;
    case NumberType::kF64:
      return op == ReduceOp::kAdd ? &reduce<double, Add> : nullptr;
    default:
      return nullptr;
  }
}

}  // namespace

Reduce find_reduce(ReduceOp op, NumberType type) {
  const Reduce found = find(op, type);
  if (found == nullptr) throw UnsupportedError("there is no such reduction of this type");
  return found;
}

}  // namespace openweek::simulator
