// Addresses: which memory a generic address means, and which bytes a launch may touch.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace openweek::simulator {

// Global memory is the host's own: its addresses are below 2^47. Above them lie three windows.
inline constexpr std::uint64_t kSharedWindow = std::uint64_t{1} << 56;
inline constexpr std::uint64_t kLocalWindow = std::uint64_t{1} << 57;
inline constexpr std::uint64_t kParameterWindow = std::uint64_t{1} << 58;
inline constexpr std::uint64_t kWindows = ~std::uint64_t{0} << 56;  // the bits that tell which

// Of a generic address.
constexpr bool is_global(std::uint64_t address) {
  return !(address & (kSharedWindow | kLocalWindow | kParameterWindow));
}

// Above host addresses, too, but not generic: what multimem instructions take.
inline constexpr std::uint64_t kMulticastWindow = std::uint64_t{1} << 55;

// Addresses that mean the same place in the memory of several devices.
struct Multicast {
  std::uint64_t begin = 0;
  std::uint64_t num_bytes = 0;
  std::vector<std::uint64_t> replicas;  // where each device's memory begins
};

// Functions have addresses too, though nobody can read what is there: their number in the module.
inline constexpr std::uint64_t kFunctionWindow = std::uint64_t{1} << 59;

// A shared address is the rank of a CTA in its cluster, and an offset in that CTA's memory.
inline constexpr int kRankShift = 24;
inline constexpr std::uint32_t kOffsetMask = (1u << kRankShift) - 1;

// The most shared memory that a CTA can have on Hopper.
inline constexpr std::int64_t kMaxSharedBytes = 227 * 1024;

struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string name;  // of the argument or buffer

  bool contains(std::uint64_t address, std::uint64_t num_bytes) const {
    return begin <= address && address < end && num_bytes <= end - address;
  }
};

// The global memory that a launch may touch.
class GlobalMemory {
 public:
  void allow(Range range);

  // Whether all of these bytes lie in one range. `recent` is the caller's memory of the last one:
  // accesses come in runs.
  bool allowed(std::uint64_t address, std::uint64_t num_bytes, std::size_t& recent) const {
    const Range& last = ranges_[recent];
    if (last.contains(address, num_bytes)) return true;
    return find(address, num_bytes, recent);
  }

  // "24 bytes behind a [0x7f.., 4096 bytes]": for the message of an access that is not allowed.
  std::string nearest(std::uint64_t address, std::uint64_t num_bytes) const;

 private:
  bool find(std::uint64_t address, std::uint64_t num_bytes, std::size_t& recent) const;

  std::vector<Range> ranges_ = {Range{}};  // ascending; the first one is empty
};

}  // namespace openweek::simulator
