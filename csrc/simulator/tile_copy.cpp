#include "tile_copy.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "errors.h"
#include "memory.h"

namespace openweek::simulator {
namespace {

constexpr std::uint32_t kGranule = 16;     // what a swizzle moves as a whole
constexpr std::uint32_t kAlignment = 128;  // of boxes in shared memory
constexpr std::uint32_t kMaxRowBytes = 256 * 8;

template <class T>
T read(const std::uint8_t* from, std::size_t index = 0) {
  T value;
  std::memcpy(&value, from + index * sizeof(T), sizeof(T));
  return value;
}

void require(bool holds, const char* rule) {
  if (!holds) throw UnsupportedError(std::string("a tensor map must ") + rule);
}

// The part of one row of a box that is in bounds: bytes [begin, end) of the row, from `address`.
struct Row {
  std::uint64_t address = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

// Calls visit(row) for every row of the box, in the order in which shared memory has them.
template <class Visit>
void for_each_row(const TensorMap& map, Coordinates corner, Visit visit) {
  const auto size = static_cast<std::int64_t>(map.sizes[0]);
  const std::int64_t first = corner[0];
  const std::int64_t begin = std::clamp<std::int64_t>(-first, 0, map.box[0]);
  const std::int64_t end = std::clamp<std::int64_t>(size - first, begin, map.box[0]);
  std::array<std::uint32_t, kMaxRank> index{};
  for (std::uint32_t row = 0; row < map.num_rows(); ++row) {
    Row found{map.address + static_cast<std::uint64_t>((first + begin) * map.element_bytes), 0, 0};
    bool inside = true;
    for (int dim = 1; dim < map.rank; ++dim) {
      const std::int64_t at = corner[dim] + std::int64_t{index[dim]} * map.steps[dim];
      inside = inside && at >= 0 && at < static_cast<std::int64_t>(map.sizes[dim]);
      found.address += static_cast<std::uint64_t>(at) * map.strides[dim];
    }
    if (inside) {
      found.begin = static_cast<std::uint32_t>(begin) * map.element_bytes;
      found.end = static_cast<std::uint32_t>(end) * map.element_bytes;
    }
    visit(found);
    for (int dim = 1; dim < map.rank && ++index[dim] == map.box[dim]; ++dim) index[dim] = 0;
  }
}

void check_shared(const TensorMap& map, std::size_t shared_bytes, std::uint32_t address) {
  if (address % kAlignment != 0) {
    throw HazardError("misaligned: a tensor copy at shared address " + std::to_string(address) +
                      ", no multiple of 128");
  }
  if (address + map.box_bytes() > shared_bytes) {
    throw HazardError("out of bounds: a tensor copy of " + std::to_string(map.box_bytes()) +
                      " bytes at shared address " + std::to_string(address) + " of " +
                      std::to_string(shared_bytes));
  }
}

// Calls move(bytes of the row, bytes of shared memory) for every granule of the row at `address`.
template <class Shared, class RowBytes, class Move>
void for_each_granule(const TensorMap& map, Shared* shared, std::uint32_t address, RowBytes* row,
                      Move move) {
  for (std::uint32_t at = 0; at < map.row_bytes(); at += kGranule) {
    move(row + at, shared + swizzled(address + at, map.swizzle));
  }
}

// A row of zeros or NaN.
void fill(const TensorMap& map, std::uint8_t* row) {
  std::uint64_t value = 0;
  if (map.fill_nan) {
    const std::uint64_t nan = F64::kNaN;
    value = find_converter(map.type, NumberType::kF64)(nan, {});
  }
  for (std::uint32_t at = 0; at < map.row_bytes(); at += map.element_bytes) {
    std::memcpy(row + at, &value, map.element_bytes);
  }
}

// Calls write(global, row, num_bytes) for what is in bounds of every row.
template <class Write>
void write_box(const TensorMap& map, Coordinates corner, std::span<const std::uint8_t> shared,
               std::uint32_t address, Write write) {
  check_shared(map, shared.size(), address);
  std::uint8_t row[kMaxRowBytes];
  for_each_row(map, corner, [&](const Row& part) {
    for_each_granule(
        map, shared.data(), address, row,
        [](std::uint8_t* to, const std::uint8_t* from) { std::memcpy(to, from, kGranule); });
    write(reinterpret_cast<std::uint8_t*>(part.address), row + part.begin, part.end - part.begin);
    address += map.row_bytes();
  });
}

// CUtensorMapDataType -> what its elements are, and how wide.
struct ElementType {
  NumberType type;
  std::uint8_t num_bytes;
};
constexpr ElementType kElementTypes[] = {
    {NumberType::kU8, 1},  {NumberType::kU16, 2}, {NumberType::kU32, 4}, {NumberType::kS32, 4},
    {NumberType::kU64, 8}, {NumberType::kS64, 8}, {NumberType::kF16, 2}, {NumberType::kF32, 4},
    {NumberType::kF64, 8}, {NumberType::kBF16, 2}};
constexpr Swizzle kSwizzles[] = {Swizzle::kNone, Swizzle::k32, Swizzle::k64, Swizzle::k128};

void decode_dims(const std::uint8_t* bytes, TensorMap& map) {
  for (int dim = 0; dim < kMaxRank; ++dim) {
    if (dim >= map.rank) {  // tensormap.replace may have left anything there
      map.sizes[dim] = map.box[dim] = map.steps[dim] = 1;
      continue;
    }
    map.sizes[dim] = read<std::uint64_t>(bytes + 24, dim);
    map.strides[dim] = dim == 0 ? map.element_bytes : read<std::uint64_t>(bytes + 64, dim - 1);
    map.steps[dim] = dim == 0 ? 1 : bytes[106 + dim];
    const std::uint32_t extent = read<std::uint16_t>(bytes + 96, dim);
    require(map.sizes[dim] >= 1 && map.sizes[dim] <= 1ull << 32, "have sizes from 1 to 2^32");
    require(map.steps[dim] >= 1 && map.steps[dim] <= 8, "have element strides from 1 to 8");
    require(extent >= 1 && extent <= 256, "have a box of 1 to 256 in each dim");
    map.box[dim] = (extent + map.steps[dim] - 1) / map.steps[dim];
  }
}

template <class T>
void write(std::uint8_t* to, std::size_t index, std::uint64_t value) {
  const T narrow = static_cast<T>(value);
  require(narrow == value, "have fields within their ranges");
  std::memcpy(to + index * sizeof(T), &narrow, sizeof(T));
}

// Element types as tensormap.replace numbers them -> CUtensorMapDataType.
std::uint8_t element_type(std::uint64_t value) {
  constexpr int kF64 = 9, kBF16 = 10;
  require(value <= kBF16 && value != 8, "have a type other than .f32.ftz and .tf32");
  return static_cast<std::uint8_t>(value >= kF64 ? value - 1 : value);
}

constexpr char kMagic[] = "OWTMAP01";

}  // namespace

void replace_field(std::span<std::uint8_t, kTensorMapBytes> bytes, MapField field, int dim,
                   std::uint64_t value) {
  std::uint8_t* raw = bytes.data();
  if (std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t byte) { return byte == 0; })) {
    std::memcpy(raw, kMagic, 8);
    raw[16] = raw[18] = 1;
  }
  require(std::memcmp(raw, kMagic, 8) == 0, "begin as 128 zeros or as another one");
  switch (field) {
    case MapField::kGlobalAddress:
      return write<std::uint64_t>(raw + 8, 0, value);
    case MapField::kRank:  // the instruction counts from 0
      return write<std::uint8_t>(raw + 16, 0, value + 1);
    case MapField::kBox:
      return write<std::uint16_t>(raw + 96, dim, value);
    case MapField::kSize:
      return write<std::uint64_t>(raw + 24, dim, value);
    case MapField::kStride:
      return write<std::uint64_t>(raw + 64, dim, value);
    case MapField::kElementStride:
      return write<std::uint8_t>(raw + 106, dim, value);
    case MapField::kElementType:
      raw[17] = element_type(value);
      raw[18] = kElementTypes[raw[17]].num_bytes;
      return;
    case MapField::kInterleave:
      return write<std::uint8_t>(raw + 20, 0, value);
    case MapField::kSwizzle:
      return write<std::uint8_t>(raw + 19, 0, value);
    case MapField::kFill:
      return write<std::uint8_t>(raw + 22, 0, value);
  }
}

