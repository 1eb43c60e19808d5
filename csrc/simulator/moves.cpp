// mov, cvta and cvt: values from place to place and from format to format.
#include <cstdint>
#include <optional>
#include <vector>

#include "formats.h"
#include "lanes.h"
#include "lowering.h"
#include "memory.h"

namespace openweek::simulator {

void lower_pack(Lowering& lower);  // packing.cpp

namespace {

using std::uint32_t, std::uint64_t;

struct Same {
  template <class T>
  static T run(T a) {
    return a;
  }
};

struct Same128 {
  uint64_t words[2];
};

Step move_128(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Same128>(inst.dst);
  const auto* a = warp.row<Same128>(inst.a);
  for_lanes(lanes, [&](int i) { dst[i] = a[i]; });
  return Step::kNext;
}

Handler move_handler(Type type) {
  switch (cell_bytes(type)) {
    case 4:
      return unary<Same, uint32_t, uint32_t>;
    case 8:
      return unary<Same, uint64_t, uint64_t>;
    default:
      return move_128;
  }
}

Step move_predicate(Warp& warp, const Inst& inst, Mask lanes) {
  warp.set_predicate(inst.dst, lanes, warp.predicate(inst.a) ^ (inst.imm ? kAllLanes : 0));
  return Step::kNext;
}

// Parts of a vector and a whole: imm is the number of bytes of a part; a list has the rows of the
// parts, of which those of 8 bytes have cells of 8.
Step pack(Warp& warp, const Inst& inst, Mask lanes) {
  const std::vector<uint32_t>& parts = warp.program().lists[inst.list];
  const int num_bytes = static_cast<int>(inst.imm);
  const int part_cell = num_bytes == 8 ? 8 : 4;
  const int whole = num_bytes * static_cast<int>(parts.size());
  const int whole_cell = whole <= 4 ? 4 : whole;
  for_lanes(lanes, [&](int i) {
    std::uint8_t bytes[16] = {};
    for (std::size_t part = 0; part < parts.size(); ++part) {
      std::memcpy(bytes + part * num_bytes, warp.row<std::uint8_t>(parts[part]) + i * part_cell,
                  num_bytes);
    }
    std::memcpy(warp.row<std::uint8_t>(inst.dst) + i * whole_cell, bytes, whole_cell);
  });
  return Step::kNext;
}

Step unpack(Warp& warp, const Inst& inst, Mask lanes) {
  const std::vector<uint32_t>& parts = warp.program().lists[inst.list];
  const int num_bytes = static_cast<int>(inst.imm);
  const int part_cell = num_bytes == 8 ? 8 : 4;
  const int whole = num_bytes * static_cast<int>(parts.size());
  const int whole_cell = whole <= 4 ? 4 : whole;
  for_lanes(lanes, [&](int i) {
    std::uint8_t bytes[16];
    std::memcpy(bytes, warp.row<std::uint8_t>(inst.a) + i * whole_cell, whole_cell);
    for (std::size_t part = 0; part < parts.size(); ++part) {
      std::uint8_t cell[8] = {};
      std::memcpy(cell, bytes + part * num_bytes, num_bytes);
      std::memcpy(warp.row<std::uint8_t>(parts[part]) + i * part_cell, cell, part_cell);
    }
  });
  return Step::kNext;
}

Type part_type(Lowering& lower, Type whole, std::size_t num_parts) {
  const auto bytes = static_cast<std::size_t>(bytes_of(whole));
  const std::size_t part = num_parts == 0 || bytes % num_parts != 0 ? 0 : bytes / num_parts;
  switch (part) {
    case 1:
      return Type::kB8;
    case 2:
      return Type::kB16;
    case 4:
      return Type::kB32;
    case 8:
      return Type::kB64;
    default:
      lower.fail("the parts do not make up the whole");
  }
}

void lower_move(Lowering& lower) {
  using Kind = ptx::Operand::Kind;
  const Type type = lower.take_type();
  const ptx::Operand& to = lower.operand(0);
  const ptx::Operand& from = lower.operand(1);
  if (type == Type::kPred) {
    bool negated = false;
    const uint32_t dst = lower.predicate_destination(to);
    const uint32_t a = lower.predicate(from, &negated);
    Inst& inst = lower.emit(move_predicate);
    inst.dst = dst;
    inst.a = a;
    inst.imm = negated;
  } else if (to.kind == Kind::kVector || from.kind == Kind::kVector) {
    const bool packs = from.kind == Kind::kVector;
    const std::vector<ptx::Operand>& parts = packs ? from.parts : to.parts;
    const Type each = part_type(lower, type, parts.size());
    std::vector<uint32_t> rows;
    for (const ptx::Operand& part : parts) {
      rows.push_back(packs ? lower.narrowed(part, each) : lower.destination_row(part, each));
    }
    const uint32_t whole = packs ? lower.destination_row(0, type) : lower.source_row(1, type);
    const uint32_t list = lower.list(std::move(rows));
    Inst& inst = lower.emit(packs ? pack : unpack);
    (packs ? inst.dst : inst.a) = whole;
    inst.list = list;
    inst.imm = bytes_of(each);
  } else {
    const uint32_t dst = lower.destination_row(0, type);
    const uint32_t a = lower.source_row(1, type);
    Inst& inst = lower.emit(move_handler(type));
    inst.dst = dst;
    inst.a = a;
  }
}

// Between an address in a window and a generic address: the window's begin is added or removed.
Step add_window(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint64_t>(inst.dst);
  const auto* a = warp.row<uint64_t>(inst.a);
  for_lanes(lanes, [&](int i) { dst[i] = a[i] + static_cast<uint64_t>(inst.imm); });
  return Step::kNext;
}

void lower_cvta(Lowering& lower) {
  const bool to = lower.take("to");
  const std::string_view space =
      lower.take_one_of({"global", "shared", "shared::cta", "shared::cluster", "local", "const",
                         "param", "param::entry"});
  if (space.empty()) lower.fail("a state space is missing");
  const Type type = lower.take_type();
  if (bytes_of(type) != 8) lower.fail("generic addresses have 64 bits");
  uint64_t window = 0;
  if (space.starts_with("shared")) window = kSharedWindow;
  if (space == "local") window = kLocalWindow;
  if (space.starts_with("param")) window = kParameterWindow;
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  Inst& inst = lower.emit(add_window);
  inst.dst = dst;
  inst.a = a;
  inst.imm = static_cast<std::int64_t>(to ? 0 - window : window);
}

// What a cvt does: kept in the program, for the instruction names it by number.
std::optional<NumberType> number_type(Type type) {
  switch (type) {
    case Type::kU8:
    case Type::kB8:
      return NumberType::kU8;
    case Type::kS8:
      return NumberType::kS8;
    case Type::kU16:
    case Type::kB16:
      return NumberType::kU16;
    case Type::kS16:
      return NumberType::kS16;
    case Type::kU32:
    case Type::kB32:
      return NumberType::kU32;
    case Type::kS32:
      return NumberType::kS32;
    case Type::kU64:
    case Type::kB64:
      return NumberType::kU64;
    case Type::kS64:
      return NumberType::kS64;
    case Type::kF16:
    case Type::kF16x2:
      return NumberType::kF16;
    case Type::kBF16:
    case Type::kBF16x2:
      return NumberType::kBF16;
    case Type::kTF32:
      return NumberType::kTF32;
    case Type::kE4M3x2:
      return NumberType::kE4M3;
    case Type::kE5M2x2:
      return NumberType::kE5M2;
    case Type::kF32:
      return NumberType::kF32;
    case Type::kF64:
      return NumberType::kF64;
    default:
      return std::nullopt;
  }
}

bool is_pair(Type type) {
  return type == Type::kF16x2 || type == Type::kBF16x2 || type == Type::kE4M3x2 ||
         type == Type::kE5M2x2;
}

uint64_t load(Warp& warp, uint32_t row, int width, int lane) {
  return width == 8 ? warp.row<uint64_t>(row)[lane] : warp.row<uint32_t>(row)[lane];
}

void store(Warp& warp, uint32_t row, int width, int lane, uint64_t value) {
  if (width == 8) {
    warp.row<uint64_t>(row)[lane] = value;
  } else {
    warp.row<uint32_t>(row)[lane] = static_cast<uint32_t>(value);
  }
}

Step convert(Warp& warp, const Inst& inst, Mask lanes) {
  const ConversionStep& step = warp.program().conversions[inst.imm];
  for_lanes(lanes, [&](int i) {
    uint64_t value = step.convert(load(warp, inst.a, step.source_width, i), step.how);
    if (step.extend_from != 0 && step.result_width * 8 > step.extend_from) {
      const int shift = 64 - step.extend_from;
      value = static_cast<uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
    }
    store(warp, inst.dst, step.result_width, i, value);
  });
  return Step::kNext;
}

// Two values become a pair; the first source is its high half.
Step convert_to_pair(Warp& warp, const Inst& inst, Mask lanes) {
  const ConversionStep& step = warp.program().conversions[inst.imm];
  const auto* high = warp.row<uint32_t>(inst.a);
  const auto* low = warp.row<uint32_t>(inst.b);
  auto* dst = warp.row<uint32_t>(inst.dst);
  for_lanes(lanes, [&](int i) {
    dst[i] = static_cast<uint32_t>(pack_pair(step.convert(high[i], step.how),
                                             step.convert(low[i], step.how), step.result_bits));
  });
  return Step::kNext;
}

Step convert_pair(Warp& warp, const Inst& inst, Mask lanes) {
  const ConversionStep& step = warp.program().conversions[inst.imm];
  const auto* a = warp.row<uint32_t>(inst.a);
  auto* dst = warp.row<uint32_t>(inst.dst);
  for_lanes(lanes, [&](int i) {
    const auto [high, low] = unpack_pair(a[i], step.source_bits);
    dst[i] = static_cast<uint32_t>(
        pack_pair(step.convert(high, step.how), step.convert(low, step.how), step.result_bits));
  });
  return Step::kNext;
}

Conversion take_conversion(Lowering& lower) {
  Conversion how;
  how.rounding = Rounding::kTowardZero;  // of integers that become integers, without effect
  static constexpr std::pair<std::string_view, Rounding> kRoundings[] = {
      {"rn", Rounding::kNearestEven}, {"rz", Rounding::kTowardZero},   {"rm", Rounding::kDown},
      {"rp", Rounding::kUp},          {"rna", Rounding::kNearestAway},
  };
  static constexpr std::pair<std::string_view, Rounding> kIntegral[] = {
      {"rni", Rounding::kNearestEven},
      {"rzi", Rounding::kTowardZero},
      {"rmi", Rounding::kDown},
      {"rpi", Rounding::kUp},
  };
  for (const auto& [name, rounding] : kRoundings) {
    if (lower.take(name)) how.rounding = rounding;
  }
  for (const auto& [name, rounding] : kIntegral) {
    if (lower.take(name)) how.rounding = rounding, how.integral = true;
  }
  how.ftz = lower.take("ftz");
  how.sat = lower.take("sat");
  how.satfinite = lower.take("satfinite");
  how.relu = lower.take("relu");
  return how;
}

void lower_convert(Lowering& lower) {
  if (lower.take("pack")) return lower_pack(lower);
  const Conversion how = take_conversion(lower);
  const Type to = lower.take_type();
  const Type from = lower.take_type();
  const auto to_number = number_type(to);
  const auto from_number = number_type(from);
  if (!to_number || !from_number) lower.fail("there is no such conversion");
  ConversionStep step{.convert = find_converter(*to_number, *from_number), .how = how};
  step.result_bits = 8 * bytes_of(to) / (is_pair(to) ? 2 : 1);
  step.source_bits = 8 * bytes_of(from) / (is_pair(from) ? 2 : 1);
  Handler handler = convert;
  uint32_t dst = kNoRow, a = kNoRow, b = kNoRow;
  if (is_pair(to) && !is_pair(from)) {
    if (bytes_of(from) != 4) lower.fail("there is no such conversion");
    handler = convert_to_pair;
    dst = lower.destination_row(0, to);
    a = lower.source_row(1, from);
    b = lower.source_row(2, from);
  } else if (is_pair(from)) {
    if (!is_pair(to)) lower.fail("there is no such conversion");
    handler = convert_pair;
    dst = lower.destination_row(0, to);
    a = lower.source_row(1, from);
  } else {
    // Registers may be wider than the types: a narrow signed result is extended to its register.
    const Lowering::Row result = lower.destination(lower.operand(0), to);
    const Lowering::Row source = lower.source(lower.operand(1), from);
    step.result_width = result.width;
    step.source_width = source.width;
    step.extend_from = is_signed(to) ? 8 * bytes_of(to) : 0;
    dst = result.offset;
    a = source.offset;
  }
  const std::int64_t number = lower.conversion(step);
  Inst& inst = lower.emit(handler);
  inst.dst = dst;
  inst.a = a;
  inst.b = b;
  inst.imm = number;
}

}  // namespace

void add_moves(Lowerers& lowerers) {
  lowerers["mov"] = lower_move;
  lowerers["cvta"] = lower_cvta;
  lowerers["cvt"] = lower_convert;
}

}  // namespace openweek::simulator
