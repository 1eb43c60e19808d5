// The body of a function.
#pragma once

#include <vector>

#include "cursor.h"
#include "declarations.h"
#include "ptx.h"

namespace openweek::simulator::ptx {

// Reads { ... } into the registers, variables, statements and branch tables of a function, and its
// lines into the locations and files of the module. The function knows its `parameters`, and its
// results among them, by their names.
void parse_body(Cursor& cursor, const std::vector<Declared>& parameters, const ModuleNames& names,
                Module& module, Function& function);

}  // namespace openweek::simulator::ptx
