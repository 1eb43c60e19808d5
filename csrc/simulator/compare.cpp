// Comparisons and the choices that follow from them.
#include <cmath>
#include <cstdint>

#include "formats.h"
#include "lanes.h"
#include "lowering.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

enum Comparison : int {
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,  // false if a value is not a number
  kEqu,
  kNeu,
  kLtu,
  kLeu,
  kGtu,
  kGeu,  // then true
  kNum,
  kNan,
};

constexpr std::string_view kNames[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                       "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

template <class T>
bool holds(int comparison, T a, T b) {
  bool unordered = false;
  if constexpr (std::is_floating_point_v<T>) unordered = std::isnan(a) || std::isnan(b);
  if (comparison == kNum) return !unordered;
  if (comparison == kNan) return unordered;
  if (unordered) return comparison >= kEqu;
  switch (comparison % 6) {
    case kEq:
      return a == b;
    case kNe:
      return a != b;
    case kLt:
      return a < b;
    case kLe:
      return a <= b;
    case kGt:
      return a > b;
    default:
      return a >= b;
  }
}

// What Inst::imm holds: the comparison, how the result is joined with predicate c, and whether
// values are flushed.
constexpr int kJoinShift = 8, kNegateShift = 12, kFlushShift = 13;
enum Join : int { kNone, kAnd, kOr, kXor };

template <class T>
T flush(T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::fpclassify(value) == FP_SUBNORMAL) return std::copysign(T{0}, value);
  }
  return value;
}

struct AsIs {
  template <class T>
  static T read(Cell<T> cell, bool flushes) {
    const T value = value_of<T>(cell);
    return flushes ? flush(value) : value;
  }
};
template <class Format, int kShift = 0>
struct Widen {
  template <class T>
  static float read(uint32_t cell, bool flushes) {
    Real x = decode<Format>(cell >> kShift & 0xffff);
    if (flushes && x.kind == Real::Kind::kFinite && x.significand <= Format::kMantissaMask) {
      x.significand = 0;
    }
    return value_of<float>(static_cast<uint32_t>(encode<F32>(x, Rounding::kNearestEven, false)));
  }
};

template <class T, class Read = AsIs>
Mask compare(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<Cell<T>>(inst.a);
  const auto* b = warp.row<Cell<T>>(inst.b);
  const int comparison = static_cast<int>(inst.imm & 0xff);
  const bool flushes = inst.imm >> kFlushShift & 1;
  Mask result = 0;
  for_lanes(lanes, [&](int i) {
    const auto x = Read::template read<T>(a[i], flushes);
    const auto y = Read::template read<T>(b[i], flushes);
    result |= static_cast<Mask>(holds(comparison, x, y)) << i;
  });
  return result;
}

Mask join(Warp& warp, const Inst& inst, Mask result) {
  if (inst.c == kNoRow) return result;
  const Mask other = warp.predicate(inst.c) ^ (inst.imm >> kNegateShift & 1 ? kAllLanes : 0);
  switch (inst.imm >> kJoinShift & 0xf) {
    case kAnd:
      return result & other;
    case kOr:
      return result | other;
    default:
      return result ^ other;
  }
}

// setp p|q: q gets the opposite, joined with the same predicate.
template <class T, class Read = AsIs>
Step set_predicate(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask result = compare<T, Read>(warp, inst, lanes);
  const Mask opposite = join(warp, inst, ~result);
  warp.set_predicate(inst.dst, lanes, join(warp, inst, result));
  if (inst.target >= 0) warp.set_predicate(static_cast<uint32_t>(inst.target), lanes, opposite);
  return Step::kNext;
}

// Of pairs p gets what the low halves say, and q what the high halves do.
template <class Format>
Step set_predicates_of_pair(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask low = join(warp, inst, compare<uint32_t, Widen<Format>>(warp, inst, lanes));
  const Mask high = join(warp, inst, compare<uint32_t, Widen<Format, 16>>(warp, inst, lanes));
  warp.set_predicate(inst.dst, lanes, low);
  if (inst.target >= 0) warp.set_predicate(static_cast<uint32_t>(inst.target), lanes, high);
  return Step::kNext;
}

