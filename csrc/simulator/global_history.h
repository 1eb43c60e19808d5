// Who has written which word of global memory, to see who may read or write it next.
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

// Words of 4 bytes, in pages. Reads are remembered without their time, for Merged alone: a write
// that a read of the same world should have come before is not found.
class GlobalHistory {
 public:
  static constexpr int kPageBytes = 4096;
  static constexpr int kWords = kPageBytes / 4;

  // Whether reads are remembered.
  explicit GlobalHistory(bool remembers_reads) : remembers_reads_(remembers_reads) {}

  // Throw HazardError if the thread may not; `asynchronous` ones come from the copy engine.
  void read(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous, const Access& by);
  void write(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous, const Access& by);

  // A copy takes its tensor map from here: what was written since the run began, fences of the
  // tensormap proxy have passed. Throws HazardError if not.
  void use_map(std::uint64_t address, std::uint64_t num_bytes, const Access& by);

 private:
  friend class MergedHistory;
  struct Page {
    std::array<Epoch, kWords> writes;
    std::array<std::uint32_t, kWords> clusters;
    std::array<std::uint8_t, kWords> bytes;  // of the word, that anybody has written
    std::array<MemoryScope, kWords> scopes;  // of the last write, if it is strong
  };
  using Reads = std::array<std::uint64_t, kPageBytes / 64>;  // a bit per byte

  Page& page_of(std::uint64_t number);
  void check(const Page& page, int word, unsigned bytes, bool writes, bool asynchronous,
             const Access& by, std::uint64_t address);
  void remember_read(std::uint64_t address, std::uint64_t num_bytes);

  bool remembers_reads_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::uint64_t first_page_ = ~std::uint64_t{0};  // of those that are written
  std::uint64_t last_page_ = 0;
  Page* recent_ = nullptr;
  std::uint64_t recent_number_ = 0;
  std::unordered_map<std::uint64_t, Reads> reads_;
  struct Recent {
    std::uint64_t number = ~std::uint64_t{0};
    Reads* reads = nullptr;
  };
  std::array<Recent, 256> recent_reads_;
};

// The histories of clusters that ran apart, as nothing in them could order one after another: what
// one writes, no other may touch. Joined in the clusters' order, so that one seed gives one report.
class MergedHistory {
 public:
  // What is wrong with the history of one more cluster, if anything is.
  std::optional<std::string> add(const GlobalHistory& history, std::int64_t cluster,
                                 const std::function<std::string(std::int32_t)>& place);

 private:
  struct Writer {
    std::int64_t cluster = -1;
    unsigned bytes = 0;
  };
  std::unordered_map<std::uint64_t, std::array<Writer, GlobalHistory::kWords>> writers_;
  std::unordered_map<std::uint64_t, GlobalHistory::Reads> reads_;
};

}  // namespace openweek::simulator
