#include "global_history.h"

#include <algorithm>
#include <cstdio>

#include "access.h"
#include "errors.h"
#include "world.h"

namespace openweek::simulator {
namespace {

constexpr unsigned kWholeWord = 15;

std::string hex(std::uint64_t address) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(address));
  return text;
}

// Calls each(page, word in it, bytes of the word).
template <class Each>
void each_word(std::uint64_t address, std::uint64_t num_bytes, Each each) {
  const std::uint64_t end = address + num_bytes;
  for (std::uint64_t word = address / 4; word * 4 < end; ++word) {
    unsigned bytes = kWholeWord;
    if (word * 4 < address) bytes &= kWholeWord << (address % 4);
    if (word * 4 + 4 > end) bytes &= kWholeWord >> (word * 4 + 4 - end);
    each(word / GlobalHistory::kWords, static_cast<int>(word % GlobalHistory::kWords), bytes);
  }
}

}  // namespace

GlobalHistory::Page& GlobalHistory::page_of(std::uint64_t number) {
  if (recent_ != nullptr && recent_number_ == number) return *recent_;
  std::unique_ptr<Page>& page = pages_[number];
  if (page == nullptr) page = std::make_unique<Page>();
  first_page_ = std::min(first_page_, number);
  last_page_ = std::max(last_page_, number);
  recent_ = page.get();
  recent_number_ = number;
  return *page;
}

void GlobalHistory::check(const Page& page, int word, unsigned bytes, bool writes,
                          bool asynchronous, const Access& by, std::uint64_t address) {
  const Epoch earlier = page.writes[word];
  if (earlier.none() || !(earlier.bytes() & bytes)) return;
  Cluster& mine = by.warp->cta().cluster();
  const bool both_strong = earlier.strong() && by.epoch.strong();
  if (both_strong) {
    const MemoryScope scope = std::min(page.scopes[word], by.scope);
    const bool is_near = scope >= MemoryScope::kCluster && page.clusters[word] == mine.id();
    if (is_near || reaches(scope, mine.world().position(page.clusters[word], earlier.agent()),
                           by.warp->position())) {
      return;
    }
  }
  const ClusterClocks* known = &by.warp->knowledge.own;
  if (page.clusters[word] != mine.id()) {
    if (mine.world().comes_after(by.warp->knowledge, mine.id(), page.clusters[word])) return;
    const auto& others = by.warp->knowledge.others;
    const auto found = others.find(page.clusters[word]);
    known = found == others.end() ? nullptr : found->second.get();
  }
  const bool is_seen = known != nullptr && known->seen.knows(earlier);
  const bool is_fenced = !asynchronous || (is_seen && known->fenced.knows(earlier)) ||
                         !mine.world().written_by_warp(page.clusters[word], earlier.agent());
  if (is_seen && is_fenced) return;
  const std::string me =
      who(*by.warp, by.lane) + (writes ? " writes " : " reads ") + "global " + hex(address / 4 * 4);
  const std::string other = mine.world().describe(page.clusters[word], earlier);
  if (is_seen) {
    throw HazardError("missing proxy fence: " + me + " by the asynchronous proxy, where " + other +
                      " wrote, and no fence.proxy.async is in between");
  }
  throw HazardError("data race: " + me + ", where " + other +
                    " wrote, and nothing orders the two " +
                    (both_strong ? "(both are atomic, in a scope that does not have both threads)"
                                 : "(a release after the write, an acquire before this, both in a "
                                   "scope that has both threads)"));
}

void GlobalHistory::read(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous,
                         const Access& by) {
  if (remembers_reads_) remember_read(address, num_bytes);
  const std::uint64_t first = address / kPageBytes;
  const std::uint64_t last = (address + num_bytes - 1) / kPageBytes;
  if (last < first_page_ || first > last_page_) return;
  for (std::uint64_t number = first; number <= last; ++number) {
    const auto found = pages_.find(number);
    if (found == pages_.end()) continue;
    const std::uint64_t begin = std::max(address, number * kPageBytes);
    const std::uint64_t end = std::min(address + num_bytes, (number + 1) * kPageBytes);
    each_word(begin, end - begin, [&](std::uint64_t, int word, unsigned bytes) {
      check(*found->second, word, bytes, false, asynchronous, by,
            number * kPageBytes + static_cast<std::uint64_t>(word) * 4);
    });
  }
}

