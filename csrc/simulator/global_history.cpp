#include "global_history.h"

#include <algorithm>
#include <cstdio>

#include "access.h"
#include "errors.h"
#include "world.h"

namespace openweek::simulator {
namespace {

constexpr unsigned kWholeWord = 15;
constexpr int kWordsOfGranule = GlobalHistory::kGranuleBytes / 4;

std::string hex(std::uint64_t address) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
  return text;
}

// Calls each(granule, bytes of it) for all granules of a range that lies in one page.
template <class Each>
void each_granule(std::uint64_t begin, std::uint64_t end, Each each) {
  constexpr int kBytes = GlobalHistory::kGranuleBytes;
  constexpr std::uint32_t kWhole = ~std::uint32_t{0};
  for (std::uint64_t granule = begin / kBytes; granule * kBytes < end; ++granule) {
    std::uint32_t bytes = kWhole;
    if (granule * kBytes < begin) bytes &= kWhole << (begin % kBytes);
    if (granule * kBytes + kBytes > end) bytes &= kWhole >> (granule * kBytes + kBytes - end);
    each(static_cast<int>(granule % GlobalHistory::kGranules), bytes);
  }
}

// Calls each(page, begin, end) for the part of a range in each of its pages.
template <class Each>
void each_page(std::uint64_t address, std::uint64_t num_bytes, Each each) {
  const std::uint64_t end = address + num_bytes;
  while (address < end) {
    const std::uint64_t page = address / GlobalHistory::kPageBytes;
    const std::uint64_t stop = std::min(end, (page + 1) * GlobalHistory::kPageBytes);
    each(page, address, stop);
    address = stop;
  }
}

// What would order an access behind an earlier one, for messages.
std::string what_would(Epoch earlier, const std::string& did, const Access& by) {
  if (earlier.strong() && by.epoch.strong()) {
    return "(both are atomic, in a scope that does not have both threads)";
  }
  return "(a release after the " + did +
         ", an acquire before this, both in a scope that has both threads)";
}

std::uint64_t address_of(std::uint64_t page, int word) {
  return page * GlobalHistory::kPageBytes + static_cast<std::uint64_t>(word) * 4;
}

}  // namespace

template <class Page>
Page& GlobalHistory::Pages<Page>::make(std::uint64_t number) {
  Recent& last = recent(number);
  if (last.number == number && last.page != nullptr) return *last.page;
  std::unique_ptr<Page>& page = all_[number];
  if (page == nullptr) page = std::make_unique<Page>();
  last = {number, page.get()};
  return *page;
}

template <class Page>
Page* GlobalHistory::Pages<Page>::find(std::uint64_t number) {
  Recent& last = recent(number);
  if (last.number != number) {
    const auto found = all_.find(number);
    last = {number, found == all_.end() ? nullptr : found->second.get()};
  }
  return last.page;
}

bool GlobalHistory::is_ordered(std::uint32_t cluster, Epoch earlier, const Access& by) const {
  Cluster& mine = by.warp->cta().cluster();
  const Knowledge& knowledge = by.warp->knowledge;
  if (cluster == mine.id()) return knowledge.own.seen.knows(earlier);
  if (mine.world().comes_after(knowledge, mine.id(), cluster)) return true;
  const auto found = knowledge.others.find(cluster);
  return found != knowledge.others.end() && found->second->seen.knows(earlier);
}

bool GlobalHistory::are_atomic(Epoch earlier, std::uint32_t cluster, MemoryScope scope,
                               const Access& by) {
  if (!earlier.strong() || !by.epoch.strong()) return false;
  Cluster& mine = by.warp->cta().cluster();
  scope = std::min(scope, by.scope);
  if (scope >= MemoryScope::kCluster && cluster == mine.id()) return true;
  return reaches(scope, mine.world().position(cluster, earlier.agent()), by.warp->position());
}

