// Variables and parameters, as they are declared.
#pragma once

#include <cstddef>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cursor.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

// The variables and functions of a module so far, by name.
struct ModuleSymbol {
  bool is_function = false;
  std::size_t index = 0;  // in the module's functions or variables
};
using ModuleNames = std::unordered_map<std::string_view, ModuleSymbol>;

// The bytes of a type such as "b32"; 0 for one that no variable can have.
int type_bytes(std::string_view type);

// What follows .global, .shared and the like up to the end of the statement:
// [.align N] .type name [dimensions] [= value];
// The token is the name, for messages.
struct Declared {
  Variable variable;
  Token name;
};
Declared parse_variable(Cursor& cursor, Space space, const ModuleNames& names);

// (.param .b32 a, .param .align 8 .b8 b[16], .reg .b32 c), of functions and of call prototypes;
// those of a kernel are no registers.
std::vector<Declared> parse_parameters(Cursor& cursor, bool may_be_registers);

}  // namespace openweek::simulator::ptx