void GlobalHistory::write(std::uint64_t address, std::uint64_t num_bytes, bool asynchronous,
                          const Access& by) {
  const std::uint32_t cluster = by.warp->cta().cluster().id();
  each_word(address, num_bytes, [&](std::uint64_t number, int word, unsigned bytes) {
    Page& page = page_of(number);
    check(page, word, bytes, true, asynchronous, by,
          number * kPageBytes + static_cast<std::uint64_t>(word) * 4);
    page.writes[word] = by.epoch.with_bytes(bytes);
    page.clusters[word] = cluster;
    page.scopes[word] = by.scope;
    page.bytes[word] |= static_cast<std::uint8_t>(bytes);
  });
}

void GlobalHistory::use_map(std::uint64_t address, std::uint64_t num_bytes, const Access& by) {
  read(address, num_bytes, false, by);
  const Cluster& mine = by.warp->cta().cluster();
  const World& world = by.warp->cta().cluster().world();
  const Knowledge& knowledge = by.warp->knowledge;
  const auto acquired = knowledge.maps.find(address);
  each_word(address, num_bytes, [&](std::uint64_t number, int word, unsigned bytes) {
    const auto found = pages_.find(number);
    if (found == pages_.end()) return;
    const Epoch earlier = found->second->writes[word];
    const std::uint32_t cluster = found->second->clusters[word];
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
  });
}

void GlobalHistory::remember_read(std::uint64_t address, std::uint64_t num_bytes) {
  const std::uint64_t end = address + num_bytes;
  while (address < end) {
    const std::uint64_t number = address / kPageBytes;
    Recent& recent = recent_reads_[number % recent_reads_.size()];
    if (recent.number != number) recent = {number, &reads_[number]};
    const std::uint64_t stop = std::min(end, (number + 1) * kPageBytes);
    while (address < stop) {
      const std::uint64_t next = std::min(stop, (address / 64 + 1) * 64);
      const std::uint64_t bits = ~std::uint64_t{0} >> (64 - (next - address));
      (*recent.reads)[address % kPageBytes / 64] |= bits << address % 64;
      address = next;
    }
  }
}

std::optional<std::string> MergedHistory::add(
    const GlobalHistory& history, std::int64_t cluster,
    const std::function<std::string(std::int32_t)>& place) {
  const auto race = [&](std::uint64_t number, int word, const std::string& what) {
    return "data race: clusters " + what + " touch global " +
           hex(number * GlobalHistory::kPageBytes + static_cast<std::uint64_t>(word) * 4) +
           ", and nothing orders the two";
  };
  std::optional<std::string> wrong;
  std::uint64_t wrong_at = ~std::uint64_t{0};  // the lowest address, whatever the maps' order is
  const auto note = [&](std::uint64_t number, int word, const std::string& what) {
    const std::uint64_t at = number * GlobalHistory::kWords + static_cast<std::uint64_t>(word);
    if (at < wrong_at) wrong_at = at, wrong = race(number, word, what);
  };
  const std::string me = std::to_string(cluster);
  const auto bytes_read = [](const GlobalHistory::Reads& reads, int word) {
    return static_cast<unsigned>(reads[word / 16] >> word % 16 * 4 & kWholeWord);
  };
  for (const auto& [number, page] : history.pages_) {
    const auto read = reads_.find(number);
    auto& writers = writers_[number];
    for (int word = 0; word < GlobalHistory::kWords; ++word) {
      const unsigned bytes = page->bytes[word];
      if (bytes == 0) continue;
      const auto here = [&] { return me + " (at " + place(page->writes[word].place()) + ") and "; };
      if (writers[word].bytes & bytes) {
        note(number, word,
             here() + std::to_string(writers[word].cluster) + ", which writes it too,");
      } else if (read != reads_.end() && (bytes_read(read->second, word) & bytes)) {
        note(number, word, here() + "an earlier one, which reads it,");
      }
      writers[word] = {cluster, writers[word].bytes | bytes};
    }
  }
  for (const auto& [number, reads] : history.reads_) {
    if (const auto writers = writers_.find(number); writers != writers_.end()) {
      for (int word = 0; word < GlobalHistory::kWords; ++word) {
        const auto& writer = writers->second[word];
        if (writer.cluster == cluster || !(writer.bytes & bytes_read(reads, word))) continue;
        note(number, word,
             me + ", which reads it, and " + std::to_string(writer.cluster) + ", which writes it,");
      }
    }
    auto& all = reads_.try_emplace(number, GlobalHistory::Reads{}).first->second;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] |= reads[i];
  }
  return wrong;
}

}  // namespace openweek::simulator
