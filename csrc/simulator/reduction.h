// What asynchronous reductions do to the bytes at their destination.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats.h"

namespace openweek::simulator {

enum class ReduceOp : std::uint8_t { kAdd, kMin, kMax, kAnd, kOr, kXor, kIncrement, kDecrement };

// to[i] = op(to[i], from[i]) over an array; neither has to be aligned.
using Reduce = void (*)(std::uint8_t* to, const std::uint8_t* from, std::size_t num_bytes);

// Throws UnsupportedError for what PTX does not have. Floats are rounded to nearest even; a sum of
// f32 flushes subnormals, as it does in global memory; a minimum or maximum prefers numbers to NaN.
Reduce find_reduce(ReduceOp op, NumberType type);

}  // namespace openweek::simulator
