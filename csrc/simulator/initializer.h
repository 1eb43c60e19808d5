// The value that a variable starts with.
#pragma once

#include <cstdint>

#include "cursor.h"
#include "declarations.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

// Reads what follows the equals sign into the bytes and relocations of a variable; what a list
// leaves out is zero. Returns the number of elements that it gives.
std::int64_t parse_initializer(Cursor& cursor, Variable& variable, const ModuleNames& names);

}  // namespace openweek::simulator::ptx
