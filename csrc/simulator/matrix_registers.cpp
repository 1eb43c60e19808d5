#include "matrix_registers.h"

#include "errors.h"
#include "warp.h"

namespace openweek::simulator {

void MatrixRegisters::touch(Warp& warp, const std::vector<Watched>& registers) {
  for (const auto& [number, writes] : registers) {
    State& state = states_[number];
    if (state.written_until > num_done_) {
      throw HazardError(std::string("accumulator in flight: an instruction ") +
                        (writes ? "writes" : "reads") + " a register that " +
                        warp.place(state.written_by) +
                        " still accumulates into, without wgmma.wait_group, " + warp.describe());
    }
    if (writes && state.read_until > num_done_) {
      throw HazardError("register in flight: an instruction writes a register that " +
                        warp.place(state.read_by) +
                        " still has as operand, without wgmma.wait_group, " + warp.describe());
    }
    state.touched_at = num_fences_;
    state.touched_by = warp.group().pc;
  }
}

void MatrixRegisters::issue(Warp& warp, const std::vector<std::uint32_t>& accumulator,
                            const std::vector<std::uint32_t>& operand, std::uint64_t time, int n) {
  const auto check_fence = [&](const State& state) {
    if (state.touched_at < num_fences_) return;
    throw HazardError("missing wgmma.fence: a wgmma uses registers that " +
                      (state.touched_by < 0 ? "no fence has followed yet"
                                            : warp.place(state.touched_by) +
                                                  " touched, and no fence is in between") +
                      ", " + warp.describe());
  };
  for (const std::uint32_t number : operand) {
    State& state = states_[number];
    check_fence(state);
    if (state.written_until > num_done_) {
      throw HazardError("accumulator in flight: a wgmma takes as operand what " +
                        warp.place(state.written_by) + " still accumulates, " + warp.describe());
    }
    state.read_until = time;
    state.read_by = warp.group().pc;
  }
  for (const std::uint32_t number : accumulator) {
    State& state = states_[number];
    check_fence(state);
    if (state.read_until > num_done_) {
      throw HazardError("register in flight: a wgmma accumulates into the operand of " +
                        warp.place(state.read_by) + ", which is under way, " + warp.describe());
    }
    // Those of one shape follow one another.
    if (state.written_until > num_done_ && state.n != n) {
      throw HazardError("accumulator in flight: " + warp.place(state.written_by) +
                        ", of another shape, still accumulates into a register of a wgmma, " +
                        warp.describe());
    }
    state.written_until = time;
    state.written_by = warp.group().pc;
    state.n = n;
  }
}

}  // namespace openweek::simulator
