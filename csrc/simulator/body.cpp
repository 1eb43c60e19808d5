#include "body.h"

#include <limits>
#include <string>
#include <utility>

#include "directives.h"
#include "operands.h"
#include "scopes.h"

namespace openweek::simulator::ptx {
namespace {

constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr int kMaxStatements = 1 << 20;

class BodyParser {
 public:
  BodyParser(Cursor& cursor, const ModuleNames& names, Module& module, Function& function)
      : cursor_(cursor),
        names_(names),
        module_(module),
        function_(function),
        scopes_(function),
        operands_(cursor, scopes_, names) {}

  void parse(const std::vector<Declared>& parameters) {
    for (const auto& [variable, name] : parameters) {
      if (variable.space == Space::kRegister) {
        scopes_.declare_register(name, variable.type);
      } else {
        scopes_.declare(name, {Scopes::Kind::kVariable});
      }
    }
    cursor_.expect('{');
    while (!scopes_.empty()) parse_item();
  }

 private:
  void parse_item();
  void parse_directive();
  void parse_label(const Token& name);
  void parse_branch_targets(const Token& name);
  void parse_call_prototype(const Token& name);
  void parse_call_targets(const Token& name);
  void parse_registers();
  void parse_guarded();
  void parse_statement(const Token& opcode, Statement statement);
  int next_statement() const { return static_cast<int>(function_.statements.size()); }

  Cursor& cursor_;
  const ModuleNames& names_;
  Module& module_;
  Function& function_;
  Scopes scopes_;
  OperandParser operands_;
  int location_ = -1;
};

// A brace opens a block here only: inside a statement it opens a vector.
void BodyParser::parse_item() {
  if (cursor_.at('{')) {
    scopes_.open(cursor_.take());
  } else if (cursor_.accept('}')) {
    scopes_.close();
  } else if (cursor_.at('@')) {
    parse_guarded();
  } else if (cursor_.peek().kind == TokenKind::kDotted) {
    parse_directive();
  } else {
    const Token word = cursor_.expect_kind(TokenKind::kWord, "an instruction or '}'");
    if (cursor_.accept(':')) {
      parse_label(word);
    } else {
      parse_statement(word, {});
    }
  }
}

void BodyParser::parse_directive() {
  if (accept_location(cursor_, module_)) {
    location_ = static_cast<int>(module_.locations.size()) - 1;
    return;
  }
  if (accept_file(cursor_, module_) || accept_pragma(cursor_)) return;
  if (cursor_.accept_directive("reg")) {
    parse_registers();
  } else if (const auto space = accept_space(cursor_)) {
    Declared declared = parse_variable(cursor_, *space, names_);
    scopes_.declare_variable(declared.name, std::move(declared.variable));
  } else {
    cursor_.fail_expected("a directive of a function body");
  }
}

void BodyParser::parse_label(const Token& name) {
  if (cursor_.accept_directive("branchtargets")) {
    parse_branch_targets(name);
  } else if (cursor_.accept_directive("callprototype")) {
    parse_call_prototype(name);
  } else if (cursor_.accept_directive("calltargets")) {
    parse_call_targets(name);
  } else {
    scopes_.declare(name, {Scopes::Kind::kLabel, next_statement()});
  }
}

void BodyParser::parse_branch_targets(const Token& name) {
  const int table = static_cast<int>(function_.branch_tables.size());
  scopes_.declare(name, {Scopes::Kind::kTable, table});
  int entry = 0;
  do {
    const Token label = cursor_.expect_kind(TokenKind::kWord, "a label");
    scopes_.refer_in_table(label, table, entry++);
  } while (cursor_.accept(','));
  cursor_.expect(';');
  function_.branch_tables.emplace_back(entry, -1);
}

// (results) _ (parameters): what they are, the callee knows.
void BodyParser::parse_call_prototype(const Token& name) {
  scopes_.declare(name, {Scopes::Kind::kPrototype});
  parse_parameters(cursor_, true);
  const Token placeholder = cursor_.expect_kind(TokenKind::kWord, "'_'");
  if (placeholder.text != "_") fail_at(placeholder, "expected '_'");
  parse_parameters(cursor_, true);
  cursor_.accept_directive("noreturn");
  cursor_.expect(';');
}

// f, g: which functions a call by address may mean. It promises, and so says nothing new.
void BodyParser::parse_call_targets(const Token& name) {
  scopes_.declare(name, {Scopes::Kind::kPrototype});
  do {
    const Token function = cursor_.expect_kind(TokenKind::kWord, "a function");
    const auto found = names_.find(function.text);
    if (found == names_.end() || !found->second.is_function) {
      fail_at(function, "expected a function, got " + quoted(function.text));
    }
  } while (cursor_.accept(','));
  cursor_.expect(';');
}

// .reg .b32 %r<843>, a;
void BodyParser::parse_registers() {
  const Token type = cursor_.peek();
  const bool is_known = type.text == "pred" || type_bytes(type.text) > 0;
  if (type.kind != TokenKind::kDotted || !is_known) cursor_.fail_expected("the type of a register");
  cursor_.take();
  do {
    const Token name = cursor_.expect_kind(TokenKind::kWord, "a name");
    if (cursor_.accept('<')) {
      scopes_.declare_registers(name, cursor_.expect_int(0, kMaxInt), type.text);
      cursor_.expect('>');
    } else {
      scopes_.declare_register(name, type.text);
    }
  } while (cursor_.accept(','));
  cursor_.expect(';');
}

// @!%p1 instruction
void BodyParser::parse_guarded() {
  cursor_.expect('@');
  Statement statement;
  statement.guard_negated = cursor_.accept('!');
  const Token name = cursor_.expect_kind(TokenKind::kWord, "a predicate");
  const auto meaning = scopes_.find(name.text);
  const bool is_register = meaning && meaning->kind == Scopes::Kind::kRegister;
  if (!is_register || function_.registers[meaning->index].type != "pred") {
    fail_at(name, "expected a predicate, got " + quoted(name.text));
  }
  statement.guard = meaning->index;
  const Token opcode = cursor_.expect_kind(TokenKind::kWord, "an instruction");
  parse_statement(opcode, std::move(statement));
}

void BodyParser::parse_statement(const Token& opcode, Statement statement) {
  if (opcode.text.find_first_of("%$_") == 0) {
    fail_at(opcode, "expected an instruction, got " + quoted(opcode.text));
  }
  if (next_statement() == kMaxStatements) {
    fail_at(opcode, "expected at most " + std::to_string(kMaxStatements) + " instructions");
  }
  statement.line = opcode.line;
  statement.location = location_;
  statement.opcode = opcode.text;
  while (cursor_.peek().kind == TokenKind::kDotted) {
    statement.modifiers.emplace_back(cursor_.take().text);
  }
  operands_.parse(statement, next_statement());
  function_.statements.push_back(std::move(statement));
}

}  // namespace

void parse_body(Cursor& cursor, const std::vector<Declared>& parameters, const ModuleNames& names,
                Module& module, Function& function) {
  BodyParser(cursor, names, module, function).parse(parameters);
}

}  // namespace openweek::simulator::ptx
