#include "scopes.h"

#include <charconv>
#include <utility>

namespace openweek::simulator::ptx {
namespace {

constexpr std::size_t kMaxDepth = 64;
constexpr std::size_t kMaxIndexDigits = 9;  // fits an int

}  // namespace

Scopes::Scopes(Function& function) : function_(function) { open(Token{}); }

void Scopes::open(const Token& brace) {
  if (blocks_.size() == kMaxDepth) {
    fail_at(brace, "expected at most " + std::to_string(kMaxDepth) + " nested blocks");
  }
  Block block;
  // No name of PTX has an @ in it.
  if (num_blocks_ > 0) block.suffix = "@" + std::to_string(num_blocks_);
  ++num_blocks_;
  blocks_.push_back(std::move(block));
}

void Scopes::close() {
  Block block = std::move(blocks_.back());
  blocks_.pop_back();
  for (const Use& use : block.uses) {
    const auto found = block.names.find(use.name.text);
    if (found != block.names.end()) {
      resolve(use, found->second);
    } else if (blocks_.empty()) {
      fail_at(use.name, "unknown name " + quoted(use.name.text));
    } else {
      blocks_.back().uses.push_back(use);
    }
  }
}

void Scopes::declare_register(const Token& name, std::string_view type) {
  const int index = static_cast<int>(function_.registers.size());
  declare(name, {Kind::kRegister, index});
  add_register(blocks_.back(), name.text, type);
}

void Scopes::declare_registers(const Token& prefix, int count, std::string_view type) {
  if (!blocks_.back().families.emplace(prefix.text, Family{count, type}).second) {
    fail_at(prefix, "second declaration of " + quoted(prefix.text));
  }
}

void Scopes::declare_variable(const Token& name, Variable variable) {
  declare(name, {Kind::kVariable, static_cast<int>(function_.variables.size())});
  variable.name += blocks_.back().suffix;
  function_.variables.push_back(std::move(variable));
}

std::optional<Scopes::Meaning> Scopes::find(std::string_view name) {
  for (std::size_t depth = blocks_.size(); depth-- > 0;) {
    Block& block = blocks_[depth];
    const auto found = block.names.find(name);
    if (found != block.names.end()) return found->second;
    if (const Family* family = find_family(block, name)) {
      const Meaning meaning{Kind::kRegister, add_register(block, name, family->type)};
      block.names.emplace(name, meaning);
      return meaning;
    }
  }
  return std::nullopt;
}

std::string Scopes::symbol(const Meaning& variable, std::string_view name) const {
  return variable.index < 0 ? std::string(name) : function_.variables[variable.index].name;
}

void Scopes::refer(const Token& name, int statement, int operand) {
  blocks_.back().uses.push_back({name, false, statement, operand});
}

void Scopes::refer_in_table(const Token& name, int table, int entry) {
  blocks_.back().uses.push_back({name, true, table, entry});
}

void Scopes::declare(const Token& name, const Meaning& meaning) {
  Block& block = blocks_.back();
  const bool is_new =
      find_family(block, name.text) == nullptr && block.names.emplace(name.text, meaning).second;
  if (!is_new) fail_at(name, "second declaration of " + quoted(name.text));
}

int Scopes::add_register(const Block& block, std::string_view name, std::string_view type) {
  function_.registers.push_back({std::string(name) + block.suffix, std::string(type)});
  return static_cast<int>(function_.registers.size()) - 1;
}

// A prefix may end in digits itself: %f1<20> makes %f13 a register of index 3.
const Scopes::Family* Scopes::find_family(const Block& block, std::string_view name) const {
  if (block.families.empty()) return nullptr;
  for (std::size_t digits = 1; digits <= kMaxIndexDigits && digits < name.size(); ++digits) {
    const std::size_t start = name.size() - digits;
    if (name[start] < '0' || name[start] > '9') return nullptr;
    if (name[start] == '0' && digits > 1) continue;  // %r07 is no name of %r7
    const auto found = block.families.find(name.substr(0, start));
    if (found == block.families.end()) continue;
    int index = 0;
    std::from_chars(name.data() + start, name.data() + name.size(), index);
    if (index < found->second.count) return &found->second;
  }
  return nullptr;
}

void Scopes::resolve(const Use& use, const Meaning& meaning) {
  if (use.in_table) {
    if (meaning.kind != Kind::kLabel) fail_at(use.name, "expected a label");
    function_.branch_tables[use.row][use.column] = meaning.index;
    return;
  }
  Operand& operand = function_.statements[use.row].operands[use.column];
  if (meaning.kind == Kind::kPrototype) {
    operand.kind = Operand::Kind::kSymbol;
    operand.symbol = use.name.text;
  } else if (meaning.kind == Kind::kLabel || meaning.kind == Kind::kTable) {
    operand.kind = meaning.kind == Kind::kLabel ? Operand::Kind::kLabel : Operand::Kind::kTable;
    operand.bits = meaning.index;
  } else {
    fail_at(use.name, "expected a label, got " + quoted(use.name.text));
  }
}

}  // namespace openweek::simulator::ptx