// set writes all ones or, as a float, 1.0.
template <class Format>
Step set_pair(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask low = join(warp, inst, compare<uint32_t, Widen<Format>>(warp, inst, lanes));
  const Mask high = join(warp, inst, compare<uint32_t, Widen<Format, 16>>(warp, inst, lanes));
  auto* dst = warp.row<uint32_t>(inst.dst);
  const uint32_t yes = static_cast<uint32_t>(inst.target);
  for_lanes(lanes, [&](int i) {
    dst[i] = (high >> i & 1 ? yes & 0xffff0000 : 0) | (low >> i & 1 ? yes & 0xffff : 0);
  });
  return Step::kNext;
}

template <class T, class Read = AsIs>
Step set_value(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask result = join(warp, inst, compare<T, Read>(warp, inst, lanes));
  auto* dst = warp.row<uint32_t>(inst.dst);
  const uint32_t yes = static_cast<uint32_t>(inst.target);
  for_lanes(lanes, [&](int i) { dst[i] = result >> i & 1 ? yes : 0; });
  return Step::kNext;
}

template <template <class> class Make>
Handler handler_for(Type type) {
  switch (type) {
    case Type::kB16:
    case Type::kU16:
      return Make<uint16_t>::kHandler;
    case Type::kS16:
      return Make<int16_t>::kHandler;
    case Type::kB32:
    case Type::kU32:
      return Make<uint32_t>::kHandler;
    case Type::kS32:
      return Make<int32_t>::kHandler;
    case Type::kB64:
    case Type::kU64:
      return Make<uint64_t>::kHandler;
    case Type::kS64:
      return Make<int64_t>::kHandler;
    case Type::kF32:
      return Make<float>::kHandler;
    case Type::kF64:
      return Make<double>::kHandler;
    default:
      return nullptr;
  }
}

template <class T>
struct MakeSetPredicate {
  static constexpr Handler kHandler = set_predicate<T>;
};
template <class T>
struct MakeSetValue {
  static constexpr Handler kHandler = set_value<T>;
};

// Takes the comparison; of unsigned integers lo, ls, hi, hs say lt, le, gt, ge.
int take_comparison(Lowering& lower) {
  static constexpr std::pair<std::string_view, int> kUnsigned[] = {
      {"lo", kLt}, {"ls", kLe}, {"hi", kGt}, {"hs", kGe}};
  for (int i = 0; i < 14; ++i) {
    if (lower.take(kNames[i])) return i;
  }
  for (const auto& [name, comparison] : kUnsigned) {
    if (lower.take(name)) return comparison;
  }
  lower.fail("a comparison is missing");
}

int take_join(Lowering& lower) {
  if (lower.take("and")) return kAnd;
  if (lower.take("or")) return kOr;
  return lower.take("xor") ? kXor : kNone;
}

struct Parts {
  std::int64_t variant = 0;
  uint32_t joined = kNoRow;
};

Parts take_parts(Lowering& lower) {
  Parts parts;
  const int joined = take_join(lower);
  parts.variant = take_comparison(lower) | joined << kJoinShift;
  if (lower.take("ftz")) parts.variant |= 1 << kFlushShift;
  if (joined != kNone) {
    bool negated = false;
    parts.joined = lower.predicate(lower.operand(3), &negated);
    parts.variant |= static_cast<std::int64_t>(negated) << kNegateShift;
  }
  return parts;
}

void lower_setp(Lowering& lower) {
  const Parts parts = take_parts(lower);
  const Type type = lower.take_type();
  Handler handler = handler_for<MakeSetPredicate>(type);
  if (type == Type::kF16) handler = set_predicate<uint32_t, Widen<F16>>;
  if (type == Type::kBF16) handler = set_predicate<uint32_t, Widen<BF16>>;
  if (type == Type::kF16x2) handler = set_predicates_of_pair<F16>;
  if (type == Type::kBF16x2) handler = set_predicates_of_pair<BF16>;
  if (handler == nullptr) lower.fail("there is no such comparison");
  const ptx::Operand& to = lower.operand(0);
  const bool both = to.kind == ptx::Operand::Kind::kPair;
  if (both && (type == Type::kF16 || type == Type::kBF16)) lower.fail("there is no second result");
  const uint32_t dst = lower.predicate_destination(both ? to.parts[0] : to);
  const std::int32_t opposite =
      both ? static_cast<std::int32_t>(lower.predicate_destination(to.parts[1])) : -1;
  const uint32_t a = lower.source_row(1, type);
  const uint32_t b = lower.source_row(2, type);
  Inst& inst = lower.emit(handler);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = parts.joined;
  inst.imm = parts.variant;
  inst.target = opposite;
}

