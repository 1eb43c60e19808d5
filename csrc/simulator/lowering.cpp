#include "lowering.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "bulk_step.h"
#include "errors.h"
#include "memory.h"
#include "special_registers.h"
#include "warp.h"
#include "warpgroup.h"

namespace openweek::simulator {
namespace {

const Lowerers& lowerers() {
  static const Lowerers all = [] {
    Lowerers made;
    add_arithmetic(made);
    add_logic(made);
    add_bits(made);
    add_moves(made);
    add_compare(made);
    add_integer_arithmetic(made);
    add_dot_products(made);
    add_differences(made);
    add_extremes(made);
    add_signs(made);
    add_masks(made);
    add_address_kinds(made);
    add_approximations(made);
    add_calls(made);
    add_stack(made);
    add_control(made);
    add_memory(made);
    add_lanes(made);
    add_barriers(made);
    add_mbarriers(made);
    add_wgmma(made);
    add_matrices(made);
    add_copies(made);
    add_hints(made);
    add_multimem(made);
    add_tensor_maps(made);
    return made;
  }();
  return all;
}

// The most that a kernel can have, by the CUDA programming guide.
constexpr std::int64_t kMaxParameterBytes = 32764;
constexpr std::int64_t kMaxLocalBytes = 512 * 1024;  // of a thread

// What no kernel that a compiler makes comes near, so that a text cannot take all memory.
constexpr std::int64_t kMaxModuleBytes = std::int64_t{1} << 32;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 24;  // registers and constants of a warp

// The history of accesses remembers them by their instruction.
constexpr std::int64_t kMaxInstructions = std::int64_t{1} << Epoch::kPlaceBits;

std::string full_name(const ptx::Statement& statement) {
  std::string name = statement.opcode;
  for (const std::string& modifier : statement.modifiers) name += "." + modifier;
  return name;
}

}  // namespace

std::int64_t align_up(std::int64_t value, std::int64_t align) {
  return align <= 1 ? value : (value + align - 1) / align * align;
}

Type type_of(const std::string& name) {
  const auto type = type_named(name);
  if (!type) throw UnsupportedError("type ." + name + " is not there");
  return *type;
}

std::int64_t bytes_of(const ptx::Variable& variable) {
  return variable.num_elements * bytes_of(type_of(variable.type));
}

int align_of(const ptx::Variable& variable) {
  return std::max(variable.align, bytes_of(type_of(variable.type)));
}

namespace {

bool names(const ptx::Operand& operand, const std::string& symbol) {
  return operand.symbol == symbol ||
         std::any_of(operand.parts.begin(), operand.parts.end(),
                     [&](const ptx::Operand& part) { return names(part, symbol); });
}

bool uses(const ptx::Function& function, const std::string& symbol) {
  return std::any_of(
      function.statements.begin(), function.statements.end(), [&](const ptx::Statement& statement) {
        return std::any_of(statement.operands.begin(), statement.operands.end(),
                           [&](const ptx::Operand& operand) { return names(operand, symbol); });
      });
}

}  // namespace

Program::Program() = default;
Program::~Program() = default;
Program::Program(Program&&) noexcept = default;
Program& Program::operator=(Program&&) noexcept = default;

std::vector<std::string> opcodes() {
  std::vector<std::string> names;
  for (const auto& [name, lowerer] : lowerers()) names.emplace_back(name);
  return names;
}

ModuleMemory::ModuleMemory(const ptx::Module& module) {
  for (const ptx::Function& function : module.functions) {
    functions_.try_emplace(function.name, kFunctionWindow + functions_.size());
  }
  std::int64_t total = 0;
  int most_aligned = 16;
  const auto each_variable = [&module](auto&& each) {
    for (const ptx::Variable& variable : module.variables) {
      if (variable.space != ptx::Space::kShared) each(variable);
    }
  };
  // At least a byte each, so that addresses differ.
  const auto place_behind = [](std::int64_t at, const ptx::Variable& variable) {
    return align_up(at, std::max(16, align_of(variable)));
  };
  each_variable([&](const ptx::Variable& variable) {
    total = place_behind(total, variable) + std::max<std::int64_t>(1, bytes_of(variable));
    most_aligned = std::max(most_aligned, align_of(variable));
    if (total > kMaxModuleBytes) {
      throw UnsupportedError("the module has more than " + std::to_string(kMaxModuleBytes) +
                             " bytes of .global and .const variables, with " + variable.name);
    }
  });
  all_.reset(static_cast<std::uint8_t*>(
      std::calloc(1, static_cast<std::size_t>(align_up(total, 16) + most_aligned))));
  if (all_ == nullptr) {
    throw UnsupportedError("the module has " + std::to_string(total) +
                           " bytes of .global and .const variables, for which there is no memory");
  }
  auto* const first = reinterpret_cast<std::uint8_t*>(
      align_up(reinterpret_cast<std::int64_t>(all_.get()), most_aligned));
  std::int64_t at = 0;
  each_variable([&](const ptx::Variable& variable) {
    at = place_behind(at, variable);
    const Block block{variable.name, variable.space, first + at, bytes_of(variable)};
    std::copy(variable.initial.begin(), variable.initial.end(), block.bytes);
    at += std::max<std::int64_t>(1, block.num_bytes);
    by_name_.emplace(block.name, blocks_.size());
    blocks_.push_back(block);
  });
  each_variable([&](const ptx::Variable& variable) {
    for (const auto& [offset, symbol] : variable.relocations) {
      const std::uint64_t value = address(symbol.first) + static_cast<std::uint64_t>(symbol.second);
      std::memcpy(blocks_[by_name_.at(variable.name)].bytes + offset, &value, 8);
    }
  });
}

std::uint64_t ModuleMemory::address(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return reinterpret_cast<std::uint64_t>(blocks_[found->second].bytes);
  const auto function = functions_.find(name);
  return function == functions_.end() ? 0 : function->second;
}

Lowering::Lowering(const ptx::Module& module, const ModuleMemory& memory)
    : module_(module), memory_(memory) {}

Program Lowering::kernel(const std::string& name) {
  for (const ptx::Function& function : module_.functions) {
    if (!function.is_entry || function.is_declaration || function.name != name) continue;
    program_ = Program();
    program_.name = name;
    const auto limit = [&function](const char* directive) {
      const auto found = function.limits.find(directive);
      return found == function.limits.end() ? std::vector<int>{} : found->second;
    };
    program_.max_threads = limit("maxntid");
    program_.required_threads = limit("reqntid");
    program_.required_cluster = limit("reqnctapercluster");
    for (const ModuleMemory::Block& block : memory_.blocks()) {
      if (block.space != ptx::Space::kConst) continue;
      const std::uint64_t begin = memory_.address(block.name);
      program_.constants.emplace_back(begin, begin + block.num_bytes);
    }
    for (const ptx::Variable& variable : module_.variables) {
      if (variable.space == ptx::Space::kShared && is_used(variable, function)) {
        lay_out_shared(variable);
      }
    }
    module_variables_ = variables_;
    lower(function);
    lower_callees();
    number_matrix_registers();
    program_.shared_bytes = align_up(program_.shared_bytes, program_.shared_align);
    check_size("bytes of shared variables", program_.shared_bytes, kMaxSharedBytes);
    lay_out_stack();
    return std::move(program_);
  }
  throw UnsupportedError("the module has no kernel " + name);
}

void Lowering::lower(const ptx::Function& function) {
  function_ = &function;
  variables_ = module_variables_;
  for (const ptx::Variable& variable : function.variables) {
    if (variable.space == ptx::Space::kShared) {
      lay_out_shared(variable);
    } else {
      lay_out_local(variable);  // the parameters of calls too
    }
  }
  registers_.clear();
  for (const ptx::Register& reg : function.registers) {
    const Type type = type_of(reg.type);
    registers_.push_back(allocate(type == Type::kPred ? 4 : kLanes * cell_bytes(type)));
  }
  enter(function);
  starts_.clear();
  branches_.clear();
  tables_.clear();
  for (const ptx::Statement& statement : function.statements) {
    starts_.push_back(static_cast<std::int32_t>(program_.code.size()));
    lower_statement(statement);
  }
  // Behind the last statement, where labels may point, the function ends.
  starts_.push_back(static_cast<std::int32_t>(program_.code.size()));
  emit_return();
  check_size("instructions", static_cast<std::int64_t>(program_.code.size()), kMaxInstructions);
  for (const auto& [inst, statement] : branches_) program_.code[inst].target = starts_[statement];
  for (const auto& [list, statements] : tables_) {
    for (const int statement : statements) program_.lists[list].push_back(starts_[statement]);
  }
}

void Lowering::check_size(const char* what, std::int64_t found, std::int64_t most) const {
  if (found <= most) return;
  throw UnsupportedError("kernel " + program_.name + " has " + std::to_string(found) + " " + what +
                         ", more than " + std::to_string(most));
}

// Numbers the registers that wgmmas use, and marks the instructions that touch them too.
void Lowering::number_matrix_registers() {
  std::map<std::uint32_t, std::uint32_t> numbers;
  const auto number = [&](const std::vector<std::uint32_t>& rows) {
    std::vector<std::uint32_t> all;
    for (const std::uint32_t row : rows) {
      all.push_back(numbers.try_emplace(row, numbers.size()).first->second);
    }
    return all;
  };
  for (WgmmaStep& step : program_.wgmma_steps) {
    if (!step.is_asynchronous) continue;
    step.d_numbers = number(step.d);
    step.a_numbers = number(step.a);
  }
  program_.num_matrix_registers = static_cast<std::uint32_t>(numbers.size());
  for (const auto& [inst, rows] : touches_) {
    std::vector<Watched> watched;
    for (const auto& [row, writes] : rows) {
      const auto found = numbers.find(row);
      if (found != numbers.end()) watched.push_back({found->second, writes});
    }
    if (watched.empty()) continue;
    program_.code[inst].watch = static_cast<std::int32_t>(program_.watches.size());
    program_.watches.push_back(std::move(watched));
  }
}

std::string Program::place(std::int32_t pc) const {
  const SourceLine& source = sources[code[pc].source];
  std::string text = "line " + std::to_string(source.ptx_line) + " of the PTX";
  if (!source.place.empty()) text += ", " + source.place;
  return source.text + " at " + text;
}

// Where code of a location comes from, and the places through which its function was inlined,
// innermost first: "tma.cuh:65, called at gemm.cuh:120". Where the caller was inlined too, the .loc
// of the call tells; compilers write it before or behind the code, and not for each copy of it, so
// the nearest one counts.
std::string Lowering::place(int location) const {
  const auto& all = module_.locations;
  const int last = static_cast<int>(all.size());
  const auto is_call = [&](int at, const ptx::Location& inner) {
    return at >= 0 && at < last && all[at].file == inner.caller_file &&
           all[at].line == inner.caller_line;
  };
  std::string text;
  const auto add = [&](int file, int line) {
    const auto name = module_.files.find(file);
    // Line 0 is code of which no line is the reason.
    if (name == module_.files.end() || line == 0) return false;
    text += (text.empty() ? "" : ", called at ") + name->second + ":" + std::to_string(line);
    return true;
  };
  if (location < 0 || !add(all[location].file, all[location].line)) return text;
  std::set<std::pair<int, int>> seen;  // the nearest may lead back
  while (all[location].caller_file != 0) {
    const ptx::Location& inner = all[location];
    if (!seen.insert({inner.caller_file, inner.caller_line}).second) break;
    if (!add(inner.caller_file, inner.caller_line)) break;
    int away = 1;
    while (away < last && !is_call(location - away, inner) && !is_call(location + away, inner)) {
      ++away;
    }
    if (away == last) break;
    location += is_call(location - away, inner) ? -away : away;
  }
  return text;
}

void Lowering::lower_statement(const ptx::Statement& statement) {
  statement_ = &statement;
  left_ = statement.modifiers;
  program_.sources.push_back({statement.line, place(statement.location), full_name(statement)});
  const auto found = lowerers().find(statement.opcode);
  if (found == lowerers().end()) fail("the simulator does not know this instruction");
  const std::size_t first = program_.code.size();
  touched_.clear();
  found->second(*this);
  // Conversions of operands come first, and the instruction itself last.
  if (program_.code.size() > first && statement.opcode != "wgmma") {
    touches_[program_.code.size() - 1] = touched_;
  }
  if (!left_.empty()) fail("the simulator does not know ." + left_.front() + " here");
  if (statement.guard >= 0) {
    for (std::size_t i = first; i < program_.code.size(); ++i) {
      program_.code[i].guard = registers_[statement.guard];
      program_.code[i].guard_negated = statement.guard_negated;
    }
  }
}

void Lowering::lay_out_parameters(const ptx::Function& function) {
  for (const ptx::Variable& variable : function.parameters) {
    const int align = align_of(variable);
    program_.parameter_bytes = align_up(program_.parameter_bytes, align);
    variables_[variable.name] = {ptx::Space::kParam, program_.parameter_bytes, &variable};
    program_.parameters.push_back(
        {variable.name, program_.parameter_bytes, bytes_of(variable), align});
    program_.parameter_bytes += bytes_of(variable);
  }
  check_size("bytes of parameters", program_.parameter_bytes, kMaxParameterBytes);
}

// A kernel has those of the module's variables that it uses, or a function that it calls.
bool Lowering::is_used(const ptx::Variable& variable, const ptx::Function& kernel) const {
  return std::any_of(module_.functions.begin(), module_.functions.end(),
                     [&](const ptx::Function& other) {
                       return (&other == &kernel || !other.is_entry) && uses(other, variable.name);
                     });
}

void Lowering::lay_out_shared(const ptx::Variable& variable) {
  program_.shared_align = std::max(program_.shared_align, align_of(variable));
  if (variable.is_extern) {
    variables_[variable.name] = {ptx::Space::kShared, -1, &variable};
    return;
  }
  const std::int64_t offset = align_up(program_.shared_bytes, align_of(variable));
  variables_[variable.name] = {ptx::Space::kShared, offset, &variable};
  program_.shared_bytes = offset + bytes_of(variable);
  check_size("bytes of shared variables", program_.shared_bytes, kMaxSharedBytes);
}

void Lowering::lay_out_local(const ptx::Variable& variable) {
  const std::int64_t offset = reserve_local(bytes_of(variable), align_of(variable));
  variables_[variable.name] = {ptx::Space::kLocal, offset, &variable};
}

std::int64_t Lowering::reserve_local(std::int64_t num_bytes, int align) {
  const std::int64_t offset = align_up(program_.local_bytes, align);
  program_.local_bytes = align_up(offset + num_bytes, 8);
  check_size("bytes of local variables", program_.local_bytes, kMaxLocalBytes);
  return offset;
}

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

void Lowering::fail(const std::string& what) const {
  throw UnsupportedError("line " + std::to_string(statement_->line) + ": " +
                         full_name(*statement_) + ": " + what);
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
