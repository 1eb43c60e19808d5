#include "shared_history.h"

#include <string>

#include "access.h"
#include "errors.h"
#include "world.h"

namespace openweek::simulator {
namespace {

constexpr unsigned kWholeWord = 15;
constexpr std::uint16_t kWholeGranule = 0xffff;

// Whether an access is all that has to be remembered of an earlier one: who knows of it knows of
// both. Lanes of one warp become one entry. Nobody need know of an atomic one to be atomic as well,
// so that says nothing of a plain one before it.
bool replaces(Epoch epoch, Epoch old, const Access& by) {
  return (old.strong() || !epoch.strong()) && (old.bytes() & ~epoch.bytes()) == 0 &&
         (old.agent() == epoch.agent() || by.warp->knowledge.own.seen.knows(old));
}

Epoch joined(Epoch old, Epoch epoch, const Access& by) {
  return old.none() || by.knows(old) ? epoch : epoch.with_lane(Epoch::kSeveral);
}

// Appends, unless an entry is there that this one replaces.
void enter_more(std::vector<Epoch>& entries, Epoch epoch, const Access& by) {
  std::erase_if(entries, [&](Epoch old) {
    if (!replaces(epoch, old, by)) return false;
    epoch = joined(old, epoch, by);
    return true;
  });
  entries.push_back(epoch);
}

}  // namespace

bool Access::knows(Epoch earlier) const { return warp->knows(earlier, lane); }

SharedHistory::SharedHistory(Cta& cta, std::size_t num_bytes)
    : cta_(cta), granules_((num_bytes + 15) / 16) {}

template <class Each>
void SharedHistory::each_word(std::uint32_t offset, int num_bytes, Each each) {
  const std::uint32_t end = offset + static_cast<std::uint32_t>(num_bytes);
  for (std::uint32_t word = offset / 4; word * 4 < end; ++word) {
    unsigned bytes = kWholeWord;
    if (word * 4 < offset) bytes &= kWholeWord << (offset % 4);
    if (word * 4 + 4 > end) bytes &= kWholeWord >> (word * 4 + 4 - end);
    each(word, bytes);
  }
}

void SharedHistory::read(std::uint32_t offset, int num_bytes, const Access& by) {
  if (words_.empty()) words_.resize(4 * granules_.size());
  each_word(offset, num_bytes, [&](std::uint32_t word, unsigned bytes) {
    Granule& granule = granules_[word / 4];
    if (granule.has_mbarrier) check_no_mbarrier(offset, num_bytes, by);
    check_granule(word / 4, What::kRead, by);
    if (~(granule.written >> word % 4 * 4) & bytes) not_written(word * 4, by);
    const Epoch epoch = by.epoch.with_bytes(bytes);
    const auto races = [&](Epoch write) {
      return (write.bytes() & bytes) && !(write.strong() && epoch.strong()) && !by.knows(write);
    };
    if (races(words_[word].write)) conflict(words_[word].write, true, word * 4, What::kRead, by);
    if (!more_writes_.empty()) {
      if (const auto more = more_writes_.find(word); more != more_writes_.end()) {
        for (const Epoch write : more->second) {
          if (races(write)) conflict(write, true, word * 4, What::kRead, by);
        }
      }
    }
    granule.has_words = true;
    enter_read(word, epoch, by);
  });
}

void SharedHistory::write(std::uint32_t offset, int num_bytes, const Access& by) {
  if (words_.empty()) words_.resize(4 * granules_.size());
  each_word(offset, num_bytes, [&](std::uint32_t word, unsigned bytes) {
    Granule& granule = granules_[word / 4];
    if (granule.has_mbarrier) check_no_mbarrier(offset, num_bytes, by);
    check_granule(word / 4, What::kWrite, by);
    const Epoch epoch = by.epoch.with_bytes(bytes);
    const auto races = [&](Epoch other) {
      return (other.bytes() & bytes) && !(other.strong() && epoch.strong()) && !by.knows(other);
    };
    // What lanes write to one place at once is of one of them: CUDA promises that much. Of what an
    // mbarrier counts, threads of several warps may be at one instruction.
    const bool is_by_warp = epoch.agent() == by.warp->agent();
    const auto check = [&](Epoch other, bool wrote) {
      if (wrote && is_by_warp && epoch.is_of_one_instruction(other)) return;
      if (races(other)) conflict(other, wrote, word * 4, What::kWrite, by);
    };
    check(words_[word].write, true);
    check(words_[word].read, false);
    for (const auto* more : {&more_writes_, &more_reads_}) {
      if (more->empty()) continue;
      if (const auto found = more->find(word); found != more->end()) {
        for (const Epoch other : found->second) check(other, more == &more_writes_);
      }
    }
    granule.has_words = true;
    granule.layout = 0;
    granule.written |= static_cast<std::uint16_t>(bytes << word % 4 * 4);
    enter_write(word, epoch, by);
  });
}

// Nobody else comes in between, so what it reads and writes is one access. Words that others
// change in the same way keep the last of them.
void SharedHistory::modify(std::uint32_t offset, int num_bytes, const Access& by) {
  each_word(offset, num_bytes, [&](std::uint32_t word, unsigned bytes) {
    if (~(granules_[word / 4].written >> word % 4 * 4) & bytes) not_written(word * 4, by);
  });
  write(offset, num_bytes, by);
}

void SharedHistory::enter_read(std::uint32_t word, Epoch epoch, const Access& by) {
  Epoch& last = words_[word].read;
  if (last.none() || replaces(epoch, last, by)) {
    last = joined(last, epoch, by);
  } else {
    enter_more(more_reads_[word], epoch, by);
  }
}

void SharedHistory::enter_write(std::uint32_t word, Epoch epoch, const Access& by) {
  Epoch& last = words_[word].write;
  if (last.none() || replaces(epoch, last, by)) {
    last = joined(last, epoch, by);
    // All that was read before is known to this write.
    if (epoch.bytes() == kWholeWord && !epoch.strong()) {
      words_[word].read = Epoch();
      if (!more_reads_.empty()) more_reads_.erase(word);
      if (!more_writes_.empty()) more_writes_.erase(word);
    }
  } else {
    enter_more(more_writes_[word], epoch, by);
  }
}

void SharedHistory::enter_taken(std::uint32_t number, Epoch epoch, const Clock& seen) {
  Granule& granule = granules_[number];
  for (Epoch& last : granule.taken) {
    if (last.agent() == epoch.agent() || last.none() || seen.knows(last)) {
      last = epoch;
      return;
    }
  }
  granule.has_more = true;
  std::vector<Epoch>& more = more_taken_[number];
  std::erase_if(more, [&](Epoch old) { return old.agent() == epoch.agent() || seen.knows(old); });
  more.push_back(epoch);
}

void SharedHistory::check_granule(std::uint32_t number, What what, const Access& by) {
  const Granule& granule = granules_[number];
  const Clock& seen = by.warp->knowledge.own.seen;
  if (!seen.knows(granule.filled)) conflict(granule.filled, true, number * 16, what, by);
  if (what == What::kRead || what == What::kTake) return;
  for (const Epoch taken : granule.taken) {
    if (!seen.knows(taken)) conflict(taken, false, number * 16, what, by);
  }
  if (granule.has_more) {
    for (const Epoch taken : more_taken_[number]) {
      if (!seen.knows(taken)) conflict(taken, false, number * 16, what, by);
    }
  }
}

void SharedHistory::check_words(std::uint32_t granule, What what, const Access& by) {
  const Clock& seen = by.warp->knowledge.own.seen;
  const Clock& fenced = by.warp->knowledge.own.fenced;
  const Clock& yielded = by.warp->knowledge.own.yielded;
  for (std::uint32_t word = 4 * granule; word < 4 * granule + 4; ++word) {
    const auto check_write = [&](Epoch write) {
      // What an mbarrier counts comes to both proxies.
      const bool is_known = cta_.cluster().agents[write.agent()].kind == Agents::Kind::kMbarrier
                                ? seen.knows(write)
                                : fenced.knows(write) && by.knows(write);
      if (!write.none() && !is_known) conflict(write, true, word * 4, what, by);
    };
    check_write(words_[word].write);
    if (const auto more = more_writes_.find(word); more != more_writes_.end()) {
      for (const Epoch write : more->second) check_write(write);
    }
    if (what == What::kTake) continue;
    const auto check_read = [&](Epoch read) {
      if (!yielded.knows(read) || !by.knows(read)) conflict(read, false, word * 4, what, by);
    };
    check_read(words_[word].read);
    if (const auto more = more_reads_.find(word); more != more_reads_.end()) {
      for (const Epoch read : more->second) check_read(read);
    }
  }
}

void SharedHistory::fill(std::uint32_t offset, std::uint32_t num_bytes,
                         std::optional<Swizzle> layout, const Access& by) {
  const auto tag = static_cast<std::uint8_t>(layout ? 1 + static_cast<int>(*layout) : 0);
  for (std::uint32_t number = offset / 16; number * 16 < offset + num_bytes; ++number) {
    Granule& granule = granules_[number];
    if (granule.has_mbarrier) check_no_mbarrier(number * 16, 16, by);
    // Several loads may fill one granule only in different phases, so one entry is enough.
    check_granule(number, What::kFill, by);
    if (granule.has_words) {
      check_words(number, What::kFill, by);
      for (std::uint32_t word = 4 * number; word < 4 * number + 4; ++word) {
        words_[word] = {};
        more_reads_.erase(word);
        more_writes_.erase(word);
      }
    }
    if (granule.has_more) more_taken_.erase(number);
    granule = {.filled = by.epoch, .taken = {}, .written = kWholeGranule, .layout = tag};
  }
}

void SharedHistory::accumulate(std::uint32_t offset, std::uint32_t num_bytes, const Access& by) {
  const Knowledge& knowledge = by.warp->knowledge;
  for (std::uint32_t word = offset / 4; word * 4 < offset + num_bytes; ++word) {
    const auto check = [&](Epoch earlier, const Clock& fenced, bool wrote) {
      if (cta_.cluster().agents[earlier.agent()].kind != Agents::Kind::kWarp) return;
      if (by.knows(earlier) && !fenced.knows(earlier)) {
        conflict(earlier, wrote, word * 4, What::kFill, by);
      }
    };
    if (words_.empty()) break;
    check(words_[word].write, knowledge.own.fenced, true);
    check(words_[word].read, knowledge.own.yielded, false);
  }
  modify(offset, static_cast<int>(num_bytes), by);
}

void SharedHistory::take(std::uint32_t offset, std::uint32_t num_bytes, const Access& by) {
  const Clock& seen = by.warp->knowledge.own.seen;
  for (std::uint32_t number = offset / 16; number * 16 < offset + num_bytes; ++number) {
    const Granule& granule = granules_[number];
    if (granule.has_mbarrier) check_no_mbarrier(number * 16, 16, by);
    check_granule(number, What::kTake, by);
    if (granule.has_words) check_words(number, What::kTake, by);
    if (granule.written != kWholeGranule) not_written(number * 16, by);
    enter_taken(number, by.epoch, seen);
  }
}

void SharedHistory::take_operand(std::span<const std::uint32_t> granules, Swizzle layout,
                                 const Access& by, OperandCopies& copies) {
  const auto tag = static_cast<std::uint8_t>(1 + static_cast<int>(layout));
  const Clock& seen = by.warp->knowledge.own.seen;
  Epoch known;  // of neighbours, most have come with one copy
  for (const std::uint32_t address : granules) {
    Granule& granule = granules_[address / 16];
    if (granule.filled != known) {
      check_granule(address / 16, What::kTake, by);
      known = granule.filled;
      copies.epochs.push_back(known);
    }
    if (granule.has_words) {
      check_words(address / 16, What::kTake, by);
      copies.has_others = true;
    }
    if (granule.written != kWholeGranule) not_written(address, by);
    if (granule.layout != 0 && granule.layout != tag) {
      const auto span = [](int code) {
        return std::to_string(span_bytes(static_cast<Swizzle>(code - 1)));
      };
      throw HazardError("wrong swizzle: " + who(*by.warp, by.lane) +
                        " takes rows with a swizzle of " + span(tag) +
                        " bytes from shared address " + std::to_string(address) + ", where " +
                        by.warp->place(granule.filled.place()) + " laid them with " +
                        span(granule.layout) + " (16: none)");
    }
    if (granule.taken[0].agent() == by.epoch.agent() || granule.taken[0].none()) {
      granule.taken[0] = by.epoch;
    } else {
      enter_taken(address / 16, by.epoch, seen);
    }
  }
}

void SharedHistory::not_written(std::uint32_t offset, const Access& by) {
  throw HazardError("uninitialised: " + who(*by.warp, by.lane) + " reads shared address " +
                    std::to_string(offset) + ", where nothing was written");
}

void SharedHistory::check_no_mbarrier(std::uint32_t offset, int num_bytes, const Access& by) {
  for (std::uint32_t at = offset / 8 * 8; at < offset + static_cast<std::uint32_t>(num_bytes);
       at += 8) {
    if (!cta_.mbarriers.contains(at)) continue;
    throw HazardError("mbarrier misuse: " + who(*by.warp, by.lane) +
                      " touches the bytes of the mbarrier at shared address " + std::to_string(at));
  }
}

void SharedHistory::conflict(Epoch earlier, bool earlier_wrote, std::uint32_t offset, What what,
                             const Access& by) {
  using Kind = Agents::Kind;
  const Agents::Description& agent = cta_.cluster().agents[earlier.agent()];
  const Knowledge& knowledge = by.warp->knowledge;
  const bool reads = what == What::kRead || what == What::kTake;
  const std::string me = who(*by.warp, by.lane);
  const std::string other = by.warp->place(earlier.place());
  const std::string at =
      "shared address " + std::to_string(offset) + " of CTA rank " + std::to_string(cta_.rank());
  const std::string does = reads ? " reads " : " writes ";
  const std::string seen = std::to_string(knowledge.own.seen.of(earlier.agent()));
  const std::string lanes = earlier.lane() == Epoch::kSeveral
                                ? "lanes of warp "
                                : "lane " + std::to_string(earlier.lane()) + " of warp ";
  const std::string who_else =
      agent.kind == Kind::kWarp
          ? lanes + std::to_string(agent.which) + " of CTA rank " + std::to_string(agent.rank)
          : "a copy";
  const std::string did = earlier_wrote ? " wrote at " : " read at ";
  if ((what == What::kTake || what == What::kFill) && agent.kind != Kind::kMbarrier &&
      by.knows(earlier)) {
    throw HazardError("missing proxy fence: " + me + (reads ? " takes " : " fills ") + at +
                      " by the asynchronous proxy, where " + who_else + did + other +
                      ", and no fence.proxy.async is in between");
  }
  switch (agent.kind) {
    case Kind::kMbarrier:
      throw HazardError((reads ? "still filling: " : "overwrite in flight: ") + me + does + at +
                        ", which " + other + " fills in phase " +
                        std::to_string(earlier.time() - 1) + " of the mbarrier at " +
                        std::to_string(agent.which) + " of CTA rank " + std::to_string(agent.rank) +
                        "; of its phases the warp has seen " + seen + " end");
    case Kind::kLaneCopy:
      throw HazardError((reads ? "still filling: " : "overwrite in flight: ") + me + does + at +
                        ", which " + other + " fills, and the warp knows of no wait for it");
    case Kind::kWarpgroup:
    case Kind::kBulkRead:
    case Kind::kBulkWrite:
      throw HazardError("overwrite in flight: " + me + does + at + ", which " + other +
                        " may still read: the warp knows of no wait for it");
    case Kind::kWarp:
      break;
  }
  throw HazardError("data race: " + me + does + at + ", where " + who_else + did + other +
                    ", and nothing orders the two");
}

}  // namespace openweek::simulator
