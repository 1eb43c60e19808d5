// ldmatrix, stmatrix and mma.sync.
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "matrix.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

void require_whole_warp(Warp& warp, Mask lanes) {
  if (lanes != kAllLanes) {
    throw HazardError("divergent warp: a matrix instruction by part of a warp, " + warp.describe());
  }
}

// imm: 1 for transposed, 2 for a store; target: the number of the memory step, whose rows are the
// registers.
Step move_matrices(Warp& warp, const Inst& inst, Mask lanes) {
  require_whole_warp(warp, lanes);
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const int count = static_cast<int>(step.rows.size());
  std::array<uint8_t*, kLanes> addresses{};
  for (int lane = 0; lane < 8 * count; ++lane) {
    const uint64_t base =
        step.wide ? warp.row<uint64_t>(inst.a)[lane] : warp.row<uint32_t>(inst.a)[lane];
    addresses[lane] = locate(warp, lane, static_cast<Window>(step.window),
                             base + static_cast<uint64_t>(step.offset), 16, 16,
                             inst.imm & 2 ? Touch::kWrite : Touch::kRead);
  }
  std::array<uint32_t, 4> offsets{};
  for (int i = 0; i < count; ++i) offsets[i] = step.rows[i].first;
  const Rows rows{warp.row<uint8_t>(0), offsets.data()};
  const bool transposed = inst.imm & 1;
  if (inst.imm & 2) {
    stmatrix(count, transposed, addresses.data(), rows);
  } else {
    ldmatrix(count, transposed, addresses.data(), rows);
  }
  return Step::kNext;
}

void lower_matrix_move(Lowering& lower, bool stores) {
  if (!lower.take("sync") || !lower.take("aligned") || !lower.take("m8n8")) {
    lower.fail("the simulator knows .sync.aligned.m8n8 alone");
  }
  const std::string_view count = lower.take_one_of({"x1", "x2", "x4"});
  if (count.empty()) lower.fail(".x1, .x2 or .x4 is missing");
  const bool transposed = lower.take("trans");
  MemoryStep step;
  const std::string_view space = lower.take_one_of({"shared", "shared::cta"});
  step.window = static_cast<int>(space.empty() ? Window::kGeneric : Window::kShared);
  if (lower.take_type() != Type::kB16) lower.fail("the simulator knows matrices of .b16 alone");
  const ptx::Operand& registers = lower.operand(stores ? 1 : 0);
  const ptx::Operand& address = lower.operand(stores ? 0 : 1);
  if (address.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  const bool is_vector = registers.kind == ptx::Operand::Kind::kVector;
  const std::vector<ptx::Operand> parts =
      is_vector ? registers.parts : std::vector<ptx::Operand>{registers};
  if (parts.size() != static_cast<std::size_t>(count[1] - '0')) {
    lower.fail("there are not as many registers as matrices");
  }
  for (const ptx::Operand& part : parts) {
    const uint32_t row =
        stores ? lower.narrowed(part, Type::kB32) : lower.destination_row(part, Type::kB32);
    step.rows.emplace_back(row, 4);
  }
  const Lowering::Row base = lower.source(address.parts[0], Type::kB64);
  step.wide = base.width == 8;
  step.offset = address.bits;
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(step)));
  Inst& inst = lower.emit(move_matrices);
  inst.a = base.offset;
  inst.target = number;
  inst.imm = (transposed ? 1 : 0) | (stores ? 2 : 0);
  inst.gather = Gather::kWarp;
}

// The list has the registers of b and, behind them, of c.
Step multiply(Warp& warp, const Inst& inst, Mask lanes) {
  require_whole_warp(warp, lanes);
  const WgmmaStep& step = warp.program().wgmma_steps[static_cast<std::size_t>(inst.imm)];
  uint8_t* file = warp.row<uint8_t>(0);
  const std::vector<uint32_t>& rows = warp.program().lists[inst.list];
  const std::size_t num_d = step.d.size();
  const Rows d{file, step.d.data()};
  const Rows a{file, step.a.data()};
  const Rows b{file, rows.data()};
  const Rows c{file, rows.data() + rows.size() - num_d};
  // 4 registers of A hold 32 bytes of k, 2 hold 16.
  mma(step.op.on(warp.cta().cluster().world().config().reduced_fp8),
      static_cast<int>(8 * step.a.size()), a, b, c, d);
  return Step::kNext;
}

NumberType matrix_type(Lowering& lower, Type type) {
  switch (type) {
    case Type::kF16:
      return NumberType::kF16;
    case Type::kBF16:
      return NumberType::kBF16;
    case Type::kTF32:
      return NumberType::kTF32;
    case Type::kE4M3:
      return NumberType::kE4M3;
    case Type::kE5M2:
      return NumberType::kE5M2;
    default:
      lower.fail("the simulator does not multiply matrices of this type");
  }
}

void lower_multiply(Lowering& lower) {
  if (!lower.take("sync") || !lower.take("aligned") || !lower.take("row") || !lower.take("col")) {
    lower.fail("the simulator knows .sync.aligned.row.col alone");
  }
  const std::string_view shape = lower.take_one_of({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32"});
  if (shape.empty()) lower.fail("the simulator does not know this shape");
  const Type d_type = lower.take_type();
  WgmmaStep step;
  const Type a_type = lower.take_type();
  const Type b_type = lower.take_type();
  step.op.a = matrix_type(lower, a_type);
  step.op.b = matrix_type(lower, b_type);
  if (bytes_of(a_type) != bytes_of(b_type)) lower.fail("a and b must have types of one size");
  if (lower.take_type() != d_type) lower.fail("c and d must have one type");
  if (d_type != Type::kF32 && d_type != Type::kF16) {
    lower.fail("the simulator accumulates f32 and f16 alone");
  }
  step.op.f16_accumulator = d_type == Type::kF16;
  std::vector<uint32_t> others;
  for (const ptx::Operand& part : lower.operand(0).parts) {
    step.d.push_back(lower.destination_row(part, Type::kB32));
  }
  for (const ptx::Operand& part : lower.operand(1).parts) {
    step.a.push_back(lower.narrowed(part, Type::kB32));
  }
  const ptx::Operand& b = lower.operand(2);
  const bool b_is_vector = b.kind == ptx::Operand::Kind::kVector;
  for (const ptx::Operand& part : b_is_vector ? b.parts : std::vector<ptx::Operand>{b}) {
    others.push_back(lower.narrowed(part, Type::kB32));
  }
  for (const ptx::Operand& part : lower.operand(3).parts) {
    others.push_back(lower.narrowed(part, Type::kB32));
  }
  if (step.d.size() != (step.op.f16_accumulator ? 2 : 4)) {
    lower.fail("d has another number of registers");
  }
  if (step.a.size() != 2 && step.a.size() != 4) lower.fail("a has another number of registers");
  if (others.size() != step.a.size() / 2 + step.d.size()) {
    lower.fail("b or c has another number of registers");
  }
  const uint32_t list = lower.list(std::move(others));
  const int64_t number = lower.wgmma_step(std::move(step));
  Inst& inst = lower.emit(multiply);
  inst.list = list;
  inst.imm = number;
  inst.gather = Gather::kWarp;
}

}  // namespace

void add_matrices(Lowerers& lowerers) {
  lowerers["ldmatrix"] = [](Lowering& lower) { lower_matrix_move(lower, false); };
  lowerers["stmatrix"] = [](Lowering& lower) { lower_matrix_move(lower, true); };
  lowerers["mma"] = lower_multiply;
}

}  // namespace openweek::simulator
