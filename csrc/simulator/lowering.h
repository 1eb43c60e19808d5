// From statements to instructions: places for registers and constants, handlers for opcodes.
#pragma once

#include <compare>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "program.h"
#include "ptx.h"
#include "types.h"

namespace openweek::simulator {

std::int64_t align_up(std::int64_t value, std::int64_t align);

// Throws UnsupportedError if there is none.
Type type_of(const std::string& name);
std::int64_t bytes_of(const ptx::Variable& variable);
int align_of(const ptx::Variable& variable);

// Where the variables of a module lie: .global and .const ones in host memory.
class ModuleMemory {
 public:
  explicit ModuleMemory(const ptx::Module& module);

  // The address of a variable or a function; 0 if there is none of that name.
  std::uint64_t address(const std::string& name) const;
  struct Block {
    std::string name;
    ptx::Space space;
    std::uint8_t* bytes = nullptr;
    std::int64_t num_bytes = 0;
  };
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  // Zeros that take no memory before they are touched.
  std::unique_ptr<std::uint8_t, decltype(&std::free)> all_{nullptr, &std::free};
  std::vector<Block> blocks_;
  std::map<std::string, std::size_t> by_name_;
  std::map<std::string, std::uint64_t> functions_;
};

// Lowers the statements of one kernel and of the functions that it calls, one at a time. A lowerer
// of an opcode asks for its modifiers and operands and emits an instruction; modifiers that nobody
// has asked for are an error, so nothing is skipped in silence.
class Lowering {
 public:
  Lowering(const ptx::Module& module, const ModuleMemory& memory);

  Program kernel(const std::string& name);

  // The statement at hand.
  const ptx::Statement& statement() const { return *statement_; }
  int num_operands() const { return static_cast<int>(statement_->operands.size()); }
  const ptx::Operand& operand(int i) const;

  // Modifiers. `types` are those that name a type, in order; each has to be asked for too.
  bool take(std::string_view modifier);
  std::string_view take_one_of(std::initializer_list<std::string_view> modifiers);
  Type take_type();
  bool has_type() const;

  // Rows of operands. A source may be a register, a constant, a special register or the address of
  // a variable; a register may be wider than the type, then its low bytes count.
  struct Row {
    std::uint32_t offset = kNoRow;
    int width = 4;  // bytes of its cells
  };
  Row source(const ptx::Operand& operand, Type type);
  Row destination(const ptx::Operand& operand, Type type);
  // The same with cells of the type's width; a wider source is narrowed by an instruction of its
  // own, so rows are asked for before an instruction that uses them is emitted.
  std::uint32_t source_row(int i, Type type);
  std::uint32_t narrowed(const ptx::Operand& operand, Type type);
  std::uint32_t destination_row(const ptx::Operand& operand, Type type);
  std::uint32_t destination_row(int i, Type type) { return destination_row(operand(i), type); }
  std::uint32_t predicate(const ptx::Operand& operand, bool* negated);
  std::uint32_t predicate_destination(const ptx::Operand& operand);
  std::uint32_t constant(std::uint64_t bits, int width);
  std::uint32_t scratch(int width);
  std::uint32_t list(std::vector<std::uint32_t> rows);
  std::int64_t conversion(const ConversionStep& step);
  std::int64_t memory_step(MemoryStep step);
  std::int64_t wgmma_step(WgmmaStep step);
  std::int64_t bulk_step(BulkStep step);

  // Whether a variable is each thread's own.
  bool is_local(const std::string& variable) const;

  // Whether the statement is a kernel's own and not one of a function's.
  bool in_kernel() const { return function_->is_entry; }

  // Calls. Arguments and results are handed over in one part of the thread's local memory, in the
  // order and with the alignments of the callee.
  struct Formals {
    std::vector<Transfer::Place> places;
    std::vector<std::int64_t> sizes;

    std::strong_ordering operator<=>(const Formals& other) const = default;
  };
  Formals formals(const std::vector<ptx::Variable>& variables);
  const ptx::Function* function_named(const std::string& name);
  // Where an argument or a result of a call lies, and as which variable one would declare it.
  Transfer::Place actual(const ptx::Operand& operand, std::int64_t num_bytes, bool is_result);
  ptx::Variable shape_of(const ptx::Operand& operand) const;
  void emit_transfers(const std::vector<Transfer>& transfers);
  // A branch into a function, which is lowered if it was not.
  void call(Inst& inst, const ptx::Function& function);
  // The list of numbers, in Program::callees, of all that a call by address may mean.
  std::optional<std::uint32_t> callee_list(const Formals& arguments, const Formals& results);
  void emit_return();

  // The row of the carry flag, and of the end of the thread's stack.
  std::uint32_t carry();
  std::uint32_t stack_pointer();

  Inst& emit(Handler handler);

  // The kernel has what may order its clusters among themselves.
  void communicates() { program_.communicates = true; }

  // Branches to statements that are not lowered yet.
  void target(Inst& inst, const ptx::Operand& label);
  std::uint32_t target_list(const ptx::Operand& table);

