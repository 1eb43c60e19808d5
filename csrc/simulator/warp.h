// A warp: 32 lanes, their registers, and which of them stand where in the program.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "copies.h"
#include "program.h"

namespace openweek::simulator {

class Cta;
class Machine;

// Lanes at the same place of the program, with the same way back from the functions they are in.
struct Group {
  std::int32_t pc = 0;
  Mask mask = 0;
  std::vector<std::int32_t> returns;
  std::uint64_t blocked_at = 0;  // the cluster's change count when they stopped; 0: they did not
  std::uint64_t ticket = 0;      // the completion of a barrier that they wait for
  std::uint64_t chosen_at = 0;   // when they were last chosen to run

  bool same_place(const Group& other) const {
    return pc == other.pc && returns == other.returns && ticket == other.ticket;
  }
};

// Lanes diverge into groups, and groups that meet become one. So that they meet soon, the group
// furthest behind in the program runs; but every other time the warp has its turn, the group that
// has not run for longest does, so that no lane waits for ever for a lane of its own warp.
class Warp {
 public:
  Warp(Cta& cta, int index, Mask lanes);

  // Runs up to so many instructions. Returns how many ran: 0 if all groups are blocked.
  int run(int budget);

  bool finished() const { return live_ == 0; }
  bool can_run() const;

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
  void exit(Mask lanes);
  void add_group(Group group) { arriving_.push_back(std::move(group)); }

  Cta& cta() { return cta_; }
  const Program& program() const { return program_; }
  int index() const { return index_; }
  Mask live() const { return live_; }
  std::uint8_t* local(int lane) { return local_.data() + lane * local_bytes_; }
  std::size_t local_bytes() const { return local_bytes_; }

  LaneCopies copies;
  std::array<BulkGroups, kLanes> bulk_groups;

  // Lanes that have arrived at the cluster's barrier, and the phase that they wait for.
  Mask cluster_arrived = 0;
  std::uint64_t cluster_ticket = 0;

  // "warp 3 at file.cuh:12 (bar.sync)" for every group, for reports.
  std::string describe() const;
  std::string place(std::int32_t pc) const;

 private:
  bool pick();
  void settle();
  bool gathered(const Inst& inst);
  void fill_late_rows();

  Cta& cta_;
  const Program& program_;
  int index_;
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