void GlobalHistory::check_write(const Writers& page, int word, unsigned bytes, bool writes,
                                bool asynchronous, const Access& by, std::uint64_t address) {
  const Epoch earlier = page.writes[word];
  if (earlier.none() || !(earlier.bytes() & bytes)) return;
  if (are_atomic(earlier, page.clusters[word], page.scopes[word], by)) return;
  Cluster& mine = by.warp->cta().cluster();
  World& world = mine.world();
  const std::uint32_t cluster = page.clusters[word];
  const bool is_own = cluster == mine.id();
  if (writes && is_own && by.epoch.is_of_one_instruction(earlier)) return;
  const bool is_seen = is_ordered(cluster, earlier, by) && (!is_own || by.knows(earlier));
  bool is_fenced = true;
  if (is_seen && asynchronous && world.written_by_warp(cluster, earlier.agent()) &&
      !world.comes_after(by.warp->knowledge, mine.id(), cluster)) {
    const Knowledge& knowledge = by.warp->knowledge;
    is_fenced = (is_own ? knowledge.own : *knowledge.others.at(cluster)).fenced.knows(earlier);
  }
  if (is_seen && is_fenced) return;
  const std::string me =
      who(*by.warp, by.lane) + (writes ? " writes " : " reads ") + "global " + hex(address);
  const std::string other = world.describe(cluster, earlier);
  if (is_seen) {
    throw HazardError("missing proxy fence: " + me + " by the asynchronous proxy, where " + other +
                      " wrote, and no fence.proxy.async is in between");
  }
  throw HazardError("data race: " + me + ", where " + other +
                    " wrote, and nothing orders the two " + what_would(earlier, "write", by));
}

void GlobalHistory::check_writes(const Writes& page, int word, unsigned bytes, bool writes,
                                 bool asynchronous, const Access& by, std::uint64_t address) {
  check_write(page.plain, word, bytes, writes, asynchronous, by, address);
  if (page.strong == nullptr) return;
  check_write(*page.strong, word, bytes, writes, asynchronous, by, address);
}

void GlobalHistory::enter_write(Writes& page, int word, unsigned bytes, const Access& by) {
  const bool strong = by.epoch.strong();
  if (strong && page.strong == nullptr) page.strong = std::make_unique<Writers>();
  Writers& writers = strong ? *page.strong : page.plain;
  writers.writes[word] = by.epoch.with_bytes(bytes);
  writers.clusters[word] = by.warp->cta().cluster().id();
  writers.scopes[word] = by.scope;
  // A plain one is ordered after all before it.
  if (!strong && bytes == kWholeWord && page.strong) page.strong->writes[word] = Epoch();
  page.bytes[word] |= static_cast<std::uint8_t>(bytes);
}

Epoch GlobalHistory::Writes::last(int word) const {
  return strong != nullptr && !strong->writes[word].none() ? strong->writes[word]
                                                           : plain.writes[word];
}

void GlobalHistory::check_reads(Reads& page, int granule, std::uint32_t bytes, const Access& by,
                                std::uint64_t address) {
  for (Reader& reader : page.readers[granule]) {
    if (!(reader.bytes & bytes)) continue;
    if (!are_atomic(reader.epoch, reader.cluster, static_cast<MemoryScope>(reader.scope), by) &&
        !is_ordered(reader.cluster, reader.epoch, by)) {
      throw HazardError(
          "data race: " + who(*by.warp, by.lane) + " writes global " + hex(address) + ", where " +
          by.warp->cta().cluster().world().describe(reader.cluster, reader.epoch) +
          " read, and nothing orders the two " + what_would(reader.epoch, "read", by));
    }
    // Whoever knows of this write knows of the read. An atomic one is not waited for, though.
    if (!by.epoch.strong()) reader.bytes &= ~bytes;
  }
}

GlobalHistory::Reader GlobalHistory::reader(Epoch epoch, std::uint32_t bytes, const Access& by) {
  Reader made{epoch, bytes};
  made.cluster = by.warp->cta().cluster().id();
  made.scope = static_cast<std::uint32_t>(by.scope);
  return made;
}

