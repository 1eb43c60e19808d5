// How TMA and wgmma spread rows over the banks of shared memory.
#pragma once

#include <cstdint>

namespace openweek::simulator {

enum class Swizzle : std::uint8_t { kNone, k32, k64, k128 };

// Bytes of a row after which the pattern goes on in the next row; without swizzle, of a granule.
constexpr std::uint32_t span_bytes(Swizzle swizzle) { return 16u << static_cast<int>(swizzle); }

// Where the byte really lies: bits 4 to 6 of an absolute shared address, as many as the swizzle
// has, are xored with those from bit 7 on.
constexpr std::uint32_t swizzled(std::uint32_t address, Swizzle swizzle) {
  const std::uint32_t bits = span_bytes(swizzle) / 16 - 1;
  return address ^ (((address >> 7) & bits) << 4);
}

}  // namespace openweek::simulator
