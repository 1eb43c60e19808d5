// What instructions that touch memory have in common: modifiers and operands. In load_store.cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "access.h"
#include "lowering.h"
#include "reduction.h"

namespace openweek::simulator {

struct Place {
  Window window = Window::kGeneric;
  std::uint32_t row = kNoRow;  // of the address
  bool wide = true;            // its cells have 8 bytes
  std::int64_t offset = 0;
};

Window take_window(Lowering& lower);
bool take_hints(Lowering& lower);  // whether an operand with a cache policy follows
Order take_order(Lowering& lower, Order otherwise);
MemoryScope take_scope(Lowering& lower, MemoryScope otherwise);
int take_count(Lowering& lower);  // of a vector's elements
Place take_place(Lowering& lower, const ptx::Operand& operand, Window window);
std::vector<ptx::Operand> elements(Lowering& lower, const ptx::Operand& operand, int count);

// Emits the instruction; the address is in row a, and the step's number is the immediate.
Inst& emit_memory(Lowering& lower, Handler handler, const Place& place, MemoryStep step);

// The address that a lane gives to such an instruction.
std::uint64_t address_of(Warp& warp, const Inst& inst, int lane);

// An operation of reductions, and the numbers that a type has; of packed ones, each half. In
// bulk_copies.cpp.
std::optional<ReduceOp> take_reduction(Lowering& lower);
NumberType number_type(Lowering& lower, Type type);
Reduce reduction_of(Lowering& lower, ReduceOp op, Type type);

}  // namespace openweek::simulator
