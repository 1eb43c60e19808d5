#include "memory.h"

#include <algorithm>
#include <cstdio>

namespace openweek::simulator {

void GlobalMemory::allow(Range range) {
  if (range.begin >= range.end) return;
  // Neighbours stay apart: a tensor that ends where another begins must not be read past its end.
  const auto place =
      std::upper_bound(ranges_.begin(), ranges_.end(), range,
                       [](const Range& a, const Range& b) { return a.begin < b.begin; });
  ranges_.insert(place, std::move(range));
}

bool GlobalMemory::find(std::uint64_t address, std::uint64_t num_bytes, std::size_t& recent) const {
  // Ranges may overlap (views of one tensor), so all that begin at or before the address count.
  for (std::size_t i = ranges_.size(); i-- > 0;) {
    if (ranges_[i].contains(address, num_bytes)) {
      recent = i;
      return true;
    }
  }
  return false;
}

std::string GlobalMemory::nearest(std::uint64_t address, std::uint64_t num_bytes) const {
  const Range* best = nullptr;
  std::uint64_t distance = ~std::uint64_t{0};
  for (const Range& range : ranges_) {
    if (range.begin == range.end) continue;
    const std::uint64_t away = address < range.begin  ? range.begin - address
                               : address >= range.end ? address - range.end
                                                      : 0;
    if (away < distance) best = &range, distance = away;
  }
  if (best == nullptr) return "the launch has no memory";
  // Nothing lies in the first page: it is there that a null pointer with an offset points.
  constexpr std::uint64_t kPageBytes = 4096;
  std::string text = address < kPageBytes ? "a null pointer, " : "";
  if (address < best->begin) {
    text += std::to_string(distance) + " bytes before ";
  } else if (address >= best->end) {
    text += std::to_string(distance) + " bytes behind ";
  } else {
    text += "up to " + std::to_string(address + num_bytes - best->end) + " bytes behind ";
  }
  char begin[32];
  std::snprintf(begin, sizeof begin, "0x%llx", static_cast<unsigned long long>(best->begin));
  return text + best->name + " [" + begin + ", " + std::to_string(best->end - best->begin) +
         " bytes]";
}

}  // namespace openweek::simulator
