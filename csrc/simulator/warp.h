// A warp: 32 lanes, their registers, and which of them stand where in the program.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "clocks.h"
#include "copies.h"
#include "matrix_registers.h"
#include "messages.h"
#include "program.h"

namespace openweek::simulator {

class Cta;

// What lanes wait for. They may go on when `*change` is not `value` any more; where there is no
// `change`, when other lanes of the warp have come to them or ended.
struct Obstacle {
  enum class Kind : std::uint8_t {
    kNone,
    kLanes,
    kMbarrier,      // rank, which: its offset
    kNamedBarrier,  // which
    kClusterBarrier,
    kWarpgroup,
    kBulkGroups,
    kRegisters,  // which: how many are wanted
    kEarlierLaunch,
  };
  Kind kind = Kind::kNone;
  const std::uint64_t* change = nullptr;
  std::uint64_t value = 0;
  int rank = 0;
  std::uint32_t which = 0;

  bool blocks() const { return kind != Kind::kNone && (change == nullptr || *change == value); }
};

// Lanes at the same place of the program, with the same way back from the functions they are in.
struct Group {
  std::int32_t pc = 0;
  Mask mask = 0;
  std::vector<std::int32_t> returns;
  Obstacle obstacle;
  std::uint64_t ticket = 0;        // the completion of a barrier that they wait for
  std::uint64_t chosen_at = 0;     // when they were last chosen to run
  std::uint64_t timed_out_at = 0;  // the machine's progress when they last gave up waiting
  bool gives_up = false;           // the try_wait that they stand at

  bool same_place(const Group& other) const {
    return pc == other.pc && returns == other.returns && ticket == other.ticket;
  }
};

// Lanes diverge into groups, and groups that meet become one. So that they meet soon, the group
// furthest behind in the program runs, where a function stands at the place of its call; but every
// other time the warp has its turn, the group that has not run for longest does, so that no lane
// waits for ever for a lane of its own warp.
class Warp {
 public:
  Warp(Cta& cta, int index, Mask lanes);

  // Runs up to so many instructions, and counts them.
  void run(int budget, std::uint64_t& num_instructions);

  bool finished() const { return live_ == 0; }
  bool can_run() const;

  // Makes lanes at a try_wait give up, unless they have since the machine's last progress.
  bool time_out(std::uint64_t progress);

  template <class Cell>
  Cell* row(std::uint32_t offset) {
    return reinterpret_cast<Cell*>(file_.data() + offset);
  }
  Mask predicate(std::uint32_t offset) { return *row<Mask>(offset); }
  void set_predicate(std::uint32_t offset, Mask lanes, Mask value) {
    Mask& cell = *row<Mask>(offset);
    cell = (cell & ~lanes) | (value & lanes);
  }

  // For handlers of branches, with the group that runs.
  Group& group() { return groups_[current_]; }
  void branch(Mask taken, std::int32_t target);
  void call(Mask lanes, std::int32_t target);
  void give_back(Mask lanes);  // control to where each was called from
  void exit(Mask lanes);
  void add_group(Group group) { arriving_.push_back(std::move(group)); }
  Step wait_for(Obstacle obstacle) {
    group().obstacle = obstacle;
    return Step::kBlock;
  }

  Cta& cta() { return cta_; }
  const Program& program() const { return program_; }
  int index() const { return index_; }
  Mask live() const { return live_; }
  std::uint8_t* local(int lane) { return local_.data() + lane * local_bytes_; }
  std::size_t local_bytes() const { return local_bytes_; }

  // What the warp knows of all accesses. A release hands it on, and what the warp does after that
  // is later than what was handed on.
  Knowledge knowledge;
  Agent agent() const { return agent_; }
  Epoch epoch(int lane, bool strong = false) const {
    return Epoch(agent_, knowledge.own.seen.of(agent_), groups_[current_].pc, 0, strong,
                 static_cast<unsigned>(lane));
  }
  Epoch epoch_of(Agent agent, std::uint64_t time) const {
    return Epoch(agent, static_cast<std::uint32_t>(time), groups_[current_].pc, 15, false);
  }
  void tick();

  // Lanes of one warp are threads like others: what one has done, another knows of behind a barrier
  // that both have come to (bar.warp.sync or a wider one), not because they share instructions;
  // votes and shuffles order no memory (PTX ISA, bar.warp.sync). Towards other warps the warp is
  // one: whatever one lane releases or learns counts for all.
  bool knows(Epoch epoch, int lane) const {
    return knowledge.own.seen.knows(epoch) &&
           (epoch.agent() != agent_ || epoch.lane() == static_cast<unsigned>(lane) ||
            epoch.time() < met_[lane]);
  }
  bool knows(const Message& message, int lane) const;
  void learn(const Knowledge& other, Mask lanes);
  void learn(const Message& message, Mask lanes);
  void meet(Mask lanes);

  // The orders of strong accesses: what fences have left for later relaxed stores, the widest scope
  // first, and what relaxed loads have found for the next fence.
  Position position() const;
  Message message(MemoryScope scope) const;
  Messages fence_releases;
  Messages fence_acquires;
  void fence_acquire(MemoryScope scope, Mask lanes);
  void fence_release(MemoryScope scope);

  LaneCopies copies;
  std::array<BulkGroups, kLanes> bulk_groups;
  std::shared_ptr<std::uint64_t> bulk_changes = std::make_shared<std::uint64_t>(0);
  MatrixRegisters matrix_registers;
  int registers = 0;             // of a thread
  std::size_t recent_range = 0;  // of the launch's memory

  // Lanes that have arrived at the cluster's barrier, and the phase that they wait for.
  Mask cluster_arrived = 0;
  std::uint64_t cluster_ticket = 0;
  std::uint64_t cluster_phases_seen = 0;

  // "CTA (0, 0, 0) warp 3: 32 lanes at bar.sync at line 12 ... wait for barrier 0 ..." for reports.
  std::string describe() const;
  std::string place(std::int32_t pc) const { return program_.place(pc); }

 private:
  void know_since(std::uint32_t time, Mask lanes);
  std::uint32_t told_by(const Message& message) const;
  bool pick();
  template <class Change>
  void depart(Mask lanes, Change change);
  void settle();
  bool gathered(const Inst& inst);
  void fill_late_rows();

  std::string describe(const Obstacle& obstacle) const;

  Cta& cta_;
  const Program& program_;
  int index_;
  Agent agent_;
  std::array<std::uint32_t, kLanes> met_ = {};  // up to which time a lane knows of the others
  Mask live_;
  std::vector<Group> groups_;
  std::vector<Group> arriving_;  // groups that the running instruction has made
  std::size_t current_ = 0;
  std::uint64_t clock_ = 0;  // counts choices
  bool oldest_first_ = false;
  std::vector<std::uint8_t> file_;
  std::vector<std::uint8_t> local_;
  std::size_t local_bytes_;
};

}  // namespace openweek::simulator
