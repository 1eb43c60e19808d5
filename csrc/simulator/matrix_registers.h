// Which registers of a warp the tensor core is working with.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"

namespace openweek::simulator {

class Warp;

// The registers that wgmma instructions of the program use, by number. Between a wgmma and the
// wait for it nobody may touch its accumulator or change its operand, and what was touched since
// the last wgmma.fence no wgmma may use (PTX ISA, wgmma.fence).
class MatrixRegisters {
 public:
  explicit MatrixRegisters(std::uint32_t count) : states_(count) {}

  // An instruction other than wgmma. Throws HazardError, as the next.
  void touch(Warp& warp, const std::vector<Watched>& registers);

  // The time-th wgmma of the warp, counted from 1, of a shape with n columns.
  void issue(Warp& warp, const std::vector<std::uint32_t>& accumulator,
             const std::vector<std::uint32_t>& operand, std::uint64_t time, int n);

  void fence() { ++num_fences_; }
  void wait(std::uint64_t time) { num_done_ = time; }  // for all wgmmas up to that one

 private:
  struct State {
    std::uint64_t written_until = 0;  // the last wgmma that accumulates into it
    std::uint64_t read_until = 0;     // the last one of which it is an operand
    std::uint64_t touched_at = 0;     // the number of fences before it was last touched
    int n = 0;                        // of the shape of the first
    std::int32_t written_by = -1;     // the instructions that did so
    std::int32_t read_by = -1;
    std::int32_t touched_by = -1;
  };
  std::vector<State> states_;
  std::uint64_t num_fences_ = 0;
  std::uint64_t num_done_ = 0;
};

}  // namespace openweek::simulator
