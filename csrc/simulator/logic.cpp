// Logic, of bits and of predicates.
#include <cstdint>
#include <string_view>

#include "arithmetic.h"
#include "lanes.h"

namespace openweek::simulator {
namespace {

using std::uint16_t, std::uint32_t, std::uint64_t;

struct And {
  template <class T>
  static T run(T a, T b) {
    return a & b;
  }
};
struct Or {
  template <class T>
  static T run(T a, T b) {
    return a | b;
  }
};
struct Xor {
  template <class T>
  static T run(T a, T b) {
    return a ^ b;
  }
};
struct Not {
  template <class T>
  static T run(T a) {
    return ~a;
  }
};
struct LogicalNot {
  template <class T>
  static T run(T a) {
    return a == 0;
  }
};
// The table says what comes of each combination of bits: bit 4a + 2b + c of it.
Step look_up(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = warp.row<uint32_t>(inst.c);
  for_lanes(lanes, [&](int i) {
    uint32_t result = 0;
    for (int entry = 0; entry < 8; ++entry) {
      if (!(inst.imm >> entry & 1)) continue;
      result |=
          (entry & 4 ? a[i] : ~a[i]) & (entry & 2 ? b[i] : ~b[i]) & (entry & 1 ? c[i] : ~c[i]);
    }
    dst[i] = result;
  });
  return Step::kNext;
}

// Whether a is not zero, and or or predicate b.
template <bool kAnd>
Step join_non_zero(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<uint32_t>(inst.a);
  const Mask other = warp.predicate(inst.b) ^ (inst.imm ? kAllLanes : 0);
  Mask result = 0;
  for_lanes(lanes, [&](int i) { result |= static_cast<Mask>(a[i] != 0) << i; });
  warp.set_predicate(inst.dst, lanes, kAnd ? result & other : result | other);
  return Step::kNext;
}

template <class Op>
Step logic_of_predicates(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask a = warp.predicate(inst.a) ^ (inst.imm & 1 ? kAllLanes : 0);
  const Mask b = warp.predicate(inst.b) ^ (inst.imm & 2 ? kAllLanes : 0);
  warp.set_predicate(inst.dst, lanes, Op::run(a, b));
  return Step::kNext;
}

Step not_predicate(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask a = warp.predicate(inst.a) ^ (inst.imm & 1 ? kAllLanes : 0);
  warp.set_predicate(inst.dst, lanes, ~a);
  return Step::kNext;
}

// Null for types that are no bits of one of the three sizes.
template <class Op>
Handler unary_of_bits(Type type) {
  switch (type) {
    case Type::kB16:
      return unary<Op, uint16_t, uint16_t>;
    case Type::kB32:
      return unary<Op, uint32_t, uint32_t>;
    case Type::kB64:
      return unary<Op, uint64_t, uint64_t>;
    default:
      return nullptr;
  }
}

template <class Op>
Handler binary_of_bits(Type type) {
  switch (type) {
    case Type::kB16:
      return binary<Op, uint16_t, uint16_t>;
    case Type::kB32:
      return binary<Op, uint32_t, uint32_t>;
    case Type::kB64:
      return binary<Op, uint64_t, uint64_t>;
    default:
      return nullptr;
  }
}

template <class Op>
void lower_logic(Lowering& lower) {
  const Type type = lower.take_type();
  if (type == Type::kPred) {
    bool negated[2];
    const std::uint32_t dst = lower.predicate_destination(lower.operand(0));
    const std::uint32_t a = lower.predicate(lower.operand(1), &negated[0]);
    const std::uint32_t b = lower.predicate(lower.operand(2), &negated[1]);
    Inst& inst = lower.emit(logic_of_predicates<Op>);
    inst.dst = dst;
    inst.a = a;
    inst.b = b;
    inst.imm = negated[0] + 2 * negated[1];
    return;
  }
  emit_operation(lower, binary_of_bits<Op>(type), type, {type, type});
}

void lower_not(Lowering& lower) {
  const Type type = lower.take_type();
  if (type == Type::kPred) {
    bool negated = false;
    const std::uint32_t dst = lower.predicate_destination(lower.operand(0));
    const std::uint32_t a = lower.predicate(lower.operand(1), &negated);
    Inst& inst = lower.emit(not_predicate);
    inst.dst = dst;
    inst.a = a;
    inst.imm = negated;
    return;
  }
  emit_operation(lower, unary_of_bits<Not>(type), type, {type});
}

void lower_look_up(Lowering& lower) {
  if (lower.take_type() != Type::kB32) lower.fail("the only type is .b32");
  const std::string_view joins = lower.take_one_of({"and", "or"});
  const ptx::Operand& table = lower.operand(4);
  if (table.kind != ptx::Operand::Kind::kInteger) lower.fail("the table must be a constant");
  const ptx::Operand& to = lower.operand(0);
  const bool is_pair = to.kind == ptx::Operand::Kind::kPair;
  if (is_pair == joins.empty()) lower.fail("d|p goes with .and or .or");
  const std::uint32_t dst = lower.destination_row(is_pair ? to.parts[0] : to, Type::kB32);
  const std::uint32_t a = lower.source_row(1, Type::kB32);
  const std::uint32_t b = lower.source_row(2, Type::kB32);
  const std::uint32_t c = lower.source_row(3, Type::kB32);
  Inst& inst = lower.emit(look_up);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.c = c;
  inst.imm = table.bits;
  if (!is_pair) return;
  bool negated = false;
  const std::uint32_t predicate = lower.predicate_destination(to.parts[1]);
  const std::uint32_t joined = lower.predicate(lower.operand(5), &negated);
  Inst& test = lower.emit(joins == "and" ? join_non_zero<true> : join_non_zero<false>);
  test.dst = predicate;
  test.a = dst;
  test.b = joined;
  test.imm = negated;
}

}  // namespace

void add_logic(Lowerers& lowerers) {
  lowerers["and"] = lower_logic<And>;
  lowerers["or"] = lower_logic<Or>;
  lowerers["xor"] = lower_logic<Xor>;
  lowerers["not"] = lower_not;
  lowerers["cnot"] = [](Lowering& lower) {
    const Type type = lower.take_type();
    emit_operation(lower, unary_of_bits<LogicalNot>(type), type, {type});
  };
  lowerers["lop3"] = lower_look_up;
}

}  // namespace openweek::simulator
