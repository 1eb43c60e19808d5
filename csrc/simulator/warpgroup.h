// wgmma: what four warps have asked the tensor core to do, and when it is done.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

#include "clocks.h"
#include "matrix.h"
#include "program.h"
#include "shared_history.h"

namespace openweek::simulator {

class Warp;

inline constexpr int kWarpgroup = 4;

// As many groups as a wait may leave under way. Compilers ask for less than ten.
inline constexpr std::int64_t kMaxPendingGroups = 255;

// What a wgmma instruction says, apart from what is in its registers.
struct WgmmaStep {
  bool is_asynchronous = false;  // wgmma; else mma
  MatrixOp op;
  int n = 0;
  bool a_in_registers = false;
  bool a_mn_major = false;
  bool b_mn_major = false;
  std::vector<std::uint32_t> d;  // rows
  std::vector<std::uint32_t> a;  // rows, if they are in registers
  // The same registers by their numbers in MatrixRegisters.
  std::vector<std::uint32_t> d_numbers;
  std::vector<std::uint32_t> a_numbers;
};

// A multiplication that some of the four warps have issued.
struct IssuedMatrix {
  const WgmmaStep* step = nullptr;
  std::array<Warp*, kWarpgroup> warps = {};
  std::uint64_t a = 0;  // descriptors
  std::uint64_t b = 0;
  bool accumulate = false;
  int num_issued = 0;
  Granules rows, columns;  // of the operands in shared memory
  OperandCopies copies;    // that have filled them
};

// The multiplications of four warps, in order. They run as late as they may: when a warp waits for
// them; or at a random moment before.
class Warpgroup {
 public:
  // Warps that there are not count as ended.
  Warpgroup(Agent agent, int num_warps) : agent_(agent) {
    for (int warp = num_warps; warp < kWarpgroup; ++warp) ended_[warp] = true;
  }

  void issue(Warp& warp, const WgmmaStep& step, std::uint64_t a, std::uint64_t b, bool accumulate);
  void commit(int warp);

  // Whether all but the last `num_pending` groups of this warp are done, running them if need be;
  // false if another warp has still to issue one of them.
  bool wait(Warp& warp, int num_pending);

  // setmaxnreg, which all four warps have to execute in the same order.
  void request_registers(Warp& warp, int count);

  // At the end of a warp: the others may not have asked for more than it has.
  void end(Warp& warp);

  const std::uint64_t& num_issued() const { return num_issued_; }  // by all four warps

 private:
  Granules operand(Warp& warp, std::uint64_t descriptor, int rows, bool mn_major) const;
  void check_operands(Warp& warp, IssuedMatrix& matrix, std::uint64_t time);
  void check_ended(Warp& warp) const;
  void run(IssuedMatrix& matrix);

  Agent agent_;
  std::uint64_t num_issued_ = 0;

  std::deque<IssuedMatrix> queue_;
  std::uint64_t num_done_ = 0;  // before the queue
  std::array<std::uint64_t, kWarpgroup> issued_ = {};
  std::array<bool, kWarpgroup> ended_ = {};
  std::array<std::deque<std::uint64_t>, kWarpgroup> commits_;  // issued_ at the last commits
  std::array<std::deque<int>, kWarpgroup>
      requests_;  // of registers, that others have still to make
  std::int32_t last_wgmma_ = 0, last_setmaxnreg_ = 0;  // places in the program
};

}  // namespace openweek::simulator
