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

std::string GlobalMemory::nearest(std::uint64_t address) const {
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
  char text[256];
  std::snprintf(text, sizeof text, "%llu bytes %s %s [0x%llx, %llu bytes]",
                static_cast<unsigned long long>(distance),
                address < best->begin  ? "before"
                : address >= best->end ? "behind"
                                       : "inside",
                best->name.c_str(), static_cast<unsigned long long>(best->begin),
                static_cast<unsigned long long>(best->end - best->begin));
  return text;
}

}  // namespace openweek::simulator
