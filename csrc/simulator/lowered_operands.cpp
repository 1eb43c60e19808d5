// What the lowerer of an opcode asks for: modifiers, the rows of operands, places for its steps.
#include <algorithm>
#include <cstring>

#include "bulk_step.h"
#include "lowering.h"
#include "special_registers.h"
#include "warp.h"
#include "warpgroup.h"

namespace openweek::simulator {
namespace {

// What no kernel that a compiler makes comes near, so that a text cannot take all memory.
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 24;  // registers and constants of a warp

}  // namespace

const ptx::Operand& Lowering::operand(int i) const {
  if (i >= num_operands()) fail("operand " + std::to_string(i + 1) + " is missing");
  return statement_->operands[i];
}

bool Lowering::take(std::string_view modifier) {
  const auto found = std::find(left_.begin(), left_.end(), modifier);
  if (found == left_.end()) return false;
  left_.erase(found);
  return true;
}

std::string_view Lowering::take_one_of(std::initializer_list<std::string_view> modifiers) {
  for (const std::string_view modifier : modifiers) {
    if (take(modifier)) return modifier;
  }
  return "";
}

bool Lowering::has_type() const {
  return std::any_of(left_.begin(), left_.end(),
                     [](const std::string& name) { return type_named(name).has_value(); });
}

Type Lowering::take_type() {
  for (auto modifier = left_.begin(); modifier != left_.end(); ++modifier) {
    if (const auto type = type_named(*modifier)) {
      left_.erase(modifier);
      return *type;
    }
  }
  fail("a type is missing");
}

Lowering::Row Lowering::source(const ptx::Operand& operand, Type type) {
  using Kind = ptx::Operand::Kind;
  const int width = cell_bytes(type);
  switch (operand.kind) {
    case Kind::kRegister: {
      const Type declared = type_of(function_->registers[operand.reg].type);
      if (declared == Type::kPred) fail("a predicate stands where a value is expected");
      if (declared == Type::kB128 && width != 16) fail("an operand is wider than the type");
      touched_.emplace_back(registers_[operand.reg], false);
      return {registers_[operand.reg], cell_bytes(declared)};
    }
    case Kind::kInteger:
      return {constant(static_cast<std::uint64_t>(operand.bits), width), width};
    case Kind::kFloat32:
      return {constant(static_cast<std::uint64_t>(operand.bits) & 0xffffffffu, width), width};
    case Kind::kFloat64: {
      if (width == 8) return {constant(static_cast<std::uint64_t>(operand.bits), 8), 8};
      // A literal of double precision in single precision: 1.5 written out.
      double wide;
      std::memcpy(&wide, &operand.bits, 8);
      const float narrow = static_cast<float>(wide);
      std::uint32_t bits;
      std::memcpy(&bits, &narrow, 4);
      return {constant(bits, width), width};
    }
    case Kind::kSpecial: {
      if (width > 8) fail("a special register is narrower than the type");
      const Handler reader = clock_reader(operand.symbol, width);
      if (reader == nullptr) {
        return {late(LateRow::Kind::kSpecial, width, operand.symbol, statement_->line), width};
      }
      const std::uint32_t row = scratch(width);
      emit(reader).dst = row;
      return {row, width};
    }
    case Kind::kSymbol:
      if (width > 8) fail("an address is narrower than the type");
      return {address_row(operand.symbol, width), width};
    default:
      fail("an operand is not of a kind that this instruction takes");
  }
}

Lowering::Row Lowering::destination(const ptx::Operand& operand, Type type) {
  if (operand.kind == ptx::Operand::Kind::kSink)
    return {scratch(cell_bytes(type)), cell_bytes(type)};
  if (operand.kind != ptx::Operand::Kind::kRegister) fail("the destination must be a register");
  const Type declared = type_of(function_->registers[operand.reg].type);
  if (declared == Type::kPred) fail("the destination must not be a predicate");
  if (declared == Type::kB128 && type != Type::kB128) {
    fail("the destination is wider than the type");
  }
  touched_.emplace_back(registers_[operand.reg], true);
  return {registers_[operand.reg], cell_bytes(declared)};
}

std::uint32_t Lowering::source_row(int i, Type type) { return narrowed(operand(i), type); }

std::uint32_t Lowering::narrowed(const ptx::Operand& operand, Type type) {
  const Row row = source(operand, type);
  const int width = cell_bytes(type);
  if (row.width == width) return row.offset;
  if (row.width < width) fail("an operand is narrower than the type");
  const std::uint32_t narrow = scratch(width);
  Inst& inst = emit([](Warp& warp, const Inst& inst, Mask) {
    const auto* wide = warp.row<std::uint64_t>(inst.a);
    auto* low = warp.row<std::uint32_t>(inst.dst);
    for (int lane = 0; lane < kLanes; ++lane) low[lane] = static_cast<std::uint32_t>(wide[lane]);
    return Step::kNext;
  });
  inst.dst = narrow;
  inst.a = row.offset;
  return narrow;
}

std::uint32_t Lowering::destination_row(const ptx::Operand& operand, Type type) {
  const Row row = destination(operand, type);
  if (row.width != cell_bytes(type)) fail("the destination has another width than the type");
  return row.offset;
}

std::uint32_t Lowering::predicate(const ptx::Operand& operand, bool* negated) {
  *negated = operand.negated;
  if (operand.kind == ptx::Operand::Kind::kInteger) {
    const std::uint64_t key = operand.bits ? kAllLanes : 0;
    return constant(key, 4);  // the first cell of the row is the mask
  }
  if (operand.kind == ptx::Operand::Kind::kSpecial) {
    return late(LateRow::Kind::kSpecial, 4, operand.symbol, statement_->line);
  }
  if (operand.kind != ptx::Operand::Kind::kRegister ||
      type_of(function_->registers[operand.reg].type) != Type::kPred) {
    fail("a predicate is expected");
  }
  return registers_[operand.reg];
}

std::uint32_t Lowering::predicate_destination(const ptx::Operand& operand) {
  if (operand.kind == ptx::Operand::Kind::kSink) return scratch(4);
  bool negated = false;
  if (operand.kind != ptx::Operand::Kind::kRegister) fail("a predicate is expected");
  return predicate(operand, &negated);
}

std::uint32_t Lowering::constant(std::uint64_t bits, int width) {
  if (width == 4) bits &= 0xffffffffu;
  const auto [place, is_new] = constants_.try_emplace({bits, width}, 0);
  if (is_new) {
    place->second = allocate(kLanes * width);
    for (int lane = 0; lane < kLanes; ++lane) {
      std::memcpy(program_.file.data() + place->second + lane * width, &bits, std::min(width, 8));
    }
  }
  return place->second;
}

std::uint32_t Lowering::scratch(int width) { return allocate(kLanes * width); }

std::uint32_t Lowering::list(std::vector<std::uint32_t> rows) {
  program_.lists.push_back(std::move(rows));
  return static_cast<std::uint32_t>(program_.lists.size() - 1);
}

std::int64_t Lowering::conversion(const ConversionStep& step) {
  program_.conversions.push_back(step);
  return static_cast<std::int64_t>(program_.conversions.size() - 1);
}

std::int64_t Lowering::memory_step(MemoryStep step) {
  program_.memory_steps.push_back(std::move(step));
  return static_cast<std::int64_t>(program_.memory_steps.size() - 1);
}

std::int64_t Lowering::wgmma_step(WgmmaStep step) {
  program_.wgmma_steps.push_back(std::move(step));
  return static_cast<std::int64_t>(program_.wgmma_steps.size() - 1);
}

std::int64_t Lowering::bulk_step(BulkStep step) {
  program_.bulk_steps.push_back(std::move(step));
  return static_cast<std::int64_t>(program_.bulk_steps.size() - 1);
}

bool Lowering::is_local(const std::string& variable) const {
  const auto found = variables_.find(variable);
  return found != variables_.end() && found->second.space == ptx::Space::kLocal;
}

Inst& Lowering::emit(Handler handler) {
  program_.code.emplace_back();
  program_.code.back().run = handler;
  program_.code.back().source = static_cast<std::int32_t>(program_.sources.size() - 1);
  return program_.code.back();
}

void Lowering::target(Inst& inst, const ptx::Operand& label) {
  if (label.kind != ptx::Operand::Kind::kLabel) fail("a label is expected");
  branches_.emplace_back(&inst - program_.code.data(), static_cast<int>(label.bits));
}

std::uint32_t Lowering::target_list(const ptx::Operand& table) {
  if (table.kind != ptx::Operand::Kind::kTable) fail("a table of branch targets is expected");
  const std::uint32_t number = list({});
  tables_.emplace_back(number, function_->branch_tables[table.bits]);
  return number;
}

std::uint32_t Lowering::address_row(const std::string& symbol, int width) {
  const auto found = variables_.find(symbol);
  if (found == variables_.end()) {
    const std::uint64_t address = memory_.address(symbol);
    if (address == 0) fail("there is no variable " + symbol);
    return constant(address, width);
  }
  const auto& [space, offset, variable] = found->second;
  if (space == ptx::Space::kLocal || space == ptx::Space::kParam) {
    return constant(static_cast<std::uint64_t>(offset), width);
  }
  if (offset < 0) return late(LateRow::Kind::kDynamicShared, width, symbol, 0);
  return late(LateRow::Kind::kShared, width, symbol, offset);
}

std::uint32_t Lowering::late(LateRow::Kind kind, int width, const std::string& name,
                             std::int64_t value) {
  // Functions may have variables of one name; a special register is the same on all lines.
  const std::string which = kind == LateRow::Kind::kSpecial ? "" : std::to_string(value);
  const std::string key = name + "/" + std::to_string(width) + "/" + which;
  const auto [place, is_new] = late_.try_emplace(key, 0);
  if (is_new) {
    place->second = allocate(kLanes * width);
    program_.late_rows.push_back({kind, place->second, width, name, value});
  }
  return place->second;
}

std::uint32_t Lowering::allocate(int num_bytes) {
  const auto offset = static_cast<std::uint32_t>(program_.file.size());
  program_.file.resize(program_.file.size() + align_up(num_bytes, 8));
  check_size("bytes of registers and constants in a warp",
             static_cast<std::int64_t>(program_.file.size()), kMaxFileBytes);
  return offset;
}

}  // namespace openweek::simulator
