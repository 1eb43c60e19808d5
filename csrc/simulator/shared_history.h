// What has been done to each word of a CTA's shared memory, to see whether the next access may be.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "clocks.h"
#include "program.h"
#include "swizzle.h"

namespace openweek::simulator {

class Cta;
class Warp;

// Which thread makes an access now, and as which agent it is remembered.
struct Access {
  Warp* warp;
  int lane;
  Epoch epoch;
  MemoryScope scope = MemoryScope::kSys;  // if it is strong

  bool knows(Epoch earlier) const;
};

// The copies that have filled a matrix operand.
struct OperandCopies {
  std::vector<Epoch> epochs;
  bool has_others = false;  // threads have written to it as well
};

// Ordinary accesses (generic proxy) are kept by words of 4 bytes, those of the copy engine and the
// tensor cores (asynchronous proxy) by granules of 16. An access may be made by whoever knows of
// all earlier ones that it conflicts with; else these functions throw a HazardError that tells of
// both.
class SharedHistory {
 public:
  SharedHistory(Cta& cta, std::size_t num_bytes);

  void read(std::uint32_t offset, int num_bytes, const Access& by);
  void write(std::uint32_t offset, int num_bytes, const Access& by);
  void modify(std::uint32_t offset, int num_bytes, const Access& by);

  // The asynchronous proxy, as of the moment the access is asked for: `by.epoch` is the agent that
  // ends with it. A copy tells how it lays out rows, and a matrix operand how it takes them.
  void fill(std::uint32_t offset, std::uint32_t num_bytes, std::optional<Swizzle> layout,
            const Access& by);
  void take(std::uint32_t offset, std::uint32_t num_bytes, const Access& by);
  // Atomic, so that several may come to the same words.
  void accumulate(std::uint32_t offset, std::uint32_t num_bytes, const Access& by);
  // `copies`: where other threads have to know of the same, all that filled these granules.
  void take_operand(std::span<const std::uint32_t> granules, Swizzle layout, const Access& by,
                    OperandCopies& copies);

  // Bytes of an mbarrier are no bytes.
  void claim(std::uint32_t offset) { granules_[offset / 16].has_mbarrier = true; }

 private:
  enum class What : std::uint8_t { kRead, kWrite, kTake, kFill };

  struct Word {
    Epoch write;
    Epoch read;
  };
  struct Granule {
    Epoch filled;
    Epoch taken[2];
    std::uint16_t written = 0;  // a bit per byte
    bool has_words = false;
    bool has_more = false;  // in more_taken_
    bool has_mbarrier = false;
    std::uint8_t layout = 0;  // 1 + Swizzle, 0 if it is not known
  };

  void check_granule(std::uint32_t number, What what, const Access& by);
  void check_words(std::uint32_t granule, What what, const Access& by);
  [[noreturn]] void not_written(std::uint32_t offset, const Access& by);
  void check_no_mbarrier(std::uint32_t offset, int num_bytes, const Access& by);
  void enter_read(std::uint32_t word, Epoch epoch, const Access& by);
  void enter_write(std::uint32_t word, Epoch epoch, const Access& by);
  void enter_taken(std::uint32_t number, Epoch epoch, const Clock& seen);
  template <class Each>
  void each_word(std::uint32_t offset, int num_bytes, Each each);
  [[noreturn]] void conflict(Epoch earlier, bool earlier_wrote, std::uint32_t offset, What what,
                             const Access& by);

  Cta& cta_;
  std::vector<Granule> granules_;
  std::vector<Word> words_;  // empty until the first ordinary access
  // What one place has no room for: several threads have read, or bytes of a word were written by
  // different ones.
  std::unordered_map<std::uint32_t, std::vector<Epoch>> more_reads_, more_writes_, more_taken_;
};

}  // namespace openweek::simulator
