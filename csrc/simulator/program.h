// A kernel made ready to run: instructions with their operands as places in a register file.
#pragma once

#include <compare>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "formats.h"
#include "reduction.h"
#include "types.h"

namespace openweek::simulator {

inline constexpr int kLanes = 32;
using Mask = std::uint32_t;  // a bit per lane
inline constexpr Mask kAllLanes = 0xffffffffu;

class Warp;
struct Inst;

// What becomes of the lanes that ran an instruction.
enum class Step : std::uint8_t {
  kNext,   // they go on behind it
  kJump,   // the instruction has set their program counters
  kBlock,  // they stay at it until something changes
};

using Handler = Step (*)(Warp&, const Inst&, Mask);

// Who has to arrive at an instruction before it runs.
enum class Gather : std::uint8_t {
  kNobody,  // each lane for itself
  kMember,  // the lanes of the mask in row `members`
  kWarp,    // all lanes that have not exited: .aligned
};

inline constexpr std::uint32_t kNoRow = 0xffffffffu;

// One instruction. Operands are rows of a warp's register file, by byte offset: 32 cells of 4 bytes
// (of 8 for types of 64 bits) or, for predicates, one mask. Constants and special registers have
// rows too, so a handler never asks what kind of operand it has.
struct Inst {
  Handler run = nullptr;
  std::uint32_t dst = kNoRow;
  std::uint32_t a = kNoRow;
  std::uint32_t b = kNoRow;
  std::uint32_t c = kNoRow;
  std::uint32_t guard = kNoRow;    // predicate
  std::uint32_t members = kNoRow;  // of Gather::kMember
  std::uint32_t list = 0;          // index in Program::lists: operands beyond three
  std::int32_t target = 0;         // of a branch: index in Program::code
  std::int64_t imm = 0;            // what a handler needs to know: an offset, a variant
  std::int32_t source = 0;         // index in Program::sources
  std::int32_t watch = -1;         // index in Program::watches: touches registers of a wgmma
  bool guard_negated = false;
  Gather gather = Gather::kNobody;
};

// Where an instruction comes from, for messages.
struct SourceLine {
  int ptx_line = 0;
  // Of the .loc before it, "tma.cuh:65, called at gemm.cuh:120", or empty.
  std::string place;
  std::string text;  // "ld.global.b32"
};

// A parameter of a kernel, in the buffer that a launch fills.
struct Parameter {
  std::string name;
  std::int64_t offset = 0;
  std::int64_t num_bytes = 0;
  int align = 1;
};

// A row whose cells are known only when a warp starts.
struct LateRow {
  enum class Kind {
    kSpecial,        // a special register: name; value is the line that asks for it
    kShared,         // an address in the shared memory of the warp's CTA: value is the offset
    kDynamicShared,  // the address behind all static shared variables
  };
  Kind kind = Kind::kSpecial;
  std::uint32_t row = 0;
  int width = 4;  // bytes of a cell
  std::string name;
  std::int64_t value = 0;
};

// What a cvt does.
struct ConversionStep {
  Converter convert = nullptr;
  Conversion how;
  int source_width = 4;  // bytes of a cell
  int result_width = 4;
  int extend_from = 0;  // bits of a signed result, 0 if it is unsigned
  int source_bits = 0;  // of one value of a pair
  int result_bits = 0;
};

enum class Atomic : std::uint8_t {
  kAdd,
  kMin,
  kMax,
  kAnd,
  kOr,
  kXor,
  kExchange,
  kCompareAndSwap,
  kIncrement,
  kDecrement,
};

// How an access takes part in the order of threads. Weak ones do not, and race.
enum class Order : std::uint8_t { kWeak, kRelaxed, kAcquire, kRelease, kAcquireRelease };

// The threads with which a strong access may be ordered; each has those before it.
enum class MemoryScope : std::uint8_t { kCta, kCluster, kGpu, kSys };

// What a load, a store or an atomic operation moves.
struct MemoryStep {
  int window = 0;    // a Window
  bool wide = true;  // the address has 64 bits
  std::int64_t offset = 0;
  int element_bytes = 4;
  bool sign_extends = false;
  Order order = Order::kWeak;
  MemoryScope scope = MemoryScope::kSys;
  // (row, bytes of a cell) of each element; of an atomic, of the sources, then of the results.
  std::vector<std::pair<std::uint32_t, int>> rows;
  int num_elements = 1;  // of atomics, as all below
  int num_sources = 1;
  Atomic atomic = Atomic::kAdd;
  Type type = Type::kB32;
  // Of red.async and multimem.
  Reduce reduce = nullptr;
  NumberType number = NumberType::kU32;
  bool sums_wide = false;  // 16-bit floats in f32
};

// Bytes that go from a register or the thread's local memory to the other or the same.
struct Transfer {
  struct Place {
    std::uint32_t row = kNoRow;  // of a register; else in local memory
    int width = 4;               // bytes of its cells
    std::int64_t offset = 0;

    std::strong_ordering operator<=>(const Place& other) const = default;
  };
  Place from, to;
  std::int64_t num_bytes = 0;
};

// A function of the module, in the code of a kernel that calls it.
struct Callee {
  std::string name;
  std::uint64_t address = 0;
  std::int32_t begin = 0;  // in Program::code
  std::int32_t end = 0;
};

// A register that some wgmma uses, and whether an instruction writes it.
struct Watched {
  std::uint32_t number = 0;  // among the registers that wgmmas use
  bool writes = false;
};

struct WgmmaStep;
struct BulkStep;

struct Program {
  Program();
  ~Program();
  Program(Program&&) noexcept;
  Program& operator=(Program&&) noexcept;

  // "ld.global.b32 at line 12 of the PTX, file.cuh:7"
  std::string place(std::int32_t pc) const;

  std::string name;
  std::vector<Inst> code;
  std::vector<std::vector<std::uint32_t>> lists;
  std::vector<ConversionStep> conversions;
  std::vector<MemoryStep> memory_steps;
  std::deque<WgmmaStep> wgmma_steps;
  std::deque<BulkStep> bulk_steps;
  std::vector<std::vector<Transfer>> transfers;
  std::vector<Callee> callees;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> constants;  // addresses of .const variables
  std::vector<SourceLine> sources;
  std::vector<std::vector<Watched>> watches;
  std::uint32_t num_matrix_registers = 0;  // that wgmmas use
  bool communicates = false;               // clusters may order themselves through global memory
  std::vector<std::uint8_t> file;          // what every warp's register file begins as
  std::vector<LateRow> late_rows;
  std::vector<Parameter> parameters;
  std::int64_t parameter_bytes = 0;
  std::int64_t shared_bytes = 0;  // of static shared variables
  int shared_align = 1;
  std::int64_t local_bytes = 0;       // per thread
  std::vector<int> max_threads;       // .maxntid
  std::vector<int> required_threads;  // .reqntid
  std::vector<int> required_cluster;  // .reqnctapercluster
};

}  // namespace openweek::simulator
