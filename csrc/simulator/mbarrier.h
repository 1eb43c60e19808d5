// Barriers in shared memory that count threads and bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "access.h"

namespace openweek::simulator {

class Cluster;

// One mbarrier object. A phase is complete when nobody is missing and no byte is under way.
struct Mbarrier {
  std::uint64_t phase = 0;
  std::int64_t expected = 0;  // arrivals of a phase
  std::int64_t missing = 0;   // of this one
  std::int64_t bytes = 0;     // announced and not there yet; below 0 if they came first

  std::string describe() const;
};

// The mbarriers of a CTA, by their address in its shared memory.
class Mbarriers {
 public:
  void init(std::uint32_t offset, std::int64_t expected);
  void invalidate(std::uint32_t offset);

  // Throws HazardError if there is none; `origin` is who asks.
  Mbarrier& at(std::uint32_t offset, const Origin& origin);
  bool contains(std::uint32_t offset) const { return barriers_.contains(offset); }

 private:
  std::map<std::uint32_t, Mbarrier> barriers_;
};

// Changes of a barrier; complete the phase if that was all it waited for.
// Throws HazardError for more arrivals than are expected, or more bytes than an object can count.
void arrive(Mbarrier& barrier, std::int64_t count, Cluster& cluster, const Origin& origin);
void expect_bytes(Mbarrier& barrier, std::int64_t num_bytes, Cluster& cluster,
                  const Origin& origin);
void complete_bytes(Mbarrier& barrier, std::int64_t num_bytes, Cluster& cluster,
                    const Origin& origin);

}  // namespace openweek::simulator
