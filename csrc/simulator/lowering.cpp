#include "lowering.h"

#include <algorithm>
#include <utility>

#include "bulk_step.h"
#include "errors.h"
#include "memory.h"
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

// The history of accesses remembers them by their instruction.
constexpr std::int64_t kMaxInstructions = std::int64_t{1} << Epoch::kPlaceBits;

std::string full_name(const ptx::Statement& statement) {
  std::string name = statement.opcode;
  for (const std::string& modifier : statement.modifiers) name += "." + modifier;
  return name;
}

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

void Lowering::fail(const std::string& what) const {
  throw UnsupportedError("line " + std::to_string(statement_->line) + ": " +
                         full_name(*statement_) + ": " + what);
}

}  // namespace openweek::simulator
