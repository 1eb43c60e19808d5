// What a cp.async.bulk instruction says.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "program.h"
#include "tile_copy.h"

namespace openweek::simulator {

// What such a copy moves, and how it tells that it is done.
struct BulkStep {
  int rank = 0;        // of a tensor; 0 for plain bytes
  bool loads = false;  // into shared memory
  bool from_shared = false;
  bool prefetches = false;
  std::optional<ReduceOp> reduce;
  Reduce reduction = nullptr;  // of plain bytes
  bool multicast = false;
  struct Address {
    std::uint32_t row = kNoRow;
    bool wide = true;
    std::int64_t offset = 0;
  };
  Address to, from, map, barrier;
  std::vector<std::uint32_t> corner;
  std::uint32_t size = kNoRow;
  std::uint32_t mask = kNoRow;
};

}  // namespace openweek::simulator
