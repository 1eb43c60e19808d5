// Directives that may stand in a module and in a body alike.
#pragma once

#include <optional>

#include "cursor.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

// Each takes its directive if it stands here, and says whether it did.

// .loc file line column ...: adds a location. Ends with its line, not with a semicolon.
bool accept_location(Cursor& cursor, Module& module);
// .file index "name" ...: adds a file. Ends with its line.
bool accept_file(Cursor& cursor, Module& module);
// .pragma "text"; is advice to the compiler.
bool accept_pragma(Cursor& cursor);
// .global, .const, .shared, .local or .param before the declaration of a variable.
std::optional<Space> accept_space(Cursor& cursor);

}  // namespace openweek::simulator::ptx
