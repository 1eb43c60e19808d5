// st.async and red.async: what a thread sends to the shared memory of another CTA of its cluster,
// where an mbarrier counts it. It arrives at some later moment.
#include <array>
#include <cstdint>
#include <cstring>

#include "errors.h"
#include "lanes.h"
#include "memory_operands.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

constexpr int kMostBytes = 16;

struct Target {
  SharedPlace data;
  SharedPlace barrier;
};

// imm: the step of the data; b, target: the barrier's address, and its step.
Target target_of(Warp& warp, const Inst& inst, int lane, int num_bytes) {
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const uint64_t base =
      step.wide ? warp.row<uint64_t>(inst.b)[lane] : warp.row<uint32_t>(inst.b)[lane];
  const Target target = {
      shared_place(warp, lane, address_of(warp, inst, lane), num_bytes, num_bytes),
      shared_place(warp, lane, base + static_cast<uint64_t>(step.offset), 8, 8)};
  // PTX ISA, st.async and red.async: otherwise the behaviour is undefined.
  if (target.data.cta != target.barrier.cta || target.data.cta == &warp.cta()) {
    throw HazardError("wrong CTA: " + who(warp, lane) + " sends to CTA rank " +
                      std::to_string(target.data.cta->rank()) + " and has CTA rank " +
                      std::to_string(target.barrier.cta->rank()) +
                      " count it: both must be one CTA, and not rank " +
                      std::to_string(warp.cta().rank()) + ", the thread's own");
  }
  return target;
}

Step send(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.imm)];
  const int total = step.element_bytes * static_cast<int>(step.rows.size());
  Cluster& cluster = warp.cta().cluster();
  for_lanes(lanes, [&](int lane) {
    const auto [data, barrier] = target_of(warp, inst, lane, total);
    const Origin name = origin(warp, lane);
    Mbarrier& counter = barrier.cta->mbarriers.at(barrier.offset, false, name);
    const uint64_t phase = start_bytes(counter, total);
    const bool reduces = step.reduce != nullptr;
    const Epoch epoch(counter.agent, static_cast<uint32_t>(phase + 1), warp.group().pc, 15,
                      reduces);
    if (reduces) {
      data.cta->history.modify(data.offset, total, {&warp, lane, epoch});
    } else {
      data.cta->history.write(data.offset, total, {&warp, lane, epoch});
    }
    data.cta->owe(epoch);
    std::array<uint8_t, kMostBytes> sent;
    uint8_t* end = sent.data();
    for (const auto& [row, width] : step.rows) {
      std::memcpy(end, warp.row<uint8_t>(row) + width * lane, step.element_bytes);
      end += step.element_bytes;
    }
    uint8_t* to = data.cta->shared().data() + data.offset;
    if (!reduces) std::memset(to, kPoison, total);
    cluster.world().post(cluster, true, [=, &counter, reduce = step.reduce] {
      if (reduce != nullptr) {
        reduce(to, sent.data(), total);
      } else {
        std::memcpy(to, sent.data(), total);
      }
      complete_bytes(counter, total, phase, name);
    });
  });
  return Step::kNext;
}

}  // namespace

// What stands behind st.async or red.async.
void lower_asynchronous(Lowering& lower, bool reduces) {
  const Order order = take_order(lower, reduces ? Order::kRelaxed : Order::kWeak);
  if (order != (reduces ? Order::kRelaxed : Order::kWeak)) {
    lower.fail(
        "Hopper has it for .shared::cluster alone, .weak for stores and .relaxed for others");
  }
  lower.take("cluster");
  lower.take("shared::cluster");
  lower.take("mbarrier::complete_tx::bytes");
  MemoryStep step;
  const int count = take_count(lower);
  const std::optional<ReduceOp> operation = take_reduction(lower);
  if (operation.has_value() != reduces) lower.fail("there is no such operation");
  step.type = lower.take_type();
  step.element_bytes = bytes_of(step.type);
  const int total = step.element_bytes * count;
  if (step.element_bytes < 4 || total > kMostBytes || (reduces && count != 1)) {
    lower.fail("there is no such vector of this type");
  }
  if (reduces && is_float(step.type)) lower.fail("there is no such reduction of this type");
  if (reduces) step.reduce = reduction_of(lower, *operation, step.type);
  if (lower.num_operands() != 3) lower.fail("three operands are expected");
  for (const ptx::Operand& element : elements(lower, lower.operand(1), count)) {
    const Lowering::Row row = lower.source(element, step.type);
    if (row.width < step.element_bytes) lower.fail("a register is narrower than the type");
    step.rows.emplace_back(row.offset, row.width);
  }
  const Place barrier = take_place(lower, lower.operand(2), Window::kShared);
  const Place data = take_place(lower, lower.operand(0), Window::kShared);
  MemoryStep counted;
  counted.wide = barrier.wide;
  counted.offset = barrier.offset;
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(counted)));
  Inst& inst = emit_memory(lower, send, data, std::move(step));
  inst.b = barrier.row;
  inst.target = number;
}

}  // namespace openweek::simulator
