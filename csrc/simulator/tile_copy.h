// The geometry of TMA: boxes of tensors between global and shared memory.
//
// Functions here check what lies in shared memory. Whether a kernel may touch the global bytes is
// for the caller to ask, with box_ranges, before.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "reduction.h"
#include "swizzle.h"

namespace openweek::simulator {

inline constexpr int kMaxRank = 5;
inline constexpr std::size_t kTensorMapBytes = 128;

// A tensor map of csrc/tensor_map.py; dims from the innermost, sizes of 1 beyond the rank.
struct TensorMap {
  std::uint64_t address = 0;
  int rank = 1;
  NumberType type = NumberType::kU8;
  std::uint32_t element_bytes = 1;
  Swizzle swizzle = Swizzle::kNone;
  bool fill_nan = false;
  std::array<std::uint64_t, kMaxRank> sizes{};    // elements
  std::array<std::uint64_t, kMaxRank> strides{};  // bytes
  std::array<std::uint32_t, kMaxRank> box{};      // elements copied: ceil(box / element stride)
  std::array<std::uint32_t, kMaxRank> steps{};    // element strides; the innermost is 1

  std::uint32_t row_bytes() const { return box[0] * element_bytes; }
  std::uint64_t num_rows() const { return std::uint64_t{box[1]} * box[2] * box[3] * box[4]; }
  // What a box fills in shared memory and counts at its barrier, however much is out of bounds.
  // Rows are as wide as a swizzle, whose xor so stays within a row.
  std::uint64_t box_bytes() const { return row_bytes() * num_rows(); }
};

// Throws UnsupportedError for anything that csrc/tensor_map.py would not have encoded.
TensorMap decode_tensor_map(std::span<const std::uint8_t, kTensorMapBytes> bytes);

// What tensormap.replace changes; from kBox to kElementStride one for each dim.
enum class MapField : std::uint8_t {
  kGlobalAddress,
  kRank,
  kBox,
  kSize,
  kStride,
  kElementStride,
  kElementType,
  kInterleave,
  kSwizzle,
  kFill,
};

// Changes a field of a map, which begins as 128 zeros or as another map. `dim` counts from the
// innermost; strides from the second, as in the instruction. Throws UnsupportedError for what is no
// map, and for values that no map has.
void replace_field(std::span<std::uint8_t, kTensorMapBytes> bytes, MapField field, int dim,
                   std::uint64_t value);

// Element coordinates of the box's first corner, `rank` of them; they may be out of bounds.
using Coordinates = const std::int32_t*;

struct GlobalRange {
  std::uint64_t address = 0;
  std::uint64_t num_bytes = 0;
};

// The bytes of the box within the tensor's bounds: what a load reads, a store writes. Ranges that
// touch are joined.
std::vector<GlobalRange> box_ranges(const TensorMap& map, Coordinates corner);

// Copies between a box and `shared`, a whole shared memory, at its address `address`. Throw
// HazardError if the box does not fit there or the address is no multiple of 128.
void load_box(const TensorMap& map, Coordinates corner, std::span<std::uint8_t> shared,
              std::uint32_t address);
void store_box(const TensorMap& map, Coordinates corner, std::span<const std::uint8_t> shared,
               std::uint32_t address);
void reduce_box(const TensorMap& map, Coordinates corner, std::span<const std::uint8_t> shared,
                std::uint32_t address, ReduceOp op);

}  // namespace openweek::simulator