void GlobalHistory::enter_read(Reads& page, int granule, std::uint32_t bytes, const Access& by) {
  page.bytes[granule] |= bytes;
  const std::uint32_t cluster = by.warp->cta().cluster().id();
  const Epoch epoch = by.epoch.with_lane(Epoch::kSeveral);
  auto& [last, before] = page.readers[granule];
  const bool is_own = last.cluster == cluster && last.epoch.agent() == epoch.agent() &&
                      last.epoch.strong() == epoch.strong() &&
                      last.scope == static_cast<std::uint32_t>(by.scope);
  if (is_own && (last.epoch.time() == epoch.time() || !(last.bytes & ~bytes))) {
    last = reader(epoch, last.bytes | bytes, by);
    return;
  }
  // Whoever knows of the new one knows of all that it knows; else the older one stays, too.
  const auto replaces = [&](const Reader& reader) {
    return !(reader.bytes & ~bytes) &&
           (!epoch.strong() ||
            (reader.epoch.strong() && reader.scope >= static_cast<std::uint32_t>(by.scope))) &&
           is_ordered(reader.cluster, reader.epoch, by);
  };
  if (before.bytes != 0 && replaces(before)) before.bytes = 0;
  if (last.bytes != 0 && !replaces(last)) before = last;
  last = reader(epoch, bytes, by);
}

void GlobalHistory::read(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous,
                         const Access& by) {
  each_page(address, num_bytes, [&](std::uint64_t number, std::uint64_t begin, std::uint64_t end) {
    Reads& reads = reads_.make(number);
    const Writes* writes = writes_.find(number);
    each_granule(begin, end, [&](int granule, std::uint32_t bytes) {
      enter_read(reads, granule, bytes, by);
      if (writes == nullptr) return;
      for (int i = 0; i < kWordsOfGranule; ++i) {
        const unsigned of_word = bytes >> 4 * i & kWholeWord;
        const int word = granule * kWordsOfGranule + i;
        if (of_word == 0) continue;
        check_writes(*writes, word, of_word, false, asynchronous, by, address_of(number, word));
      }
    });
  });
}

void GlobalHistory::write(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous,
                          const Access& by) {
  each_page(address, num_bytes, [&](std::uint64_t number, std::uint64_t begin, std::uint64_t end) {
    Writes& writes = writes_.make(number);
    Reads* reads = reads_.find(number);
    each_granule(begin, end, [&](int granule, std::uint32_t bytes) {
      const int first = granule * kWordsOfGranule;
      for (int word = first; word < first + kWordsOfGranule; ++word) {
        const unsigned of_word = bytes >> 4 * (word - first) & kWholeWord;
        if (of_word == 0) continue;
        check_writes(writes, word, of_word, true, asynchronous, by, address_of(number, word));
        enter_write(writes, word, of_word, by);
      }
      if (reads != nullptr) check_reads(*reads, granule, bytes, by, address_of(number, first));
    });
  });
}

void GlobalHistory::use_map(std::uint64_t address, std::uint64_t num_bytes, const Access& by) {
  read(address, num_bytes, false, by);
  const Cluster& mine = by.warp->cta().cluster();
  const World& world = by.warp->cta().cluster().world();
  const Knowledge& knowledge = by.warp->knowledge;
  const auto acquired = knowledge.maps.find(address);
  const auto check = [&](const Writers& writers, int word, unsigned bytes) {
    const Epoch earlier = writers.writes[word];
    const std::uint32_t cluster = writers.clusters[word];
    if (earlier.none() || !(earlier.bytes() & bytes)) return;
    const bool is_later = cluster != mine.id() && world.comes_after(knowledge, mine.id(), cluster);
    const ClusterClocks* known = nullptr;
    if (acquired != knowledge.maps.end()) {
      if (is_later) return;  // the end of a launch releases all that it wrote
      const Knowledge& then = *acquired->second;
      const auto other = then.others.find(cluster);
      if (cluster == mine.id()) known = &then.own;
      if (cluster != mine.id() && other != then.others.end()) known = other->second.get();
    }
    if (known != nullptr && known->maps.knows(earlier)) return;
    const bool is_acquired = known != nullptr && known->seen.knows(earlier);
    throw HazardError("missing tensormap fence: " + who(*by.warp, by.lane) +
                      " uses the tensor map at global " + hex(address) + ", which " +
                      world.describe(cluster, earlier) + " wrote, and no " +
                      (is_acquired ? "fence.proxy.tensormap::generic.release followed that"
                                   : "fence.proxy.tensormap::generic.acquire of it is in between"));
  };
  each_page(address, num_bytes, [&](std::uint64_t number, std::uint64_t begin, std::uint64_t end) {
    const Writes* writes = writes_.find(number);
    if (writes == nullptr) return;
    each_granule(begin, end, [&](int granule, std::uint32_t bytes) {
      for (int i = 0; i < kWordsOfGranule; ++i) {
        const int word = granule * kWordsOfGranule + i;
        check(writes->plain, word, bytes >> 4 * i & kWholeWord);
        if (writes->strong) check(*writes->strong, word, bytes >> 4 * i & kWholeWord);
      }
    });
  });
}

