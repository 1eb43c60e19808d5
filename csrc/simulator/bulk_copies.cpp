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
#include "machine.h"
#include "tile_copy.h"

namespace openweek::simulator {

namespace {

using std::int32_t, std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

uint64_t value(Warp& warp, const BulkStep::Address& address, int lane) {
  const uint64_t base =
      address.wide ? warp.row<uint64_t>(address.row)[lane] : warp.row<uint32_t>(address.row)[lane];
  return base + static_cast<uint64_t>(address.offset);
}

struct SharedPlace {
  Cta* cta = nullptr;
  uint32_t offset = 0;
};

SharedPlace shared_place(Warp& warp, int lane, uint64_t address, int num_bytes, int align) {
  address &= ~kSharedWindow;
  locate(warp, lane, Window::kShared, address, num_bytes, align);  // checks
  return {warp.cta().cluster().ctas()[address >> kRankShift].get(),
          static_cast<uint32_t>(address) & kOffsetMask};
}

TensorMap tensor_map(Warp& warp, const BulkStep& step, int lane) {
  const uint8_t* bytes = locate(warp, lane, Window::kGeneric, value(warp, step.map, lane),
                                static_cast<int>(kTensorMapBytes), 64);
  return decode_tensor_map(std::span<const uint8_t, kTensorMapBytes>(bytes, kTensorMapBytes));
}

std::vector<int32_t> corner_of(Warp& warp, const BulkStep& step, int lane) {
  std::vector<int32_t> corner;
  for (const uint32_t row : step.corner) corner.push_back(warp.row<int32_t>(row)[lane]);
  corner.resize(kMaxRank, 0);
  return corner;
}

void check_global(Warp& warp, int lane, const std::vector<GlobalRange>& ranges) {
  for (const GlobalRange& range : ranges) {
    locate(warp, lane, Window::kGlobal, range.address, static_cast<int>(range.num_bytes), 1);
  }
}

// Until a load has come, its destination holds what nobody should use: NaN in most formats.
constexpr int kPoison = 0xff;

// A load into the shared memory of one or, with a mask, several CTAs of the cluster; each counts
// the bytes at its own barrier, at the same offset.
void load(Warp& warp, const BulkStep& step, int lane) {
  Cluster& cluster = warp.cta().cluster();
  const Origin name = origin(warp, lane);
  std::optional<TensorMap> map;
  std::vector<int32_t> corner;
  const uint8_t* source = nullptr;
  uint32_t num_bytes = 0;
  if (step.rank > 0) {
    map = tensor_map(warp, step, lane);
    if (map->rank != step.rank) {
      throw HazardError("wrong tensor map: " + name.text() + " has coordinates of rank " +
                        std::to_string(step.rank) + ", the map has rank " +
                        std::to_string(map->rank));
    }
    corner = corner_of(warp, step, lane);
    num_bytes = map->box_bytes();
    check_global(warp, lane, box_ranges(*map, corner.data()));
  } else {
    num_bytes = warp.row<uint32_t>(step.size)[lane];
    if (num_bytes % 16 != 0) {
      throw HazardError("misaligned: " + name.text() + " copies " + std::to_string(num_bytes) +
                        " bytes, which must be a multiple of 16");
    }
    source = locate(warp, lane, step.from_shared ? Window::kShared : Window::kGeneric,
                    value(warp, step.from, lane), static_cast<int>(num_bytes), 16);
  }
  const SharedPlace to = shared_place(warp, lane, value(warp, step.to, lane),
                                      static_cast<int>(num_bytes), step.rank > 0 ? 128 : 16);
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
    if (data_cta->finished()) {
      throw HazardError("exited CTA: " + name.text() + " copies into a CTA that has ended");
    }
    std::memset(data_cta->shared().data() + to.offset, kPoison, num_bytes);
    auto work = [=, &cluster, data_cta = data_cta, barrier_cta = barrier_cta] {
      auto& shared = data_cta->shared();
      if (map) {
        load_box(*map, corner.data(), shared, to.offset);
      } else {
        std::memcpy(shared.data() + to.offset, source, num_bytes);
      }
      complete_bytes(barrier_cta->mbarriers.at(barrier.offset, name), num_bytes, cluster, name);
    };
    cluster.machine().post(cluster, true, std::move(work));
  }
}

// A store: first shared memory is read, later the destination is written.
void store(Warp& warp, const BulkStep& step, int lane) {
  Cluster& cluster = warp.cta().cluster();
  const Origin name = origin(warp, lane);
  std::optional<TensorMap> map;
  std::vector<int32_t> corner;
  uint8_t* target = nullptr;
  uint32_t num_bytes = 0;
  if (step.rank > 0) {
    map = tensor_map(warp, step, lane);
    if (map->rank != step.rank) {
      throw HazardError("wrong tensor map: " + name.text() + " has coordinates of rank " +
                        std::to_string(step.rank) + ", the map has rank " +
                        std::to_string(map->rank));
    }
    corner = corner_of(warp, step, lane);
    num_bytes = map->box_bytes();
    check_global(warp, lane, box_ranges(*map, corner.data()));
  } else {
    num_bytes = warp.row<uint32_t>(step.size)[lane];
    if (num_bytes % 16 != 0) {
      throw HazardError("misaligned: " + name.text() + " copies " + std::to_string(num_bytes) +
                        " bytes, which must be a multiple of 16");
    }
    target = locate(warp, lane, Window::kGeneric, value(warp, step.to, lane),
                    static_cast<int>(num_bytes), 16);
  }
  const SharedPlace from = shared_place(warp, lane, value(warp, step.from, lane),
                                        static_cast<int>(num_bytes), step.rank > 0 ? 128 : 16);
  const std::shared_ptr<BulkGroup> group = warp.bulk_groups[lane].open;
  ++group->reads;
  ++group->writes;
  auto read = [=, &cluster, reduce = step.reduce, type = step.type] {
    // A copy of what is sent, at its own address: swizzles go by addresses.
    auto copied = std::make_shared<std::vector<uint8_t>>(from.offset + num_bytes);
    std::memcpy(copied->data() + from.offset, from.cta->shared().data() + from.offset, num_bytes);
    --group->reads;
    auto write = [=, &cluster] {
      if (map && reduce) {
        reduce_box(*map, corner.data(), *copied, from.offset, *reduce);
      } else if (map) {
        store_box(*map, corner.data(), *copied, from.offset);
      } else if (reduce) {
        find_reduce(*reduce, type)(target, copied->data() + from.offset, num_bytes);
      } else {
        std::memcpy(target, copied->data() + from.offset, num_bytes);
      }
      --group->writes;
    };
    // The cluster may have ended by then: what is written comes from the copy.
    cluster.machine().post(cluster, false, [write] { write(); });
  };
  cluster.machine().post(cluster, true, std::move(read));
}

Step copy(Warp& warp, const Inst& inst, Mask lanes) {
  const BulkStep& step = warp.program().bulk_steps[static_cast<std::size_t>(inst.imm)];
  for_lanes(lanes, [&](int lane) {
    if (step.prefetches) return;
    if (step.loads) {
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
    groups.committed.push_back(groups.open);
    groups.open = std::make_shared<BulkGroup>();
  });
  return Step::kNext;
}

// imm: groups that may be under way; target: whether reading is enough.
Step wait(Warp& warp, const Inst& inst, Mask lanes) {
  bool done = true;
  for_lanes(lanes, [&](int lane) {
    const auto& committed = warp.bulk_groups[lane].committed;
    const auto pending = static_cast<std::size_t>(inst.imm);
    if (committed.size() <= pending) return;
    for (std::size_t i = 0; i < committed.size() - pending; ++i) {
      done = done && committed[i]->reads == 0 && (inst.target || committed[i]->writes == 0);
    }
  });
  return done ? Step::kNext : Step::kBlock;
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

std::optional<ReduceOp> take_reduction(Lowering& lower) {
  static constexpr std::pair<std::string_view, ReduceOp> kOperations[] = {
      {"add", ReduceOp::kAdd}, {"min", ReduceOp::kMin}, {"max", ReduceOp::kMax},
      {"and", ReduceOp::kAnd}, {"or", ReduceOp::kOr},   {"xor", ReduceOp::kXor},
  };
  for (const auto& [name, operation] : kOperations) {
    if (lower.take(name)) return operation;
  }
  return std::nullopt;
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
      return NumberType::kF16;
    case Type::kBF16:
      return NumberType::kBF16;
    case Type::kF32:
      return NumberType::kF32;
    case Type::kF64:
      return NumberType::kF64;
    default:
      lower.fail("the simulator does not reduce this type");
  }
}

void lower_groups(Lowering& lower, bool commits) {
  if (commits) {
    lower.emit(commit);
    return;
  }
  const bool reading = lower.take("read");
  const int64_t pending = lower.operand(0).bits;
  Inst& inst = lower.emit(wait);
  inst.imm = pending;
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
  step.multicast = lower.take("multicast::cluster");
  const bool hinted = lower.take("L2::cache_hint");
  step.reduce = take_reduction(lower);
  if (step.reduce && step.rank == 0) step.type = number_type(lower, lower.take_type());
  if (step.prefetches || step.loads == false) {
    // [map, corner], [from]   or   [to], [from], size
    if (step.rank > 0) {
      read_tensor(lower, step, lower.operand(0));
      if (!step.prefetches) step.from = address_of(lower, lower.operand(1));
    } else if (!step.prefetches) {
      step.to = address_of(lower, lower.operand(0));
      step.from = address_of(lower, lower.operand(1));
      step.size = lower.source_row(2, Type::kB32);
    }
  } else {
    // [to], [map, corner], [barrier], mask   or   [to], [from], size, [barrier], mask
    if (step.reduce) lower.fail("the simulator reduces into .global alone");
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
    if (next + (hinted ? 1 : 0) != lower.num_operands()) lower.fail("there are too many operands");
  }
  const int64_t number = lower.bulk_step(std::move(step));
  lower.emit(copy).imm = number;
}

}  // namespace openweek::simulator
