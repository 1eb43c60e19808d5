// What the names in a function stand for.
//
// Blocks nest, and an inner name hides an outer one: inline assembly repeats its names in a block
// of its own. Registers and variables are declared before they are used, labels may come later, so
// that the uses of a label wait for the end of the block.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cursor.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

class Scopes {
 public:
  enum class Kind { kRegister, kVariable, kLabel, kTable, kPrototype };
  struct Meaning {
    Kind kind;
    // In the function's registers, variables, statements or branch tables; -1 for a parameter and
    // for a prototype.
    int index = -1;
  };

  // Opens the outermost block of a function that stays where it is.
  explicit Scopes(Function& function);

  void open(const Token& brace);
  // Closes the innermost block; throws PtxError for a label that no block around its uses has.
  void close();
  bool empty() const { return blocks_.empty(); }

  void declare_register(const Token& name, std::string_view type);
  // %r<4> stands for %r0 to %r3. They come into being when they are used.
  void declare_registers(const Token& prefix, int count, std::string_view type);
  // Adds a variable of the function, under a name that is unique in it.
  void declare_variable(const Token& name, Variable variable);
  // Anything else: parameters, labels, branch tables and call prototypes.
  void declare(const Token& name, const Meaning& meaning);

  // What a name stands for here, if it has been declared.
  std::optional<Meaning> find(std::string_view name);
  // The unique name of a variable that was found.
  std::string symbol(const Meaning& variable, std::string_view name) const;

  // The operand of a statement that is the label of this name.
  void refer(const Token& name, int statement, int operand);
  // The entry of a branch table that is the label of this name.
  void refer_in_table(const Token& name, int table, int entry);

 private:
  struct Family {
    int count;
    std::string_view type;
  };
  struct Use {
    Token name;
    bool in_table;
    int row;     // statement or table
    int column;  // operand or entry
  };
  struct Block {
    std::string suffix;
    std::unordered_map<std::string_view, Meaning> names;
    std::unordered_map<std::string_view, Family> families;
    std::vector<Use> uses;
  };

  int add_register(const Block& block, std::string_view name, std::string_view type);
  const Family* find_family(const Block& block, std::string_view name) const;
  void resolve(const Use& use, const Meaning& meaning);

  Function& function_;
  std::vector<Block> blocks_;
  int num_blocks_ = 0;
};

}  // namespace openweek::simulator::ptx
