#include "messages.h"

#include <algorithm>
#include <utility>

#include "access.h"
#include "world.h"

namespace openweek::simulator {
namespace {

using Known = std::shared_ptr<const ClusterClocks>;

// Where strong accesses of a warp at an address leave and find messages; elsewhere than in shared
// and global memory nobody else could see them.
template <class With>
void with_messages(Warp& warp, const MemoryStep& step, std::uint64_t address, With with) {
  Cluster& cluster = warp.cta().cluster();
  const auto window = static_cast<Window>(step.window);
  if (window == Window::kShared || (window == Window::kGeneric && (address & kSharedWindow))) {
    with(cluster.messages, static_cast<std::uint32_t>(address & ~kSharedWindow));
  } else if (window == Window::kGlobal || (window == Window::kGeneric && is_global(address))) {
    with(cluster.world().messages(), address);
  }
}

}  // namespace

bool reaches(MemoryScope scope, const Position& one, const Position& other) {
  switch (scope) {
    case MemoryScope::kCta:
      return one.cluster == other.cluster && one.rank == other.rank;
    case MemoryScope::kCluster:
      return one.cluster == other.cluster;
    case MemoryScope::kGpu:
      return one.device == other.device;
    case MemoryScope::kSys:
      break;
  }
  return true;
}

void enter(Messages& messages, Message message) {
  std::erase_if(messages, [&](const Message& old) {
    return old.agent == message.agent && old.from.cluster == message.from.cluster &&
           old.scope == message.scope;
  });
  messages.push_back(std::move(message));
}

// Who knows of a warp's time knows all that the warp knew then.
bool knows(const Knowledge& mine, std::uint32_t my_cluster, const Message& message) {
  const ClusterClocks* clocks = &mine.own;
  if (message.from.cluster != my_cluster) {
    const auto found = mine.others.find(message.from.cluster);
    if (found == mine.others.end()) return false;
    clocks = found->second.get();
  }
  return clocks->seen.of(message.agent) >= message.time;
}

void learn(Knowledge& mine, std::uint32_t my_cluster, const Message& message) {
  if (knows(mine, my_cluster, message)) return;
  if (message.from.cluster == my_cluster) {
    mine.learn(*message.knowledge);
    return;
  }
  // Shares the message's clocks: they never change.
  mine.learn(message.from.cluster, Known(message.knowledge, &message.knowledge->own));
  for (const auto& [cluster, known] : message.knowledge->others) {
    if (cluster == my_cluster) {
      mine.own.learn(*known);
    } else {
      mine.learn(cluster, known);
    }
  }
}

bool releases(const MemoryStep& step) {
  return step.order == Order::kRelease || step.order == Order::kAcquireRelease;
}

void acquire(Warp& warp, const MemoryStep& step, std::uint64_t address, int lane) {
  with_messages(warp, step, address, [&](auto& all, auto key) {
    const auto found = all.find(key);
    if (found == all.end()) return;
    const Position here = warp.position();
    for (const Message& message : found->second) {
      const MemoryScope scope = std::min(message.scope, step.scope);
      if (!reaches(scope, message.from, here)) continue;
      if (step.order == Order::kAcquire || step.order == Order::kAcquireRelease) {
        warp.learn(message, Mask{1} << lane);
      } else if (!warp.knows(message, lane)) {
        Message kept = message;
        kept.scope = scope;
        enter(warp.fence_acquires, std::move(kept));
      }
    }
  });
}

void release(Warp& warp, const MemoryStep& step, std::uint64_t address, bool modifies) {
  with_messages(warp, step, address, [&](auto& all, auto key) {
    const auto found = all.find(key);
    if (!releases(step) && found == all.end() && warp.fence_releases.empty()) return;
    const Position here = warp.position();
    Messages left;
    if (found != all.end()) {
      // Later stores of the warp that released are part of its release; what others overwrite is
      // gone, and what they modify goes on if they are in its scope.
      left = std::move(found->second);
      std::erase_if(left, [&](const Message& message) {
        if (message.from.cluster == here.cluster && message.agent == warp.agent()) return false;
        return !modifies || !reaches(std::min(message.scope, step.scope), message.from, here);
      });
    }
    if (releases(step)) {
      enter(left, warp.message(step.scope));
    } else {
      for (const Message& fenced : warp.fence_releases) {
        Message message = fenced;
        message.scope = std::min(fenced.scope, step.scope);
        enter(left, std::move(message));
      }
    }
    if (left.empty()) {
      all.erase(key);
    } else {
      all[key] = std::move(left);
    }
  });
}

}  // namespace openweek::simulator
