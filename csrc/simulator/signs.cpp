// Signs of numbers (abs, neg, copysign), and of which kind a number is (testp).
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::int16_t, std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t;

struct Negate {
  template <class T>
  static T run(T a) {
    return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
  }
};
struct Absolute {
  template <class T>
  static T run(T a) {
    return a < 0 ? Negate::run(a) : a;
  }
};

template <class Op>
Handler integer_handler(Type type) {
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

// Of floats only signs change, NaN's too.
enum class Sign { kClear, kFlip, kCopy };

// The bits of a type's signs (none if there is no such instruction), and, for .ftz, of what a
// subnormal number has none of.
struct Layout {
  uint64_t signs = 0;
  uint64_t exponents = 0;
};

Layout layout_of(Type type) {
  switch (type) {
    case Type::kF16:
      return {0x8000, 0x7c00};
    case Type::kF16x2:
      return {0x80008000, 0x7c007c00};
    case Type::kBF16:
      return {0x8000, 0x7f80};
    case Type::kBF16x2:
      return {0x80008000, 0x7f807f80};
    case Type::kF32:
      return {0x80000000, 0x7f800000};
    case Type::kF64:
      return {uint64_t{1} << 63, 0x7ff0000000000000};
    default:
      return {};
  }
}

// Clears the magnitudes of the subnormal numbers in a cell.
template <class Word>
Word flush_cell(Word cell, Word signs, Word exponents) {
  // A pair has the pattern of its low half twice.
  const bool pair = sizeof(Word) == 4 && (signs & 0x8000);
  const Word low = 0xffff, parts[2] = {pair ? low : static_cast<Word>(~Word{0}),
                                       pair ? static_cast<Word>(~low) : Word{0}};
  for (const Word part : parts) {
    if ((cell & exponents & part) == 0) cell &= signs | ~part;
  }
  return cell;
}

// imm has the bits of the signs; for .ftz row c has those of the exponents.
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
  if (inst.c == kNoRow) return Step::kNext;
  const auto* exponents = warp.row<Word>(inst.c);
  for_lanes(lanes, [&](int i) { dst[i] = flush_cell(dst[i], signs, exponents[i]); });
  return Step::kNext;
}

template <Sign kWhat>
void lower_float_sign(Lowering& lower, Type type) {
  const Layout layout = layout_of(type);
  if (layout.signs == 0) lower.fail("there is no such instruction for this type");
  const int width = cell_bytes(type);
  const bool flushes = kWhat != Sign::kCopy && lower.take("ftz");
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t b = kWhat == Sign::kCopy ? lower.source_row(2, type) : kNoRow;
  const uint32_t exponents = flushes ? lower.constant(layout.exponents, width) : kNoRow;
  Inst& inst = lower.emit(width == 8 ? change_sign<kWhat, uint64_t> : change_sign<kWhat, uint32_t>);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = exponents;
  inst.imm = static_cast<int64_t>(layout.signs);
}

template <class Integer, Sign kWhat>
void lower_sign(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) return lower_float_sign<kWhat>(lower, type);
  emit_operation(lower, integer_handler<Integer>(type), type, {type});
}

// ---- testp ----

constexpr std::string_view kKinds[] = {"finite",     "infinite", "number",
                                       "notanumber", "normal",   "subnormal"};

bool is_of_kind(std::int64_t kind, int classified) {
  switch (kind) {
    case 0:
      return classified != FP_NAN && classified != FP_INFINITE;
    case 1:
      return classified == FP_INFINITE;
    case 2:
      return classified != FP_NAN;
    case 3:
      return classified == FP_NAN;
    case 4:
      return classified == FP_NORMAL;
    default:
      return classified == FP_SUBNORMAL;
  }
}

template <class T>
Step test(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<Cell<T>>(inst.a);
  Mask result = 0;
  for_lanes(lanes, [&](int i) {
    const bool is = is_of_kind(inst.imm, std::fpclassify(value_of<T>(a[i])));
    result |= static_cast<Mask>(is) << i;
  });
  warp.set_predicate(inst.dst, lanes, result);
  return Step::kNext;
}

void lower_test(Lowering& lower) {
  const Type type = lower.take_type();
  if (type != Type::kF32 && type != Type::kF64) lower.fail("testp has no such type");
  int64_t kind = -1;
  for (int i = 0; i < 6; ++i) {
    if (lower.take(kKinds[i])) kind = i;
  }
  if (kind < 0) lower.fail("a kind of numbers is missing");
  const uint32_t dst = lower.predicate_destination(lower.operand(0));
  const uint32_t a = lower.source_row(1, type);
  Inst& inst = lower.emit(type == Type::kF64 ? test<double> : test<float>);
  inst.dst = dst;
  inst.a = a;
  inst.imm = kind;
}

}  // namespace

void add_signs(Lowerers& lowerers) {
  lowerers["abs"] = lower_sign<Absolute, Sign::kClear>;
  lowerers["neg"] = lower_sign<Negate, Sign::kFlip>;
  lowerers["copysign"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    if (type != Type::kF32 && type != Type::kF64) lower.fail("copysign has no such type");
    lower_float_sign<Sign::kCopy>(lower, type);
  };
  lowerers["testp"] = lower_test;
}

}  // namespace openweek::simulator