  [[noreturn]] void fail(const std::string& what) const;

 private:
  void lower(const ptx::Function& function);
  void enter(const ptx::Function& function);
  Transfer::Place formal_place(const ptx::Variable& variable);
  void lower_callees();
  void check_recursion() const;
  int callee(const ptx::Function& function);
  std::int64_t exchange();
  void save_stack(const ptx::Function& function);
  void restore_stack();
  void lay_out_stack();
  void lower_statement(const ptx::Statement& statement);
  std::string place(int location) const;
  void number_matrix_registers();
  void lay_out_parameters(const ptx::Function& function);
  bool is_used(const ptx::Variable& variable, const ptx::Function& kernel) const;
  void lay_out_shared(const ptx::Variable& variable);
  void lay_out_local(const ptx::Variable& variable);
  std::int64_t reserve_local(std::int64_t num_bytes, int align);
  std::uint32_t address_row(const std::string& symbol, int width);
  std::uint32_t late(LateRow::Kind kind, int width, const std::string& name, std::int64_t value);
  std::uint32_t allocate(int num_bytes);
  void check_size(const char* what, std::int64_t found, std::int64_t most) const;

  struct Placed {
    ptx::Space space;  // kLocal or kParam are offsets in the thread's local memory and parameters
    std::int64_t offset = 0;
    const ptx::Variable* variable = nullptr;
  };

  // Functions with the same parameters and results.
  using Shape = std::pair<Formals, Formals>;
  struct Alike {
    std::vector<const ptx::Function*> functions;
    std::uint32_t list = kNoRow;  // of their numbers, once somebody asks
  };

  const ptx::Module& module_;
  const ModuleMemory& memory_;
  Program program_;
  const ptx::Function* function_ = nullptr;
  const ptx::Statement* statement_ = nullptr;
  std::vector<std::pair<std::uint32_t, bool>> touched_;  // rows of the statement; whether written
  std::map<std::size_t, std::vector<std::pair<std::uint32_t, bool>>> touches_;  // by instruction
  std::vector<std::string> left_;  // modifiers of the statement that nobody has taken
  std::vector<std::uint32_t> registers_;
  std::map<std::string, Placed> module_variables_;  // shared ones
  std::map<std::string, Placed> variables_;         // that the function knows
  std::map<std::pair<std::uint64_t, int>, std::uint32_t> constants_;
  std::map<std::string, std::uint32_t> late_;
  std::vector<std::int32_t> starts_;  // of the function's statements, in the program's code
  std::vector<std::pair<std::size_t, int>> branches_;  // (instruction, statement) to be set
  std::vector<std::pair<std::size_t, std::vector<int>>> tables_;
  int current_ = -1;                             // the callee that is lowered, -1 for the kernel
  std::vector<const ptx::Function*> callees_;    // as in the program
  std::map<const ptx::Function*, int> numbers_;  // of the callees
  std::map<std::string_view, const ptx::Function*> functions_;
  std::map<Shape, Alike> alike_;
  std::vector<std::pair<std::size_t, int>> calls_;  // (instruction, callee) to be set
  std::map<int, std::set<int>> calls_of_;           // callees that are called by name
  std::int64_t exchange_ = -1;     // where arguments and results of calls are handed over
  std::vector<Transfer> results_;  // to hand over at the function's end
  std::uint32_t carry_ = kNoRow;
  std::uint32_t stack_pointer_ = kNoRow;
  std::uint32_t saved_stack_ = kNoRow;  // the pointer at the function's begin
};

// The opcodes that can be lowered, sorted.
std::vector<std::string> opcodes();

using Lowerer = void (*)(Lowering&);
using Lowerers = std::map<std::string_view, Lowerer>;

// Each file of handlers enters its opcodes.
void add_arithmetic(Lowerers& lowerers);
void add_logic(Lowerers& lowerers);
void add_bits(Lowerers& lowerers);
void add_moves(Lowerers& lowerers);
void add_compare(Lowerers& lowerers);
void add_integer_arithmetic(Lowerers& lowerers);
void add_dot_products(Lowerers& lowerers);
void add_differences(Lowerers& lowerers);
void add_extremes(Lowerers& lowerers);
void add_signs(Lowerers& lowerers);
void add_masks(Lowerers& lowerers);
void add_address_kinds(Lowerers& lowerers);
void add_approximations(Lowerers& lowerers);
void add_calls(Lowerers& lowerers);
void add_stack(Lowerers& lowerers);
void add_control(Lowerers& lowerers);
void add_memory(Lowerers& lowerers);
void add_lanes(Lowerers& lowerers);
void add_barriers(Lowerers& lowerers);
void add_mbarriers(Lowerers& lowerers);
void add_wgmma(Lowerers& lowerers);
void add_matrices(Lowerers& lowerers);
void add_copies(Lowerers& lowerers);
void add_hints(Lowerers& lowerers);
void add_multimem(Lowerers& lowerers);
void add_tensor_maps(Lowerers& lowerers);

}  // namespace openweek::simulator
