// What the special registers of PTX hold.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "program.h"

namespace openweek::simulator {

class Cta;

// The value of one that stays the same, for a lane of a warp. A predicate's is a mask. Throws
// UnsupportedError for those that the machine does not have.
std::uint64_t special_register(const LateRow& late, Cta& cta, int warp, int lane);

// What reads one that changes into row dst with cells of `width` bytes; nothing for all others.
Handler clock_reader(const std::string& name, int width);

}  // namespace openweek::simulator