TensorMap decode_tensor_map(std::span<const std::uint8_t, kTensorMapBytes> bytes) {
  const std::uint8_t* raw = bytes.data();
  require(std::memcmp(raw, kMagic, 8) == 0, "begin with its magic number");
  require(raw[16] >= 1 && raw[16] <= kMaxRank, "have a rank from 1 to 5");
  require(raw[17] < std::size(kElementTypes) && raw[18] == kElementTypes[raw[17]].num_bytes,
          "have a known element type of the right size");
  require(raw[19] < std::size(kSwizzles) && raw[20] == 0 && raw[22] <= 1,
          "have a known swizzle and fill, and no interleave");
  TensorMap map{.address = read<std::uint64_t>(raw + 8),
                .rank = raw[16],
                .type = kElementTypes[raw[17]].type,
                .element_bytes = raw[18],
                .swizzle = kSwizzles[raw[19]],
                .fill_nan = raw[22] == 1};
  decode_dims(raw, map);
  std::uint64_t box_bytes = map.element_bytes;
  for (const std::uint32_t extent : map.box) box_bytes *= extent;
  require(box_bytes <= kMaxSharedBytes, "have a box of no more bytes than shared memory has");
  require(map.row_bytes() % kGranule == 0, "have box rows of a multiple of 16 bytes");
  // Where shorter rows would lie in shared memory is not documented well enough to imitate.
  require(map.swizzle == Swizzle::kNone || map.row_bytes() == span_bytes(map.swizzle),
          "have box rows as wide as its swizzle");
  return map;
}

