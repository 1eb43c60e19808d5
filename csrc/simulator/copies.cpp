#include "copies.h"

#include <algorithm>
#include <cstring>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "world.h"

namespace openweek::simulator {

void LaneCopies::add(int lane, std::uint8_t* to, const std::uint8_t* from, int num_bytes,
                     int num_zeros) {
  copies_.push_back({lane, lanes_[lane].open, to, from, num_bytes, num_zeros});
}

void LaneCopies::commit(Mask lanes) {
  for_lanes(lanes, [this](int lane) { lanes_[lane].groups.push_back(end_batch(lane)); });
}

void LaneCopies::finish(int lane, std::uint64_t batch) {
  std::erase_if(copies_, [&](const Copy& copy) {
    if (copy.lane != lane || copy.batch > batch) return false;
    if (copy.num_bytes > 0) std::memcpy(copy.to, copy.from, copy.num_bytes);
    std::memset(copy.to + copy.num_bytes, 0, copy.num_zeros);
    return true;
  });
}

std::uint64_t LaneCopies::wait(Mask lanes, std::uint64_t num_pending) {
  std::uint64_t done = ~std::uint64_t{0};
  for_lanes(lanes, [&](int index) {
    Lane& lane = lanes_[index];
    if (lane.groups.size() > num_pending) {
      const auto end = lane.groups.end() - static_cast<std::ptrdiff_t>(num_pending);
      lane.done = *(end - 1);
      lane.groups.erase(lane.groups.begin(), end);
      finish(index, lane.done);
    }
    done = std::min(done, lane.done);
  });
  return done;
}

std::uint64_t LaneCopies::wait_all(Mask lanes) {
  std::uint64_t done = 0;
  for_lanes(lanes, [&](int lane) {
    const std::uint64_t batch = end_batch(lane);
    finish(lane, batch);
    done = std::max(done, batch);
  });
  return done;
}

void LaneCopies::begin_arrival(Agent mbarrier, std::uint64_t batch) {
  Arrival& arrival = arrivals_[mbarrier];
  ++arrival.count;
  arrival.batch = std::max(arrival.batch, batch);
}

std::uint64_t LaneCopies::end_arrival(Agent mbarrier) {
  Arrival& arrival = arrivals_[mbarrier];
  return --arrival.count == 0 ? arrival.batch : 0;
}

namespace {

using std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

uint64_t address(Warp& warp, uint32_t row, const MemoryStep& step, int lane) {
  const uint64_t base = step.wide ? warp.row<uint64_t>(row)[lane] : warp.row<uint32_t>(row)[lane];
  return base + static_cast<uint64_t>(step.offset);
}

// a and b: the addresses, with their steps in target and target + 1; c: bytes of the source, of
// which the rest is zero; imm: bytes in all.
Step copy(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& to = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const MemoryStep& from = warp.program().memory_steps[static_cast<std::size_t>(inst.target) + 1];
  const auto size = static_cast<int>(inst.imm);
  Cta& cta = warp.cta();
  if (!warp.copies.agent) {
    warp.copies.agent = cta.cluster().agents.add(Agents::Kind::kLaneCopy, cta.rank(), warp.index());
  }
  for_lanes(lanes, [&](int lane) {
    const SharedPlace place = shared_place(warp, lane, address(warp, inst.a, to, lane), size, size);
    const Access by{&warp, lane, warp.epoch_of(*warp.copies.agent, warp.copies.open_time(lane))};
    place.cta->history.write(place.offset, size, by);
    place.cta->owe(by.epoch);
    uint8_t* target = place.cta->shared().data() + place.offset;
    std::memset(target, kPoison, size);
    const uint32_t given =
        inst.c == kNoRow ? static_cast<uint32_t>(size) : warp.row<uint32_t>(inst.c)[lane];
    if (given > static_cast<uint32_t>(size)) {
      throw HazardError("out of bounds: " + who(warp, lane) + " reads " + std::to_string(given) +
                        " bytes to copy " + std::to_string(size));
    }
    const int read = static_cast<int>(given);
    const uint8_t* source =
        read == 0 ? nullptr
                  : locate(warp, lane, static_cast<Window>(from.window),
                           address(warp, inst.b, from, lane), read, size, Touch::kRead);
    warp.copies.add(lane, target, source, read, size - read);
  });
  return Step::kNext;
}

Step commit(Warp& warp, const Inst&, Mask lanes) {
  warp.copies.commit(lanes);
  return Step::kNext;
}

Step wait(Warp& warp, const Inst& inst, Mask lanes) {
  LaneCopies& copies = warp.copies;
  const std::uint64_t time =
      inst.imm < 0 ? copies.wait_all(lanes) : copies.wait(lanes, static_cast<uint64_t>(inst.imm));
  if (copies.agent) warp.knowledge.own.seen.learn(*copies.agent, static_cast<uint32_t>(time));
  return Step::kNext;
}

// An mbarrier counts the arrival of each lane when its copies so far are done. imm: whether that is
// one more than the phase expects.
Step arrive_behind(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  Cluster& cluster = warp.cta().cluster();
  for_lanes(lanes, [&](int lane) {
    const SharedPlace place = shared_place(warp, lane, address(warp, inst.a, step, lane), 8, 8);
    const Origin name = origin(warp, lane);
    Mbarrier& barrier = place.cta->mbarriers.at(place.offset, false, name);
    if (inst.imm) expect_arrival(barrier, name);
    const uint64_t batch = warp.copies.end_batch(lane);
    warp.copies.begin_arrival(barrier.agent, batch);
    cluster.world().post(cluster, true, [=, &warp, &barrier] {
      warp.copies.finish(lane, batch);
      const auto done = static_cast<uint32_t>(warp.copies.end_arrival(barrier.agent));
      if (warp.copies.agent) barrier.gathered.own.seen.learn(*warp.copies.agent, done);
      arrive(barrier, 1, name);
    });
  });
  return Step::kNext;
}

void lower_arrive(Lowering& lower) {
  if (!lower.take("arrive")) lower.fail(".arrive is missing");
  const bool is_expected = lower.take("noinc");
  lower.take_one_of({"shared", "shared::cta"});
  lower.take_type();
  const ptx::Operand& operand = lower.operand(0);
  if (operand.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  const Lowering::Row row = lower.source(operand.parts[0], Type::kB64);
  MemoryStep step;
  step.wide = row.width == 8;
  step.offset = operand.bits;
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(step)));
  Inst& inst = lower.emit(arrive_behind);
  inst.a = row.offset;
  inst.target = number;
  inst.imm = is_expected ? 0 : 1;
}

void lower_copy(Lowering& lower) {
  lower.take_one_of({"ca", "cg"});
  if (lower.take_one_of({"shared", "shared::cta"}).empty() || !lower.take("global")) {
    lower.fail("the simulator copies from .global to .shared alone");
  }
  lower.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  lower.take("L2::cache_hint");
  const ptx::Operand& size = lower.operand(2);
  if (size.kind != ptx::Operand::Kind::kInteger ||
      (size.bits != 4 && size.bits != 8 && size.bits != 16)) {
    lower.fail("the size must be 4, 8 or 16");
  }
  Lowering::Row rows[2];
  MemoryStep steps[2];
  for (int i = 0; i < 2; ++i) {
    if (lower.operand(i).kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
    rows[i] = lower.source(lower.operand(i).parts[0], Type::kB64);
    steps[i].wide = rows[i].width == 8;
    steps[i].offset = lower.operand(i).bits;
  }
  steps[1].window = static_cast<int>(Window::kGlobal);
  const uint32_t given = lower.num_operands() > 3 ? lower.source_row(3, Type::kB32) : kNoRow;
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(steps[0])));
  lower.memory_step(std::move(steps[1]));
  const int64_t bytes = size.bits;
  Inst& inst = lower.emit(copy);
  inst.a = rows[0].offset;
  inst.b = rows[1].offset;
  inst.c = given;
  inst.target = number;
  inst.imm = bytes;
}

}  // namespace

void lower_bulk_copy(Lowering& lower);  // bulk_copies.cpp

void add_copies(Lowerers& lowerers) {
  lowerers["cp"] = [](Lowering& lower) {
    if (lower.take("reduce")) return lower_bulk_copy(lower);
    if (!lower.take("async")) lower.fail("the simulator does not know this copy");
    if (lower.take("bulk")) return lower_bulk_copy(lower);
    if (lower.take("mbarrier")) return lower_arrive(lower);
    if (lower.take("commit_group")) {
      lower.emit(commit);
    } else if (lower.take("wait_all")) {
      lower.emit(wait).imm = -1;
    } else if (lower.take("wait_group")) {
      const ptx::Operand& pending = lower.operand(0);
      if (pending.kind != ptx::Operand::Kind::kInteger || pending.bits < 0) {
        lower.fail("how many groups may be under way must be a constant");
      }
      lower.emit(wait).imm = pending.bits;
    } else {
      lower_copy(lower);
    }
  };
}

}  // namespace openweek::simulator