// What a true comparison is as a value of this type.
std::int32_t one_of(Type type) {
  switch (type) {
    case Type::kF32:
      return 0x3f800000;
    case Type::kF16:
      return 0x3c00;
    case Type::kBF16:
      return 0x3f80;
    case Type::kF16x2:
      return 0x3c003c00;
    case Type::kBF16x2:
      return 0x3f803f80;
    default:
      return bytes_of(type) == 2 ? 0xffff : -1;
  }
}

void lower_set(Lowering& lower) {
  const Parts parts = take_parts(lower);
  const Type to = lower.take_type();
  const Type type = lower.take_type();
  Handler handler = handler_for<MakeSetValue>(type);
  if (type == Type::kF16) handler = set_value<uint32_t, Widen<F16>>;
  if (type == Type::kBF16) handler = set_value<uint32_t, Widen<BF16>>;
  const bool is_pair = type == Type::kF16x2 || type == Type::kBF16x2;
  if (is_pair) handler = type == Type::kF16x2 ? set_pair<F16> : set_pair<BF16>;
  const bool fits = bytes_of(to) == 4 || (bytes_of(to) == 2 && !is_pair);
  if (handler == nullptr || !fits) lower.fail("there is no such comparison");
  const uint32_t dst = lower.destination_row(0, to);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t b = lower.source_row(2, type);
  Inst& inst = lower.emit(handler);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = parts.joined;
  inst.imm = parts.variant;
  inst.target = one_of(to);
}

template <class Word>
Step select(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* b = warp.row<Word>(inst.b);
  const Mask first = warp.predicate(inst.c) ^ (inst.imm ? kAllLanes : 0);
  for_lanes(lanes, [&](int i) { dst[i] = first >> i & 1 ? a[i] : b[i]; });
  return Step::kNext;
}

// By the sign of c: -0 and, flushed, what is close below it count as zero, a NaN as negative.
template <class Word, class T>
Step select_by_sign(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Word>(inst.dst);
  const auto* a = warp.row<Word>(inst.a);
  const auto* b = warp.row<Word>(inst.b);
  const auto* c = warp.row<Cell<T>>(inst.c);
  for_lanes(lanes, [&](int i) { dst[i] = AsIs::read<T>(c[i], inst.imm) >= 0 ? a[i] : b[i]; });
  return Step::kNext;
}

void lower_slct(Lowering& lower) {
  const bool flushes = lower.take("ftz");
  const Type type = lower.take_type();
  const Type by = lower.take_type();
  if (by != Type::kS32 && by != Type::kF32) lower.fail("there is no such choice");
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t b = lower.source_row(2, type);
  const uint32_t c = lower.source_row(3, by);
  const bool wide = cell_bytes(type) == 8, is_float = by == Type::kF32;
  Inst& inst = lower.emit(
      wide ? (is_float ? select_by_sign<uint64_t, float> : select_by_sign<uint64_t, int32_t>)
           : (is_float ? select_by_sign<uint32_t, float> : select_by_sign<uint32_t, int32_t>));
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = c;
  inst.imm = flushes;
}

void lower_selp(Lowering& lower) {
  const Type type = lower.take_type();
  if (bytes_of(type) > 8) lower.fail("there is no such instruction for 128 bits");
  bool negated = false;
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t b = lower.source_row(2, type);
  const uint32_t c = lower.predicate(lower.operand(3), &negated);
  Inst& inst = lower.emit(cell_bytes(type) == 8 ? select<uint64_t> : select<uint32_t>);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = c;
  inst.imm = negated;
}

}  // namespace

void add_compare(Lowerers& lowerers) {
  lowerers["setp"] = lower_setp;
  lowerers["set"] = lower_set;
  lowerers["selp"] = lower_selp;
  lowerers["slct"] = lower_slct;
}

}  // namespace openweek::simulator
