// Tensor maps that kernels make or change: tensormap.replace, and the fences between the threads
// that write a map and the copy engine, which reads it by a way of its own (the tensormap proxy).
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "errors.h"
#include "lanes.h"
#include "memory_operands.h"
#include "tile_copy.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using std::int64_t, std::uint32_t, std::uint64_t, std::uint8_t;

constexpr int kMapBytes = static_cast<int>(kTensorMapBytes);
constexpr int kAlign = 64;

Window window_of(Warp& warp, const Inst& inst) {
  return static_cast<Window>(warp.program().memory_steps[inst.imm].window);
}

// b: the new value; c: its cells have 8 bytes; list: the field and the dim.
Step replace(Warp& warp, const Inst& inst, Mask lanes) {
  const std::vector<uint32_t>& what = warp.program().lists[inst.list];
  const auto field = static_cast<MapField>(what[0]);
  const bool wide = what[2] == 8;
  for_lanes(lanes, [&](int lane) {
    const uint64_t address = address_of(warp, inst, lane);
    locate(warp, lane, window_of(warp, inst), address, kMapBytes, kAlign, Touch::kRead);
    uint8_t* bytes =
        locate(warp, lane, window_of(warp, inst), address, kMapBytes, kAlign, Touch::kWrite);
    const uint64_t value =
        wide ? warp.row<uint64_t>(inst.b)[lane] : warp.row<uint32_t>(inst.b)[lane];
    try {
      replace_field(std::span<uint8_t, kTensorMapBytes>(bytes, kTensorMapBytes), field,
                    static_cast<int>(what[1]), value);
    } catch (const UnsupportedError& error) {
      throw UnsupportedError(who(warp, lane) + ": " + error.what());
    }
  });
  return Step::kNext;
}

void release(Warp& warp, MemoryScope scope) {
  warp.knowledge.release_maps();
  warp.fence_release(scope);
}

// b: the source's address, with its step in target. All lanes do the same, as one.
Step copy(Warp& warp, const Inst& inst, Mask lanes) {
  const int lane = std::countr_zero(lanes);
  const MemoryStep& from = warp.program().memory_steps[static_cast<std::size_t>(inst.target)];
  const uint64_t base =
      from.wide ? warp.row<uint64_t>(inst.b)[lane] : warp.row<uint32_t>(inst.b)[lane];
  const uint8_t* source =
      locate(warp, lane, Window::kShared, base + static_cast<uint64_t>(from.offset), kMapBytes,
             kAlign, Touch::kRead);
  uint8_t* target = locate(warp, lane, Window::kGlobal, address_of(warp, inst, lane), kMapBytes,
                           kAlign, Touch::kWrite);
  std::memcpy(target, source, kTensorMapBytes);
  release(warp, warp.program().memory_steps[inst.imm].scope);
  warp.cta().cluster().world().progressed();
  return Step::kNext;
}

Step release_maps(Warp& warp, const Inst& inst, Mask) {
  release(warp, static_cast<MemoryScope>(inst.imm));
  return Step::kNext;
}

Step acquire_map(Warp& warp, const Inst& inst, Mask lanes) {
  warp.fence_acquire(warp.program().memory_steps[inst.imm].scope, lanes);
  for_lanes(lanes, [&](int lane) {
    const uint64_t address = address_of(warp, inst, lane);
    locate(warp, lane, window_of(warp, inst), address, kMapBytes, kAlign, Touch::kNone);
    warp.knowledge.acquire_map(address);
  });
  warp.tick();  // what the warp writes from here on is not acquired
  return Step::kNext;
}

void check_size(Lowering& lower, int operand) {
  if (lower.num_operands() != operand + 1 ||
      lower.operand(operand).kind != ptx::Operand::Kind::kInteger ||
      lower.operand(operand).bits != kMapBytes) {
    lower.fail("the size must be 128");
  }
}

