// wgmma: what four warps have asked the tensor core to do, and when it is done.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "matrix.h"
#include "program.h"

namespace openweek::simulator {

class Warp;

inline constexpr int kWarpgroup = 4;

// What a wgmma instruction says, apart from what is in its registers.
struct WgmmaStep {
  MatrixOp op;
  int n = 0;
  bool a_in_registers = false;
  bool a_mn_major = false;
  bool b_mn_major = false;
  std::vector<std::uint32_t> d;  // rows
  std::vector<std::uint32_t> a;  // rows, if they are in registers
};

// A multiplication that some of the four warps have issued.
struct IssuedMatrix {
  const WgmmaStep* step = nullptr;
  std::array<Warp*, kWarpgroup> warps = {};
  std::uint64_t a = 0;  // descriptors
  std::uint64_t b = 0;
  bool accumulate = false;
  int num_issued = 0;
};

// The multiplications of four warps, in order. They run as late as they may: when a warp waits for
// them; or at a random moment before.
class Warpgroup {
 public:
  void issue(Warp& warp, const IssuedMatrix& matrix);
  void commit(int warp);

  // Whether all but the last `num_pending` groups of this warp are done, running them if need be;
  // false if another warp has still to issue one of them.
  bool wait(int warp, int num_pending);

  bool idle() const { return queue_.empty(); }

 private:
  void run(IssuedMatrix& matrix);

  std::deque<IssuedMatrix> queue_;
  std::uint64_t num_done_ = 0;  // before the queue
  std::array<std::uint64_t, kWarpgroup> issued_ = {};
  std::array<std::vector<std::uint64_t>, kWarpgroup> commits_;  // issued_ at each commit
};

}  // namespace openweek::simulator
