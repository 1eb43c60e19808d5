// multimem: one address for the same place in the memory of several devices.
//
// Each replica is an access of its own to the history, so what nothing orders is a race there as
// anywhere; when a weak access happens within the order is then of no consequence, and it happens
// at once.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "errors.h"
#include "lanes.h"
#include "memory_operands.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

constexpr int kMostBytes = 16;  // of one access

// Where a lane's address lies on each device.
std::vector<uint64_t> replicas(Warp& warp, const Inst& inst, int lane, int num_bytes) {
  const uint64_t address = address_of(warp, inst, lane);
  if (address % static_cast<unsigned>(num_bytes) != 0) {
    throw HazardError("misaligned: " + who(warp, lane) + " touches a multicast address, which " +
                      "must be a multiple of " + std::to_string(num_bytes));
  }
  for (const Multicast& multicast : warp.cta().cluster().world().config().multicasts) {
    const uint64_t offset = address - multicast.begin;
    if (address < multicast.begin ||
        offset + static_cast<unsigned>(num_bytes) > multicast.num_bytes) {
      continue;
    }
    std::vector<uint64_t> found;
    for (const uint64_t base : multicast.replicas) found.push_back(base + offset);
    return found;
  }
  throw HazardError("out of bounds: " + who(warp, lane) + " touches " + std::to_string(num_bytes) +
                    " bytes at address " + std::to_string(address) +
                    ", which is not in a multicast range of the machine");
}

int total_bytes(const MemoryStep& step) {
  return step.element_bytes * static_cast<int>(step.rows.size());
}

// The bytes of a lane's registers, one element behind the other.
void gather(Warp& warp, const MemoryStep& step, int lane, uint8_t* to) {
  for (const auto& [row, width] : step.rows) {
    std::memcpy(to, warp.row<uint8_t>(row) + width * lane, step.element_bytes);
    to += step.element_bytes;
  }
}

void scatter(Warp& warp, const MemoryStep& step, int lane, const uint8_t* from) {
  for (const auto& [row, width] : step.rows) {
    uint64_t value = 0;
    std::memcpy(&value, from, step.element_bytes);
    std::memcpy(warp.row<uint8_t>(row) + width * lane, &value, width);
    from += step.element_bytes;
  }
}

// Sums of 16-bit floats that are rounded once, at the end.
void sum_wide(NumberType type, const std::vector<uint64_t>& from, int num_bytes, uint8_t* to) {
  const Converter widen = find_converter(NumberType::kF32, type);
  const Converter narrow = find_converter(type, NumberType::kF32);
  const Reduce add = find_reduce(ReduceOp::kAdd, NumberType::kF32);
  for (int at = 0; at < num_bytes; at += 2) {
    uint32_t sum = 0;
    for (std::size_t i = 0; i < from.size(); ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, reinterpret_cast<const uint8_t*>(from[i]) + at, 2);
      const auto wide = static_cast<uint32_t>(widen(bits, {}));
      if (i == 0) {
        sum = wide;
      } else {
        add(reinterpret_cast<uint8_t*>(&sum), reinterpret_cast<const uint8_t*>(&wide), 4);
      }
    }
    const auto result = static_cast<std::uint16_t>(narrow(sum, {}));
    std::memcpy(to + at, &result, 2);
  }
}

Step load_reduce(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.imm)];
  const int total = total_bytes(step);
  GlobalHistory& history = warp.cta().cluster().world().history();
  for_lanes(lanes, [&](int lane) {
    const std::vector<uint64_t> from = replicas(warp, inst, lane, total);
    for (const uint64_t address : from) {
      if (step.order != Order::kWeak) acquire(warp, step, address, lane);
      history.read(address, total, false,
                   {&warp, lane, warp.epoch(lane, step.order != Order::kWeak), step.scope});
    }
    uint8_t result[kMostBytes];
    if (step.sums_wide) {
      sum_wide(step.number, from, total, result);
    } else {
      std::memcpy(result, reinterpret_cast<const uint8_t*>(from[0]), total);
      for (std::size_t i = 1; i < from.size(); ++i) {
        step.reduce(result, reinterpret_cast<const uint8_t*>(from[i]), total);
      }
    }
    scatter(warp, step, lane, result);
  });
  return Step::kNext;
}

// A store, or where there is an operation, a reduction.
Step store(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.imm)];
  const int total = total_bytes(step);
  World& world = warp.cta().cluster().world();
  for_lanes(lanes, [&](int lane) {
    uint8_t value[kMostBytes];
    gather(warp, step, lane, value);
    for (const uint64_t address : replicas(warp, inst, lane, total)) {
      const bool is_strong = step.order != Order::kWeak;
      world.history().write(address, total, false,
                            {&warp, lane, warp.epoch(lane, is_strong), step.scope});
      if (is_strong) release(warp, step, address, step.reduce != nullptr);
      auto* to = reinterpret_cast<uint8_t*>(address);
      if (step.reduce != nullptr) {
        step.reduce(to, value, total);
      } else {
        std::memcpy(to, value, total);
      }
    }
  });
  if (step.order != Order::kWeak) warp.tick();
  world.progressed();
  return Step::kNext;
}

void check_shape(Lowering& lower, const MemoryStep& step, int count) {
  const int total = step.element_bytes * count;
  const bool fits = is_float(step.type) && step.type != Type::kF64
                        ? total == 4 || total == 8 || total == 16
                        : count == 1 && (total == 4 || total == 8);
  if (!fits) lower.fail("there is no such vector of this type");
}

void lower_multimem(Lowering& lower) {
  const bool loads = lower.take("ld_reduce");
  const bool reduces = !loads && lower.take("red");
  if (!loads && !reduces && !lower.take("st")) lower.fail("the simulator does not know this");
  MemoryStep step;
  step.order = take_order(lower, reduces ? Order::kRelaxed : Order::kWeak);
  step.scope = take_scope(lower, MemoryScope::kSys);
  lower.take("global");
  const std::optional<ReduceOp> operation = take_reduction(lower);
  if (operation.has_value() != (loads || reduces)) lower.fail("an operation is missing");
  const bool wide = lower.take("acc::f32");
  const int count = take_count(lower);
  step.type = lower.take_type();
  step.element_bytes = bytes_of(step.type);
  check_shape(lower, step, count);
  if (operation) {
    step.number = number_type(lower, step.type);
    step.reduce = reduction_of(lower, *operation, step.type);
    if (reduces && is_float(step.type) && operation != ReduceOp::kAdd) {
      lower.fail("floats are only added");
    }
  }
  const bool is_half = step.number == NumberType::kF16 || step.number == NumberType::kBF16;
  if (wide && !(loads && is_half)) lower.fail(".acc::f32 is for sums of 16-bit floats");
  step.sums_wide = wide && operation == ReduceOp::kAdd;
  if (lower.num_operands() != 2) lower.fail("two operands are expected");
  const Place place = take_place(lower, lower.operand(loads ? 1 : 0), Window::kGlobal);
  for (const ptx::Operand& element : elements(lower, lower.operand(loads ? 0 : 1), count)) {
    const Lowering::Row row =
        loads ? lower.destination(element, step.type) : lower.source(element, step.type);
    if (row.width < step.element_bytes) lower.fail("a register is narrower than the type");
    step.rows.emplace_back(row.offset, row.width);
  }
  emit_memory(lower, loads ? load_reduce : store, place, std::move(step));
  lower.communicates();
}

}  // namespace

void add_multimem(Lowerers& lowerers) { lowerers["multimem"] = lower_multimem; }

}  // namespace openweek::simulator