std::optional<std::string> MergedHistory::add(const GlobalHistory& history, std::int64_t cluster,
                                              const Place& place) {
  std::optional<std::string> wrong;
  std::uint64_t wrong_at = ~std::uint64_t{0};  // the lowest address, whatever the maps' order is
  const auto note = [&](std::uint64_t page, int word, const std::string& mine,
                        const std::string& other) {
    const std::uint64_t address = address_of(page, word);
    if (address >= wrong_at) return;
    wrong_at = address;
    wrong = "data race: cluster " + std::to_string(cluster) + mine + " global " + hex(address) +
            ", which " + other + ", and nothing orders the two";
  };
  const auto at = [&](std::int32_t where) { return where < 0 ? "" : " (" + place(where) + ")"; };
  const auto name = [&](const Toucher& toucher) {
    return "cluster " + std::to_string(toucher.cluster) + at(toucher.place);
  };
  const auto of_word = [](std::uint32_t bytes, int word) {
    return bytes >> word % kWordsOfGranule * 4 & kWholeWord;
  };

  for (const auto& [number, page] : history.writes_.all()) {
    const auto found = reads_.find(number);
    const Reads* reads = found == reads_.end() ? nullptr : found->second.get();
    auto& writes = writes_[number];
    for (int word = 0; word < GlobalHistory::kWords; ++word) {
      const unsigned bytes = page->bytes[word];
      if (bytes == 0) continue;
      const std::int32_t here = page->last(word).place();
      const int granule = word / kWordsOfGranule;
      if (writes[word].bytes & bytes) {
        note(number, word, at(here) + " writes", name(writes[word]) + " writes, too");
      } else if (reads != nullptr && (of_word(reads->bytes[granule], word) & bytes)) {
        const Toucher& first = reads->first[granule];
        const bool is_first = of_word(first.bytes, word) & bytes;
        note(number, word, at(here) + " writes",
             (is_first ? name(first) : "an earlier one") + " reads");
      }
      writes[word] = {cluster, here, writes[word].bytes | bytes};
    }
  }

  for (const auto& [number, page] : history.reads_.all()) {
    const auto writes = writes_.find(number);
    std::unique_ptr<Reads>& reads = reads_[number];
    if (reads == nullptr) reads = std::make_unique<Reads>();
    for (int granule = 0; granule < GlobalHistory::kGranules; ++granule) {
      const std::uint32_t bytes = page->bytes[granule];
      if (bytes == 0) continue;
      const auto& readers = page->readers[granule];
      Toucher& first = reads->first[granule];
      if (first.bytes == 0) first = {cluster, readers[0].epoch.place(), readers[0].bytes};
      reads->bytes[granule] |= bytes;
      if (writes == writes_.end()) continue;
      const int begin = granule * kWordsOfGranule;
      for (int word = begin; word < begin + kWordsOfGranule; ++word) {
        const Toucher& writer = writes->second[word];
        if (writer.cluster == cluster || !(writer.bytes & of_word(bytes, word))) continue;
        const auto reader = std::find_if(readers.begin(), readers.end(), [&](const auto& one) {
          return (of_word(one.bytes, word) & writer.bytes) != 0;
        });
        note(number, word,
             (reader == readers.end() ? "" : at(reader->epoch.place())) + std::string(" reads"),
             name(writer) + " writes");
      }
    }
  }
  return wrong;
}

}  // namespace openweek::simulator
