#include "matrix_registers.h"

#include "errors.h"
#include "warp.h"

namespace openweek::simulator {

void MatrixRegisters::touch(const Warp& warp, const std::vector<Watched>& registers) {
  for (const auto& [number, writes] : registers) {
    State& state = states_[number];
    if (state.written_until > num_done_) {
      throw HazardError(std::string("accumulator in flight: an instruction ") +
                        (writes ? "writes" : "reads") +
                        " a register that a wgmma still accumulates into, without "
                        "wgmma.wait_group, " +
                        warp.describe());
    }
    if (writes && state.read_until > num_done_) {
      throw HazardError(
          "register in flight: an instruction writes a register that is the operand of a wgmma "
          "under way, without wgmma.wait_group, " +
          warp.describe());
    }
    state.touched_at = num_fences_;
  }
}

void MatrixRegisters::issue(const Warp& warp, const std::vector<std::uint32_t>& accumulator,
                            const std::vector<std::uint32_t>& operand, std::uint64_t time, int n) {
  const auto check_fence = [&](const State& state) {
    if (state.touched_at < num_fences_) return;
    throw HazardError(
        "missing wgmma.fence: a wgmma uses registers that were touched since the last one, or "
        "never fenced, " +
        warp.describe());
  };
  for (const std::uint32_t number : operand) {
    State& state = states_[number];
    check_fence(state);
    if (state.written_until > num_done_) {
      throw HazardError(
          "accumulator in flight: a wgmma takes as operand what another still accumulates, " +
          warp.describe());
    }
    state.read_until = time;
  }
  for (const std::uint32_t number : accumulator) {
    State& state = states_[number];
    check_fence(state);
    if (state.read_until > num_done_) {
      throw HazardError(
          "register in flight: a wgmma accumulates into the operand of one under way, " +
          warp.describe());
    }
    // Those of one shape follow one another.
    if (state.written_until > num_done_ && state.n != n) {
      throw HazardError(
          "accumulator in flight: a wgmma of another shape still accumulates into the register, " +
          warp.describe());
    }
    state.written_until = time;
    state.n = n;
  }
}

}  // namespace openweek::simulator
