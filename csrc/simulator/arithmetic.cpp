// Which arithmetic an opcode means: of integers, of floats or of their approximations.
#include "arithmetic.h"

#include <array>

namespace openweek::simulator {

void emit_operation(Lowering& lower, Handler handler, Type to, std::initializer_list<Type> from,
                    std::int64_t variant, std::int32_t target) {
  if (handler == nullptr) lower.fail("there is no such instruction for this type");
  const std::uint32_t dst = lower.destination_row(0, to);
  std::array<std::uint32_t, 3> rows = {kNoRow, kNoRow, kNoRow};
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
  inst.target = target;
}

std::int64_t take_variant(Lowering& lower, std::initializer_list<std::string_view> allowed) {
  static constexpr std::pair<std::string_view, std::int64_t> kNames[] = {
      {"rn", 0},       {"rz", 1},          {"rm", 2},         {"rp", 3},
      {"ftz", kFlush}, {"sat", kSaturate}, {"NaN", kNaNWins}, {"relu", kRelu},
  };
  std::int64_t variant = 0;
  for (const std::string_view name : allowed) {
    if (!lower.take(name)) continue;
    for (const auto& [known, bits] : kNames) {
      if (known == name) variant |= bits;
    }
  }
  return variant;
}

namespace {

void emit_float(Lowering& lower, FloatOp op, Type type) {
  const bool half = bytes_of(type) == 2 || type == Type::kF16x2 || type == Type::kBF16x2;
  const std::int64_t variant = half ? take_variant(lower, {"rn", "ftz", "sat", "relu"})
                                    : take_variant(lower, {"rn", "rz", "rm", "rp", "ftz", "sat"});
  const Handler handler = half ? half_handler(op, type) : float_handler(op, type);
  if (op == FloatOp::kMultiplyAdd) {
    emit_operation(lower, handler, type, {type, type, type}, variant);
  } else {
    emit_operation(lower, handler, type, {type, type}, variant);
  }
}

bool sets_carry(const Lowering& lower) {
  const auto& modifiers = lower.statement().modifiers;
  return std::find(modifiers.begin(), modifiers.end(), "cc") != modifiers.end();
}

template <bool kSubtracts>
void lower_sum(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type))
    return emit_float(lower, kSubtracts ? FloatOp::kSubtract : FloatOp::kAdd, type);
  if (sets_carry(lower)) return lower_carry_sum(lower, type, kSubtracts, false);
  lower_integer_sum(lower, type, kSubtracts);
}

void lower_multiply(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) return emit_float(lower, FloatOp::kMultiply, type);
  lower_integer_product(lower, type, false);
}

void lower_multiply_add(Lowering& lower) {
  const Type type = lower.take_type();
  if (is_float(type)) return emit_float(lower, FloatOp::kMultiplyAdd, type);
  if (sets_carry(lower)) return lower_carry_product(lower, type, false);
  lower_integer_product(lower, type, true);
}

void lower_divide(Lowering& lower) {
  const Type type = lower.take_type();
  is_float(type) ? lower_float_quotient(lower, type) : lower_integer_quotient(lower, type);
}

// Exact with a rounding mode.
template <Approximation kWhich, Lowerer kExact>
void lower_root(Lowering& lower) {
  if (lower.take("approx")) {
    lower_approximation(lower, kWhich);
  } else {
    kExact(lower);
  }
}

}  // namespace

void add_arithmetic(Lowerers& lowerers) {
  lowerers["add"] = lower_sum<false>;
  lowerers["sub"] = lower_sum<true>;
  lowerers["mul"] = lower_multiply;
  lowerers["mad"] = lower_multiply_add;
  lowerers["fma"] = [](Lowering& lower) {
    emit_float(lower, FloatOp::kMultiplyAdd, lower.take_type());
  };
  lowerers["div"] = lower_divide;
  lowerers["sqrt"] = lower_root<Approximation::kRoot, lower_exact_root>;
  lowerers["rcp"] = lower_root<Approximation::kReciprocal, lower_exact_reciprocal>;
  lowerers["addc"] = [](Lowering& lower) {
    lower_carry_sum(lower, lower.take_type(), false, true);
  };
  lowerers["subc"] = [](Lowering& lower) { lower_carry_sum(lower, lower.take_type(), true, true); };
  lowerers["madc"] = [](Lowering& lower) { lower_carry_product(lower, lower.take_type(), true); };
}

}  // namespace openweek::simulator
