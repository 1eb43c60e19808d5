// Calls of functions, by name or by address, and the way back.
//
// Arguments and results are handed over in one part of each thread's local memory, which caller
// and callee leave alone in between. A function's registers and variables are there once for each
// thread, so no function may be active twice in a thread.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "access.h"
#include "errors.h"
#include "host_functions.h"
#include "lanes.h"
#include "lowering.h"
#include "memory.h"

namespace openweek::simulator {
namespace {

// What no kernel that a compiler makes comes near.
constexpr std::size_t kMaxCallDepth = 256;

std::uint8_t* bytes_at(Warp& warp, const Transfer::Place& place, int lane) {
  if (place.row == kNoRow) return warp.local(lane) + place.offset;
  return warp.row<std::uint8_t>(place.row) + place.width * lane;
}

Step transfer(Warp& warp, const Inst& inst, Mask lanes) {
  for (const Transfer& transfer : warp.program().transfers[inst.imm]) {
    for_lanes(lanes, [&](int lane) {
      std::uint8_t* to = bytes_at(warp, transfer.to, lane);
      if (transfer.to.row != kNoRow) std::memset(to, 0, transfer.to.width);
      std::memcpy(to, bytes_at(warp, transfer.from, lane), transfer.num_bytes);
    });
  }
  return Step::kNext;
}

Step call_by_name(Warp& warp, const Inst& inst, Mask lanes) {
  warp.call(lanes, inst.target);
  return Step::kJump;
}

// The callee at an address, if it is one of those that the call may mean.
const Callee* callee_at(const Program& program, const Inst& inst, std::uint64_t address) {
  if (inst.list == kNoRow) return nullptr;
  for (const std::uint32_t number : program.lists[inst.list]) {
    if (program.callees[number].address == address) return &program.callees[number];
  }
  return nullptr;
}

void check_inactive(Warp& warp, const Callee& callee) {
  const auto inside = [&](std::int32_t pc) { return callee.begin <= pc && pc < callee.end; };
  const Group& group = warp.group();
  if (inside(group.pc) || std::any_of(group.returns.begin(), group.returns.end(), inside)) {
    throw UnsupportedError("recursive call: the function " + callee.name +
                           " is active already at " + warp.place(group.pc));
  }
}

// Lanes that call the same function go together.
Step call_by_address(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* address = warp.row<std::uint64_t>(inst.a);
  const std::int32_t here = warp.group().pc;
  while (lanes != 0) {
    const int first = std::countr_zero(lanes);
    const Callee* callee = callee_at(warp.program(), inst, address[first]);
    if (callee == nullptr) {
      throw HazardError("wrong call: " + who(warp, first) + " calls address " +
                        std::to_string(address[first]) +
                        ", where no function with these parameters is");
    }
    check_inactive(warp, *callee);
    Mask same = 0;
    for_lanes(lanes, [&](int i) { same |= static_cast<Mask>(address[i] == address[first]) << i; });
    const bool all = same == warp.group().mask;
    warp.call(same, callee->begin);
    if (all) break;
    lanes &= ~same;
    if (lanes != 0) warp.group().pc = here;
  }
  return Step::kJump;
}

Step give_back(Warp& warp, const Inst&, Mask lanes) {
  warp.give_back(lanes);
  return Step::kJump;
}

Step end(Warp& warp, const Inst&, Mask lanes) {
  warp.exit(lanes);
  return Step::kJump;
}

using Operands = std::vector<ptx::Operand>;

// (results), function, (arguments), prototype; of these all but the function may be missing.
struct Parts {
  explicit Parts(const Lowering& lower) {
    int next = 0;
    const auto list = [&](Operands& into) {
      if (next >= lower.num_operands()) return;
      const ptx::Operand& operand = lower.operand(next);
      if (operand.kind != ptx::Operand::Kind::kList) return;
      into = operand.parts;
      ++next;
    };
    list(results);
    target = lower.operand(next++);
    list(arguments);
  }
  Operands results;
  ptx::Operand target;
  Operands arguments;
};

std::vector<Transfer> hand_over(Lowering& lower, const Operands& actuals,
                                const Lowering::Formals& formals, bool is_result) {
  if (actuals.size() != formals.places.size()) {
    lower.fail("the function has " + std::to_string(formals.places.size()) +
               (is_result ? " results" : " parameters") + ", the call " +
               std::to_string(actuals.size()));
  }
  std::vector<Transfer> transfers;
  for (std::size_t i = 0; i < actuals.size(); ++i) {
    const Transfer::Place place = lower.actual(actuals[i], formals.sizes[i], is_result);
    transfers.push_back(is_result ? Transfer{formals.places[i], place, formals.sizes[i]}
                                  : Transfer{place, formals.places[i], formals.sizes[i]});
  }
  return transfers;
}

Lowering::Formals shapes_of(Lowering& lower, const Operands& actuals) {
  std::vector<ptx::Variable> variables;
  for (const ptx::Operand& actual : actuals) variables.push_back(lower.shape_of(actual));
  return lower.formals(variables);
}

void lower_call_by_address(Lowering& lower, const Parts& parts) {
  const Lowering::Formals arguments = shapes_of(lower, parts.arguments);
  const Lowering::Formals results = shapes_of(lower, parts.results);
  const auto there = hand_over(lower, parts.arguments, arguments, false);
  const auto back = hand_over(lower, parts.results, results, true);
  const std::uint32_t address = lower.narrowed(parts.target, Type::kB64);
  const auto callees = lower.callee_list(arguments, results);
  // There is room for what functions take, and where none takes these, for nothing.
  if (callees) lower.emit_transfers(there);
  Inst& inst = lower.emit(call_by_address);
  inst.a = address;
  inst.list = callees.value_or(kNoRow);
  if (callees) lower.emit_transfers(back);
}

void lower_call(Lowering& lower) {
  lower.take("uni");
  const Parts parts(lower);
  if (parts.target.kind == ptx::Operand::Kind::kRegister) {
    return lower_call_by_address(lower, parts);
  }
  const ptx::Function* function = lower.function_named(parts.target.symbol);
  if (function == nullptr || function->is_entry) lower.fail("a function is expected");
  const Lowering::Formals arguments = lower.formals(function->parameters);
  lower.emit_transfers(hand_over(lower, parts.arguments, arguments, false));
  const auto back = hand_over(lower, parts.results, lower.formals(function->results), true);
  if (function->is_declaration) {
    emit_host_call(lower, function->name, arguments);
  } else {
    lower.call(lower.emit(call_by_name), *function);
  }
  lower.emit_transfers(back);
}

}  // namespace

Lowering::Formals Lowering::formals(const std::vector<ptx::Variable>& variables) {
  Formals formals;
  std::int64_t offset = exchange();
  for (const ptx::Variable& variable : variables) {
    offset = align_up(offset, align_of(variable));
    formals.places.push_back({.offset = offset});
    formals.sizes.push_back(bytes_of(variable));
    offset += bytes_of(variable);
  }
  return formals;
}

// Reserved at the first call, as large as any function of the module wants it.
std::int64_t Lowering::exchange() {
  if (exchange_ >= 0) return exchange_;
  std::int64_t most = 0;
  int align = 16;
  for (const ptx::Function& function : module_.functions) {
    for (const auto* variables : {&function.parameters, &function.results}) {
      std::int64_t sum = 0;
      for (const ptx::Variable& variable : *variables) {
        sum = align_up(sum, align_of(variable)) + bytes_of(variable);
        align = std::max(align, align_of(variable));
      }
      most = std::max(most, sum);
    }
  }
  return exchange_ = reserve_local(most, align);
}

const ptx::Function* Lowering::function_named(const std::string& name) {
  if (functions_.empty()) {
    for (const ptx::Function& function : module_.functions) {
      functions_.try_emplace(function.name, &function);
    }
  }
  const auto found = functions_.find(name);
  return found == functions_.end() ? nullptr : found->second;
}

Transfer::Place Lowering::actual(const ptx::Operand& operand, std::int64_t num_bytes,
                                 bool is_result) {
  if (operand.kind == ptx::Operand::Kind::kSymbol && is_local(operand.symbol)) {
    const Placed& placed = variables_[operand.symbol];
    if (bytes_of(*placed.variable) != num_bytes) {
      fail(operand.symbol + " has " + std::to_string(bytes_of(*placed.variable)) +
           " bytes where the function has " + std::to_string(num_bytes));
    }
    return {.offset = placed.offset};
  }
  if (operand.kind == ptx::Operand::Kind::kSymbol) {
    fail(operand.symbol + " is neither a parameter of the call nor a register");
  }
  const Type type = num_bytes == 8 ? Type::kB64 : num_bytes == 16 ? Type::kB128 : Type::kB32;
  const Row row = is_result ? destination(operand, type) : source(operand, type);
  if (row.width < num_bytes) fail("a register is narrower than the function's parameter");
  return {.row = row.offset, .width = row.width};
}

ptx::Variable Lowering::shape_of(const ptx::Operand& operand) const {
  if (operand.kind == ptx::Operand::Kind::kSymbol && is_local(operand.symbol)) {
    return *variables_.at(operand.symbol).variable;
  }
  if (operand.kind != ptx::Operand::Kind::kRegister) {
    fail("a call by address takes parameters and registers");
  }
  ptx::Variable variable;
  variable.type = function_->registers[operand.reg].type;
  return variable;
}

void Lowering::emit_transfers(const std::vector<Transfer>& transfers) {
  if (transfers.empty()) return;
  program_.transfers.push_back(transfers);
  emit(transfer).imm = static_cast<std::int64_t>(program_.transfers.size() - 1);
}

void Lowering::call(Inst& inst, const ptx::Function& function) {
  const std::size_t place = &inst - program_.code.data();
  const int number = callee(function);
  calls_.emplace_back(place, number);
  calls_of_[current_].insert(number);
}

std::optional<std::uint32_t> Lowering::callee_list(const Formals& arguments,
                                                   const Formals& results) {
  if (alike_.empty()) {
    for (const ptx::Function& function : module_.functions) {
      if (function.is_entry || function.is_declaration) continue;
      const Shape shape = {formals(function.parameters), formals(function.results)};
      alike_[shape].functions.push_back(&function);
    }
  }
  const auto found = alike_.find({arguments, results});
  if (found == alike_.end()) return std::nullopt;
  Alike& alike = found->second;
  if (alike.list == kNoRow) {
    std::vector<std::uint32_t> numbers;
    for (const ptx::Function* function : alike.functions) {
      numbers.push_back(static_cast<std::uint32_t>(callee(*function)));
    }
    alike.list = list(std::move(numbers));
  }
  return alike.list;
}

// The function's number among those that the kernel may call.
int Lowering::callee(const ptx::Function& function) {
  const auto number = static_cast<int>(callees_.size());
  const auto [found, is_new] = numbers_.try_emplace(&function, number);
  if (is_new) {
    callees_.push_back(&function);
    program_.callees.push_back({function.name, memory_.address(function.name)});
  }
  return found->second;
}

// Each once; they may call more of them.
void Lowering::lower_callees() {
  for (std::size_t i = 0; i < callees_.size(); ++i) {
    current_ = static_cast<int>(i);
    program_.callees[i].begin = static_cast<std::int32_t>(program_.code.size());
    lower(*callees_[i]);
    program_.callees[i].end = static_cast<std::int32_t>(program_.code.size());
  }
  for (const auto& [inst, number] : calls_) {
    program_.code[inst].target = program_.callees[number].begin;
  }
  check_recursion();
}

void Lowering::check_recursion() const {
  std::vector<int> path;
  std::set<int> done;
  const std::function<void(int)> visit = [&](int number) {
    const auto again = std::find(path.begin(), path.end(), number);
    if (again != path.end()) {
      std::string cycle;
      for (auto step = again; step != path.end(); ++step) cycle += callees_[*step]->name + " -> ";
      throw UnsupportedError("recursive call: " + cycle + callees_[number]->name +
                             "; the simulator has one set of registers for each function");
    }
    if (!done.insert(number).second) return;
    path.push_back(number);
    if (path.size() > kMaxCallDepth) {
      throw UnsupportedError("kernel " + program_.name + " has calls within more than " +
                             std::to_string(kMaxCallDepth) + " other calls, of " +
                             callees_[number]->name);
    }
    const auto calls = calls_of_.find(number);
    if (calls != calls_of_.end()) std::for_each(calls->second.begin(), calls->second.end(), visit);
    path.pop_back();
  };
  for (int number = 0; number < static_cast<int>(callees_.size()); ++number) visit(number);
}

// A formal parameter is a register of the function or lies with its local variables.
Transfer::Place Lowering::formal_place(const ptx::Variable& variable) {
  if (variable.space != ptx::Space::kRegister) {
    lay_out_local(variable);
    return {.offset = variables_[variable.name].offset};
  }
  const auto& all = function_->registers;
  const auto found = std::find_if(
      all.begin(), all.end(), [&](const ptx::Register& one) { return one.name == variable.name; });
  return {.row = registers_[found - all.begin()], .width = cell_bytes(type_of(found->type))};
}

// What a function begins with: a kernel finds its parameters where the launch has put them, other
// functions take theirs from where they are handed over.
void Lowering::enter(const ptx::Function& function) {
  const ptx::Statement first =
      function.statements.empty() ? ptx::Statement() : function.statements.front();
  program_.sources.push_back({first.line, place(first.location), "function " + function.name});
  results_.clear();
  if (function.is_entry) {
    lay_out_parameters(function);
  } else {
    const auto locals = [&](const std::vector<ptx::Variable>& variables, bool is_result) {
      const Formals given = formals(variables);
      std::vector<Transfer> transfers;
      for (std::size_t i = 0; i < variables.size(); ++i) {
        const Transfer::Place local = formal_place(variables[i]);
        transfers.push_back(is_result ? Transfer{local, given.places[i], given.sizes[i]}
                                      : Transfer{given.places[i], local, given.sizes[i]});
      }
      return transfers;
    };
    emit_transfers(locals(function.parameters, false));
    results_ = locals(function.results, true);
  }
  save_stack(function);
}

void Lowering::emit_return() {
  restore_stack();
  emit_transfers(results_);
  emit(in_kernel() ? end : give_back);
}

void add_calls(Lowerers& lowerers) {
  lowerers["call"] = lower_call;
  lowerers["ret"] = [](Lowering& lower) {
    lower.take("uni");
    lower.emit_return();
  };
  lowerers["exit"] = [](Lowering& lower) { lower.emit(end); };
}

}  // namespace openweek::simulator
