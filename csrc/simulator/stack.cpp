// alloca, stacksave and stackrestore: local memory whose size is known when the kernel runs.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>

#include "access.h"
#include "errors.h"
#include "lanes.h"
#include "lowering.h"

namespace openweek::simulator {
namespace {

using std::int64_t, std::uint32_t, std::uint64_t;

// Behind all variables, for each thread of a kernel that asks for it.
constexpr int64_t kStackBytes = 8192;
constexpr int kStackAlign = 16;
constexpr int64_t kMaxAlign = 1 << 20;  // as of variables

template <class To, class From>
Step copy(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<To>(inst.dst);
  const auto* a = warp.row<From>(inst.a);
  for_lanes(lanes, [&](int i) { dst[i] = static_cast<To>(a[i]); });
  return Step::kNext;
}

// b: the row of the stack pointer, which moves up; imm: the alignment.
template <class Word>
Step allocate(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<Word>(inst.dst);
  const auto* size = warp.row<Word>(inst.a);
  auto* pointer = warp.row<uint64_t>(inst.b);
  for_lanes(lanes, [&](int lane) {
    const uint64_t end = warp.local_bytes();
    // stackrestore may have set it to anything.
    const auto begin =
        pointer[lane] > end
            ? pointer[lane]
            : static_cast<uint64_t>(align_up(static_cast<int64_t>(pointer[lane]), inst.imm));
    if (begin > end || size[lane] > end - begin) {
      throw HazardError("stack overflow: " + who(warp, lane) + " wants " +
                        std::to_string(size[lane]) + " bytes of a stack of " +
                        std::to_string(kStackBytes));
    }
    dst[lane] = static_cast<Word>(begin);
    pointer[lane] = begin + size[lane];
  });
  return Step::kNext;
}

// Of an address, or of a size.
Type take_word(Lowering& lower) {
  const Type type = lower.take_type();
  if (type != Type::kU32 && type != Type::kU64) lower.fail("the type must be .u32 or .u64");
  return type;
}

void lower_alloca(Lowering& lower) {
  const Type type = take_word(lower);
  constexpr int kDefaultAlign = 8;
  int64_t align = kDefaultAlign;
  if (lower.num_operands() > 2) {
    const ptx::Operand& given = lower.operand(2);
    if (given.kind != ptx::Operand::Kind::kInteger) lower.fail("the alignment must be a constant");
    align = given.bits;
    if (align < 1 || align > kMaxAlign || !std::has_single_bit(static_cast<uint64_t>(align))) {
      lower.fail("the alignment must be a power of two up to " + std::to_string(kMaxAlign) +
                 ", got " + std::to_string(align));
    }
  }
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t size = lower.source_row(1, type);
  const uint32_t pointer = lower.stack_pointer();
  Inst& inst = lower.emit(bytes_of(type) == 8 ? allocate<uint64_t> : allocate<uint32_t>);
  inst.dst = dst;
  inst.a = size;
  inst.b = pointer;
  inst.imm = align;
}

void lower_save(Lowering& lower) {
  const Type type = take_word(lower);
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t pointer = lower.stack_pointer();
  Inst& inst =
      lower.emit(bytes_of(type) == 8 ? copy<uint64_t, uint64_t> : copy<uint32_t, uint64_t>);
  inst.dst = dst;
  inst.a = pointer;
}

void lower_restore(Lowering& lower) {
  const Type type = take_word(lower);
  const uint32_t from = lower.source_row(0, type);
  const uint32_t pointer = lower.stack_pointer();
  Inst& inst =
      lower.emit(bytes_of(type) == 8 ? copy<uint64_t, uint64_t> : copy<uint64_t, uint32_t>);
  inst.dst = pointer;
  inst.a = from;
}

}  // namespace

uint32_t Lowering::stack_pointer() {
  if (stack_pointer_ == kNoRow) stack_pointer_ = scratch(8);
  return stack_pointer_;
}

// What a function has allocated goes when it returns; a kernel's with its thread.
void Lowering::save_stack(const ptx::Function& function) {
  saved_stack_ = kNoRow;
  const bool allocates =
      std::any_of(function.statements.begin(), function.statements.end(),
                  [](const ptx::Statement& statement) { return statement.opcode == "alloca"; });
  if (!allocates || function.is_entry) return;
  saved_stack_ = scratch(8);
  const uint32_t pointer = stack_pointer();
  Inst& inst = emit(copy<uint64_t, uint64_t>);
  inst.dst = saved_stack_;
  inst.a = pointer;
}

void Lowering::restore_stack() {
  if (saved_stack_ == kNoRow) return;
  Inst& inst = emit(copy<uint64_t, uint64_t>);
  inst.dst = stack_pointer_;
  inst.a = saved_stack_;
}

// The stack begins behind all that is laid out when it is first asked for.
void Lowering::lay_out_stack() {
  if (stack_pointer_ == kNoRow) return;
  const int64_t begin = reserve_local(kStackBytes, kStackAlign);
  for (int lane = 0; lane < kLanes; ++lane) {
    std::memcpy(program_.file.data() + stack_pointer_ + 8 * lane, &begin, 8);
  }
}

void add_stack(Lowerers& lowerers) {
  lowerers["alloca"] = lower_alloca;
  lowerers["stacksave"] = lower_save;
  lowerers["stackrestore"] = lower_restore;
}

}  // namespace openweek::simulator
