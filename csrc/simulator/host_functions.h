// Functions that the driver would provide.
#pragma once

#include <string>

#include "lowering.h"

namespace openweek::simulator {

// Emits what such a function does, its arguments having been handed over. Fails for others than
// vprintf and __assertfail.
void emit_host_call(Lowering& lower, const std::string& name, const Lowering::Formals& arguments);

}  // namespace openweek::simulator
