// cp.async.bulk and cp.async.bulk.tensor: copies that the TMA unit makes.
#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "access.h"
#include "bulk_step.h"
#include "copies.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"
#include "memory_operands.h"
#include "tile_copy.h"
#include "world.h"

namespace openweek::simulator {

namespace {

using std::int32_t, std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

uint64_t value(Warp& warp, const BulkStep::Address& address, int lane) {
  const uint64_t base =
      address.wide ? warp.row<uint64_t>(address.row)[lane] : warp.row<uint32_t>(address.row)[lane];
  return base + static_cast<uint64_t>(address.offset);
}

TensorMap tensor_map(Warp& warp, const BulkStep& step, int lane) {
  const uint64_t address = value(warp, step.map, lane);
  const uint64_t window = address & kWindows;
  if (window == kSharedWindow || window == kLocalWindow) {
    throw HazardError("wrong tensor map: " + who(warp, lane) +
                      " takes a tensor map from shared or local memory; it must lie in global "
                      "memory, in constants or in parameters");
  }
  const uint8_t* bytes = locate(warp, lane, Window::kGeneric, address,
                                static_cast<int>(kTensorMapBytes), 64, Touch::kNone);
  if (window != kParameterWindow) {
    warp.cta().cluster().world().history().use_map(address, kTensorMapBytes,
                                                   {&warp, lane, warp.epoch(lane)});
  }
  try {
    const TensorMap map =
        decode_tensor_map(std::span<const uint8_t, kTensorMapBytes>(bytes, kTensorMapBytes));
    if (map.rank == step.rank) return map;
    throw HazardError("wrong tensor map: " + who(warp, lane) + " has coordinates of rank " +
                      std::to_string(step.rank) + ", the map has rank " + std::to_string(map.rank));
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(error.what() + (", " + who(warp, lane)));
  }
}

void check_reduce(Warp& warp, int lane, ReduceOp operation, NumberType type) {
  try {
    find_reduce(operation, type);
  } catch (const UnsupportedError& error) {
    throw UnsupportedError(error.what() + (", " + who(warp, lane)));
  }
}

std::vector<int32_t> corner_of(Warp& warp, const BulkStep& step, int lane) {
  std::vector<int32_t> corner;
  for (const uint32_t row : step.corner) corner.push_back(warp.row<int32_t>(row)[lane]);
  corner.resize(kMaxRank, 0);
  return corner;
}

// How many bytes a copy without a map moves.
uint32_t plain_bytes(Warp& warp, const BulkStep& step, int lane) {
  const uint32_t num_bytes = warp.row<uint32_t>(step.size)[lane];
  if (num_bytes % 16 != 0) {
    throw HazardError("misaligned: " + who(warp, lane) + " copies " + std::to_string(num_bytes) +
                      " bytes, which must be a multiple of 16");
  }
  return num_bytes;
}

void check_global(Warp& warp, int lane, const std::vector<GlobalRange>& ranges, Touch touch) {
  for (const GlobalRange& range : ranges) {
    locate(warp, lane, Window::kGlobal, range.address, range.num_bytes, 1, touch);
  }
}

// Moves nothing, but must name what is there.
void prefetch(Warp& warp, const BulkStep& step, int lane) {
  if (step.rank > 0) {
    tensor_map(warp, step, lane);
  } else {
    locate(warp, lane, Window::kGlobal, value(warp, step.from, lane), plain_bytes(warp, step, lane),
           16, Touch::kNone);
  }
}

// A load into the shared memory of one or, with a mask, several CTAs of the cluster; each counts
// the bytes at its own barrier, at the same offset.
void load(Warp& warp, const BulkStep& step, int lane) {
  Cluster& cluster = warp.cta().cluster();
  const Origin name = origin(warp, lane);
  std::optional<TensorMap> map;
  std::vector<int32_t> corner;
  const uint8_t* source = nullptr;
  SharedPlace from_shared;
  if (step.rank > 0) map = tensor_map(warp, step, lane);
  const uint64_t num_bytes = map ? map->box_bytes() : plain_bytes(warp, step, lane);
  const SharedPlace to =
      shared_place(warp, lane, value(warp, step.to, lane), num_bytes, map ? 128 : 16);
  if (map) {
    corner = corner_of(warp, step, lane);
    check_global(warp, lane, box_ranges(*map, corner.data()), Touch::kTake);
  } else if (step.from_shared) {
    from_shared = shared_place(warp, lane, value(warp, step.from, lane), num_bytes, 16);
    source = from_shared.cta->shared().data() + from_shared.offset;
  } else {
    source = locate(warp, lane, Window::kGlobal, value(warp, step.from, lane), num_bytes, 16,
                    Touch::kTake);
  }
  const SharedPlace barrier = shared_place(warp, lane, value(warp, step.barrier, lane), 8, 8);
  const uint32_t mask = step.mask == kNoRow ? 0 : warp.row<uint32_t>(step.mask)[lane] & 0xffff;
  std::vector<std::pair<Cta*, Cta*>> targets;  // of the data, of the barrier
  if (step.multicast) {
    for (std::size_t rank = 0; rank < cluster.ctas().size(); ++rank) {
      if (mask >> rank & 1)
        targets.emplace_back(cluster.ctas()[rank].get(), cluster.ctas()[rank].get());
    }
    if (targets.empty() || mask >> cluster.ctas().size()) {
      throw HazardError("out of bounds: " + name.text() +
                        " sends to CTAs that the cluster does not have");
    }
  } else {
    targets.emplace_back(to.cta, barrier.cta);
  }
  for (const auto& [data_cta, barrier_cta] : targets) {
    if (data_cta->finished() || barrier_cta->finished()) {
      throw HazardError("exited CTA: " + name.text() + " copies into shared memory of " +
                        data_cta->name() + ", which has ended");
    }
    Mbarrier& counter = barrier_cta->mbarriers.at(barrier.offset, true, name);
    const uint64_t phase = start_bytes(counter, num_bytes);
    const Access by{&warp, lane,
                    Epoch(counter.agent, static_cast<uint32_t>(phase + 1), warp.group().pc, 15,
                          step.reduction != nullptr)};
    const std::optional<Swizzle> layout = map ? std::optional(map->swizzle) : std::nullopt;
    if (from_shared.cta != nullptr) {
      from_shared.cta->history.take(from_shared.offset, num_bytes, by);
      from_shared.cta->owe(by.epoch);
    }
    data_cta->owe(by.epoch);
    if (step.reduction != nullptr) {
      data_cta->history.accumulate(to.offset, num_bytes, by);
    } else {
      data_cta->history.fill(to.offset, num_bytes, layout, by);
      std::memset(data_cta->shared().data() + to.offset, kPoison, num_bytes);
    }
    auto work = [=, data_cta = data_cta, &counter, reduction = step.reduction] {
      auto& shared = data_cta->shared();
      if (reduction != nullptr) {
        reduction(shared.data() + to.offset, source, num_bytes);
      } else if (map) {
        load_box(*map, corner.data(), shared, to.offset);
      } else {
        std::memcpy(shared.data() + to.offset, source, num_bytes);
      }
      complete_bytes(counter, num_bytes, phase, name);
    };
    ++cluster.world().report().num_bulk_copies;
    cluster.world().post(cluster, true, std::move(work));
  }
}

// The two agents of a thread's stores: shared memory is read before the destination is written.
void enter_store(Warp& warp, int lane, BulkGroups& groups, const SharedPlace& from,
                 uint32_t num_bytes, const std::vector<GlobalRange>& ranges, bool reduces) {
  Cta& cta = warp.cta();
  if (!groups.reads) {
    const auto thread = static_cast<uint32_t>(warp.index() * kLanes + lane);
    groups.reads = cta.cluster().agents.add(Agents::Kind::kBulkRead, cta.rank(), thread);
    groups.writes = cta.cluster().agents.add(Agents::Kind::kBulkWrite, cta.rank(), thread);
  }
  const uint64_t time = groups.num_committed + 1;
  const Access reading{&warp, lane, warp.epoch_of(*groups.reads, time)};
  from.cta->history.take(from.offset, num_bytes, reading);
  from.cta->owe(reading.epoch);
  // Reductions are atomic.
  const Epoch write =
      Epoch(*groups.writes, static_cast<uint32_t>(time), warp.group().pc, 15, reduces);
  for (const GlobalRange& range : ranges) {
    locate(warp, lane, Window::kGlobal, range.address, range.num_bytes, 1, Touch::kNone);
    cta.cluster().world().history().write(range.address, range.num_bytes, true,
                                          {&warp, lane, write, MemoryScope::kGpu});
  }
}

// A store: first shared memory is read, later the destination is written.
void store(Warp& warp, const BulkStep& step, int lane) {
  Cluster& cluster = warp.cta().cluster();
  std::optional<TensorMap> map;
  std::vector<int32_t> corner;
  uint8_t* target = nullptr;
  std::vector<GlobalRange> ranges;
  if (step.rank > 0) map = tensor_map(warp, step, lane);
  const uint64_t num_bytes = map ? map->box_bytes() : plain_bytes(warp, step, lane);
  const SharedPlace from =
      shared_place(warp, lane, value(warp, step.from, lane), num_bytes, map ? 128 : 16);
  if (map) {
    corner = corner_of(warp, step, lane);
    ranges = box_ranges(*map, corner.data());
  } else {
    ranges = {{value(warp, step.to, lane), num_bytes}};
    target = locate(warp, lane, Window::kGlobal, ranges[0].address, num_bytes, 16, Touch::kNone);
  }
  if (step.reduce && map) check_reduce(warp, lane, *step.reduce, map->type);
  BulkGroups& groups = warp.bulk_groups[lane];
  enter_store(warp, lane, groups, from, num_bytes, ranges, step.reduce.has_value());
  const std::shared_ptr<BulkGroup> group = groups.open;
  ++group->reads;
  ++group->writes;
  const std::shared_ptr<uint64_t> changes = warp.bulk_changes;
  auto read = [=, &cluster, reduce = step.reduce, reduction = step.reduction] {
    // A copy of what is sent, at its own address: swizzles go by addresses.
    const auto* sent = from.cta->shared().data();
    auto copied = std::make_shared<std::vector<uint8_t>>(from.offset + num_bytes);
    std::memcpy(copied->data() + from.offset, sent + from.offset, num_bytes);
    --group->reads;
    ++*changes;
    auto write = [=] {
      if (map && reduce) {
        reduce_box(*map, corner.data(), *copied, from.offset, *reduce);
      } else if (map) {
        store_box(*map, corner.data(), *copied, from.offset);
      } else if (reduction != nullptr) {
        reduction(target, copied->data() + from.offset, num_bytes);
      } else {
        std::memcpy(target, copied->data() + from.offset, num_bytes);
      }
      --group->writes;
      ++*changes;
    };
    // The cluster may have ended by then: what is written comes from the copy.
    cluster.world().post(cluster, false, write);
  };
  ++cluster.world().report().num_bulk_copies;
  cluster.world().post(cluster, true, std::move(read));
}

Step copy(Warp& warp, const Inst& inst, Mask lanes) {
  const BulkStep& step = warp.program().bulk_steps[static_cast<std::size_t>(inst.imm)];
  for_lanes(lanes, [&](int lane) {
    if (step.prefetches) {
      prefetch(warp, step, lane);
    } else if (step.loads) {
      load(warp, step, lane);
    } else {
      store(warp, step, lane);
    }
  });
  return Step::kNext;
}

Step commit(Warp& warp, const Inst&, Mask lanes) {
  for_lanes(lanes, [&](int lane) {
    BulkGroups& groups = warp.bulk_groups[lane];
    ++groups.num_committed;
    if (groups.open->reads == 0 && groups.open->writes == 0) return;
    std::erase_if(groups.committed, [](const auto& group) { return group.second->writes == 0; });
    groups.committed.emplace_back(groups.num_committed, groups.open);
    groups.open = std::make_shared<BulkGroup>();
  });
  return Step::kNext;
}

// imm: groups that may be under way; target: whether reading is enough.
Step wait(Warp& warp, const Inst& inst, Mask lanes) {
  bool done = true;
  for_lanes(lanes, [&](int lane) {
    const BulkGroups& groups = warp.bulk_groups[lane];
    const auto pending = static_cast<uint64_t>(inst.imm);
    if (groups.num_committed <= pending) return;
    for (const auto& [number, group] : groups.committed) {
      if (number > groups.num_committed - pending) continue;
      done = done && group->reads == 0 && (inst.target || group->writes == 0);
    }
  });
  if (!done) {
    return warp.wait_for({.kind = Obstacle::Kind::kBulkGroups,
                          .change = warp.bulk_changes.get(),
                          .value = *warp.bulk_changes});
  }
  for_lanes(lanes, [&](int lane) {
    const BulkGroups& groups = warp.bulk_groups[lane];
    const auto pending = static_cast<uint64_t>(inst.imm);
    if (!groups.reads || groups.num_committed <= pending) return;
    const auto time = static_cast<uint32_t>(groups.num_committed - pending);
    warp.knowledge.own.seen.learn(*groups.reads, time);
    if (!inst.target) warp.knowledge.own.seen.learn(*groups.writes, time);
  });
  return Step::kNext;
}

// ---- lowering ----

BulkStep::Address address_of(Lowering& lower, const ptx::Operand& operand) {
  if (operand.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  const Lowering::Row row = lower.source(operand.parts[0], Type::kB64);
  return {row.offset, row.width == 8, operand.bits};
}

void read_tensor(Lowering& lower, BulkStep& step, const ptx::Operand& operand) {
  step.map = address_of(lower, operand);
  if (operand.parts.size() != 2) lower.fail("coordinates are missing");
  for (const ptx::Operand& part : operand.parts[1].parts) {
    step.corner.push_back(lower.narrowed(part, Type::kS32));
  }
  if (static_cast<int>(step.corner.size()) != step.rank) {
    lower.fail("there are not as many coordinates as dimensions");
  }
}

}  // namespace

std::optional<ReduceOp> take_reduction(Lowering& lower) {
  static constexpr std::pair<std::string_view, ReduceOp> kOperations[] = {
      {"add", ReduceOp::kAdd},       {"min", ReduceOp::kMin},       {"max", ReduceOp::kMax},
      {"and", ReduceOp::kAnd},       {"or", ReduceOp::kOr},         {"xor", ReduceOp::kXor},
      {"inc", ReduceOp::kIncrement}, {"dec", ReduceOp::kDecrement},
  };
  for (const auto& [name, operation] : kOperations) {
    if (lower.take(name)) return operation;
  }
  return std::nullopt;
}

Reduce reduction_of(Lowering& lower, ReduceOp op, Type type) {
  try {
    return find_reduce(op, number_type(lower, type));
  } catch (const UnsupportedError& error) {
    lower.fail(error.what());
  }
}

NumberType number_type(Lowering& lower, Type type) {
  switch (type) {
    case Type::kU32:
    case Type::kB32:
      return NumberType::kU32;
    case Type::kS32:
      return NumberType::kS32;
    case Type::kU64:
    case Type::kB64:
      return NumberType::kU64;
    case Type::kS64:
      return NumberType::kS64;
    case Type::kF16:
    case Type::kF16x2:
      return NumberType::kF16;
    case Type::kBF16:
    case Type::kBF16x2:
      return NumberType::kBF16;
    case Type::kF32:
      return NumberType::kF32;
    case Type::kF64:
      return NumberType::kF64;
    default:
      lower.fail("the simulator does not reduce this type");
  }
}

namespace {

// The operands of each form; how many there are, but for a cache policy.
// [map, corner]   or   [from], size
int read_prefetch(Lowering& lower, BulkStep& step) {
  if (step.rank > 0) {
    read_tensor(lower, step, lower.operand(0));
    return 1;
  }
  step.from = address_of(lower, lower.operand(0));
  step.size = lower.source_row(1, Type::kB32);
  return 2;
}

// [map, corner], [from]   or   [to], [from], size
int read_store(Lowering& lower, BulkStep& step) {
  step.from = address_of(lower, lower.operand(1));
  if (step.rank > 0) {
    read_tensor(lower, step, lower.operand(0));
    return 2;
  }
  step.to = address_of(lower, lower.operand(0));
  step.size = lower.source_row(2, Type::kB32);
  return 3;
}

// [to], [map, corner], [barrier], mask   or   [to], [from], size, [barrier], mask
int read_load(Lowering& lower, BulkStep& step) {
  step.to = address_of(lower, lower.operand(0));
  int next = 1;
  if (step.rank > 0) {
    read_tensor(lower, step, lower.operand(next++));
  } else {
    step.from = address_of(lower, lower.operand(next++));
    step.size = lower.source_row(next++, Type::kB32);
  }
  step.barrier = address_of(lower, lower.operand(next++));
  if (step.multicast) step.mask = lower.source_row(next++, Type::kB16);
  return next;
}

void lower_groups(Lowering& lower, bool commits) {
  if (commits) {
    lower.emit(commit);
    return;
  }
  const bool reading = lower.take("read");
  const ptx::Operand& pending = lower.operand(0);
  if (pending.kind != ptx::Operand::Kind::kInteger || pending.bits < 0) {
    lower.fail("how many groups may be under way must be a constant");
  }
  Inst& inst = lower.emit(wait);
  inst.imm = pending.bits;
  inst.target = reading;
}

}  // namespace

// What stands behind cp.async.bulk, or cp.reduce.async.bulk.
void lower_bulk_copy(Lowering& lower) {
  lower.take("async");
  lower.take("bulk");
  if (lower.take("commit_group")) return lower_groups(lower, true);
  if (lower.take("wait_group")) return lower_groups(lower, false);
  BulkStep step;
  step.prefetches = lower.take("prefetch");
  if (lower.take("tensor")) {
    static constexpr std::string_view kRanks[] = {"1d", "2d", "3d", "4d", "5d"};
    for (int rank = 1; rank <= 5; ++rank) {
      if (lower.take(kRanks[rank - 1])) step.rank = rank;
    }
    if (step.rank == 0) lower.fail("a rank is missing");
    lower.take("tile");
    if (lower.take("im2col")) lower.fail("the simulator copies tiles, and not .im2col");
  }
  // The first space is the destination's.
  const std::vector<std::string>& modifiers = lower.statement().modifiers;
  const auto first = std::find_if(modifiers.begin(), modifiers.end(), [](const std::string& name) {
    return name == "global" || name.starts_with("shared");
  });
  step.loads = first != modifiers.end() && *first != "global" && !step.prefetches;
  const bool has_global = lower.take("global");
  lower.take("shared::cluster");
  lower.take("shared::cta");
  step.from_shared = step.loads && !has_global;
  lower.take("mbarrier::complete_tx::bytes");
  lower.take("bulk_group");
  if (step.prefetches && !lower.take("L2")) lower.fail(".L2 is missing");
  step.multicast = lower.take("multicast::cluster");
  const bool hinted = lower.take("L2::cache_hint");
  step.reduce = take_reduction(lower);
  lower.take("noftz");
  if (step.reduce && step.rank == 0) {
    const Type type = lower.take_type();
    if (step.loads && is_float(type)) lower.fail("there is no such reduction of shared memory");
    step.reduction = reduction_of(lower, *step.reduce, type);
  }
  if (step.reduce && step.loads && !step.from_shared) {
    lower.fail("reductions into shared memory come from shared memory");
  }
  const int num_read = step.prefetches ? read_prefetch(lower, step)
                       : step.loads    ? read_load(lower, step)
                                       : read_store(lower, step);
  if (num_read + (hinted ? 1 : 0) != lower.num_operands()) {
    lower.fail("there are too many operands, or too few");
  }
  // Sums of several clusters meet.
  if (step.reduce) lower.communicates();
  const int64_t number = lower.bulk_step(std::move(step));
  lower.emit(copy).imm = number;
}

}  // namespace openweek::simulator