std::vector<GlobalRange> box_ranges(const TensorMap& map, Coordinates corner) {
  std::vector<GlobalRange> ranges;
  for_each_row(map, corner, [&](const Row& part) {
    if (part.begin == part.end) return;
    const std::uint64_t num_bytes = part.end - part.begin;
    if (!ranges.empty() && ranges.back().address + ranges.back().num_bytes == part.address) {
      ranges.back().num_bytes += num_bytes;
    } else {
      ranges.push_back({part.address, num_bytes});
    }
  });
  return ranges;
}

void load_box(const TensorMap& map, Coordinates corner, std::span<std::uint8_t> shared,
              std::uint32_t address) {
  check_shared(map, shared.size(), address);
  std::uint8_t blank[kMaxRowBytes], padded[kMaxRowBytes];
  fill(map, blank);
  for_each_row(map, corner, [&](const Row& part) {
    const auto* row = reinterpret_cast<const std::uint8_t*>(part.address);
    if (part.end - part.begin != map.row_bytes()) {
      std::memcpy(padded, blank, map.row_bytes());
      std::memcpy(padded + part.begin, row, part.end - part.begin);
      row = padded;
    }
    for_each_granule(
        map, shared.data(), address, row,
        [](const std::uint8_t* from, std::uint8_t* to) { std::memcpy(to, from, kGranule); });
    address += map.row_bytes();
  });
}

void store_box(const TensorMap& map, Coordinates corner, std::span<const std::uint8_t> shared,
               std::uint32_t address) {
  write_box(map, corner, shared, address,
            [](std::uint8_t* to, const std::uint8_t* row, std::size_t num_bytes) {
              std::memcpy(to, row, num_bytes);
            });
}

void reduce_box(const TensorMap& map, Coordinates corner, std::span<const std::uint8_t> shared,
                std::uint32_t address, ReduceOp op) {
  write_box(map, corner, shared, address, find_reduce(op, map.type));
}

}  // namespace openweek::simulator