void lower_replace(Lowering& lower) {
  static constexpr std::pair<std::string_view, MapField> kFields[] = {
      {"global_address", MapField::kGlobalAddress},
      {"rank", MapField::kRank},
      {"box_dim", MapField::kBox},
      {"global_dim", MapField::kSize},
      {"global_stride", MapField::kStride},
      {"element_stride", MapField::kElementStride},
      {"elemtype", MapField::kElementType},
      {"interleave_layout", MapField::kInterleave},
      {"swizzle_mode", MapField::kSwizzle},
      {"fill_mode", MapField::kFill},
  };
  if (!lower.take("tile")) lower.fail(".tile is missing");
  std::optional<MapField> field;
  for (const auto& [name, named] : kFields) {
    if (!field && lower.take(name)) field = named;
  }
  if (!field) lower.fail("the simulator does not know this field");
  const bool has_dim = *field >= MapField::kBox && *field <= MapField::kElementStride;
  MemoryStep step;
  const Window window = take_window(lower);
  if (!lower.take("b1024")) lower.fail(".b1024 is missing");
  const Type type = lower.take_type();
  const bool is_wide = *field == MapField::kGlobalAddress || *field == MapField::kStride;
  if (bytes_of(type) != (is_wide ? 8 : 4)) lower.fail("the field has another type");
  if (lower.num_operands() != (has_dim ? 3 : 2)) lower.fail("too few or too many operands");
  uint32_t dim = 0;
  if (has_dim) {
    const ptx::Operand& ordinal = lower.operand(1);
    const int most = *field == MapField::kStride ? kMaxRank - 1 : kMaxRank;
    if (ordinal.kind != ptx::Operand::Kind::kInteger || ordinal.bits < 0 || ordinal.bits >= most) {
      lower.fail("the dim must be a constant below " + std::to_string(most));
    }
    dim = static_cast<uint32_t>(ordinal.bits);
  }
  const uint32_t value = lower.source_row(has_dim ? 2 : 1, type);
  const Place place = take_place(lower, lower.operand(0), window);
  const uint32_t list = lower.list({static_cast<uint32_t>(*field), dim, is_wide ? 8u : 4u});
  Inst& inst = emit_memory(lower, replace, place, std::move(step));
  inst.b = value;
  inst.list = list;
}

void lower_copy(Lowering& lower) {
  for (const std::string_view part :
       {"global", "shared::cta", "tensormap::generic", "release", "sync", "aligned"}) {
    if (!lower.take(part)) lower.fail("." + std::string(part) + " is missing");
  }
  MemoryStep step;
  step.scope = take_scope(lower, MemoryScope::kSys);
  check_size(lower, 2);
  const Place from = take_place(lower, lower.operand(1), Window::kShared);
  const Place to = take_place(lower, lower.operand(0), Window::kGlobal);
  MemoryStep source;
  source.wide = from.wide;
  source.offset = from.offset;
  const auto number = static_cast<std::int32_t>(lower.memory_step(std::move(source)));
  Inst& inst = emit_memory(lower, copy, to, std::move(step));
  inst.b = from.row;
  inst.target = number;
  inst.gather = Gather::kWarp;
}

}  // namespace

// What stands behind fence.proxy.tensormap::generic.
void lower_tensor_map_fence(Lowering& lower) {
  const bool acquires = lower.take("acquire");
  if (!acquires && !lower.take("release")) lower.fail(".acquire or .release is missing");
  const MemoryScope scope = take_scope(lower, MemoryScope::kSys);
  if (!acquires) {
    lower.emit(release_maps).imm = static_cast<int>(scope);
    return;
  }
  check_size(lower, 1);
  MemoryStep step;
  step.scope = scope;
  emit_memory(lower, acquire_map, take_place(lower, lower.operand(0), Window::kGlobal),
              std::move(step));
}

void add_tensor_maps(Lowerers& lowerers) {
  lowerers["tensormap"] = [](Lowering& lower) {
    if (lower.take("replace")) return lower_replace(lower);
    if (lower.take("cp_fenceproxy")) return lower_copy(lower);
    lower.fail("the simulator does not know this operation");
  };
}

}  // namespace openweek::simulator
