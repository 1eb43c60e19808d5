// How strong accesses order threads: what a release leaves at an address, and who finds it there.
//
// A release and an acquire meet if each names a scope that has both threads (PTX ISA, memory
// consistency model: morally strong). With a fence the narrower of its scope and the access'
// counts.
#pragma once

#include <cstdint>
#include <vector>

#include "clocks.h"
#include "program.h"

namespace openweek::simulator {

class Warp;

// Which CTA a thread is in, by the numbers that scopes go by.
struct Position {
  int device = 0;
  std::uint32_t cluster = 0;  // in the world
  int rank = 0;
};

// Whether a scope of one thread has the other.
bool reaches(MemoryScope scope, const Position& one, const Position& other);

// What a warp that releases knows.
struct Message {
  Position from;
  Agent agent = 0;  // the warp, at this time of its clock
  std::uint32_t time = 0;
  MemoryScope scope = MemoryScope::kSys;
  std::shared_ptr<const Knowledge> knowledge;
};

// What has been left at one address: by a release, and by those before it in a chain of atomic
// operations.
using Messages = std::vector<Message>;

// Enters a message in place of an older one of the same warp and scope.
void enter(Messages& messages, Message message);

// Whether a message tells nothing new; takes in what it tells.
bool knows(const Knowledge& mine, std::uint32_t my_cluster, const Message& message);
void learn(Knowledge& mine, std::uint32_t my_cluster, const Message& message);

// Whether an access hands on what its thread knows.
bool releases(const MemoryStep& step);

// What a lane's strong read at an address learns: at once if it acquires, else at the next fence.
void acquire(Warp& warp, const MemoryStep& step, std::uint64_t address, int lane);

// What a strong write leaves there: all that the warp knows if it releases, else what it knew at
// its fences. A modification keeps what it found.
void release(Warp& warp, const MemoryStep& step, std::uint64_t address, bool modifies);

}  // namespace openweek::simulator
