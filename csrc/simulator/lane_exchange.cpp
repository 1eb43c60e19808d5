// Values that lanes of a warp exchange: shfl, vote, match, redux, elect.
#include <algorithm>
#include <bit>
#include <cstdint>

#include "lanes.h"
#include "lowering.h"

namespace openweek::simulator {
namespace {

using std::int32_t, std::uint32_t, std::uint64_t;

// What a lane gets that reads from one which takes no part: nothing that anybody should use.
constexpr uint32_t kPoison = 0xdeadbeef;

enum ShuffleMode : int { kUp, kDown, kButterfly, kIndex };

struct ShuffleSource {
  int lane;
  bool in_range;
};

ShuffleSource shuffle_source(int mode, int lane, uint32_t b, uint32_t c) {
  const int by = static_cast<int>(b & 31);
  const int clamp = static_cast<int>(c & 31);
  const int segment = static_cast<int>(c >> 8 & 31);
  const int last = (lane & segment) | (clamp & ~segment);
  const int first = lane & segment;
  int from = lane;
  bool in_range = false;
  switch (mode) {
    case kUp:
      from = lane - by;
      in_range = from >= last;
      break;
    case kDown:
      from = lane + by;
      in_range = from <= last;
      break;
    case kButterfly:
      from = lane ^ by;
      in_range = from <= last;
      break;
    default:
      from = first | (by & ~segment);
      in_range = from <= last;
  }
  return {in_range ? from : lane, in_range};
}

Step shuffle(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* b = warp.row<uint32_t>(inst.b);
  const auto* c = warp.row<uint32_t>(inst.c);
  uint32_t result[kLanes] = {};
  Mask in_range = 0;
  for_lanes(lanes, [&](int i) {
    const ShuffleSource source = shuffle_source(static_cast<int>(inst.imm), i, b[i], c[i]);
    result[i] = lanes >> source.lane & 1 ? a[source.lane] : kPoison;
    in_range |= static_cast<Mask>(source.in_range) << i;
  });
  auto* dst = warp.row<uint32_t>(inst.dst);
  for_lanes(lanes, [&](int i) { dst[i] = result[i]; });
  if (inst.target >= 0) warp.set_predicate(static_cast<uint32_t>(inst.target), lanes, in_range);
  return Step::kNext;
}

enum VoteMode : int { kAll, kAny, kUniform, kBallot };

// The lanes of each member mask vote among themselves.
Step vote(Warp& warp, const Inst& inst, Mask lanes) {
  const Mask yes = warp.predicate(inst.a) ^ (inst.imm >> 8 ? kAllLanes : 0);
  const auto* members = warp.row<uint32_t>(inst.members);
  Mask result = 0;
  uint32_t ballots[kLanes] = {};
  for_lanes(lanes, [&](int i) {
    const Mask voters = members[i] & lanes;
    const Mask for_it = yes & voters;
    ballots[i] = for_it;
    bool decided = false;
    switch (inst.imm & 0xff) {
      case kAll:
        decided = for_it == voters;
        break;
      case kAny:
        decided = for_it != 0;
        break;
      default:
        decided = for_it == voters || for_it == 0;
    }
    result |= static_cast<Mask>(decided) << i;
  });
  if ((inst.imm & 0xff) == kBallot) {
    auto* dst = warp.row<uint32_t>(inst.dst);
    for_lanes(lanes, [&](int i) { dst[i] = ballots[i]; });
  } else {
    warp.set_predicate(inst.dst, lanes, result);
  }
  return Step::kNext;
}

template <class Word>
Step match(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<Word>(inst.a);
  const auto* members = warp.row<uint32_t>(inst.members);
  auto* dst = warp.row<uint32_t>(inst.dst);
  Mask all = 0;
  for_lanes(lanes, [&](int i) {
    const Mask others = members[i] & lanes;
    Mask same = 0;
    for_lanes(others, [&](int j) { same |= static_cast<Mask>(a[j] == a[i]) << j; });
    const bool whole = same == others;
    all |= static_cast<Mask>(whole) << i;
    dst[i] = inst.imm == 0 ? same : whole ? others : 0;  // .any or .all
  });
  if (inst.target >= 0) warp.set_predicate(static_cast<uint32_t>(inst.target), lanes, all);
  return Step::kNext;
}

enum ReduceMode : int { kAdd, kMin, kMax, kAnd, kOr, kXor };

template <class T>
T reduced(int64_t mode, T a, T b) {
  switch (mode) {
    case kAdd:
      return static_cast<T>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
    case kMin:
      return std::min(a, b);
    case kMax:
      return std::max(a, b);
    case kAnd:
      return a & b;
    case kOr:
      return a | b;
    default:
      return a ^ b;
  }
}

template <class T>
Step reduce(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* a = warp.row<uint32_t>(inst.a);
  const auto* members = warp.row<uint32_t>(inst.members);
  uint32_t results[kLanes] = {};
  for_lanes(lanes, [&](int i) {
    const Mask others = members[i] & lanes;
    auto result = static_cast<T>(a[i]);
    for_lanes(others & ~(Mask{1} << i),
              [&](int j) { result = reduced<T>(inst.imm, result, static_cast<T>(a[j])); });
    results[i] = static_cast<uint32_t>(result);
  });
  auto* dst = warp.row<uint32_t>(inst.dst);
  for_lanes(lanes, [&](int i) { dst[i] = results[i]; });
  return Step::kNext;
}

// The lowest lane of the mask leads.
Step elect(Warp& warp, const Inst& inst, Mask lanes) {
  const auto* members = warp.row<uint32_t>(inst.members);
  auto* dst = warp.row<uint32_t>(inst.dst);
  Mask leaders = 0;
  for_lanes(lanes, [&](int i) {
    const int leader = std::countr_zero(members[i] & lanes);
    dst[i] = static_cast<uint32_t>(leader);
    leaders |= static_cast<Mask>(leader == i) << i;
  });
  if (inst.target >= 0) warp.set_predicate(static_cast<uint32_t>(inst.target), lanes, leaders);
  return Step::kNext;
}

Step active_mask(Warp& warp, const Inst& inst, Mask lanes) {
  auto* dst = warp.row<uint32_t>(inst.dst);
  for_lanes(lanes, [&](int i) { dst[i] = lanes; });
  return Step::kNext;
}

Step meet(Warp& warp, const Inst&, Mask lanes) {
  warp.meet(lanes);
  return Step::kNext;
}

// ---- lowering ----

struct Result {
  uint32_t row = kNoRow;
  int32_t predicate = -1;
};

// d, or d|p.
Result take_result(Lowering& lower) {
  const ptx::Operand& to = lower.operand(0);
  if (to.kind != ptx::Operand::Kind::kPair) return {lower.destination_row(0, Type::kB32), -1};
  Result result;
  result.row = lower.destination_row(to.parts[0], Type::kB32);
  result.predicate = static_cast<int32_t>(lower.predicate_destination(to.parts[1]));
  return result;
}

void lower_shuffle(Lowering& lower) {
  static constexpr std::string_view kModes[] = {"up", "down", "bfly", "idx"};
  if (!lower.take("sync")) lower.fail("only shfl.sync is there");
  lower.take_type();
  int mode = -1;
  for (int i = 0; i < 4; ++i) {
    if (lower.take(kModes[i])) mode = i;
  }
  if (mode < 0) lower.fail("a mode is missing");
  const Result result = take_result(lower);
  const uint32_t a = lower.source_row(1, Type::kB32);
  const uint32_t b = lower.source_row(2, Type::kB32);
  const uint32_t c = lower.source_row(3, Type::kB32);
  const uint32_t members = lower.source_row(4, Type::kB32);
  Inst& inst = lower.emit(shuffle);
  inst.dst = result.row;
  inst.target = result.predicate;
  inst.a = a;
  inst.b = b;
  inst.c = c;
  inst.members = members;
  inst.gather = Gather::kMember;
  inst.imm = mode;
}

void lower_vote(Lowering& lower) {
  static constexpr std::string_view kModes[] = {"all", "any", "uni", "ballot"};
  if (!lower.take("sync")) lower.fail("only vote.sync is there");
  lower.take_type();
  int mode = -1;
  for (int i = 0; i < 4; ++i) {
    if (lower.take(kModes[i])) mode = i;
  }
  if (mode < 0) lower.fail("a mode is missing");
  bool negated = false;
  const uint32_t dst = mode == kBallot ? lower.destination_row(0, Type::kB32)
                                       : lower.predicate_destination(lower.operand(0));
  const uint32_t a = lower.predicate(lower.operand(1), &negated);
  const uint32_t members = lower.source_row(2, Type::kB32);
  Inst& inst = lower.emit(vote);
  inst.dst = dst;
  inst.a = a;
  inst.members = members;
  inst.gather = Gather::kMember;
  inst.imm = mode | (negated ? 0x100 : 0);
}

void lower_match(Lowering& lower) {
  if (!lower.take("sync")) lower.fail("only match.sync is there");
  const bool all = lower.take("all");
  if (!all && !lower.take("any")) lower.fail(".any or .all is missing");
  const Type type = lower.take_type();
  if (bytes_of(type) > 8) lower.fail("there is no such instruction for 128 bits");
  const Result result = take_result(lower);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t members = lower.source_row(2, Type::kB32);
  Inst& inst = lower.emit(bytes_of(type) == 8 ? match<uint64_t> : match<uint32_t>);
  inst.dst = result.row;
  inst.target = result.predicate;
  inst.a = a;
  inst.members = members;
  inst.gather = Gather::kMember;
  inst.imm = all;
}

void lower_reduce(Lowering& lower) {
  static constexpr std::string_view kModes[] = {"add", "min", "max", "and", "or", "xor"};
  if (!lower.take("sync")) lower.fail("only redux.sync is there");
  const Type type = lower.take_type();
  if (type != Type::kS32 && type != Type::kU32 && type != Type::kB32) {
    lower.fail("the simulator reduces .s32, .u32 and .b32 alone");
  }
  int mode = -1;
  for (int i = 0; i < 6; ++i) {
    if (lower.take(kModes[i])) mode = i;
  }
  if (mode < 0) lower.fail("an operation is missing");
  const uint32_t dst = lower.destination_row(0, type);
  const uint32_t a = lower.source_row(1, type);
  const uint32_t members = lower.source_row(2, Type::kB32);
  Inst& inst = lower.emit(type == Type::kS32 ? reduce<int32_t> : reduce<uint32_t>);
  inst.dst = dst;
  inst.a = a;
  inst.members = members;
  inst.gather = Gather::kMember;
  inst.imm = mode;
}

void lower_elect(Lowering& lower) {
  if (!lower.take("sync")) lower.fail("only elect.sync is there");
  const Result result = take_result(lower);
  const uint32_t members = lower.source_row(1, Type::kB32);
  Inst& inst = lower.emit(elect);
  inst.dst = result.row;
  inst.target = result.predicate;
  inst.members = members;
  inst.gather = Gather::kMember;
}

}  // namespace

void lower_warp_barrier(Lowering& lower) {
  const uint32_t members = lower.source_row(0, Type::kB32);
  Inst& inst = lower.emit(meet);
  inst.members = members;
  inst.gather = Gather::kMember;
}

void add_lanes(Lowerers& lowerers) {
  lowerers["shfl"] = lower_shuffle;
  lowerers["vote"] = lower_vote;
  lowerers["match"] = lower_match;
  lowerers["redux"] = lower_reduce;
  lowerers["elect"] = lower_elect;
  lowerers["activemask"] = [](Lowering& lower) {
    lower.take_type();
    const uint32_t dst = lower.destination_row(0, Type::kB32);
    lower.emit(active_mask).dst = dst;
  };
}

}  // namespace openweek::simulator
