// The operands of a statement.
#pragma once

#include "cursor.h"
#include "declarations.h"
#include "ptx.h"
#include "scopes.h"

namespace openweek::simulator::ptx {

class OperandParser {
 public:
  OperandParser(Cursor& cursor, Scopes& scopes, const ModuleNames& names)
      : cursor_(cursor), scopes_(scopes), names_(names) {}

  // Appends what stands up to the semicolon to a statement that will get this index.
  void parse(Statement& statement, int index);

 private:
  bool is_label(const Token& token, bool branches);
  Operand parse_operand();
  Operand parse_group(Operand::Kind kind, char close);
  Operand parse_address();
  Operand parse_single();
  Operand parse_word();
  Operand named(const Token& name);

  Cursor& cursor_;
  Scopes& scopes_;
  const ModuleNames& names_;
};

}  // namespace openweek::simulator::ptx
