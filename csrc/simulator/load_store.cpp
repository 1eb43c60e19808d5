// ld, st, atom and red.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "access.h"
#include "formats.h"
#include "lanes.h"
#include "lowering.h"
#include "memory_operands.h"
#include "world.h"

namespace openweek::simulator {

void lower_asynchronous(Lowering& lower, bool reduces);  // asynchronous.cpp

namespace {

using std::int32_t, std::int64_t, std::uint16_t, std::uint32_t, std::uint64_t, std::uint8_t;

}  // namespace

uint64_t address_of(Warp& warp, const Inst& inst, int lane) {
  const MemoryStep& step = warp.program().memory_steps[inst.imm];
  const uint64_t base =
      step.wide ? warp.row<uint64_t>(inst.a)[lane] : warp.row<uint32_t>(inst.a)[lane];
  const uint64_t address = base + static_cast<uint64_t>(step.offset);
  return step.wide ? address : address & 0xffffffffu;
}

namespace {

uint64_t extended(uint64_t value, const MemoryStep& step) {
  if (!step.sign_extends) return value;
  const int shift = 64 - 8 * step.element_bytes;
  return static_cast<uint64_t>(static_cast<int64_t>(value << shift) >> shift);
}

Step load(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[inst.imm];
  const int total = step.element_bytes * static_cast<int>(step.rows.size());
  const Touch touch = step.order == Order::kWeak ? Touch::kRead : Touch::kStrongRead;
  for_lanes(lanes, [&](int lane) {
    const uint64_t address = address_of(warp, inst, lane);
    if (step.order != Order::kWeak) acquire(warp, step, address, lane);
    const uint8_t* from = locate(warp, lane, static_cast<Window>(step.window), address, total,
                                 total, touch, step.scope);
    for (const auto& [row, width] : step.rows) {
      if (width == 16) {
        std::memcpy(warp.row<uint8_t>(row) + 16 * lane, from, 16);
      } else {
        uint64_t value = 0;
        std::memcpy(&value, from, step.element_bytes);
        value = extended(value, step);
        std::memcpy(warp.row<uint8_t>(row) + width * lane, &value, width);
      }
      from += step.element_bytes;
    }
  });
  return Step::kNext;
}

Step store(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[inst.imm];
  const int total = step.element_bytes * static_cast<int>(step.rows.size());
  const Touch touch = step.order == Order::kWeak ? Touch::kWrite : Touch::kStrongWrite;
  for_lanes(lanes, [&](int lane) {
    const uint64_t address = address_of(warp, inst, lane);
    uint8_t* to = locate(warp, lane, static_cast<Window>(step.window), address, total, total, touch,
                         step.scope);
    if (step.order != Order::kWeak) release(warp, step, address, false);
    for (const auto& [row, width] : step.rows) {
      std::memcpy(to, warp.row<uint8_t>(row) + width * lane, step.element_bytes);
      to += step.element_bytes;
    }
  });
  if (releases(step)) warp.tick();
  warp.cta().cluster().world().progressed();
  return Step::kNext;
}

// What an atomic operation makes of the old value, bits in and out.
template <class T>
T integer_atomic(Atomic what, T old, T value, T other) {
  switch (what) {
    case Atomic::kAdd:
      return static_cast<T>(old + value);
    case Atomic::kMin:
      return std::min(old, value);
    case Atomic::kMax:
      return std::max(old, value);
    case Atomic::kAnd:
      return old & value;
    case Atomic::kOr:
      return old | value;
    case Atomic::kXor:
      return old ^ value;
    case Atomic::kExchange:
      return value;
    case Atomic::kCompareAndSwap:
      return old == value ? other : old;
    case Atomic::kIncrement:
      return old >= value ? T{0} : static_cast<T>(old + 1);
    case Atomic::kDecrement:
      return old == 0 || old > value ? value : static_cast<T>(old - 1);
  }
  return old;
}

template <class T>
uint64_t integer_bits(Atomic what, uint64_t old, uint64_t value, uint64_t other) {
  using Unsigned = std::make_unsigned_t<T>;
  const T result =
      integer_atomic<T>(what, static_cast<T>(old), static_cast<T>(value), static_cast<T>(other));
  return static_cast<Unsigned>(result);
}

// The PTX manual of atom and red: sums of f32 in global memory flush subnormal inputs and results,
// those in shared memory and of other types do not.
bool flushes(const MemoryStep& step, uint64_t address) {
  const auto window = static_cast<Window>(step.window);
  return step.type == Type::kF32 && step.atomic == Atomic::kAdd &&
         (window == Window::kGlobal || (window == Window::kGeneric && is_global(address)));
}

uint64_t flushed_f32(uint64_t bits) { return bits & 0x7f800000 ? bits : bits & 0x80000000; }

template <class T>
T float_atomic(Atomic what, T old, T value) {
  if (what == Atomic::kMin) return std::fmin(old, value);
  if (what == Atomic::kMax) return std::fmax(old, value);
  return old + value;
}

template <class Format>
uint32_t half_atomic(Atomic what, uint32_t old, uint32_t value) {
  const auto wide = [](uint32_t bits) {
    const Real x = decode<Format>(bits);
    return std::bit_cast<float>(
        static_cast<uint32_t>(encode<F32>(x, Rounding::kNearestEven, false)));
  };
  const float result = float_atomic(what, wide(old), wide(value));
  return static_cast<uint32_t>(
      encode<Format>(decode<F32>(std::bit_cast<uint32_t>(result)), Rounding::kNearestEven, false));
}

template <class Format>
uint64_t half_bits(Atomic what, uint64_t old, uint64_t value, int num_values) {
  uint64_t result = 0;
  for (int i = 0; i < num_values; ++i) {
    const auto part = [i](uint64_t bits) { return static_cast<uint32_t>(bits >> 16 * i & 0xffff); };
    result |= uint64_t{half_atomic<Format>(what, part(old), part(value))} << 16 * i;
  }
  return result;
}

uint64_t updated(const MemoryStep& step, uint64_t old, uint64_t value, uint64_t other) {
  switch (step.type) {
    case Type::kS32:
      return integer_bits<int32_t>(step.atomic, old, value, other);
    case Type::kS64:
      return integer_bits<int64_t>(step.atomic, old, value, other);
    case Type::kB16:
      return integer_bits<uint16_t>(step.atomic, old, value, other);
    case Type::kU64:
    case Type::kB64:
      return integer_bits<uint64_t>(step.atomic, old, value, other);
    case Type::kF32: {
      const auto as_float = [](uint64_t bits) {
        return std::bit_cast<float>(static_cast<uint32_t>(bits));
      };
      return std::bit_cast<uint32_t>(float_atomic(step.atomic, as_float(old), as_float(value)));
    }
    case Type::kF64:
      return std::bit_cast<uint64_t>(
          float_atomic(step.atomic, std::bit_cast<double>(old), std::bit_cast<double>(value)));
    case Type::kF16:
      return half_bits<F16>(step.atomic, old, value, 1);
    case Type::kF16x2:
      return half_bits<F16>(step.atomic, old, value, 2);
    case Type::kBF16:
      return half_bits<BF16>(step.atomic, old, value, 1);
    case Type::kBF16x2:
      return half_bits<BF16>(step.atomic, old, value, 2);
    default:
      return integer_bits<uint32_t>(step.atomic, old, value, other);
  }
}

// Lanes take turns in their order; rows has the operands, and after them the results if any.
Step atomic(Warp& warp, const Inst& inst, Mask lanes) {
  const MemoryStep& step = warp.program().memory_steps[inst.imm];
  const int bytes = step.element_bytes;
  const int total = bytes * step.num_elements;
  bool changes = false;
  for_lanes(lanes, [&](int lane) {
    const uint64_t address = address_of(warp, inst, lane);
    acquire(warp, step, address, lane);
    uint8_t* at = locate(warp, lane, static_cast<Window>(step.window), address, total, total,
                         Touch::kModify, step.scope);
    release(warp, step, address, true);
    const bool flush = flushes(step, address);
    for (int element = 0; element < step.num_elements; ++element, at += bytes) {
      const auto read = [&](int which) {
        uint64_t bits = 0;
        const auto& [row, width] = step.rows[which * step.num_elements + element];
        std::memcpy(&bits, warp.row<uint8_t>(row) + width * lane, bytes);
        return bits;
      };
      uint64_t old = 0;
      std::memcpy(&old, at, bytes);
      const uint64_t other = step.num_sources > 1 ? read(1) : 0;
      const uint64_t result =
          flush ? flushed_f32(updated(step, flushed_f32(old), flushed_f32(read(0)), other))
                : updated(step, old, read(0), other);
      std::memcpy(at, &result, bytes);
      changes = changes || result != old;
      const std::size_t back = step.num_sources * step.num_elements + element;
      if (back < step.rows.size()) {
        const auto& [row, width] = step.rows[back];
        std::memcpy(warp.row<uint8_t>(row) + width * lane, &old, width);
      }
    }
  });
  if (releases(step)) warp.tick();
  // One that leaves memory as it was may be a loop that waits.
  if (changes) warp.cta().cluster().world().progressed();
  return Step::kNext;
}

// ---- lowering ----

}  // namespace

Window take_window(Lowering& lower) {
  static constexpr std::pair<std::string_view, Window> kSpaces[] = {
      {"global", Window::kGlobal},          {"const", Window::kGlobal},
      {"shared", Window::kShared},          {"shared::cta", Window::kShared},
      {"shared::cluster", Window::kShared}, {"local", Window::kLocal},
      {"param", Window::kParameter},        {"param::entry", Window::kParameter},
      {"param::func", Window::kLocal},
  };
  for (const auto& [name, window] : kSpaces) {
    if (lower.take(name)) return window;
  }
  return Window::kGeneric;
}

// Hints about caches change no value.
bool take_hints(Lowering& lower) {
  lower.take_one_of({"ca", "cg", "cs", "lu", "cv", "wb", "wt"});
  lower.take("nc");
  lower.take_one_of({"L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                     "L1::no_allocate"});
  lower.take_one_of({"L2::evict_normal", "L2::evict_first", "L2::evict_last"});
  lower.take_one_of({"L2::64B", "L2::128B", "L2::256B"});
  lower.take("unified");
  return lower.take("L2::cache_hint");
}

Order take_order(Lowering& lower, Order otherwise) {
  static constexpr std::pair<std::string_view, Order> kOrders[] = {
      {"weak", Order::kWeak},
      {"relaxed", Order::kRelaxed},
      {"acquire", Order::kAcquire},
      {"release", Order::kRelease},
      {"acq_rel", Order::kAcquireRelease},
      {"volatile", Order::kRelaxed},
      {"mmio", Order::kRelaxed},
  };
  Order order = otherwise;
  for (const auto& [name, value] : kOrders) {
    if (lower.take(name)) order = value;
  }
  return order;
}

// An atomic operation that names no scope has that of the GPU; volatile accesses have the widest.
MemoryScope take_scope(Lowering& lower, MemoryScope otherwise) {
  if (lower.take("cta")) return MemoryScope::kCta;
  if (lower.take("cluster")) return MemoryScope::kCluster;
  if (lower.take("gpu")) return MemoryScope::kGpu;
  if (lower.take("sys")) return MemoryScope::kSys;
  return otherwise;
}

Place take_place(Lowering& lower, const ptx::Operand& operand, Window window) {
  if (operand.kind != ptx::Operand::Kind::kAddress) lower.fail("an address is expected");
  Place place{.window = window, .offset = operand.bits};
  const Lowering::Row row = lower.source(operand.parts[0], Type::kB64);
  place.row = row.offset;
  place.wide = row.width == 8;
  // A parameter of a call lies with the caller's local variables, a function's own with its own.
  const bool is_local = operand.parts[0].kind == ptx::Operand::Kind::kSymbol
                            ? lower.is_local(operand.parts[0].symbol)
                            : !lower.in_kernel();
  if (window == Window::kParameter && is_local) place.window = Window::kLocal;
  return place;
}

int take_count(Lowering& lower) {
  const std::string_view count = lower.take_one_of({"v2", "v4", "v8"});
  return count.empty() ? 1 : count[1] - '0';
}

std::vector<ptx::Operand> elements(Lowering& lower, const ptx::Operand& operand, int count) {
  if (count == 1 && operand.kind != ptx::Operand::Kind::kVector) return {operand};
  if (operand.kind != ptx::Operand::Kind::kVector ||
      static_cast<int>(operand.parts.size()) != count) {
    lower.fail("a vector of " + std::to_string(count) + " is expected");
  }
  return operand.parts;
}

// A register may be wider than what is moved.
void check_width(const Lowering& lower, const Lowering::Row& row, int element_bytes) {
  if (row.width < element_bytes) lower.fail("a register is narrower than the type");
}

Inst& emit_memory(Lowering& lower, Handler handler, const Place& place, MemoryStep step) {
  step.window = static_cast<int>(place.window);
  step.wide = place.wide;
  step.offset = place.offset;
  if (step.order != Order::kWeak &&
      (place.window == Window::kGeneric || place.window == Window::kGlobal)) {
    lower.communicates();
  }
  const int64_t number = lower.memory_step(std::move(step));
  Inst& inst = lower.emit(handler);
  inst.a = place.row;
  inst.imm = number;
  return inst;
}

namespace {

void lower_access(Lowering& lower, bool loads) {
  const Order order = take_order(lower, Order::kWeak);
  const MemoryScope scope = take_scope(lower, MemoryScope::kSys);
  const Window window = take_window(lower);
  const bool hinted = take_hints(lower);
  const int count = take_count(lower);
  const Type type = lower.take_type();
  if (lower.num_operands() > (hinted ? 3 : 2)) lower.fail("there are too many operands");
  const Place place = take_place(lower, lower.operand(loads ? 1 : 0), window);
  MemoryStep step;
  step.order = order;
  step.scope = scope;
  step.element_bytes = bytes_of(type);
  step.sign_extends = loads && is_signed(type);
  for (const ptx::Operand& element : elements(lower, lower.operand(loads ? 0 : 1), count)) {
    const Lowering::Row row =
        loads ? lower.destination(element, type) : lower.source(element, type);
    check_width(lower, row, step.element_bytes);
    step.rows.emplace_back(row.offset, row.width);
  }
  emit_memory(lower, loads ? load : store, place, std::move(step));
}

Atomic take_operation(Lowering& lower) {
  static constexpr std::pair<std::string_view, Atomic> kOperations[] = {
      {"add", Atomic::kAdd},       {"min", Atomic::kMin},
      {"max", Atomic::kMax},       {"and", Atomic::kAnd},
      {"or", Atomic::kOr},         {"xor", Atomic::kXor},
      {"exch", Atomic::kExchange}, {"cas", Atomic::kCompareAndSwap},
      {"inc", Atomic::kIncrement}, {"dec", Atomic::kDecrement},
  };
  for (const auto& [name, operation] : kOperations) {
    if (lower.take(name)) return operation;
  }
  lower.fail("an operation is missing");
}

void lower_atomic(Lowering& lower, bool returns) {
  const Order order = take_order(lower, Order::kRelaxed);
  const MemoryScope scope = take_scope(lower, MemoryScope::kGpu);
  const Window window = take_window(lower);
  take_hints(lower);
  lower.take("noftz");
  MemoryStep step;
  step.order = order;
  step.scope = scope;
  step.num_elements = take_count(lower);
  step.atomic = take_operation(lower);
  step.type = lower.take_type();
  if (bytes_of(step.type) > 8 || bytes_of(step.type) < 2) lower.fail("there is no such atomic");
  step.element_bytes = bytes_of(step.type);
  step.num_sources = step.atomic == Atomic::kCompareAndSwap ? 2 : 1;
  const int first = returns ? 1 : 0;
  const Place place = take_place(lower, lower.operand(first), window);
  for (int source = 0; source < step.num_sources; ++source) {
    for (const ptx::Operand& element :
         elements(lower, lower.operand(first + 1 + source), step.num_elements)) {
      const Lowering::Row row = lower.source(element, step.type);
      check_width(lower, row, step.element_bytes);
      step.rows.emplace_back(row.offset, row.width);
    }
  }
  if (returns) {
    for (const ptx::Operand& element : elements(lower, lower.operand(0), step.num_elements)) {
      const Lowering::Row row = lower.destination(element, step.type);
      check_width(lower, row, step.element_bytes);
      step.rows.emplace_back(row.offset, row.width);
    }
  }
  emit_memory(lower, atomic, place, std::move(step));
}

Step nothing(Warp&, const Inst&, Mask) { return Step::kNext; }

}  // namespace

void add_memory(Lowerers& lowerers) {
  lowerers["ld"] = [](Lowering& lower) { lower_access(lower, true); };
  lowerers["ldu"] = lowerers["ld"];
  lowerers["st"] = [](Lowering& lower) {
    if (lower.take("async")) return lower_asynchronous(lower, false);
    lower_access(lower, false);
  };
  lowerers["atom"] = [](Lowering& lower) { lower_atomic(lower, true); };
  lowerers["red"] = [](Lowering& lower) {
    if (lower.take("async")) return lower_asynchronous(lower, true);
    lower_atomic(lower, false);
  };
  lowerers["prefetch"] = [](Lowering& lower) {
    take_window(lower);
    lower.take_one_of({"L1", "L2", "L2::evict_last", "L2::evict_normal", "tensormap"});
    lower.emit(nothing);
  };
}

}  // namespace openweek::simulator
