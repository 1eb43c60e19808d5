// Who has touched which word of global memory, to see who may touch it next.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "clocks.h"
#include "shared_history.h"

namespace openweek::simulator {

// Writes are kept by words of 4 bytes, of which the last plain and the last atomic writer are
// remembered; reads by granules of 32 bytes: of those that read one and that nothing orders, two
// are, so a write that comes too soon for a third is not found. Lanes of one warp are told apart by
// their writes alone.
class GlobalHistory {
 public:
  static constexpr int kPageBytes = 4096;
  static constexpr int kWords = kPageBytes / 4;
  static constexpr int kGranuleBytes = 32;
  static constexpr int kGranules = kPageBytes / kGranuleBytes;

  // Throw HazardError if the thread may not; `asynchronous` ones come from the copy engine.
  void read(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous, const Access& by);
  void write(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous, const Access& by);

  // A copy takes its tensor map from here: what was written since the run began, fences of the
  // tensormap proxy have passed. Throws HazardError if not.
  void use_map(std::uint64_t address, std::uint64_t num_bytes, const Access& by);

 private:
  friend class MergedHistory;
  struct Writers {
    std::array<Epoch, kWords> writes;
    std::array<std::uint32_t, kWords> clusters;
    std::array<MemoryScope, kWords> scopes;  // of strong ones
  };
  struct Writes {
    Writers plain;
    std::unique_ptr<Writers> strong;         // if there are any
    std::array<std::uint8_t, kWords> bytes;  // of the word, that anybody has written

    Epoch last(int word) const;
  };
  struct Reader {
    Epoch epoch;
    std::uint32_t bytes = 0;  // of the granule; 0: nobody
    std::uint32_t cluster : 30 = 0;
    std::uint32_t scope : 2 = 0;  // a MemoryScope, if it is strong
  };
  static_assert(sizeof(Reader) == 16, "pages of readers are most of the history");
  struct Reads {
    std::array<std::array<Reader, 2>, kGranules> readers;
    std::array<std::uint32_t, kGranules> bytes;  // that anybody has read
  };

  // Pages by their number. Most accesses are near recent ones.
  template <class Page>
  class Pages {
   public:
    Page& make(std::uint64_t number);
    Page* find(std::uint64_t number);
    const auto& all() const { return all_; }

   private:
    struct Recent {
      std::uint64_t number = ~std::uint64_t{0};
      Page* page = nullptr;
    };
    Recent& recent(std::uint64_t number) { return recent_[number % recent_.size()]; }

    std::unordered_map<std::uint64_t, std::unique_ptr<Page>> all_;
    std::array<Recent, 256> recent_;
  };

  // Whether the access may follow what another cluster or warp did.
  bool is_ordered(std::uint32_t cluster, Epoch earlier, const Access& by) const;
  static Reader reader(Epoch epoch, std::uint32_t bytes, const Access& by);
  // Whether two accesses are atomic to one another.
  static bool are_atomic(Epoch earlier, std::uint32_t cluster, MemoryScope scope, const Access& by);
  void check_write(const Writers& page, int word, unsigned bytes, bool writes, bool asynchronous,
                   const Access& by, std::uint64_t address);
  void check_writes(const Writes& page, int word, unsigned bytes, bool writes, bool asynchronous,
                    const Access& by, std::uint64_t address);
  void enter_write(Writes& page, int word, unsigned bytes, const Access& by);
  void check_reads(Reads& page, int granule, std::uint32_t bytes, const Access& by,
                   std::uint64_t address);
  void enter_read(Reads& page, int granule, std::uint32_t bytes, const Access& by);

  Pages<Writes> writes_;
  Pages<Reads> reads_;
};

// The histories of clusters that ran apart, as nothing in them could order one after another: what
// one writes, no other may touch. Joined in the clusters' order, so that one seed gives one report.
class MergedHistory {
 public:
  using Place = std::function<std::string(std::int32_t)>;

  // What is wrong with the history of one more cluster, if anything is.
  std::optional<std::string> add(const GlobalHistory& history, std::int64_t cluster,
                                 const Place& place);

 private:
  // Who has touched these bytes of a word or granule, the last one or the first one.
  struct Toucher {
    std::int64_t cluster = -1;
    std::int32_t place = -1;
    std::uint32_t bytes = 0;
  };
  struct Reads {
    std::array<Toucher, GlobalHistory::kGranules> first;
    std::array<std::uint32_t, GlobalHistory::kGranules> bytes;  // that anybody has read
  };
  std::unordered_map<std::uint64_t, std::array<Toucher, GlobalHistory::kWords>> writes_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Reads>> reads_;
};

}  // namespace openweek::simulator
