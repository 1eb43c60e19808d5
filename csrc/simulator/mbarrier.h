// Barriers in shared memory that count threads and bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "access.h"
#include "clocks.h"

namespace openweek::simulator {

class Cta;

// One mbarrier object. A phase is complete when nobody is missing and no byte is under way.
struct Mbarrier {
  std::uint64_t phase = 0;
  std::int64_t expected = 0;  // arrivals of a phase
  std::int64_t missing = 0;   // of this one
  std::int64_t bytes = 0;     // announced and not there yet; below 0 if they came first
  bool is_valid = true;

  Cta* cta = nullptr;
  std::uint32_t offset = 0;
  Agent agent = 0;              // of the copies that it counts; its time: phases that have ended
  Epoch made;                   // by mbarrier.init
  Clock used;                   // by which warps up to when, in ways that order them
  bool is_fenced = false;       // so that other CTAs and the asynchronous proxy see it
  std::uint64_t fenced_in = 0;  // this phase of the cluster's barrier
  std::int64_t under_way = 0;   // bytes of copies that will be counted in this phase
  Knowledge gathered;           // of those that have arrived
  Knowledge result;             // of all that arrived before the last phase ended

  std::string describe() const;
};

// The mbarriers of a CTA, by their offset in its shared memory.
class Mbarriers {
 public:
  void init(Cta& cta, std::uint32_t offset, std::int64_t expected, const Origin& origin);
  void invalidate(std::uint32_t offset, const Origin& origin);

  // For a use by a thread; an `asynchronous` one is by a copy that it starts, which has to be
  // fenced for where CTAs differ. Throws HazardError if there is none, or the thread need not see
  // that there is.
  Mbarrier& at(std::uint32_t offset, bool asynchronous, const Origin& origin);
  bool contains(std::uint32_t offset) const;
  std::string describe(std::uint32_t offset) const { return barriers_.at(offset).describe(); }

  // fence.mbarrier_init, or a proxy fence, by the warp that made them.
  void fence(const Warp& warp);

 private:
  std::map<std::uint32_t, Mbarrier> barriers_;
};

// Changes of a barrier; complete the phase if that was all it waited for.
// Throw HazardError for more arrivals than are expected, or more bytes than an object can count.
void arrive(Mbarrier& barrier, std::int64_t count, const Origin& origin);
void expect_arrival(Mbarrier& barrier, const Origin& origin);  // one more, in this phase
void expect_bytes(Mbarrier& barrier, std::int64_t num_bytes, const Origin& origin);
void announce_bytes(Mbarrier& barrier, std::int64_t num_bytes, const Origin& origin);

// A copy that will bring bytes: announced when it starts, with the phase that it is told, counted
// when it is done.
std::uint64_t start_bytes(Mbarrier& barrier, std::int64_t num_bytes);
void complete_bytes(Mbarrier& barrier, std::int64_t num_bytes, std::uint64_t phase,
                    const Origin& origin);

}  // namespace openweek::simulator
