// From statements to instructions: places for registers and constants, handlers for opcodes.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "program.h"
#include "ptx.h"
#include "types.h"

namespace openweek::simulator {

// Where the variables of a module lie: .global and .const ones in host memory.
class ModuleMemory {
 public:
  explicit ModuleMemory(const ptx::Module& module);

  // The address of a variable; 0 if there is none of that name.
  std::uint64_t address(const std::string& name) const;
  struct Block {
    std::string name;
    std::vector<std::uint64_t> words;  // so that it is aligned
    std::int64_t num_bytes = 0;
  };
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::vector<Block> blocks_;
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
  std::uint32_t destination_row(int i, Type type);
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

  Inst& emit(Handler handler);

  // The kernel has what may order its clusters among themselves.
  void communicates() { program_.communicates = true; }

  // Branches to statements that are not lowered yet.
  void target(Inst& inst, const ptx::Operand& label);
  std::uint32_t target_list(const ptx::Operand& table);

  [[noreturn]] void fail(const std::string& what) const;

 private:
  struct Frame;  // the registers and variables of one function

  void lower(const ptx::Function& function);
  void lower_statement(const ptx::Statement& statement);
  std::string place(int location) const;
  void number_matrix_registers();
  void lay_out_parameters(const ptx::Function& function);
  void lay_out_variables(const ptx::Function& function);
  std::uint32_t address_row(const std::string& symbol, int width);
  std::uint32_t late(LateRow::Kind kind, int width, const std::string& name, std::int64_t value);
  std::uint32_t allocate(int num_bytes);

  const ptx::Module& module_;
  const ModuleMemory& memory_;
  Program program_;
  const ptx::Function* function_ = nullptr;
  const ptx::Statement* statement_ = nullptr;
  std::vector<std::pair<std::uint32_t, bool>> touched_;  // rows of the statement; whether written
  std::map<std::size_t, std::vector<std::pair<std::uint32_t, bool>>> touches_;  // by instruction
  std::vector<std::string> left_;  // modifiers of the statement that nobody has taken
  std::vector<std::uint32_t> registers_;
  std::map<std::string, std::pair<ptx::Space, std::int64_t>> variables_;
  std::map<std::pair<std::uint64_t, int>, std::uint32_t> constants_;
  std::map<std::string, std::uint32_t> late_;
  std::vector<std::int32_t> starts_;  // of the function's statements, in the program's code
  std::vector<std::pair<std::size_t, int>> branches_;  // (instruction, statement) to be set
  std::vector<std::pair<std::size_t, std::vector<int>>> tables_;
};

using Lowerer = void (*)(Lowering&);
using Lowerers = std::map<std::string_view, Lowerer>;

// Each file of handlers enters its opcodes.
void add_arithmetic(Lowerers& lowerers);
void add_bits(Lowerers& lowerers);
void add_moves(Lowerers& lowerers);
void add_compare(Lowerers& lowerers);
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
