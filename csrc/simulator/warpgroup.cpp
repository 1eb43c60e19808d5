#include "warpgroup.h"

#include <algorithm>
#include <bit>
#include <string>

#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "world.h"

namespace openweek::simulator {

void Warpgroup::issue(Warp& warp, const WgmmaStep& step, std::uint64_t a, std::uint64_t b,
                      bool accumulate) {
  const int number = warp.index() % kWarpgroup;
  const std::uint64_t time = ++issued_[number];
  const std::uint64_t place = time - 1 - num_done_;
  if (place == queue_.size()) {
    IssuedMatrix& made = queue_.emplace_back();
    made.step = &step;
    made.a = a;
    made.b = b;
    made.accumulate = accumulate;
    if (!step.a_in_registers) {
      made.rows = operand(warp, a, 64, step.a_mn_major);
    }
    made.columns = operand(warp, b, step.n, step.b_mn_major);
  }
  IssuedMatrix& here = queue_[place];
  if (here.step != &step || here.a != a || here.b != b || here.accumulate != accumulate) {
    throw HazardError("divergent warpgroup: the warps of a warpgroup give different descriptors, " +
                      warp.describe());
  }
  here.warps[number] = &warp;
  ++here.num_issued;
  ++num_issued_;
  last_wgmma_ = warp.group().pc;
  check_ended(warp);
  warp.matrix_registers.issue(warp, step.d_numbers, step.a_numbers, time, step.n);
  check_operands(warp, here, time);
  if (here.num_issued < kWarpgroup) return;
  World& world = warp.cta().cluster().world();
  ++world.report().num_wgmmas;
  if (place == 0 && world.draw() % 4 == 0) {
    run(here);
    queue_.pop_front();
    ++num_done_;
  }
}

Granules Warpgroup::operand(Warp& warp, std::uint64_t descriptor, int rows, bool mn_major) const {
  try {
    return operand_granules(decode_descriptor(descriptor), rows, mn_major,
                            warp.cta().shared().size());
  } catch (const HazardError& error) {
    throw HazardError(error.what() + (", " + warp.describe()));
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(error.what() + (", " + warp.describe()));
  }
}

// Each of the four warps has to know that the operands are there.
void Warpgroup::check_operands(Warp& warp, IssuedMatrix& matrix, std::uint64_t time) {
  const Clock& seen = warp.knowledge.own.seen;
  OperandCopies& copies = matrix.copies;
  if (matrix.num_issued > 1 && !copies.has_others &&
      std::all_of(copies.epochs.begin(), copies.epochs.end(),
                  [&](Epoch copy) { return seen.knows(copy); })) {
    return;
  }
  copies = {};
  const Access by{&warp, 0, warp.epoch_of(agent_, time)};
  SharedHistory& history = warp.cta().history;
  if (!matrix.step->a_in_registers) {
    history.take_operand(matrix.rows.all(), decode_descriptor(matrix.a).swizzle, by, copies);
  }
  history.take_operand(matrix.columns.all(), decode_descriptor(matrix.b).swizzle, by, copies);
  warp.cta().owe(by.epoch);
}

void Warpgroup::commit(int warp) {
  commits_[warp].push_back(issued_[warp]);
  if (commits_[warp].size() > kMaxPendingGroups + 1) commits_[warp].pop_front();
}

bool Warpgroup::wait(Warp& warp, int num_pending) {
  const std::deque<std::uint64_t>& commits = commits_[warp.index() % kWarpgroup];
  if (commits.size() <= static_cast<std::size_t>(num_pending)) return true;
  const std::uint64_t wanted = commits[commits.size() - 1 - num_pending];
  while (num_done_ < wanted) {
    if (queue_.front().num_issued < kWarpgroup) return false;
    run(queue_.front());
    queue_.pop_front();
    ++num_done_;
  }
  warp.matrix_registers.wait(wanted);
  warp.knowledge.own.seen.learn(agent_, static_cast<std::uint32_t>(wanted));
  return true;
}

void Warpgroup::request_registers(Warp& warp, int count) {
  const int number = warp.index() % kWarpgroup;
  requests_[number].push_back(count);
  last_setmaxnreg_ = warp.group().pc;
  check_ended(warp);
  const std::size_t place = requests_[number].size() - 1;
  for (const std::deque<int>& others : requests_) {
    if (others.size() <= place || others[place] == count) continue;
    throw HazardError("divergent warpgroup: setmaxnreg to " + std::to_string(count) +
                      " registers, another warp of the warpgroup to " +
                      std::to_string(others[place]) + ", " + warp.describe());
  }
  const auto is_open = [](const std::deque<int>& made) { return made.empty(); };
  if (std::none_of(requests_.begin(), requests_.end(), is_open)) {
    for (std::deque<int>& made : requests_) made.pop_front();
  }
}

void Warpgroup::end(Warp& warp) {
  ended_[warp.index() % kWarpgroup] = true;
  check_ended(warp);
}

// All four have to execute each wgmma and setmaxnreg, so none that has ended may lack one.
void Warpgroup::check_ended(Warp& warp) const {
  for (int ended = 0; ended < kWarpgroup; ++ended) {
    for (int other = 0; ended_[ended] && other < kWarpgroup; ++other) {
      const bool lacks_wgmma = issued_[ended] < issued_[other];
      if (!lacks_wgmma && requests_[ended].size() >= requests_[other].size()) continue;
      const int first = warp.index() / kWarpgroup * kWarpgroup;
      const std::int32_t place = lacks_wgmma ? last_wgmma_ : last_setmaxnreg_;
      throw HazardError("divergent warpgroup: warp " + std::to_string(first + other) +
                        " executes " + warp.place(place) + ", and warp " +
                        std::to_string(first + ended) + " of its warpgroup ends without it, " +
                        warp.cta().name());
    }
  }
}

void Warpgroup::run(IssuedMatrix& matrix) {
  const WgmmaStep& step = *matrix.step;
  World& world = matrix.warps[0]->cta().cluster().world();
  const auto& shared = matrix.warps[0]->cta().shared();
  const MatrixOp op = step.op.on(world.config().reduced_fp8);
  WarpgroupRows d, a;
  for (int warp = 0; warp < kWarpgroup; ++warp) {
    d[warp] = {matrix.warps[warp]->row<std::uint8_t>(0), step.d.data()};
    a[warp] = {matrix.warps[warp]->row<std::uint8_t>(0), step.a.data()};
  }
  if (step.a_in_registers) {
    wgmma(op, a, matrix.columns, shared.data(), matrix.accumulate, d);
  } else {
    wgmma(op, matrix.rows, matrix.columns, shared.data(), matrix.accumulate, d);
  }
  world.progressed();
}

namespace {

using std::int64_t, std::uint32_t, std::uint64_t;

Warpgroup& warpgroup_of(Warp& warp) {
  return warp.cta().warpgroups[static_cast<std::size_t>(warp.index() / kWarpgroup)];
}

uint64_t same_in_all(Warp& warp, uint32_t row) {
  const uint64_t* descriptors = warp.row<uint64_t>(row);
  if (std::any_of(descriptors, descriptors + kLanes,
                  [&](uint64_t other) { return other != descriptors[0]; })) {
    throw HazardError("divergent warpgroup: the lanes of a warp give different descriptors, " +
                      warp.describe());
  }
  return descriptors[0];
}

Step multiply(Warp& warp, const Inst& inst, Mask lanes) {
  if (lanes != kAllLanes) {
    throw HazardError("divergent warpgroup: wgmma by part of a warp, " + warp.describe());
  }
  const WgmmaStep& step = warp.program().wgmma_steps[static_cast<std::size_t>(inst.imm)];
  const uint64_t a = inst.a == kNoRow ? 0 : same_in_all(warp, inst.a);
  const uint64_t b = same_in_all(warp, inst.b);
  const Mask scale = warp.predicate(inst.c) ^ (inst.target ? kAllLanes : 0);
  if (scale != 0 && scale != kAllLanes) {
    throw HazardError("divergent warpgroup: " + std::to_string(std::popcount(scale)) +
                      " lanes accumulate and others do not, " + warp.describe());
  }
  warpgroup_of(warp).issue(warp, step, a, b, scale & 1);
  return Step::kNext;
}

Step commit(Warp& warp, const Inst&, Mask) {
  warpgroup_of(warp).commit(warp.index() % kWarpgroup);
  return Step::kNext;
}

Step wait(Warp& warp, const Inst& inst, Mask) {
  Warpgroup& warpgroup = warpgroup_of(warp);
  if (warpgroup.wait(warp, static_cast<int>(inst.imm))) return Step::kNext;
  return warp.wait_for({.kind = Obstacle::Kind::kWarpgroup,
                        .change = &warpgroup.num_issued(),
                        .value = warpgroup.num_issued()});
}

Step fence(Warp& warp, const Inst&, Mask) {
  warp.matrix_registers.fence();
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

int take_shape(Lowering& lower, NumberType type) {
  const int k = type == NumberType::kTF32                               ? 8
                : type == NumberType::kF16 || type == NumberType::kBF16 ? 16
                                                                        : 32;
  for (int n = 8; n <= 256; n += 8) {
    if (lower.take("m64n" + std::to_string(n) + "k" + std::to_string(k))) return n;
  }
  lower.fail("the simulator does not know this shape");
}

int64_t immediate(Lowering& lower, int i) {
  if (lower.operand(i).kind != ptx::Operand::Kind::kInteger) lower.fail("a constant is expected");
  return lower.operand(i).bits;
}

void lower_multiply(Lowering& lower) {
  const Type accumulator = lower.take_type();
  const Type a_type = lower.take_type();
  const Type b_type = lower.take_type();
  WgmmaStep step;
  step.is_asynchronous = true;
  step.op.a = matrix_type(lower, a_type);
  step.op.b = matrix_type(lower, b_type);
  if (bytes_of(a_type) != bytes_of(b_type)) lower.fail("a and b must have types of one size");
  if (accumulator != Type::kF32 && accumulator != Type::kF16) {
    lower.fail("the simulator accumulates f32 and f16 alone");
  }
  step.op.f16_accumulator = accumulator == Type::kF16;
  step.n = take_shape(lower, step.op.a);
  for (const ptx::Operand& part : lower.operand(0).parts) {
    step.d.push_back(lower.destination_row(part, Type::kB32));
  }
  const std::size_t wanted = step.n / (step.op.f16_accumulator ? 4 : 2);
  if (step.d.size() != wanted) lower.fail("the accumulator has another number of registers");
  const ptx::Operand& a_operand = lower.operand(1);
  step.a_in_registers = a_operand.kind == ptx::Operand::Kind::kVector;
  uint32_t a = kNoRow;
  if (step.a_in_registers) {
    for (const ptx::Operand& part : a_operand.parts) {
      step.a.push_back(lower.narrowed(part, Type::kB32));
    }
    if (step.a.size() != 4) lower.fail("a has another number of registers than 4");
  } else {
    a = lower.source_row(1, Type::kB64);
  }
  const uint32_t b = lower.source_row(2, Type::kB64);
  bool negated = false;
  const uint32_t scale = lower.predicate(lower.operand(3), &negated);
  step.op.negate = (immediate(lower, 4) < 0) != (immediate(lower, 5) < 0);
  int next = 6;
  if (bytes_of(a_type) == 2) {
    if (!step.a_in_registers) step.a_mn_major = immediate(lower, next++) != 0;
    step.b_mn_major = immediate(lower, next++) != 0;
  }
  if (next != lower.num_operands()) lower.fail("there are too many operands");
  const int64_t number = lower.wgmma_step(std::move(step));
  Inst& inst = lower.emit(multiply);
  inst.a = a;
  inst.b = b;
  inst.c = scale;
  inst.target = negated;
  inst.imm = number;
  inst.gather = Gather::kWarp;
}

void lower_wgmma(Lowering& lower) {
  const bool multiplies = lower.take("mma_async");
  const bool fences = !multiplies && lower.take("fence");
  const bool commits = !multiplies && !fences && lower.take("commit_group");
  const bool waits = !multiplies && !fences && !commits && lower.take("wait_group");
  if (!multiplies && !fences && !commits && !waits) {
    lower.fail("the simulator does not know this instruction");
  }
  if (!lower.take("sync") || !lower.take("aligned")) lower.fail(".sync.aligned is missing");
  if (multiplies) return lower_multiply(lower);
  const int64_t pending = waits ? immediate(lower, 0) : 0;
  if (pending < 0 || pending > kMaxPendingGroups) {
    lower.fail("the simulator counts from 0 to " + std::to_string(kMaxPendingGroups) + " groups");
  }
  Inst& inst = lower.emit(fences ? fence : commits ? commit : wait);
  inst.imm = pending;
  inst.gather = Gather::kWarp;
}

}  // namespace

void add_wgmma(Lowerers& lowerers) { lowerers["wgmma"] = lower_wgmma; }

}  // namespace openweek::simulator
